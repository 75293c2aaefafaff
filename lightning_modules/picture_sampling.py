"""Pictures by Euler ancestral sampling with classifier-free guidance, each picture's noise from a seed of its own.

Shapes in this file: B = pictures, S = text positions, D = text width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers import EulerAncestralDiscreteScheduler, SchedulerMixin
from torch import Tensor, nn

from lightning_modules.frozen_precision import in_precision_of


class PictureSampler:
    """A frozen VAE and UNet that draw. Deliberately no nn.Module: belongs to no checkpoint and no optimiser."""

    def __init__(self, vae: nn.Module, unet: nn.Module, noise_scheduler: SchedulerMixin):
        # Channels last: the tiny VAE encoded in 0.65 and decoded in 0.8 of the time, side by side on a busy CPU; the UNet, most of which
        # is no convolution, gained nothing there.
        self.vae = vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.unet = unet.eval().requires_grad_(False)
        self.noise_scheduler = noise_scheduler
        self.scaling_factor = float(vae.config.scaling_factor)
        self._compiled_unet: Callable | None = None

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def image_size(self) -> int:
        """Height and width in pixels of the pictures that the UNet was trained for."""
        return self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def new_scheduler(self) -> SchedulerMixin:
        """What leads from noise to a picture, at its start."""
        return EulerAncestralDiscreteScheduler.from_config(self.noise_scheduler.config)

    def _run_unet(self, latents_BCHW: Tensor, timesteps: Tensor, states_BSD: Tensor) -> Tensor:
        unet = self.unet if self._compiled_unet is None else self._compiled_unet
        return unet(in_precision_of(self.unet, latents_BCHW), timesteps, in_precision_of(self.unet, states_BSD)).sample

    @torch.no_grad()
    def generate(
        self,
        states_BSD: Tensor,
        empty_states_1SD: Tensor,
        image_seeds: Sequence[int | torch.Generator],
        *,
        steps: int,
        guidance_scale: float,
        batch_size: int = 64,
    ) -> np.ndarray:
        """Pictures, uint8 (B, height, width, 3), by Euler ancestral sampling with classifier-free guidance.

        Picture i's noise, first and ancestral, comes from `image_seeds[i]` alone: equal seeds share all noise, whatever the batch. In a
        seed's place a generator may stand, which is drawn from as it is. A guidance scale of 1 is no guidance: the pass without the
        prompt is left out. The pictures are clipped to what uint8 holds.
        """
        if len(states_BSD) != len(image_seeds):
            raise ValueError(f"{len(states_BSD)} prompts but {len(image_seeds)} image seeds")
        parts = [
            self._generate_batch(states_BSD[i : i + batch_size], empty_states_1SD, image_seeds[i : i + batch_size], steps, guidance_scale)
            for i in range(0, len(image_seeds), batch_size)
        ]
        return np.concatenate([np.empty((0, self.image_size, self.image_size, 3), dtype=np.uint8), *parts])

    def _generate_batch(self, states_BSD: Tensor, empty_1SD: Tensor, seeds: Sequence, steps: int, scale: float) -> np.ndarray:
        scheduler = self.new_scheduler()
        scheduler.set_timesteps(steps, device=self.device)
        generators = [seed if isinstance(seed, torch.Generator) else torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]
        noise = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
        config = self.unet.config
        shape = (config.in_channels, config.sample_size, config.sample_size)
        first = [torch.randn(shape, generator=generator, device=generator.device).to(self.device) for generator in generators]
        latents = torch.stack(first) * scheduler.init_noise_sigma
        conditioning = states_BSD if scale == 1 else torch.cat([empty_1SD.expand_as(states_BSD), states_BSD])
        for timestep in scheduler.timesteps:
            inputs = scheduler.scale_model_input(latents, timestep)
            if scale == 1:
                prediction = self._run_unet(inputs, timestep, conditioning).float()
            else:
                unguided, guided = self._run_unet(torch.cat([inputs, inputs]), timestep, conditioning).float().chunk(2)
                prediction = unguided + scale * (guided - unguided)
            latents = scheduler.step(prediction, timestep, latents, **noise).prev_sample
        images = self.vae.decode(in_precision_of(self.vae, latents / self.scaling_factor)).sample.float()
        return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
