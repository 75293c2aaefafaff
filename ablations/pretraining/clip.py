"""Stage 3: the tiny OpenCLIP, trained contrastively on the corpus' captions and pictures."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from ablations.pretraining.loop import Bench, Schedule, train
from ablations.pretraining.vae import to_tensor
from datamodules.tiny_world.grammar import draw_split
from datamodules.tiny_world.renderer import render
from lightning_modules.text_encoder import FineGrainedTextEncoder

BATCH = 128
# Captions of the tiny world have at most 31 tokens: the padding after them is not computed in pre-training.
TRAINED_POSITIONS = 32


def clip_pixels(images: torch.Tensor) -> torch.Tensor:
    """[-1, 1] is what the tiny OpenCLIP reads: its mean and standard deviation are 0.5."""
    return images


def train_clip(model, tokenize, schedule: Schedule, bench: Bench, name: str = "open_clip") -> dict:
    """Symmetric InfoNCE; captions with equal text in a batch count as one another's positives' copies and are masked."""
    corpus, device = bench.corpus, bench.device
    model.to(device)
    tower = FineGrainedTextEncoder(model, share=True)  # the model's own parameters, so that training reaches them
    ids = tokenize([caption.text for caption in corpus.captions])[:, :TRAINED_POSITIONS]

    def loss_of_step(step: int):
        rng = np.random.default_rng([bench.seed, 3, step])
        rows = np.sort(rng.choice(len(corpus), BATCH, replace=False))
        images = clip_pixels(to_tensor(corpus.images[rows])).to(device)
        tokens = ids[rows].to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            image_features = model.encode_image(images)
            text_features = tower(tokens).pooled_BE
        logits = (
            F.normalize(image_features.float(), dim=-1)
            @ F.normalize(text_features.float(), dim=-1).T
            * model.logit_scale.exp().clamp(max=100)
        )
        same = (tokens[:, None] == tokens[None]).all(-1) & ~torch.eye(BATCH, dtype=torch.bool, device=device)
        logits = logits.masked_fill(same, float("-inf"))
        target = torch.arange(BATCH, device=device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return loss, {"accuracy": (logits.argmax(-1) == target).float().mean().item(), "scale": model.logit_scale.exp().item()}

    return train(name, model, loss_of_step, schedule, bench.directory)


@torch.no_grad()
def clip_quality(model, tokenize, device: torch.device, groups: int = 4) -> dict[str, float]:
    """Image-to-text recall@1 among 64 distinct fine captions of the test split, mean over `groups` sets."""
    captions = draw_split("test", 64 * groups, seed=2)
    recalls = []
    for start in range(0, len(captions), 64):
        part = captions[start : start + 64]
        images = clip_pixels(to_tensor(np.stack([render(caption.description) for caption in part]))).to(device)
        image_features = F.normalize(model.encode_image(images), dim=-1)
        text_features = F.normalize(model.encode_text(tokenize([caption.text for caption in part]).to(device)), dim=-1)
        recalls.append(((image_features @ text_features.T).argmax(-1).cpu() == torch.arange(64)).float().mean().item())
    return {"clip_recall_at_1": sum(recalls) / groups, "captions_per_set": 64, "sets": groups}
