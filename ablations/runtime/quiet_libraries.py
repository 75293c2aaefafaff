"""Keeps libraries from talking about themselves: what they print at import is not about the user's run."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Call before heavy imports. Warnings about our own code stay."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # W&B reports on itself to its server, once a minute and at the end, offline too.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    for name in ("diffusers", "transformers", "open_clip", "pytorch_lightning", "lightning", "torch.distributed", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in ("pytorch_lightning", "lightning_fabric", "lightning_utilities", "timm", "pyiqa", "torchvision", "stlpips_pytorch"):
        warnings.filterwarnings("ignore", module=rf"{module}(\..*)?")
