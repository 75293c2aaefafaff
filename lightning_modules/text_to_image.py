"""The frozen text-to-image model: latents, and noise prediction for L_mse; how it draws stands in `picture_sampling`.

Shapes in this file: B = pictures, C = latent channels, H W = latent height and width, S = text positions, D = text width.
"""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from lightning_modules.frozen_precision import in_precision_of, outside_autocast
from lightning_modules.picture_sampling import PictureSampler


class TextToImage(PictureSampler):
    """VAE, UNet and noise schedule, all frozen: what draws, and what L_mse is computed through."""

    noise_scheduler: DDPMScheduler

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
