"""The frozen text-to-image model: latents, noise prediction for L_mse, and images by classifier-free guidance.

Shapes in this file: B = pictures, C = latent channels, H W = latent height and width, S = text positions, D = text width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers import DDPMScheduler, EulerAncestralDiscreteScheduler
from torch import Tensor, nn

from lightning_modules.frozen_precision import in_precision_of, outside_autocast


class TextToImage:
    """VAE, UNet and noise schedule, all frozen. Deliberately no nn.Module: belongs to no checkpoint and no optimiser."""

    def __init__(self, vae: nn.Module, unet: nn.Module, noise_scheduler: DDPMScheduler):
        # Channels last: the tiny VAE encoded in 0.65 and decoded in 0.8 of the time, side by side on a busy CPU; the UNet, most of which
        # is no convolution, gained nothing there.
        self.vae = vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.unet = unet.eval().requires_grad_(False)
        self.noise_scheduler = noise_scheduler
        self.scaling_factor = float(vae.config.scaling_factor)
        self._compiled_unet: Callable | None = None

    def set_speed(self, *, checkpoint: bool = False, compile: bool = False) -> None:
        """How the UNet runs, the weights being the same: `checkpoint` recomputes its activations in the backward pass (less memory, more
        time, the same numbers), `compile` runs it through torch.compile (the same numbers to rounding)."""
        if checkpoint:
            self.unet.enable_gradient_checkpointing()
        else:
            self.unet.disable_gradient_checkpointing()
        if not compile:
            self._compiled_unet = None
        elif self._compiled_unet is None:
            self._compiled_unet = torch.compile(self.unet)

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def image_size(self) -> int:
        """Height and width in pixels of the pictures that the UNet was trained for."""
        return self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def num_timesteps(self) -> int:
        return self.noise_scheduler.config.num_train_timesteps

    def to(self, device: torch.device) -> TextToImage:
        self.vae.to(device)
        # Published for this very gradient through a frozen UNet on an A100: 16.4 samples a second, channels last 20.2.
        self.unet.to(device, memory_format=torch.channels_last if device.type == "cuda" else torch.preserve_format)
        self.noise_scheduler.alphas_cumprod = self.noise_scheduler.alphas_cumprod.to(device)
        return self

    @torch.no_grad()
    def encode(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior's mean and log-variance of pictures in [-1, 1], unscaled, laid out as a cache gives them back."""
        posterior = self.vae.encode(in_precision_of(self.vae, images_BCHW)).latent_dist
        return posterior.mean.contiguous(), posterior.logvar.contiguous()

    def sample_latents(self, mean_BCHW: Tensor, logvar_BCHW: Tensor, draw_BCHW: Tensor) -> Tensor:
        """Scaled latents from the posterior and standard normal draws."""
        return (mean_BCHW + (0.5 * logvar_BCHW).exp() * draw_BCHW) * self.scaling_factor

    def predict(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor, states_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """The UNet's prediction for noised latents and its target; the gradient reaches `states_BSD` through the UNet."""
        noisy_BCHW = self.noise_scheduler.add_noise(latents_BCHW, noise_BCHW, timesteps_B)
        with outside_autocast(self.device):
            prediction_BCHW = self._run_unet(noisy_BCHW, timesteps_B, states_BSD)
        kind = self.noise_scheduler.config.prediction_type
        if kind == "epsilon":
            return prediction_BCHW, noise_BCHW
        if kind == "v_prediction":
            return prediction_BCHW, self.noise_scheduler.get_velocity(latents_BCHW, noise_BCHW, timesteps_B)
        raise ValueError(f"L_mse knows prediction types epsilon and v_prediction, not {kind!r}")

    def _run_unet(self, latents_BCHW: Tensor, timesteps: Tensor, states_BSD: Tensor) -> Tensor:
        unet = self.unet if self._compiled_unet is None else self._compiled_unet
        return unet(in_precision_of(self.unet, latents_BCHW), timesteps, in_precision_of(self.unet, states_BSD)).sample

    @torch.no_grad()
    def generate(
        self,
        states_BSD: Tensor,
        empty_states_1SD: Tensor,
        image_seeds: Sequence[int],
        *,
        steps: int,
        guidance_scale: float,
        batch_size: int = 64,
    ) -> np.ndarray:
        """Pictures, uint8 (B, height, width, 3), by Euler ancestral sampling with classifier-free guidance.

        Picture i's noise, first and ancestral, comes from `image_seeds[i]` alone: equal seeds share all noise, whatever the
        batch. A guidance scale of 1 is no guidance: the pass without the prompt is left out. The pictures are clipped to what
        uint8 holds.
        """
        if len(states_BSD) != len(image_seeds):
            raise ValueError(f"{len(states_BSD)} prompts but {len(image_seeds)} image seeds")
        parts = [
            self._generate_batch(states_BSD[i : i + batch_size], empty_states_1SD, image_seeds[i : i + batch_size], steps, guidance_scale)
            for i in range(0, len(image_seeds), batch_size)
        ]
        return np.concatenate([np.empty((0, self.image_size, self.image_size, 3), dtype=np.uint8), *parts])

    def _generate_batch(self, states_BSD: Tensor, empty_1SD: Tensor, seeds: Sequence[int], steps: int, scale: float) -> np.ndarray:
        scheduler = EulerAncestralDiscreteScheduler.from_config(self.noise_scheduler.config)
        scheduler.set_timesteps(steps, device=self.device)
        generators = [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]
        config = self.unet.config
        shape = (config.in_channels, config.sample_size, config.sample_size)
        latents = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(self.device)
        latents = latents * scheduler.init_noise_sigma
        conditioning = states_BSD if scale == 1 else torch.cat([empty_1SD.expand_as(states_BSD), states_BSD])
        for timestep in scheduler.timesteps:
            inputs = scheduler.scale_model_input(latents, timestep)
            if scale == 1:
                prediction = self._run_unet(inputs, timestep, conditioning).float()
            else:
                unguided, guided = self._run_unet(torch.cat([inputs, inputs]), timestep, conditioning).float().chunk(2)
                prediction = unguided + scale * (guided - unguided)
            latents = scheduler.step(prediction, timestep, latents, generator=generators).prev_sample
        images = self.vae.decode(in_precision_of(self.vae, latents / self.scaling_factor)).sample.float()
        return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
