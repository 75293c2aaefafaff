"""The folder that `python -m ablations.export` writes, as files: what lies where, written and read.

text_encoder/                        E_T as transformers' CLIPTextModel
tokenizer/                           its CLIPTokenizer
prompt_refiner/config.json           the arm's config, where it comes from, and its scores
prompt_refiner/adapter.safetensors   A
prompt_refiner/afe.safetensors       N, where the arm has one
prompt_refiner/seen_words.json       which words and pieces its training read; not in exports from before that was written down
prompt_refiner/pooled.safetensors    the rest of E_T, for the joint feature: last block and projection

A compact export has neither of the last two, and half precision. With the image model there is more: see `exported_pipeline`. config.json
has the digests of the files of these three folders, and like seen_words.json its own; they are compared when the folder is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.config import Config, from_flat_dict
from ablations.results import seen_words
from ablations.results.seen_words import SeenWords
from ablations.runtime.errors import UserError
from ablations.runtime.files import read_sealed, write_json, write_sealed
from ablations.runtime.foreign import Unreadable, shown
from datamodules.files import file_digest
from lightning_modules.backbones.whole_files import require_no_pointer

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_modules.prompt_refiner import PromptRefinerModule
    from lightning_modules.text_encoder import FineGrainedTextEncoder

# The refiner that comes with the package: what `python -m ablations.export --compact` made of a default run.
EMBEDDED = Path(__file__).parent / "embedded_refiner"
FORMAT = 1
TEXT_ENCODER, TOKENIZER, REFINER = "text_encoder", "tokenizer", "prompt_refiner"
CONFIG = f"{REFINER}/config.json"
WEIGHTS = "model.safetensors"
_WEIGHTS = f"{TEXT_ENCODER}/{WEIGHTS}"
_POOLED, ADAPTER, _AFE = (f"{REFINER}/{name}.safetensors" for name in ("pooled", "adapter", "afe"))
# transformers before version 5 wants this in front of every name, and version 5 takes it off: so any version can load the file.
_PREFIX = "text_model."


@dataclass(frozen=True)
class ExportedRefiner:
    """What config.json says: the cell's config, the digest of the frozen networks it was trained on, and everything else as it stands."""

    config: Config
    weights_digest: str
    description: Mapping[str, Any]

    @property
    def made_from(self) -> str:
        """The run that it was made from, ARM/seed-SEED."""
        return f"{self.description.get('arm')}/seed-{self.description.get('seed')}"


def write(
    directory: Path, module: PromptRefinerModule, description: Mapping[str, Any], compact: bool = False, seen: SeenWords | None = None
) -> None:
    """Write E_T, its tokenizer, A, N, what training read and `description`, which must have the keys "config" (flat) and "weights_digest".

    `compact` rounds the weights to half precision on disk, and leaves out what refining and drawing never read: N, and the part of E_T
    that only the pooled feature needs.
    Raises ValueError for a text tower or a tokenizer that transformers' classes cannot hold.
    """
    from lightning_modules.clip_text_model import to_clip_tokenizer

    for name in (TEXT_ENCODER, TOKENIZER, REFINER):
        (directory / name).mkdir(parents=True)
    pooled = write_text_encoder(directory / TEXT_ENCODER, module.text_encoder, compact)
    parts = {ADAPTER: {name: value.detach().cpu() for name, value in module.adapter.state_dict().items()}}
    if not compact:
        parts[_POOLED] = pooled
    if not compact and module.afe is not None:
        parts[_AFE] = {name: value.detach().cpu() for name, value in module.afe.state_dict().items()}
    for name, tensors in parts.items():
        _save(tensors, directory / name, compact)
    _write_tokenizer(directory / TOKENIZER, to_clip_tokenizer(module.backbones.tokenize))
    written = sorted(path for name in (TEXT_ENCODER, TOKENIZER, REFINER) for path in (directory / name).iterdir())
    digests = {path.relative_to(directory).as_posix(): file_digest(path) for path in written}
    write_sealed(directory / CONFIG, {"format": FORMAT, "compact": compact, **description, "files": digests})
    if seen is not None:
        write_seen_words(directory, seen)


