"""Writing a training's checkpoints, whole and in the background, and reading them: every reader of one is this one.

Beside each lies the digest of its bytes (NAME.sha256), which is compared when it is read; reading costs a pass over the file for that. See
`results.checkpoints` for what the files are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

from ablations.runtime import files
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.files import is_as_written, whole_file_with_digest

_KEYS = ("state_dict", "global_step", "made_from")


class DamagedCheckpoint(UserError):
    """A checkpoint that is there and is not what was written. Its message is one line that names it, and what to do."""


class _WholeFiles(TorchCheckpointIO):
    """Writes each checkpoint whole or not at all, and the digest of its bytes."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        # Into a stream: by itself PyTorch's writer does not say why it could not write, and puts the file's passing name into the file.
        with whole_file_with_digest(Path(path)) as aside, aside.open("wb") as stream:
            try:
                torch.save(checkpoint, stream)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise


def in_background() -> AsyncCheckpointIO:
    """What writes checkpoints while the training goes on; the end of the fit waits for it. An error is raised at the next one, or there."""
    return AsyncCheckpointIO(_WholeFiles())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint whose tensors are read when they are used.

    Raises DamagedCheckpoint where its bytes are not those that were written, where it cannot be read, and where it is another kind of file.
    One from before there were digests is read as it is.
    """
    remedy = "run its cell again, which sets it aside and trains anew"
    if not is_as_written(path):
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
    say(f"training: {str(why).partition(': ')[0]}; it is set aside as {aside.name}")
