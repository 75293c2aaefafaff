"""Exporting: a trained refiner as a folder that diffusers, transformers and this package load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.config import KEYS, to_flat_dict
from ablations.refiner import exported_refiner
from ablations.results import seen_words
from ablations.results.seen_words import SeenWords
from ablations.results.trained_run import TrainedRun, find_trained_run
from ablations.runtime.command_line import announce_libraries
from ablations.runtime.errors import OneLineError, RunFolderError, UserError
from ablations.runtime.files import cannot_write, whole_folder, write_atomically
from ablations.runtime.foreign import is_file, is_folder, is_there

if TYPE_CHECKING:
    from ablations.refiner.prompt_refiner import PromptRefiner

# Texts on which the exported encoder and tokenizer are compared with the run's own: case, digits, the padding's "!", accents, length.
PROBES = (
    *("", "a green tree", "A Lonely LIGHTHOUSE, 8k", "it's a cat's hat", "wow! !! !a ?!", "1234 castles", "caf\u00e9 \u732b \U0001f98a"),
    *("a red boat in a harbour at sunset, watercolour, highly detailed", "a tree, " * 60),
)


# Two correct implementations of the encoder differ by rounding alone: so much, as a share of the largest state.
LARGEST_SHARE = 1e-5


# What rounding the weights to half precision may add to that.
LARGEST_SHARE_COMPACT = 5e-3


class ExportError(OneLineError, RuntimeError):
    """An exported network that does not do what the trained one does. Nothing is left behind."""


def export_run(run_dir: Path, to: Path, with_image_model: bool, compact: bool, force: bool) -> None:
    """`export` of the run in a folder, with `force` in place of an earlier export, saying what it does.

    Raises UserError where there is no trained run or something else lies at `to`, and what `export` raises.
    """
    run = find_trained_run(run_dir)
    check_target(to, force)
    announce_libraries()
    without_bars()
    from ablations.runtime.console import Console

    export(run, to, with_image_model, Console().say, compact)


def export(run: TrainedRun, directory: Path, with_image_model: bool, say: Callable[[str], object], compact: bool = False) -> None:
    """Write the refiner of a run to `directory`, replacing what is there; `compact`: see `exported_refiner.write`.

    Raises UserError for backbones that are not those of the training or cannot be exported, ExportError where the exported networks do
    not do what the trained ones do, and RunFolderError where the disk is full.
    """
    from safetensors import SafetensorError

    from ablations.refiner import exported_pipeline
    from ablations.refiner.model_card import LICENCE_FILE, licence, model_card
    from ablations.refiner.prompt_refiner import PromptRefiner

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
            seen = _seen(run, refiner, say)
            exported_refiner.write(aside, refiner.module, description, compact, seen)
            if with_image_model:
                say("writing the image model, and the pipeline that refines and draws")
                exported_pipeline.write_pipeline(aside, refiner, seen)
        except SafetensorError as error:
            raise cannot_write(directory, error) from error
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
        tag, terms = licence(run.config, with_image_model)
        if tag == "other":
            write_atomically(aside / LICENCE_FILE, f"{terms}\n")
    say(f"exported {run} to {directory} (largest difference of the text states: {difference:.1e})")


def _seen(run: TrainedRun, refiner: PromptRefiner, say: Callable[[str], object]) -> SeenWords | None:
    """What the training read; of a run from before that was written down the data is read again, where it is still the same.

    The training's folder gets it then, too: the run and its export refine alike.
    """
    from ablations.refiner.seen_again import gather_again

    if refiner.seen is not None:
        return refiner.seen
    try:
        seen = gather_again(run.config, refiner.backbones, (run.run.get("digests") or {}).get("data"), say)
        seen_words.write(run.training, seen)
        return seen
    except (UserError, RunFolderError) as error:
        say(f"the export will not say which words the training read: {error}")
        return None


def check_target(directory: Path, force: bool) -> None:
    """Raises UserError unless the export may take the place of `directory`."""
    if is_there(directory) and not (is_folder(directory) and not any(directory.iterdir())):
        if not is_file(directory / exported_refiner.CONFIG):
            raise UserError(f"--to: {directory} is there already and holds no export: name another folder")
        if not force:
            raise UserError(f"--to: {directory} holds an earlier export: name another folder, or replace it with --force")


def backbone_sources(refiner: PromptRefiner) -> dict[str, tuple[str, str]]:
    """Where each network of the refiner came from, and its digest."""
    from lightning_modules.backbones.sources import PaperSources
    from lightning_modules.frozen_features import digest_of

    config, backbones = refiner.config, refiner.backbones
    b, commits = config.backbones, backbones.commits
    sources = PaperSources.named(b.image_model, b.open_clip, b.t5)
    image_model = commits.get("image_model", sources.image_model)
    hubs = {
        "OpenCLIP": commits.get("open_clip", sources.open_clip),
        "VAE": image_model,
        "UNet": image_model,
        "T5": commits.get("t5", sources.t5),
    }
    if config.backbones.init == "random":
        hubs = dict.fromkeys(hubs, "random weights")
    elif config.backbones.dir is not None:
        hubs = dict.fromkeys(hubs, f"the folder {Path(config.backbones.dir).name}")
    elif config.profile == "tiny":
        hubs = dict.fromkeys(hubs, "the project's tiny networks")
    model = backbones.text_to_image
    networks = {"OpenCLIP": backbones.clip_model, "VAE": model.vae, "UNet": model.unet, "T5": backbones.decoder.t5}
    return {name: (hubs[name], digest_of((name,), network)) for name, network in networks.items()}


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


def without_bars() -> None:
    """transformers and diffusers draw a bar for every file that they read or write, which says nothing here."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
