"""The files that a finished cell left, by the digests of them in its run.json: they are compared when they are read.

Imports no heavy library.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablations.results.looking import shaped_run
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import Unreadable
from datamodules.files import file_digest


def digests_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The digests of those of the files that are in the folder: run.json's field `files`."""
    return {name: file_digest(folder / name) for name in names if (folder / name).is_file()}


def leaves_digests(folder: Path) -> bool:
    """Whether it is the folder of a finished cell that left digests of what it left; one of an earlier version left none."""
    return bool(_left(folder))


def require_as_left(path: Path) -> None:
    """Raises UserError, naming the file, where the finished cell of its folder left another one, and OSError.

    What belongs to no finished cell, or to one from before run.json had digests of files, is not compared.
    """
    wanted = _left(path.parent).get(path.name)
    if wanted is not None and file_digest(path) != wanted:
        raise UserError(f"{path} is damaged (it is not what the cell left)")


def _left(folder: Path) -> dict[str, Any]:
    try:
        run = shaped_run(folder)
    except (FileNotFoundError, Unreadable):
        return {}
    return (run.content.get("files") or {}) if run.status == "finished" else {}