def write_text_encoder(folder: Path, encoder: FineGrainedTextEncoder, compact: bool = False) -> dict[str, Tensor]:
    """Write a text encoder as a CLIPTextModel; returns those of its weights that a CLIPTextModel has no place for."""
    from lightning_modules.clip_text_model import clip_text_config, split_state

    theirs, rest = split_state(encoder.state_dict(), encoder.blocks)
    clip_text_config(encoder).save_pretrained(folder)
    _save({_PREFIX + name: value for name, value in theirs.items()}, folder / WEIGHTS, compact)
    return rest


def _save(tensors: Mapping[str, Tensor], path: Path, compact: bool) -> None:
    from safetensors.torch import save_file

    save_file({name: value.half() if compact else value for name, value in tensors.items()}, path, metadata={"format": "pt"})


def _write_tokenizer(folder: Path, tokenizer) -> None:
    """In the files of Stable Diffusion's repositories, which every version of transformers reads."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    options = {"split_special_tokens": True, "model_max_length": tokenizer.model_max_length, "tokenizer_class": "CLIPTokenizer"}
    write_json(folder / "tokenizer_config.json", {name: getattr(tokenizer, name) for name in names} | options)


def read(directory: str | os.PathLike[str]) -> ExportedRefiner:
    """Read config.json. Raises UserError for a folder that is no exported refiner, or one of another version."""
    path = Path(directory) / CONFIG
    try:
        description = read_sealed(path)
        version, flat, digest = (description[name] for name in ("format", "config", "weights_digest"))
        if not isinstance(flat, dict) or not isinstance(digest, str):
            raise Unreadable("config or weights_digest is none")
    except FileNotFoundError:
        raise UserError(f"{shown(directory)} is no exported refiner: it has no {CONFIG}; python -m ablations.export writes one") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}): export the run again") from error
    if version != FORMAT:
        raise UserError(f"{path} has format {version}, but this version reads {FORMAT}: export the run again")
    if not isinstance(flat, dict):
        raise UserError(f"{path} cannot be read (its config is no object): export the run again")
    return ExportedRefiner(from_flat_dict(flat), digest, description)


def write_seen_words(directory: Path, seen: SeenWords) -> None:
    """Write which words and pieces the training read."""
    seen_words.write(directory / REFINER, seen)


def read_seen_words(directory: str | os.PathLike[str]) -> SeenWords | None:
    """Which words and pieces the training read; None for an export that does not say. Raises UserError as `seen_words.read` does."""
    return seen_words.read(Path(directory) / REFINER)


def load_into(module: PromptRefinerModule, directory: str | os.PathLike[str]) -> None:
    """Load the trained parameters, all of them and no others. Raises UserError for a file that is missing, damaged or does not fit.

    What a compact export leaves out becomes NaN, so that no figure can come of it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from lightning_modules.clip_text_model import join_state, split_state

    folder = Path(directory)
    description = read(folder).description
    _require_whole(folder, description.get("files"))
    compact = description.get("compact", False)
    left_out: dict[str, dict[str, Tensor]] = {}
    if compact:
        _, pooled = split_state(module.text_encoder.state_dict(), module.text_encoder.blocks)
        afe = module.afe.state_dict() if module.afe is not None else {}
        left_out = {name: {key: value * float("nan") for key, value in part.items()} for name, part in ((_POOLED, pooled), (_AFE, afe))}

    def tensors(name: str) -> dict[str, Tensor]:
        return left_out[name] if name in left_out else load_file(folder / name)

    try:
        theirs = {name.removeprefix(_PREFIX): value for name, value in tensors(_WEIGHTS).items()}
        parts = {"text_encoder": join_state(theirs, tensors(_POOLED)), "adapter": tensors(ADAPTER)}
        if module.afe is not None:
            parts["afe"] = tensors(_AFE)
        module.load_state_dict({f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()})
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"the weights in {folder} cannot be read ({type(error).__name__}: {error}): export the run again") from error


def _require_whole(folder: Path, digests: Any) -> None:
    """Raises UserError where a file is not what was exported; an export from before there were digests is not compared."""
    for name, digest in digests.items() if isinstance(digests, dict) else ():
        path = folder / name
        try:
            require_no_pointer(path)
            is_whole = file_digest(path) == digest
        except FileNotFoundError:
            raise UserError(f"{path} is missing: export the run again") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): export the run again") from error
        if not is_whole:
            raise UserError(f"{path} is damaged (its bytes are not those that were exported): export the run again")
