"""What chance decides in a training step: the noise, the timestep and the draw from the VAE's posterior of each record.

Each is a function of seed, epoch, record id and the kind of draw alone, on the CPU: the same numbers whoever draws them, in a step or, so
that no device waits for them, in the processes that load data.

Shapes in this file: B = batch, C = latent channels, H W = latent height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NOISE, TIMESTEP, POSTERIOR = 0x401, 0x402, 0x403


def normal(keys: Sequence[tuple[int, ...]], shape: tuple[int, ...], tag: int) -> Tensor:
    """Standard normal draws, float32 (B, *shape); row i is a function of `keys[i]` and `tag`."""
    return torch.from_numpy(np.stack([np.random.default_rng([*key, tag]).standard_normal(shape, dtype=np.float32) for key in keys]))


def timesteps(keys: Sequence[tuple[int, ...]], count: int) -> Tensor:
    """A timestep from 0 to count - 1 for each row, int64 (B,)."""
    return torch.tensor(np.array([np.random.default_rng([*key, TIMESTEP]).integers(count) for key in keys]))


@dataclass(frozen=True)
class StepChance:
    """Draws what L_mse needs of a batch beforehand: hand it to the data module. It goes to other processes as it is."""

    seed: int
    latent_shape: tuple[int, int, int]
    num_timesteps: int

    def __call__(self, draw_seeds: Tensor) -> dict[str, Tensor]:
        """Of the records whose (epoch, id) are `draw_seeds`, int64 (B, 2): noise_BCHW, posterior_draw_BCHW and timesteps_B."""
        keys = [(self.seed, *key) for key in draw_seeds.tolist()]
        return {
            "noise_BCHW": normal(keys, self.latent_shape, NOISE),
            "posterior_draw_BCHW": normal(keys, self.latent_shape, POSTERIOR),
            "timesteps_B": timesteps(keys, self.num_timesteps),
        }
