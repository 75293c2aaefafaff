"""Claims about where build_cfp's models come from, what its command line says to mistakes, and that it draws as diffusers does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ablations import build_cfp
from ablations.building_cfp.sources import STABLE_DIFFUSION_FILES, TEXT_MODEL_FILES, fetch
from ablations.runtime.errors import UserError

SHORT = ["a cat on a mat", "a red boat at sea"]
LONG = "a very detailed picture of " + ", ".join(f"thing number {i}" for i in range(20))


def save_stable_diffusion(folder: Path) -> None:
    """A Stable Diffusion in small, random: the same classes and files, a text encoder of 20 positions, byte-level tokens."""
    from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    tokens = ["!", *[c for c in letters if c != "!"], *[f"{c}</w>" for c in letters], "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], pad_token="!", model_max_length=20)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text = CLIPTextConfig(
            vocab_size=len(tokens), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=20, bos_token_id=len(tokens) - 2, eos_token_id=len(tokens) - 1, initializer_factor=3.0,
        )  # fmt: skip
        vae = AutoencoderKL(block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
                            up_block_types=("UpDecoderBlock2D",) * 2, sample_size=16)  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=8, cross_attention_dim=16, block_out_channels=(8, 8), norm_num_groups=4, attention_head_dim=4, layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
        scheduler = EulerAncestralDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1)
        StableDiffusionPipeline(
            vae, CLIPTextModel(text), tokenizer, unet, scheduler, None, None, requires_safety_checker=False
        ).save_pretrained(folder)


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd")
    save_stable_diffusion(folder)
    return folder


def by_diffusers(folder: Path, prompt: str, seed: int) -> np.ndarray:
    """The picture as the authors of UF-FGTG drew it: the prompt's ids cut every context, the empty prompt padded to their length."""
    from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    prompt_ids = pipe.tokenizer(prompt, return_tensors="pt", verbose=False).input_ids
    length = prompt_ids.shape[1]
    empty_ids = pipe.tokenizer("", padding="max_length", max_length=length, return_tensors="pt").input_ids
    with torch.no_grad():
        prompt_states, empty_states = (
            torch.cat([pipe.text_encoder(ids[:, start : start + 20])[0] for start in range(0, length, 20)], dim=1)
            for ids in (prompt_ids, empty_ids)
        )
    return pipe(
        prompt_embeds=prompt_states, negative_prompt_embeds=empty_states, num_inference_steps=4, guidance_scale=7.5, height=16, width=16,
        generator=torch.Generator().manual_seed(seed), output_type="np",
    ).images[0]  # fmt: skip


def test_images_are_those_that_diffusers_draws_from_chunks(stable_diffusion, tmp_path):
    from PIL import Image

    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([*SHORT, LONG]))
    arguments = ["images", "--prompts", str(prompts), "--to", str(tmp_path / "cfp"), "--image-model", str(stable_diffusion)]
    assert build_cfp.main([*arguments, "--steps", "4", "--device", "cpu", "--progress", "none"]) == 0
    settings = json.loads((tmp_path / "cfp" / "stages" / "images.json").read_text())
    assert (settings["prompt_chunks"], settings["precision"], settings["height"]) == ("20 tokens, not padded", "32-true", 16)
    for line in (tmp_path / "cfp" / "stages" / "images-0-of-1.jsonl").read_text().splitlines():
        entry = json.loads(line)
        picture = np.asarray(Image.open(tmp_path / "cfp" / entry["image"]), dtype=float)
        expected = by_diffusers(stable_diffusion, [*SHORT, LONG][entry["id"]], entry["seed"]) * 255
        assert np.abs(picture - expected).max() <= 0.51 and picture.std() > 10


def test_mixed_precision_draws_nearly_the_same(stable_diffusion, tmp_path):
    from PIL import Image

    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(SHORT))
    pictures = []
    for precision in ("32-true", "bf16-mixed"):
        to = tmp_path / precision
        arguments = ["--prompts", str(prompts), "--to", str(to), "--image-model", str(stable_diffusion), "--precision", precision]
        assert build_cfp.main(["images", *arguments, "--steps", "4", "--device", "cpu", "--progress", "none"]) == 0
        pictures.append(np.stack([np.asarray(Image.open(path), dtype=float) for path in sorted(to.rglob("*.png"))]))
    assert 0 < np.abs(pictures[0] - pictures[1]).mean() < 6


