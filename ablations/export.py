"""`python -m ablations.export RUN_DIR --to DIR`: what a run trained, for diffusers and for PromptRefiner. `--help` explains."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ablations import exported_refiner
from ablations.config import KEYS, to_flat_dict
from ablations.errors import RunFolderError, UserError, one_line
from ablations.run_folder import write_atomically, write_json
from ablations.trained_run import TrainedRun, find_trained_run

if TYPE_CHECKING:
    from ablations.prompt_refiner import PromptRefiner
    from lightning_modules.backbones import Backbones

# Texts on which the exported encoder and tokenizer are compared with the run's own: case, digits, the padding's "!", accents, length.
PROBES = (
    *("", "a green tree", "A Lonely LIGHTHOUSE, 8k", "it's a cat's hat", "wow! !! !a ?!", "1234 castles", "caf\u00e9 \u732b \U0001f98a"),
    *("a red boat in a harbour at sunset, watercolour, highly detailed", "a tree, " * 60),
)
# Two correct implementations of the encoder differ by rounding alone: so much, as a share of the largest state.
LARGEST_SHARE = 1e-5
# What rounding the weights to half precision may add to that.
LARGEST_SHARE_COMPACT = 5e-3

_HELP = """\
Writes what a run trained to a new folder DIR:

  DIR/text_encoder, DIR/tokenizer   the trained text encoder as transformers' CLIPTextModel and CLIPTokenizer: what
                                    StableDiffusionPipeline(text_encoder=..., tokenizer=...) takes in place of its own
  DIR/prompt_refiner                adapter, AFE, the rest of the encoder, config and scores: PromptRefiner.from_pretrained(DIR)
  DIR/README.md                     a model card: arm, scores, settings, backbones, licence

RUN_DIR is OUTPUT_DIR/ARM/seed-SEED; its training must be finished. The export is checked against the run (equal token ids,
states that differ by rounding alone) before DIR appears, whole or not at all.

examples:
  python -m ablations.export outputs/tiny-len6-mse-text-clip-afe-1a2b3c4d/seed-0 --to my-refiner
  python -m ablations.export RUN_DIR --to my-pipeline --with-image-model
  python -m ablations.export RUN_DIR --to ablations/embedded_refiner --compact --force    what ablations.refine uses by itself
"""


class ExportError(RuntimeError):
    """An exported network that does not do what the trained one does. Nothing is left behind."""

    exit_code = 1


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (python -m ablations.export --help explains)")


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The arguments. Raises UserError for a mistake."""
    parser = _Arguments(
        prog="python -m ablations.export", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="the run whose training is exported")
    parser.add_argument("--to", metavar="DIR", type=Path, required=True, help="the folder to write; it must not be there yet")
    parser.add_argument(
        "--with-image-model",
        action="store_true",
        help="also write UNet, VAE and scheduler, so that StableDiffusionPipeline.from_pretrained(DIR) needs nothing else "
        "(tiny: 34 MB; Stable Diffusion 2.1: about 3.8 GB)",
    )
    parser.add_argument(
        "--compact",
        action="store_true",
        help="for refining and drawing alone, at less than half the size: half precision, without AFE and the block that "
        "only the pooled feature reads",
    )
    parser.add_argument("--force", action="store_true", help="replace DIR if it holds an earlier export")
    return parser.parse_args(argv)


