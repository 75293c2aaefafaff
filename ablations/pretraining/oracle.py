"""Stage 5: the word oracle, trained on renders only and tested on renders before and after the VAE."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from ablations.metrics.word_oracle import OracleLogits, WordOracle
from ablations.pretraining.data import draw_captions
from ablations.pretraining.loop import Bench, Schedule, train
from ablations.pretraining.vae import to_tensor
from datamodules.tiny_world.grammar import QUALITIES, STYLES, SUBJECTS, Caption
from datamodules.tiny_world.renderer import render

BATCH = 128


def _labels(captions: list[Caption]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    descriptions = [caption.description for caption in captions]
    subject = torch.tensor([SUBJECTS.index(d.subject) for d in descriptions])
    style = torch.tensor([len(STYLES) if d.style is None else STYLES.index(d.style) for d in descriptions])
    qualities = torch.tensor([[float(word in d.qualities) for word in QUALITIES] for d in descriptions])
    return subject, style, qualities


def train_oracle(oracle: WordOracle, schedule: Schedule, bench: Bench) -> dict:
    """Fit the oracle to the corpus' renders, shifted by up to 3 px and slightly changed in brightness."""
    corpus, device = bench.corpus, bench.device
    oracle.to(device)
    subject, style, qualities = _labels(corpus.captions)

    def loss_of_step(step: int):
        rng = np.random.default_rng([bench.seed, 5, step])
        rows = np.sort(rng.choice(len(corpus), BATCH, replace=False))
        images = F.pad(to_tensor(corpus.images[rows]), (3, 3, 3, 3), mode="replicate")
        top, left = rng.integers(7, size=2)
        images = images[:, :, top : top + 64, left : left + 64] + float(rng.uniform(-0.08, 0.08))
        logits: OracleLogits = oracle(images.to(device))
        loss = F.cross_entropy(logits.subject, subject[rows].to(device)) + F.cross_entropy(logits.style, style[rows].to(device))
        loss = loss + 2 * F.binary_cross_entropy_with_logits(logits.qualities, qualities[rows].to(device))
        return loss, {"subject": (logits.subject.argmax(-1).cpu() == subject[rows]).float().mean().item()}

    return train("oracle", oracle, loss_of_step, schedule, bench.directory)


@torch.no_grad()
def oracle_quality(oracle: WordOracle, vae, device: torch.device, count: int = 1024) -> dict[str, float]:
    """Accuracy per head on fresh renders ("render_...") and on the same after the VAE ("vae_..."), in [0, 1]."""
    captions = draw_captions(count, seed=99)
    images = to_tensor(np.stack([render(caption.description) for caption in captions])).to(device)
    decoded = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1) for part in images.split(128)])
    subject, style, qualities = _labels(captions)
    result: dict[str, float] = {}
    for name, pictures in (("render", images), ("vae", decoded)):
        parts = [oracle(part) for part in pictures.split(256)]
        result[f"{name}_subject"] = (torch.cat([p.subject for p in parts]).argmax(-1).cpu() == subject).float().mean().item()
        result[f"{name}_style"] = (torch.cat([p.style for p in parts]).argmax(-1).cpu() == style).float().mean().item()
        right = (torch.cat([p.qualities for p in parts]).cpu() > 0) == (qualities > 0)
        for word, share in zip(QUALITIES, right.float().mean(0).tolist(), strict=True):
            result[f"{name}_{word}"] = share
    return {key: round(value, 4) for key, value in result.items()}
