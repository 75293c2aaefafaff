"""Stage 2: the VAE, trained on whole pictures with mean squared error and a weak KL term."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ablations.pretraining.loop import Bench, Schedule, train
from datamodules.tiny_world.grammar import draw_split
from datamodules.tiny_world.renderer import high_quality, render

KL_WEIGHT = 2e-4
BATCH = 12


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) to float (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_vae(vae, schedule: Schedule, bench: Bench, batch: int = BATCH, crisp_share: float = 0.75) -> dict:
    """Fit `vae` to the corpus; returns the loop's summary.

    `crisp_share` of the batches show sharp pictures only: blurred ones are learned in passing.
    """
    corpus, device = bench.corpus, bench.device
    vae.to(device, memory_format=torch.channels_last)
    crisp = np.array([i for i, caption in enumerate(corpus.captions) if "sharp focus" in caption.description.qualities])

    def loss_of_step(step: int):
        rng = np.random.default_rng([bench.seed, 2, step])
        rows = np.sort(rng.choice(crisp if step % 4 >= 4 * (1 - crisp_share) else len(corpus), batch, replace=False))
        images = to_tensor(corpus.images[rows]).to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            noise = torch.from_numpy(rng.standard_normal(posterior.mean.shape, dtype=np.float32)).to(device)
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        error = (decoded.float() - images).pow(2).mean()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        divergence = 0.5 * (mean.pow(2) + logvar.exp() - 1 - logvar).mean()
        return error + KL_WEIGHT * divergence, {"mse": error.item(), "kl": divergence.item()}

    return train("vae", vae, loss_of_step, schedule, bench.directory)


@torch.no_grad()
def widen(vae, narrow: dict[str, Tensor]) -> None:
    """Start `vae` from a trained one with fewer latent channels; the new channels start small and carry what is left over."""
    wide = vae.state_dict()
    for name, value in narrow.items():
        target = wide[name]
        if target.shape == value.shape:
            target.copy_(value)
            continue
        few, many = value.shape[0], target.shape[0]
        if name.startswith("decoder.conv_in"):
            target.mul_(0.1)
            target[:, : value.shape[1]] = value
        elif name.startswith("post_quant_conv"):
            target.copy_(torch.eye(many)[..., None, None] if target.ndim == 4 else torch.zeros(many))
            target[:few] = 0
            target[(slice(few), slice(few)) if target.ndim == 4 else slice(few)] = value
        else:  # mean channels first, then as many log-variances
            few, many = few // 2, many // 2
            if name.startswith("quant_conv") and target.ndim == 4:
                target.copy_(torch.eye(2 * many)[..., None, None])
                columns = [*range(few), *range(many, many + few)]
                target[columns] = 0
                target[[[row] for row in columns], columns] = value
            else:
                target[:few] = value[:few]
                target[many : many + few] = value[few:]
    vae.load_state_dict(wide)


@torch.no_grad()
def vae_quality(vae, device: torch.device, count: int = 256) -> dict[str, float]:
    """PSNR in dB on high-quality renders of the test split, mean over pictures, and the latents' standard deviation."""
    descriptions = [high_quality(caption.description) for caption in draw_split("test", count, seed=1)]
    images = to_tensor(np.stack([render(d) for d in descriptions])).to(device)
    psnr, spread = [], []
    for batch in images.split(64):
        latents = vae.encode(batch).latent_dist.mean
        error = (vae.decode(latents).sample.clamp(-1, 1) - batch).div(2).pow(2).mean(dim=(1, 2, 3))
        psnr.append(-10 * error.log10())
        spread.append(latents)
    return {"vae_psnr_db": torch.cat(psnr).mean().item(), "latent_std": torch.cat(spread).std().item(), "images": count}
