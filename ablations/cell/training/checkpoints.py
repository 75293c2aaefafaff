"""Writing a training's checkpoints, whole and in the background, and reading them, their label first. See `results.checkpoints`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

from ablations.runtime.files import whole_file


class _WholeFiles(TorchCheckpointIO):
    """Writes each checkpoint whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        with whole_file(path) as aside:
            torch.save(checkpoint, aside)


def in_background() -> AsyncCheckpointIO:
    """What writes checkpoints while the training goes on; the end of the fit waits for it. An error is raised at the next one, or there."""
    return AsyncCheckpointIO(_WholeFiles())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint whose tensors are read when they are used: its label costs nothing."""
    return torch.load(path, weights_only=True, map_location="cpu", mmap=True)
