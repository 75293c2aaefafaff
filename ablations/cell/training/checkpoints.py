"""Writing a training's checkpoints, whole and in the background, and reading them: every reader of one is this one.

Beside each lies the digest of its bytes (NAME.sha256), which is compared when it is read; reading costs a pass over the file for that. See
`results.checkpoints` for what the files are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

from ablations.runtime import files
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.files import whole_file, write_atomically
from datamodules.files import file_digest

_KEYS = ("state_dict", "global_step", "made_from")


class DamagedCheckpoint(UserError):
    """A checkpoint that is there and is not what was written. Its message is one line that names it, and what to do."""


class _WholeFiles(TorchCheckpointIO):
    """Writes each checkpoint whole or not at all, and the digest of its bytes."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        path = Path(path)
        with whole_file(path) as aside:
            torch.save(checkpoint, aside)
            # Before the file takes its name, and with the digest of the one that it replaces: a process that is killed in between leaves a
            # file of one of the two.
            write_atomically(_digest_path(path), json.dumps([file_digest(aside), *_digests(path)[:1]]))


def in_background() -> AsyncCheckpointIO:
    """What writes checkpoints while the training goes on; the end of the fit waits for it. An error is raised at the next one, or there."""
    return AsyncCheckpointIO(_WholeFiles())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint whose tensors are read when they are used.

    Raises DamagedCheckpoint where its bytes are not those that were written, where it cannot be read, and where it is another kind of file.
    One from before there were digests is read as it is.
    """
    remedy = "run its cell again, which sets it aside and trains anew"
    digests = _digests(path)
    if digests and file_digest(path) not in digests:
        raise DamagedCheckpoint(f"{path} is damaged (its bytes are not those that were written): {remedy}")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # a torn file has as many errors as it has bytes
        raise DamagedCheckpoint(f"{path} is damaged ({type(error).__name__}: {one_line(error)[:100]}): {remedy}") from error
    if not isinstance(content, dict) or (missing := [key for key in _KEYS if key not in content]):
        what = f"it has no {missing[0]}" if isinstance(content, dict) else "it is no checkpoint of ours"
        raise DamagedCheckpoint(f"{path} cannot be used ({what}): {remedy}")
    return content


def set_aside(path: Path, why: DamagedCheckpoint, say: Callable[[str], None]) -> None:
    """Rename a damaged checkpoint, so that the training can begin anew, and say so."""
    aside = files.set_aside(path)
    _digest_path(path).unlink(missing_ok=True)
    say(f"training: {str(why).partition(': ')[0]}; it is set aside as {aside.name}")


def remove(path: Path) -> None:
    """Remove a checkpoint and its digest."""
    path.unlink(missing_ok=True)
    _digest_path(path).unlink(missing_ok=True)


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digests(path: Path) -> list[str]:
    """The digests that the file may have; none where nothing says so."""
    try:
        found = json.loads(_digest_path(path).read_bytes())
    except (OSError, ValueError):
        return []
    return [digest for digest in found if isinstance(digest, str)] if isinstance(found, list) else []
