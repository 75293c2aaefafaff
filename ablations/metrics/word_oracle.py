"""The tiny world's word oracle: which subject, style and quality words can be seen in a picture.

A small convolutional network trained on renders only, never on generated pictures; it sees pixels and no prompt. Its
accuracy on held-out renders, before and after the VAE, stands in its provenance file. Words of the prompt come in only
afterwards, when a reader asks which of a prompt's words were drawn.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ablations.metrics.weights import load_shipped
from datamodules.tiny_world.grammar import QUALITIES, STYLES, SUBJECTS, SceneDescription

WEIGHTS = Path(__file__).with_name("tiny_word_oracle.safetensors")


class OracleLogits(NamedTuple):
    """subject (B, 10); style (B, 7), the last being "no style"; qualities (B, 6), one logit for each word."""

    subject: Tensor
    style: Tensor
    qualities: Tensor


class WordOracle(nn.Module):
    """Classifies float pictures (B, 3, 64, 64) in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in (32, 64, 96, 128):
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers, nn.Conv2d(channels, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.Flatten())
        self.sizes = (len(SUBJECTS), len(STYLES) + 1, len(QUALITIES))
        self.head = nn.Linear(128 * 4 * 4, sum(self.sizes))

    def forward(self, images: Tensor) -> OracleLogits:
        return OracleLogits(*self.head(self.features(images)).split(self.sizes, dim=-1))


def style_class(style: str | None) -> int:
    """The index of a style in STYLES; len(STYLES) for None, a plain photograph."""
    return (*STYLES, None).index(style)


class WordsSeen(NamedTuple):
    """For B pictures: the subject recognised, the style (None for a plain photograph) and the set of quality words."""

    subjects: list[str]
    styles: list[str | None]
    qualities: list[frozenset[str]]


@lru_cache(maxsize=1)
def load_word_oracle() -> WordOracle:
    """The shipped oracle, in evaluation mode. Raises UserError for a file that is damaged."""
    oracle = WordOracle()
    load_shipped(oracle, WEIGHTS)
    return oracle.eval()


@torch.no_grad()
def words_seen(images: np.ndarray, oracle: WordOracle | None = None) -> WordsSeen:
    """What the oracle sees in uint8 pictures (B, 64, 64, 3). Raises ValueError for another shape or type."""
    if images.dtype != np.uint8 or images.shape[1:] != (64, 64, 3):
        raise ValueError(f"the word oracle reads uint8 pictures of shape (B, 64, 64, 3), got {images.dtype} {images.shape}")
    oracle = oracle or load_word_oracle()
    parts = [oracle(torch.from_numpy(np.array(part)).permute(0, 3, 1, 2).float() / 127.5 - 1) for part in _in_parts(images)]
    logits = OracleLogits(*(torch.cat(column) for column in zip(*parts, strict=True)))
    return WordsSeen(
        [SUBJECTS[i] for i in logits.subject.argmax(-1).tolist()],
        [(*STYLES, None)[i] for i in logits.style.argmax(-1).tolist()],
        [frozenset(word for word, there in zip(QUALITIES, row, strict=True) if there) for row in (logits.qualities > 0).tolist()],
    )


def _in_parts(images: np.ndarray, size: int = 256) -> list[np.ndarray]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def word_scores(seen: WordsSeen, index: int, truth: SceneDescription) -> dict[str, float]:
    """Scores of picture `index` against what the fine prompt describes, each in [0, 1].

    subject_kept: the subject is recognised. words_drawn: share of the fine prompt's style and quality words that can be
    seen. style_drawn: the style word alone.
    """
    style_drawn = float(seen.styles[index] == truth.style)
    drawn = [style_drawn] * (truth.style is not None) + [float(word in seen.qualities[index]) for word in truth.qualities]
    if not drawn:
        raise ValueError("the truth names no style or quality word, so none can be counted")
    return {
        "subject_kept": float(seen.subjects[index] == truth.subject),
        "words_drawn": sum(drawn) / len(drawn),
        "style_drawn": style_drawn,
    }
