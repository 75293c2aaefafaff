"""Where a cell computes, and which precision that allows."""

from __future__ import annotations

import torch

from ablations.config import Config
from ablations.runtime.errors import UserError


def device_of(config: Config) -> torch.device:
    """Where the frozen networks encode, draw and score; Lightning moves the trained ones there too."""
    if config.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if config.trainer.accelerator in ("gpu", "cuda"):
        raise UserError(f"trainer.accelerator={config.trainer.accelerator}, but torch sees no CUDA device: use auto or cpu")
    if config.trainer.accelerator in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def require_device(config: Config) -> None:
    """Raises UserError where the device that the config asks for is not there, or does not compute as it asks."""
    require_precision(config, device_of(config))


def require_precision(config: Config, device: torch.device) -> None:
    """Raises UserError for half precision of 5 exponent bits off a GPU: it overflows, and Lightning would take bf16 in its place."""
    if device.type != "cuda":
        if config.train.precision == "16-mixed":
            raise UserError(f"train.precision=16-mixed needs a CUDA GPU, but this runs on {device}: set it to bf16-mixed or 32-true")
        if config.backbones.frozen_dtype == "float16":
            raise UserError(f"backbones.frozen_dtype=float16 needs a CUDA GPU, but this runs on {device}: set it to bfloat16 or float32")
