"""Files and folders that appear whole or not at all, with errors in one line, and how it is seen that one is what was written.

A binary file has the digest of its bytes beside it (NAME.sha256), a JSON document of ours its own in it (`SEAL`). Both are compared when
the file is read. One from before there were digests is read as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablations.runtime.errors import RunFolderError
from ablations.runtime.foreign import Unreadable, read_json
from datamodules import files
from datamodules.files import PARTIAL

__all__ = [
    "PARTIAL",
    "SEAL",
    "cannot",
    "cannot_write",
    "drop",
    "is_as_written",
    "read_sealed",
    "set_aside",
    "whole_file",
    "whole_file_with_digest",
    "whole_folder",
    "write_atomically",
    "write_json",
    "write_sealed",
]

# The key of a JSON document's own digest.
SEAL = "sha256"


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


@contextmanager
def whole_file_with_digest(path: Path) -> Iterator[Path]:
    """`whole_file`, and the digest of its bytes beside it."""
    with whole_file(path) as aside:
        yield aside
        # Before the file takes its name, and with the digest of the one that it replaces: a process that is killed in between leaves a
        # file of one of the two.
        write_atomically(_digest_path(path), json.dumps([files.file_digest(aside), *_digests(path)[:1]]))


def is_as_written(path: Path) -> bool:
    """Whether a file has a digest that it may have; True where nothing says which. Raises OSError where it cannot be read."""
    digests = _digests(path)
    return not digests or files.file_digest(path) in digests


def drop(path: Path) -> None:
    """Remove a file and its digest."""
    path.unlink(missing_ok=True)
    _digest_path(path).unlink(missing_ok=True)


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digests(path: Path) -> list[str]:
    """The digests that the file may have; none where nothing says so."""
    try:
        found = json.loads(_digest_path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return [digest for digest in found if isinstance(digest, str)] if isinstance(found, list) else []


def write_sealed(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """`write_json` of an object, with its digest in it."""
    plain = {name: value for name, value in _plain(content).items() if name != SEAL}
    write_json(path, plain | {SEAL: _seal_of(plain)})


def read_sealed(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object that `write_sealed` wrote, without the digest.

    Raises Unreadable for what is no JSON object or not what was written, and FileNotFoundError.
    """
    content = read_json(path, dict)
    seal = content.pop(SEAL, None)
    if seal is not None and seal != _seal_of(content):
        raise Unreadable("its content is not what was written")
    return content


def _seal_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def set_aside(path: Path) -> Path:
    """Gives a damaged file the ending .damaged, so that another can be made, and drops its digest; returns the new path.

    Raises RunFolderError.
    """
    aside = path.with_suffix(".damaged")
    try:
        path.replace(aside)
        _digest_path(path).unlink(missing_ok=True)
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
