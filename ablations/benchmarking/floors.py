"""How far stages are from what the machine can do: operations and bytes of each, over what a matrix product and a copy reach here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ablations.benchmarking.machine import Reach
from ablations.benchmarking.sizes import Size
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule


@dataclass(frozen=True)
class Floor:
    """A stage: operations, bytes that it must move at least, seconds that it took, and the seconds that these come to at least."""

    stage: str
    flops: float
    moved: float
    seconds: float
    floor: float

    @property
    def reached(self) -> float:
        """The share of what the machine can do; 1 would be a matrix product."""
        return self.floor / self.seconds


def count_flops(work: Callable[[], object]) -> float:
    """Operations of the matrix products, convolutions and attention in a call, backward passes included."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def floor_of(stage: str, work: Callable[[], object], moved: float, seconds: float, reach: Reach) -> Floor:
    """Counts one call of `work`, which took `seconds` when it was timed."""
    flops = count_flops(work)
    return Floor(stage, flops, moved, seconds, reach.floor(flops, moved))


def bytes_of_step(backbones: Backbones, module: PromptRefinerModule) -> float:
    """Weights that a training step must read: the frozen networks twice, what is trained three times, and Adam's moments read and written.

    Activations are left out: how often they go through memory is what a better kernel could save.
    """
    frozen = _bytes(backbones.text_to_image.unet) + _bytes(backbones.decoder.t5)
    trained = sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
    return 2 * frozen + 3 * trained + 4 * trained


def bytes_of_drawing(size: Size, backbones: Backbones) -> float:
    """Weights that a batch of pictures must read: the UNet's once a step, the VAE's once."""
    return size.steps * _bytes(backbones.text_to_image.unet) + _bytes(backbones.text_to_image.vae)


def _bytes(network: nn.Module) -> float:
    return float(sum(parameter.numel() * parameter.element_size() for parameter in network.parameters()))


@torch.no_grad()
def encoding(size: Size, backbones: Backbones, device: torch.device) -> Callable[[], object]:
    """What fills the feature cache with latents, for a batch of pictures."""
    side = backbones.text_to_image.image_size
    images_BCHW = torch.rand(size.batch_size, 3, side, side, device=device) * 2 - 1
    return lambda: backbones.text_to_image.encode(images_BCHW)


def bytes_of_encoding(backbones: Backbones) -> float:
    """The VAE's weights, once a batch."""
    return _bytes(backbones.text_to_image.vae)
