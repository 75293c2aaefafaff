"""Where a cell computes, which numbers the device computes with, and which precision that allows.

Networks are built on the CPU and moved then: what they start as is the same whatever they run on.
"""

from __future__ import annotations

import torch

from ablations.config import Config
from ablations.config.names import is_rehearsal
from ablations.runtime.errors import UserError, one_line


def kinds() -> tuple[str, ...]:
    """The kinds of device that torch sees here, as torch calls them, the fastest first; the CPU is always the last."""
    seen = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return tuple(kind for kind, is_there in seen.items() if is_there)


def best_device() -> torch.device:
    """The fastest device that torch sees here."""
    return torch.device(kinds()[0])


def device_of(config: Config) -> torch.device:
    """Where everything of a cell computes, training included.

    Raises UserError for a kind of device that is not here, and for the paper's networks where there is only a CPU and nobody asked for it.
    """
    asked, here = config.trainer.accelerator, kinds()
    kind = {"auto": here[0], "gpu": "cuda"}.get(asked, asked)
    if kind not in here:
        called = {"cuda": "CUDA device", "mps": "Apple GPU"}[kind]
        raise UserError(f"trainer.accelerator={asked}, but torch sees no {called}: use auto or cpu")
    if asked == "auto" and kind == "cpu" and config.profile == "paper" and not is_rehearsal(config):
        raise UserError(
            f"profile=paper is for a GPU, but torch sees none here ({why_no_cuda()}): docs/paper_profile.md says what it needs; "
            "trainer.accelerator=cpu runs it on the CPU all the same"
        )
    return torch.device(kind)


def why_no_cuda() -> str:
    """What torch says about its missing CUDA device, in one line."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    try:
        torch.cuda.init()
    except Exception as error:  # the driver's many ways to be absent or too old
        return f"torch {torch.__version__}: {one_line(error).partition('. ')[0]}"
    return f"torch {torch.__version__} counts no device"


def ready(device: torch.device) -> torch.device:
    """The device, with torch set to its numbers: TF32 in the float32 matmuls of a CUDA device, and the CPU as it has always computed."""
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else "highest")
    return device


def require_device(config: Config) -> None:
    """Raises UserError where the device that the config asks for is not there, or does not compute as it asks."""
    require_precision(config, device_of(config))


def require_precision(config: Config, device: torch.device) -> None:
    """Raises UserError for half precision that the device has not.

    Numbers of 5 exponent bits overflow off a GPU, and Lightning would take bf16 in their place; GPUs from before 2020 imitate bf16.
    """
    if device.type != "cuda":
        if config.train.precision == "16-mixed":
            raise UserError(f"train.precision=16-mixed needs a CUDA GPU, but this runs on {device}: set it to bf16-mixed or 32-true")
        if "float16" in (config.backbones.frozen_dtype, config.backbones.vae_dtype):
            key = "frozen_dtype" if config.backbones.frozen_dtype == "float16" else "vae_dtype"
            raise UserError(f"backbones.{key}=float16 needs a CUDA GPU, but this runs on {device}: set it to bfloat16 or float32")
    elif config.train.precision == "bf16-mixed" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported(False):
        raise UserError(
            f"train.precision=bf16-mixed needs a GPU with bfloat16, which {torch.cuda.get_device_name(device)} has not: "
            "set it to 16-mixed or 32-true, and backbones.frozen_dtype=float16 or float32 with it"
        )
