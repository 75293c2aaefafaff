"""Fetches models: from a folder, from the hub, or from the hub's cache where there is no network.

A source is a folder or a hub id, `OWNER/NAME` or `OWNER/NAME@REVISION`. Only the files that are read are fetched. What cannot be had is
one line that names it, where it was looked for, and what to do.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.runtime.errors import UserError, one_line
from ablations.runtime.foreign import is_file, is_folder

# Of each row, the first pattern that a source has files for is fetched; a row that has none makes the source unusable.
TEXT_MODEL_FILES = (
    ("config.json",),
    ("model*.safetensors", "pytorch_model*.bin"),
    ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model"),
)
STABLE_DIFFUSION_FILES = (
    ("unet/config.json",),
    ("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model-*.safetensors"),
    ("vae/config.json",),
    ("vae/diffusion_pytorch_model.safetensors",),
    ("scheduler/scheduler_config.json",),
    ("text_encoder/config.json",),
    ("text_encoder/model.safetensors", "text_encoder/model-*.safetensors"),
    ("tokenizer/tokenizer.json", "tokenizer/vocab.json"),
)
# Small files that some models have: generation settings, special tokens, indexes of split weights.
_EXTRAS = ("*.json", "merges.txt", "vocab.txt", "*/*.json", "*/merges.txt")
_NOT_EXTRAS = ("*flax*", "*tf_model*", "*onnx*", "*openvino*", "safety_checker/*")
_TIMEOUT_S = 20


@dataclass(frozen=True)
class Source:
    """Where a model is: its name as it was given, the folder that holds it, and the hub's commit (None for a folder)."""

    name: str
    folder: Path
    commit: str | None


def looks_like_path(name: str) -> bool:
    """Whether a model's name can only be a folder: hub ids have one slash at most and begin with neither a dot nor a slash."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def require_source(name: str, option: str) -> None:
    """Raises UserError for a folder that is not there: a check that needs neither network nor heavy imports."""
    if looks_like_path(name) and not is_folder(Path(name).expanduser()):
        raise UserError(f"{option} {name}: there is no such folder (a hub id is written OWNER/NAME or OWNER/NAME@REVISION)")


def fetch(name: str, what: str, option: str, files: Sequence[Sequence[str]]) -> Source:
    """The model as a folder that holds `files` (rows of alternatives). Raises UserError where it cannot be had."""
    path = Path(name).expanduser()
    if is_folder(path):
        there = [str(file.relative_to(path).as_posix()) for file in path.rglob("*") if is_file(file)]
        _choose(there, files, f"{option} {name}: {what}", "put it there, or give another folder or a hub id")
        return Source(name, path, None)
    require_source(name, option)
    return _fetch_from_hub(name, what, option, files)


def _fetch_from_hub(name: str, what: str, option: str, files: Sequence[Sequence[str]]) -> Source:
    from huggingface_hub import HfApi, constants, snapshot_download

    repository, _, revision = name.partition("@")
    try:
        info = HfApi().model_info(repository, revision=revision or None, timeout=_TIMEOUT_S)
        there = [sibling.rfilename for sibling in info.siblings or []]
        chosen = _choose(there, files, f"{what} {name} on the hub", f"give another one with {option}")
        return Source(name, Path(snapshot_download(repository, revision=info.sha, allow_patterns=chosen)), info.sha)
    except UserError:
        raise
    except Exception as error:  # no network, no such repository, a gated one, a full disk: the libraries have many errors for it
        reason = f"{type(error).__name__}: {one_line(error)[:40]}"
    cache = constants.HF_HUB_CACHE
    remedy = f"run once with a network, or give a folder that has it with {option}"
    missing = f"{what} {name} could not be fetched from {constants.ENDPOINT} ({reason}) and is not in the cache {cache}: {remedy}"
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
    except Exception as error:
        raise UserError(missing) from error
    there = [str(file.relative_to(folder).as_posix()) for file in folder.rglob("*") if is_file(file)]
    _choose(there, files, f"{what} {name} in the cache {cache}", remedy)
    return Source(name, folder, folder.name)


def _choose(there: list[str], files: Sequence[Sequence[str]], where: str, remedy: str) -> list[str]:
    """The files to fetch. Raises UserError naming every row of which there is none."""
    chosen = [file for file in there if _matches(file, _EXTRAS) and not _matches(file, _NOT_EXTRAS)]
    missing = []
    for row in files:
        found = next((matching for pattern in row if (matching := fnmatch.filter(there, pattern))), None)
        if found is None:
            missing.append(" or ".join(row))
        chosen += found or []
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} not found: {remedy}")
    return sorted(set(chosen))


def _matches(file: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(file, pattern) for pattern in patterns)
