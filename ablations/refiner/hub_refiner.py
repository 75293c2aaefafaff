"""Exported refiners of a hub, `OWNER/NAME` or `OWNER/NAME@REVISION`: fetched, or found in the hub's cache. Imports no heavy library."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ablations.refiner import exported_refiner
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import is_file, is_there, shown

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")
# What `exported_refiner` reads, or compares with its digests: numbers, JSON and word lists. Code that lies beside them is never fetched.
_FILES = (
    f"{exported_refiner.REFINER}/*.json",
    f"{exported_refiner.REFINER}/*.safetensors",
    *(f"{exported_refiner.TEXT_ENCODER}/*.{kind}" for kind in ("safetensors", "json")),
    *(f"{exported_refiner.TOKENIZER}/*.{kind}" for kind in ("json", "txt")),
    "README.md",
    "LICENSE.md",
)


def is_on_hub(name: object) -> bool:
    """Whether a name is that of a repository: text in the hub's form, and no folder's here."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and not is_there(name)


def check_exported(name: str) -> None:
    """Raises UserError where a name is neither an exported refiner's folder nor a hub's name, which is looked for when it is loaded."""
    if not is_on_hub(name):
        exported_refiner.read(name)


def folder_of(name: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """The folder of an exported refiner, and OWNER/NAME@COMMIT where a name of the hub was given. Raises UserError as `fetch` does."""
    return fetch(str(name)) if is_on_hub(name) else (Path(name), None)


def fetch(name: str) -> tuple[Path, str]:
    """The folder of a hub's refiner in the cache, and what it is, as OWNER/NAME@COMMIT.

    The hub is asked for what is new there; where it cannot be reached, or HF_HUB_OFFLINE=1 is set, the cache alone decides. A commit never
    changes, so that one which the cache holds whole is taken without a question. Raises UserError where neither has it.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    if folder := _whole_in_cache(repository, revision):
        return folder, f"{repository}@{folder.name}"
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(_FILES)))
    except Exception as error:  # no network, no such repository, a private one, a full disk: the library has many errors for it
        raise UserError(_said_of(error, name)) from error
    found = f"{repository}@{folder.name}"
    if not is_file(folder / exported_refiner.CONFIG):
        raise UserError(f"{found} is no exported refiner: it has no {exported_refiner.CONFIG}; python -m ablations.export writes one")
    return folder, found


def _whole_in_cache(repository: str, commit: str) -> Path | None:
    """The cache's folder of a commit, with every file that the export lists; None where it is no commit, or not whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if not _COMMIT.fullmatch(commit):
        return None
    try:
        folder = Path(snapshot_download(repository, revision=commit, local_files_only=True, allow_patterns=[]))
        files = exported_refiner.read(folder).description.get("files")
    except (LocalEntryNotFoundError, UserError):
        return None
    return folder if isinstance(files, dict) and all(is_file(folder / name) for name in files) else None


def _said_of(error: Exception, name: str) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    repository, _, revision = map(shown, name.partition("@"))
    name = shown(name)
    if isinstance(error, RevisionNotFoundError):
        return f"{repository} on {constants.ENDPOINT} has no revision {revision!r}: give a branch, a tag or a commit that it has"
    if isinstance(error, RepositoryNotFoundError):  # a gated one, too
        return f"there is no folder {name}, and {constants.ENDPOINT} shows no such repository: check the name, or log in (hf auth login)"
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f"{name} is not whole in the hub's cache {constants.HF_HUB_CACHE}, and {constants.ENDPOINT} cannot be reached: "
            "run once with a network, or give a folder"
        )
    return f"{name} could not be fetched from {constants.ENDPOINT} ({type(error).__name__}: {shown(error, 100)})"
