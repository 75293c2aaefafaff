"""Stage 6: the latent diffusion UNet, conditioned on the frozen text tower's states, and its evaluation.

v-prediction with the loss weighted by min(SNR, 5) / (SNR + 1) (Hang et al. 2023): at this size it learns shapes sooner
than a plain noise loss. One caption in ten is dropped, for classifier-free guidance.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor

from ablations.pretraining.loop import Bench, Schedule, save_atomically, train
from ablations.pretraining.vae import to_tensor
from lightning_modules.frozen_features import digest_of
from lightning_modules.text_encoder import FineGrainedTextEncoder

BATCH = 128
CAPTION_DROPOUT = 0.1
MAX_SNR = 5.0


@torch.no_grad()
def encode_corpus(vae, bench: Bench) -> tuple[Tensor, Tensor]:
    """The VAE's posterior mean and standard deviation of every picture, float16 (N, C, 8, 8), kept on disk."""
    corpus, device = bench.corpus, bench.device
    path, made_from = bench.directory / "latents.pt", digest_of((corpus.digest,), vae)
    if path.exists():
        stored = torch.load(path, weights_only=True)
        if stored.get("made_from") == made_from:
            return stored["mean"], stored["std"]
    means, stds = [], []
    for start in range(0, len(corpus), 256):
        images = to_tensor(corpus.images[start : start + 256]).to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            posterior = vae.encode(images).latent_dist
        means.append(posterior.mean.half().cpu())
        stds.append(posterior.std.half().cpu())
        if start % 5120 == 0:
            print(f"latents: {start}/{len(corpus)}", flush=True)
    mean, std = torch.cat(means), torch.cat(stds)
    save_atomically({"mean": mean, "std": std, "made_from": made_from}, path)
    return mean, std


@torch.no_grad()
def encode_captions(clip_model, tokenize, texts: list[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """Text states of the distinct texts, bfloat16 (M, S, D), and for each text its row, int64 (N,). Row 0 is the empty text."""
    encoder = FineGrainedTextEncoder(clip_model).to(device).eval()
    rows = {"": 0}
    index = torch.tensor([rows.setdefault(text, len(rows)) for text in texts])
    states = []
    for tokens in tokenize(list(rows)).split(512):
        states.append(encoder(tokens.to(device)).states_BSD.bfloat16())
    return torch.cat(states), index


def train_unet(unet, vae, scheduler: DDPMScheduler, clip_model, tokenize, schedule: Schedule, bench: Bench) -> dict:
    """Train on the corpus' latents, scaled by `vae.config.scaling_factor`."""
    corpus, device = bench.corpus, bench.device
    mean_NCHW, std_NCHW = encode_corpus(vae, bench)
    states_MSD, caption_row_N = encode_captions(clip_model, tokenize, [caption.text for caption in corpus.captions], device)
    print(f"unet: {len(corpus)} pictures, {len(states_MSD)} distinct captions", flush=True)
    # On a CPU the fused attention's backward pass takes half of the step at these sizes; plain matrix products do not.
    unet.set_attn_processor(AttnProcessor() if device.type == "cpu" else AttnProcessor2_0())
    unet.to(device, memory_format=torch.channels_last)
    factor = vae.config.scaling_factor
    alphas_cumprod = scheduler.alphas_cumprod.to(device)

    def loss_of_step(step: int):
        rng = np.random.default_rng([bench.seed, 6, step])
        rows = torch.from_numpy(rng.choice(len(corpus), BATCH, replace=False))
        shape = (BATCH, *mean_NCHW.shape[1:])
        draw = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(device)
        timesteps = torch.from_numpy(rng.integers(scheduler.config.num_train_timesteps, size=BATCH)).to(device)
        dropped = torch.from_numpy(rng.random(BATCH) < CAPTION_DROPOUT)
        latents = ((mean_NCHW[rows].float() + std_NCHW[rows].float() * draw) * factor).to(device, memory_format=torch.channels_last)
        states = states_MSD[torch.where(dropped, 0, caption_row_N[rows])]
        noisy = scheduler.add_noise(latents, noise, timesteps)
        target = scheduler.get_velocity(latents, noise, timesteps)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            prediction = unet(noisy, timesteps, states).sample
        snr = alphas_cumprod[timesteps] / (1 - alphas_cumprod[timesteps])
        weight = snr.clamp(max=MAX_SNR) / (snr + 1)
        error = (prediction.float() - target).pow(2).mean(dim=(1, 2, 3))
        return (weight * error).sum() / weight.sum(), {"unweighted": error.mean().item()}

    summary = train("unet", unet, loss_of_step, schedule, bench.directory, made_from=digest_of((factor,), vae, clip_model))
    unet.set_attn_processor(AttnProcessor2_0())
    return summary