def test_equal_token_lengths_are_drawn_together(stable_diffusion, tmp_path):
    from ablations.building_cfp.drawing import DrawingSettings, ImagesStage
    from ablations.building_cfp.folder import BuildFolder
    from ablations.building_cfp.prompts import Prompt

    settings = DrawingSettings("paper", str(stable_diffusion), 0, 2, 7.5, None, 2, torch.device("cpu"))
    stage = ImagesStage(BuildFolder(tmp_path), settings)
    stage.load()
    prompts = [Prompt(i, text) for i, text in enumerate(["abc", "abcd", "xyz", LONG, "wxyz", "uvw"])]
    assert [[prompt.id for prompt in group] for group in stage.groups(prompts)] == [[0, 2], [1, 4], [3], [5]]


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No hub, and an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("stage", "what", "option"),
    [
        ("images", f"the text-to-image model {build_cfp.IMAGE_MODEL}", "--image-model"),
        ("coarse", "the summariser sshleifer/distilbart-cnn-12-6", "--summarizer"),
        ("nsfw", "the NSFW text classifier michellejieli/NSFW_text_classifier", "--classifier"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_line_that_says_where_it_was_looked_for(offline, tmp_path, capsys, stage, what, option):
    (tmp_path / "prompts.txt").write_text("a cat\n")
    arguments = [stage, "--prompts", str(tmp_path / "prompts.txt"), "--to", str(tmp_path / "cfp"), "--device", "cpu"]
    assert build_cfp.main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and len(error) <= 301
    assert error.startswith(f"error: {what.partition('/')[0]}") and "could not be fetched from https://huggingface.co (OfflineMode" in error
    assert error.endswith(f"{offline.name}: run once with a network, or give a folder that has it with {option}\n")


def cached(cache: Path, revision: str, *files: str) -> Path:
    """A hub repository as the hub's client keeps it."""
    root = cache / "models--owner--name"
    for file in files:
        path = root / "snapshots" / revision / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(revision)
    return root / "snapshots" / revision


def test_without_a_network_the_cache_serves(offline):
    folder = cached(offline, "a" * 40, "config.json", "pytorch_model.bin", "tokenizer.json")
    source = fetch("owner/name", "the model", "--model", TEXT_MODEL_FILES)
    assert (source.folder, source.commit) == (folder, "a" * 40)
    assert fetch(f"owner/name@{'a' * 40}", "the model", "--model", TEXT_MODEL_FILES).folder == folder
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(
        UserError, match=r"in the cache .*: model\*\.safetensors or pytorch_model\*\.bin not found: run once with a network"
    ):
        fetch("owner/name", "the model", "--model", TEXT_MODEL_FILES)


def test_only_the_files_that_are_read_are_fetched_and_safetensors_come_first(monkeypatch, tmp_path):
    there = ["config.json", "model.safetensors", "pytorch_model.bin", "flax_model.msgpack", "tokenizer.json", "onnx/config.json", "a.ckpt"]
    asked = {}

    info = SimpleNamespace(sha="b" * 40, siblings=[SimpleNamespace(rfilename=name) for name in there])

    def download(repository, *, revision, allow_patterns):
        asked.update(repository=repository, revision=revision, files=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda self, repository, revision, timeout: info)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    source = fetch("owner/name@v2", "the model", "--model", TEXT_MODEL_FILES)
    assert asked == {"repository": "owner/name", "revision": "b" * 40, "files": ["config.json", "model.safetensors", "tokenizer.json"]}
    assert source.commit == "b" * 40


def test_a_folder_that_lacks_files_names_them(stable_diffusion, tmp_path):
    import shutil

    shutil.copytree(stable_diffusion, tmp_path / "sd")
    (tmp_path / "sd" / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"--image-model .*: vae/diffusion_pytorch_model\.safetensors not found: put it there"):
        fetch(str(tmp_path / "sd"), "the model", "--image-model", STABLE_DIFFUSION_FILES)


def test_a_damaged_model_is_one_line(stable_diffusion, tmp_path, capsys):
    import shutil

    shutil.copytree(stable_diffusion, tmp_path / "sd")
    weights = tmp_path / "sd" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    (tmp_path / "prompts.txt").write_text("a cat\n")
    arguments = ["--prompts", str(tmp_path / "prompts.txt"), "--to", str(tmp_path / "cfp"), "--image-model", str(tmp_path / "sd")]
    assert build_cfp.main(["images", *arguments, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "the text-to-image model" in error and "cannot be read" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--to"),
        (["--to", "X"], "X holds no prompts yet: give a file with --prompts"),
        (["--to", "X", "imges"], "unknown stage 'imges'; known: images, coarse, nsfw, table"),
        (["--to", "X", "--prompts", "absent.txt"], "absent.txt: there is no such file"),
        (["--to", "X", "--shard", "4/4"], "write I/N with I from 0 to N-1"),
        (["--to", "X", "table", "--shard", "1/4"], "table reads every shard"),
        (["--to", "X", "--steps", "0"], "'0' is no whole number from 1 to 1000"),
        (["--to", "X", "--guidance", "nan"], "'nan' is no number of at least 0"),
        (["--to", "X", "--profile", "tiny", "--image-model", "a/b"], "has no effect with --profile tiny"),
        (["--to", "X", "--summarizer", "./absent"], "--summarizer ./absent: there is no such folder"),
        (["--to", "X", "--column", "text"], "--column and --limit say how --prompts is read"),
        (["--to", "X", "--prompts", "PROMPTS", "--device", "cuda:7", "nsfw"], "--device cuda:7: torch has no such device here"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("PROMPTS").write_text("a cat\n")
    code = build_cfp.main(arguments)
    error = capsys.readouterr().err
    assert code == 2 and len(error.splitlines()) == 1
    assert error.startswith("error: ") and said in error


def test_help_and_mistakes_import_nothing_heavy():
    probe = (
        "import sys, ablations.build_cfp as b\n"
        "for a in (['--help'], ['--to', 'X', 'x'], ['--to', 'nowhere/X']): b.main(a)\n"
        "print([name for name in ('torch', 'transformers', 'diffusers', 'pandas') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
    assert "python -m ablations.build_cfp --prompts prompts.txt --to cfp" in result.stdout
