"""Files and folders that appear whole or not at all, with errors in one line."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ablations.runtime.errors import RunFolderError


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
        raise cannot_write(path, error.strerror or error) from error
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        for leftover in (aside, old):
            shutil.rmtree(leftover, ignore_errors=True)


def cannot_write(path: Path, reason: object) -> RunFolderError:
    return RunFolderError(f"cannot write {path}: {reason} (free space or permissions, or choose another folder)")


PARTIAL = ".partial-"


@contextmanager
def whole_file(path: str | os.PathLike[str], sync: bool = True) -> Iterator[Path]:
    """A path to write to, in the same folder and with the same ending, that becomes `path` when the block ends well.

    Whoever reads `path` sees the old file or the new one, never a part. Creates the folder. If the block raises, what was written is
    removed; an OSError (full disk, no permission) becomes a RunFolderError of one line. `sync=False` leaves it to the system when the
    bytes reach the disk: for many files that can be made again.
    """
    path = Path(path)
    aside = path.with_name(f"{PARTIAL}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with open(aside, "rb+") as written:
            if sync:
                os.fsync(written.fileno())  # else a power cut may leave the new name on an empty file
        os.replace(aside, path)
    except OSError as error:
        raise cannot("write", path, error) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Writes a file whole or not at all; text as UTF-8. Raises RunFolderError where it cannot be written."""
    with whole_file(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | os.PathLike[str], content: object) -> None:
    """Writes JSON whole or not at all. Array scalars become numbers; JSON has no NaN, so a number that is not finite becomes null."""
    write_atomically(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


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
