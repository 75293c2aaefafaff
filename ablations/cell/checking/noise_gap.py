"""How much of what a fine prompt tells the UNet a trained E_T tells it from the coarse one: what L_mse is there for.

e(states) = mean over held-out pictures of || target - eps_theta(z_t, t, states) ||^2

Picture i of N has its latents, its noise and, as its timestep, the middle of the i-th of N equal parts of the noise schedule, the same
for every encoder, seed and arm.

gap closed = [e(frozen(T_C)) - e(E_T(T_C))] / [e(frozen(T_C)) - e(frozen(T_F))]

0 at step 0; 1 where the coarse prompt, read by E_T, does for the UNet what the fine one does; below 0 where training made it worse.
Shapes: N = pictures, B = batch, C H W = latents.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from datamodules.cfp import CFPDataModule
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.text_encoder import FineGrainedTextEncoder

NUM_PICTURES = 96
_NOISE_TAG = 0x501
_AT_ONCE = 32


@torch.no_grad()
def mse_gap_closed(
    encoder: FineGrainedTextEncoder, backbones: Backbones, data: CFPDataModule, num_pictures: int = NUM_PICTURES
) -> float | None:
    """The share of the gap that `encoder` closes on the first held-out records; None where there is no gap to close."""
    batches = list(data.held_out_batches(num_pictures, [backbones.latent_encoder()], _AT_ONCE))
    device, found = next(encoder.parameters()).device, sum(len(batch["ids_B"]) for batch in batches)

    def error(read: FineGrainedTextEncoder, tokens_of: Callable[[dict], Tensor]) -> float:
        total, first = 0.0, 0
        for batch in batches:
            states_BSD = read(tokens_of(batch).to(device)).states_BSD
            total += float(_errors(backbones, batch, states_BSD, first, found).sum())
            first += len(batch["ids_B"])
        return total / found

    frozen = backbones.text_encoder
    coarse, fine = error(frozen, _coarse), error(frozen, lambda batch: backbones.tokenize(batch["fine_prompts"]))
    return (coarse - error(encoder, _coarse)) / (coarse - fine) if coarse > fine else None


def _coarse(batch: dict) -> Tensor:
    return batch["text_tokens_BS"]


def _errors(backbones: Backbones, batch: dict, states_BSD: Tensor, first: int, num_pictures: int) -> Tensor:
    """Mean square error of each picture's prediction, (B,); `first` is the number of the batch's first picture."""
    model, device = backbones.text_to_image, states_BSD.device
    if "latent_mean_BCHW" in batch:
        mean_BCHW, logvar_BCHW = (batch[name].to(device) for name in ("latent_mean_BCHW", "latent_logvar_BCHW"))
    else:
        mean_BCHW, logvar_BCHW = backbones.latent_encoder().encode(batch["images_BCHW"]).values()
    shape = (2, *mean_BCHW.shape[1:])
    draws = [np.random.default_rng([int(id_), _NOISE_TAG]).standard_normal(shape, dtype=np.float32) for id_ in batch["ids_B"]]
    posterior_BCHW, noise_BCHW = torch.from_numpy(np.stack(draws)).to(device).unbind(dim=1)
    numbers_B = torch.arange(first, first + len(draws), device=device)
    timesteps_B = ((numbers_B + 0.5) / num_pictures * model.num_timesteps).long()
    latents_BCHW = model.sample_latents(mean_BCHW, logvar_BCHW, posterior_BCHW)
    prediction_BCHW, target_BCHW = model.predict(latents_BCHW, noise_BCHW, timesteps_B, states_BSD)
    return (prediction_BCHW.float() - target_BCHW.float()).square().flatten(1).mean(dim=1)