def check_target(directory: Path, force: bool) -> None:
    """Raises UserError unless the export may take the place of `directory`."""
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        if not (directory / exported_refiner.CONFIG).is_file():
            raise UserError(f"--to: {directory} is there already and holds no export: name another folder")
        if not force:
            raise UserError(f"--to: {directory} holds an earlier export: name another folder, or replace it with --force")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write to that becomes `path` when the block ends well, in place of what was there; else nothing changes.

    Raises RunFolderError for a disk that is full or a folder that may not be written.
    """
    path = Path(os.path.abspath(path))
    mark = f"{os.getpid()}-{secrets.token_hex(4)}-{path.name}"
    aside, old = path.with_name(f".partial-{mark}"), path.with_name(f".partial-old-{mark}")
    try:
        aside.mkdir(parents=True)
        yield aside
        mode = aside.stat().st_mode & 0o666
        for file in (file for file in aside.rglob("*") if file.is_file()):
            file.chmod(mode)  # safetensors makes files that only their owner may read
            with file.open("rb+") as written:
                os.fsync(written.fileno())  # else a power cut may leave the new name on empty files
        if path.exists():
            os.replace(path, old)
        os.replace(aside, path)
    except OSError as error:
        raise _cannot_write(path, error.strerror or error) from error
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        for leftover in (aside, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _cannot_write(path: Path, reason: object) -> RunFolderError:
    return RunFolderError(f"cannot write {path}: {reason} (free space or permissions, or choose another folder)")


def export(run: TrainedRun, directory: Path, with_image_model: bool, say: Callable[[str], object], compact: bool = False) -> None:
    """Write the refiner of a run to `directory`, replacing what is there; `compact`: see `exported_refiner.write`.

    Raises UserError for backbones that are not those of the training or cannot be exported, ExportError where the exported networks do
    not do what the trained ones do, and RunFolderError where the disk is full.
    """
    from safetensors import SafetensorError

    from ablations.model_card import model_card
    from ablations.prompt_refiner import PromptRefiner

    say(f"loading {run}")
    refiner = PromptRefiner.from_run(run.folder, device="cpu")
    backbones = refiner.backbones
    sources = backbone_sources(refiner)
    record = {name: run.run.get(name) for name in ("arm", "seed", "train_id", "status", "digests", "metrics", "versions", "code_revision")}
    description = {
        "made_by": f"python -m ablations.export OUTPUT_DIR/{run} --to DIR" + " --compact" * compact,
        **record,
        "weights_digest": backbones.digest,
        "backbones": {name: {"source": source, "digest": digest} for name, (source, digest) in sources.items()},
        # Run keys are paths and logging on the machine that trained: nobody else's business.
        "config": {name: value for name, value in to_flat_dict(run.config).items() if KEYS[name].option.kind != "run"},
    }
    with whole_folder(directory) as aside:
        try:
            say("writing the text encoder, its tokenizer and the refiner")
            exported_refiner.write(aside, refiner.module, description, compact)
            if with_image_model:
                say("writing the image model")
                write_image_model(aside, backbones)
        except SafetensorError as error:
            raise _cannot_write(directory, error) from error
        except ValueError as error:
            raise UserError(str(error)) from error
        say("comparing it with the run")
        difference = largest_difference(refiner, aside, LARGEST_SHARE_COMPACT if compact else LARGEST_SHARE)
        card = model_card(
            run,
            backbones=sources,
            weights_digest=backbones.digest,
            with_image_model=with_image_model,
            difference=difference,
            num_probes=len(PROBES),
            compact=compact,
        )
        write_atomically(aside / "README.md", card)
    say(f"exported {run} to {directory} (largest difference of the text states: {difference:.1e})")


def backbone_sources(refiner: PromptRefiner) -> dict[str, tuple[str, str]]:
    """Where each network of the refiner came from, and its digest."""
    from lightning_modules.frozen_features import digest_of
    from lightning_modules.paper_backbones import PaperSources

    config, backbones = refiner.config, refiner.backbones
    b, commits = config.backbones, backbones.commits
    sources = PaperSources.named(b.image_model, b.open_clip, b.t5)
    image_model = commits.get("image_model", sources.image_model)
    hubs = {"OpenCLIP": sources.open_clip, "VAE": image_model, "UNet": image_model, "T5": commits.get("t5", sources.t5)}
    if config.backbones.init == "random":
        hubs = dict.fromkeys(hubs, "random weights")
    elif config.backbones.dir is not None:
        hubs = dict.fromkeys(hubs, f"the folder {Path(config.backbones.dir).name}")
    elif config.profile == "tiny":
        hubs = dict.fromkeys(hubs, "the project's tiny networks")
    model = backbones.text_to_image
    networks = {"OpenCLIP": backbones.clip_model, "VAE": model.vae, "UNet": model.unet, "T5": backbones.decoder.t5}
    return {name: (hubs[name], digest_of((name,), network)) for name, network in networks.items()}


def write_image_model(directory: Path, backbones: Backbones) -> None:
    """UNet, VAE, the scheduler that runs draw with, and the index that makes the folder a StableDiffusionPipeline."""
    import diffusers

    model = backbones.text_to_image
    scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(model.noise_scheduler.config)
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__, "requires_safety_checker": False}
    index |= {name: [None, None] for name in ("safety_checker", "feature_extractor", "image_encoder")}
    for name, part in (("unet", model.unet), ("vae", model.vae), ("scheduler", scheduler)):
        part.save_pretrained(directory / name)
        index[name] = ["diffusers", type(part).__name__]
    index |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    write_json(directory / "model_index.json", index)


def largest_difference(refiner: PromptRefiner, directory: Path, share: float = LARGEST_SHARE) -> float:
    """The largest difference between the exported encoder's states and the trained one's, both read from PROBES.

    Raises ExportError for other token ids, or for a difference of more than `share` of the largest state: more than rounding.
    """
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(directory / exported_refiner.TOKENIZER)
    model = CLIPTextModel.from_pretrained(directory / exported_refiner.TEXT_ENCODER, dtype=torch.float32).eval()
    wanted_BS = refiner.backbones.tokenize(list(PROBES))
    ids_BS = tokenizer(list(PROBES), padding="max_length", truncation=True, return_tensors="pt").input_ids
    if not torch.equal(ids_BS, wanted_BS):
        raise ExportError(f"the exported tokenizer reads {PROBES[int((ids_BS != wanted_BS).any(dim=1).nonzero()[0])]!r} differently")
    largest = 0.0
    with torch.no_grad():
        for row in wanted_BS.split(1):
            states = refiner.module.text_encoder(row).states_BSD
            difference = float((model(row).last_hidden_state - states).abs().max())
            if not difference <= share * float(states.abs().max()):
                raise ExportError(f"the exported text encoder differs from the trained one by {difference:.1e}: more than rounding")
            largest = max(largest, difference)
    return largest


def main(argv: list[str] | None = None) -> int:
    """Export a run; returns the exit code: 0 done, 2 a mistake of the user's, 1 anything else."""
    try:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        run = find_trained_run(arguments.run_dir)
        check_target(arguments.to, arguments.force)
        print("loading libraries (some seconds)", flush=True)
        from ablations.quiet import quiet_libraries

        quiet_libraries()
        _without_bars()
        from ablations.console import Console

        export(run, arguments.to, arguments.with_image_model, Console().say, arguments.compact)
    except (UserError, RunFolderError, ExportError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    return 0


def _without_bars() -> None:
    """transformers and diffusers draw a bar for every file that they read or write, which says nothing here."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
