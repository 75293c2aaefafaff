"""The figures of the manipulation checks on held-out records: AFE's weights, retrieval, in-batch accuracy.

No single figure shows that AFE was delivered: a projection alone lowers the cosine to the pooled feature, weights may differ and matter
to nobody, and random weights may pass them all. They are read together, and beside the twins.

Shapes: N = held-out records, T = texts, M = pictures, V = feature vectors of a picture, K = weights (H, K with heads), E = joint-space
width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.cell.checking.held_out import HeldOut
from lightning_modules.adaptive_features import Pictures, Reading, entropy
from lightning_modules.losses import ClipContrastiveLoss

GROUP_SIZE = 64
# Texts at a time where each reads every picture in its own way.
_TEXTS_AT_ONCE = 8
Whose = Literal["own", "mean", "other"]


def retrieval(text_TE: Tensor, groups_T: Tensor, represented: Iterator[tuple[slice, Tensor]], groups_M: Tensor) -> float:
    """Share of texts, in [0, 1], whose nearest picture by cosine belongs to a record of the same text; the higher the better.

    `represented` gives slices of the texts and what they are compared with, (M, E) or (T, M, E).
    """
    hits = 0
    for part, images_ME in represented:
        pattern = "te,tme->tm" if images_ME.dim() == 3 else "te,me->tm"
        cosines_TM = torch.einsum(pattern, F.normalize(text_TE[part], dim=-1), F.normalize(images_ME, dim=-1))
        hits += int((groups_M[cosines_TM.argmax(dim=1)] == groups_T[part]).sum())
    return hits / len(text_TE)


def represented(reading: Reading | None, pictures: Pictures, text_TE: Tensor, whose: Whose = "own") -> Iterator[tuple[slice, Tensor]]:
    """Pictures as texts read them, in parts of the texts: under the pictures' own weights, their mean over pictures, or another's.

    The other picture is the next one, cyclically. For a reading that asks the text the mean is over pairs of a text and its own picture.
    """
    vectors_MVE = pictures.vectors_MVE
    if reading is None:
        yield slice(None), pictures.pooled_ME
        return
    weighed_MVE = vectors_MVE.roll(-1, dims=0) if whose == "other" else vectors_MVE
    if whose == "mean" or not reading.asks_text:
        weights_MK = reading.weights(weighed_MVE, text_TE)
        mean_MK = weights_MK.mean(dim=0, keepdim=True).expand_as(weights_MK)
        yield slice(None), reading.combine(vectors_MVE, mean_MK if whose == "mean" else weights_MK)
        return
    for start in range(0, len(text_TE), _TEXTS_AT_ONCE):
        text_PE = text_TE[start : start + _TEXTS_AT_ONCE]
        asking_BE = text_PE.repeat_interleave(len(vectors_MVE), dim=0)
        weights_BK = reading.weights(weighed_MVE.repeat(len(text_PE), 1, 1), asking_BE)
        images_BE = reading.combine(vectors_MVE.repeat(len(text_PE), 1, 1), weights_BK)
        yield slice(start, start + len(text_PE)), images_BE.unflatten(0, (len(text_PE), len(vectors_MVE)))


@torch.no_grad()
def afe_figures(reading: Reading, held_out: HeldOut) -> dict[str, float]:
    """What AFE makes of held-out pictures; each figure's definition stands in the lines below.

    afe_cosine_to_pooled: mean cos(r, p), in [-1, 1]; 1 is no AFE.
    afe_entropy_share: mean entropy of the weights over log K, in [0, 1]; 0 is one vector, 1 all alike.
    afe_cosine_to_mean_weights: mean cos(r under own weights, r under the mean weights), in [-1, 1]; 1 is weights that need not be dynamic.
    afe_retrieval_coarse, _fine: coarse and fine prompts to r, see `retrieval`.
    afe_retrieval_coarse_mean_weights, _other_weights: the same under the mean weights, and under the next picture's.
    """
    pictures, text_NE = held_out.pictures, held_out.coarse_NE
    assert pictures is not None
    own = reading(pictures.vectors_MVE, text_NE)
    mean_NK = own.weights_BK.mean(dim=0, keepdim=True).expand_as(own.weights_BK)
    with_mean_NE = reading.combine(pictures.vectors_MVE, mean_NK)

    def found(whose: Whose) -> float:
        groups_N = held_out.coarse_groups_N
        return retrieval(text_NE, groups_N, represented(reading, pictures, text_NE, whose), groups_N)

    fine = represented(reading, pictures, held_out.fine_NE)
    return {
        "afe_cosine_to_pooled": float(F.cosine_similarity(own.representation_BE, pictures.pooled_ME, dim=-1).mean()),
        "afe_entropy_share": float(entropy(own.weights_BK).mean()) / math.log(own.weights_BK.shape[-1]),
        "afe_cosine_to_mean_weights": float(F.cosine_similarity(own.representation_BE, with_mean_NE, dim=-1).mean()),
        "afe_retrieval_coarse": found("own"),
        "afe_retrieval_coarse_mean_weights": found("mean"),
        "afe_retrieval_coarse_other_weights": found("other"),
        "afe_retrieval_fine": retrieval(held_out.fine_NE, held_out.fine_groups_N, fine, held_out.fine_groups_N),
    }


@torch.no_grad()
def text_image_figures(reading: Reading | None, held_out: HeldOut) -> dict[str, float]:
    """How coarse prompts and pictures fit, with or without AFE.

    pooled_retrieval_coarse: coarse prompts to the tower's own pooled feature, see `retrieval`.
    clip_accuracy: share of coarse prompts, in [0, 1], that find their own picture, as L_clip sees it, among 64 in fixed groups; records of
    the same coarse prompt are not among them. The mean over full groups, or over the only one that there is.
    """
    pictures, groups_N = held_out.pictures, held_out.coarse_groups_N
    assert pictures is not None
    pooled = represented(None, pictures, held_out.coarse_NE)
    found = {"pooled_retrieval_coarse": retrieval(held_out.coarse_NE, groups_N, pooled, groups_N)}
    starts = range(0, max(1, len(groups_N) - GROUP_SIZE + 1), GROUP_SIZE)
    accuracies = []
    for part in (slice(start, start + GROUP_SIZE) for start in starts):
        text_TE = held_out.coarse_NE[part]
        shown = list(represented(reading, Pictures(*(feature[part] for feature in pictures)), text_TE))
        images_ME = shown[0][1] if shown[0][1].dim() == 2 else torch.cat([images for _, images in shown])
        if len(text_TE) > 1:
            accuracies.append(float(ClipContrastiveLoss(1.0)(text_TE, images_ME, groups_N[part])[1]))
    return found | ({"clip_accuracy": sum(accuracies) / len(accuracies)} if accuracies else {})
