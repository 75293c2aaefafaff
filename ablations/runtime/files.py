"""Files and folders that appear whole or not at all, with errors in one line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablations.runtime.errors import RunFolderError
from datamodules import files
from datamodules.files import PARTIAL

__all__ = ["PARTIAL", "cannot", "cannot_write", "set_aside", "whole_file", "whole_folder", "write_atomically", "write_json"]


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """`datamodules.files.whole_folder`, where an OSError (full disk, no permission) becomes a RunFolderError of one line."""
    path = Path(os.path.abspath(path))
    try:
        with files.whole_folder(path) as aside:
            yield aside
    except OSError as error:
        raise cannot_write(path, error.strerror or error) from error


@contextmanager
def whole_file(path: str | os.PathLike[str], sync: bool = True) -> Iterator[Path]:
    """`datamodules.files.whole_file`, where an OSError (full disk, no permission) becomes a RunFolderError of one line."""
    try:
        with files.whole_file(path, sync) as aside:
            yield aside
    except OSError as error:
        raise cannot("write", Path(path), error) from error


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Writes a file whole or not at all; text as UTF-8. Raises RunFolderError where it cannot be written."""
    with whole_file(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | os.PathLike[str], content: object) -> None:
    """Writes JSON whole or not at all. Array scalars become numbers; JSON has no NaN, so a number that is not finite becomes null."""
    write_atomically(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def set_aside(path: Path) -> Path:
    """Gives a damaged file the ending .damaged, so that another can be made; returns the new path. Raises RunFolderError."""
    aside = path.with_suffix(".damaged")
    try:
        path.replace(aside)
    except OSError as error:
        raise cannot("set aside", path, error) from error
    return aside


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, float) and hasattr(value, "item"):  # scalars of NumPy and torch, without importing either
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cannot(verb: str, path: Path, error: OSError) -> RunFolderError:
    return RunFolderError(f"cannot {verb} {path}: {error.strerror or error} (free space or permissions, or choose another output_dir)")


def cannot_write(path: Path, reason: object) -> RunFolderError:
    return RunFolderError(f"cannot write {path}: {reason} (free space or permissions, or choose another folder)")
