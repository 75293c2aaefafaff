"""What tests of trained refiners share: the files that a finished run leaves, without the minutes that a training takes."""

from __future__ import annotations

from pathlib import Path

import torch

SEEN = ("a green tree on a beach at night, oil painting, 8k", "a red boat", "a cat")
METRICS = {
    "training": {"steps": 3},
    "n": {"prompts": 2, "candidates": 3},
    "coarse": {"clip_score": 11.5},
    "plug_in": {"clip_score": 12.25},
    "refined": {"clip_score": 13.125, "fidelity": 0.5},
    "diversity": {"coarse": {"vendi": 1.1}, "refined": {"vendi": 1.875}},
}


def nudge(module: torch.nn.Module, scale: float = 0.02) -> None:
    """Move every parameter a little, so that the module is not the one at step 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def seen_by(backbones, *texts: str, data: str = "d1"):
    """What a training on these texts has read, whose decoder may write any piece of its vocabulary."""
    from ablations.results.seen_words import SeenWords
    from datamodules.words import words_of

    pieces = frozenset(backbones.decoder.tokenizer.get_vocab())
    return SeenWords(frozenset(word.key for text in (*SEEN, *texts) for word in words_of(text)), pieces, data, len(SEEN) + len(texts), 0)


def make_run(output_dir: Path, backbones, *arguments: str, finished: bool = True) -> Path:
    """A run folder with its training, on the tiny architecture with random weights; returns OUTPUT_DIR/ARM/seed-SEED.

    The checkpoint's trained parameters are the step-0 ones, nudged.
    """
    from ablations.cell.loading.module import build_module
    from ablations.config import parse
    from ablations.results import seen_words
    from ablations.results.run_folder import RunFolder

    settings = ["backbones.init=random", f"output_dir={output_dir}", "eval.steps=2", "eval.batch_size=4", "wandb.mode=disabled"]
    config = parse([*settings, *arguments])
    folder = RunFolder(config)
    module = build_module(config, backbones)
    nudge(module)
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    content = {"state_dict": module.state_dict(), "global_step": 3, "made_from": {"data": "d1", "weights": backbones.digest}}
    torch.save(content, folder.checkpoints / "final.ckpt")
    seen_words.write(folder.training_path, seen_by(backbones))
    folder.start({"data": "d1", "weights": backbones.digest}, threads=1)
    if finished:
        folder.finish(METRICS, {"training": 1.0})
    return folder.path
