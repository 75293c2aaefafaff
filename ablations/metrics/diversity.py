"""How different the candidates of one prompt are: their pictures (ST-LPIPS, CLIP distance, Vendi score) and their texts.

Every function takes the candidates of a single prompt and gives one number; none depends on the candidates' order.
Diversity alone is no merit: pictures that have nothing to do with the prompt are diverse too.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence

import numpy as np

from ablations.metrics.base import (
    UNBOUNDED,
    Metric,
    MetricError,
    at_least_two,
    checked_embeddings,
    checked_images,
    checked_scores,
    register,
)

# The network pads by reflection and fails from 16 px downwards; below 64 px its last features are 7 x 7 or smaller.
ST_LPIPS_MIN_SIDE = 64
_OWN = "Apache-2.0 (this project)"

ST_LPIPS = register(
    Metric(
        name="st_lpips",
        title="ST-LPIPS among candidates",
        per="candidates",
        higher_is_better=True,
        range=(0.0, UNBOUNDED),
        needs=("images",),
        licence="stlpips-pytorch: BSD-2-Clause; its blur layer: CC BY-NC-SA 4.0",
        note=f"pictures below {ST_LPIPS_MIN_SIDE} px are enlarged to {ST_LPIPS_MIN_SIDE} px",
        source="Ghildyal & Liu 2022",
    )
)
CLIP_DISTANCE = register(
    Metric(
        name="clip_distance",
        title="CLIP distance among candidates",
        per="candidates",
        higher_is_better=True,
        range=(0.0, 2.0),
        needs=("image_embeddings",),
        licence=_OWN,
        note="mean of 1 - cosine over pairs",
    )
)
VENDI = register(
    Metric(
        name="vendi",
        title="Vendi score of candidates",
        per="candidates",
        higher_is_better=True,
        range=(1.0, UNBOUNDED),
        needs=("image_embeddings",),
        licence=_OWN,
        note="effective number of different pictures: 1 to the number of candidates",
        source="Friedman & Dieng 2023",
    )
)
DISTINCT = {
    n: register(
        Metric(
            name=f"distinct_{n}",
            title=f"Distinct-{n} of texts",
            per="candidates",
            higher_is_better=True,
            range=(0.0, 1.0),
            needs=("texts",),
            licence=_OWN,
            note="words that all candidates share, such as the coarse prompt, lower it",
            source="Li et al. 2016",
        )
    )
    for n in (1, 2)
}


@functools.cache
def _st_lpips_network(device: str):
    from stlpips_pytorch import stlpips

    network = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False).to(device)
    return network.eval().requires_grad_(False)


def st_lpips(images_NHWC: np.ndarray, device: str = "cpu") -> float:
    """Mean ST-LPIPS (AlexNet trunk) over all pairs of candidates; 0 for equal pictures.

    Args:
        images_NHWC: the N >= 2 candidates' pictures, uint8 (N, H, W, 3). Where the shorter side is below 64 px all are
            enlarged (bicubic) until it is 64: values are comparable at one picture size only.

    Equals the mean of `stlpips_pytorch`'s own distances, but takes each picture through the trunk once, not once a pair.
    Raises MetricError for fewer than 2 pictures. Source: Ghildyal & Liu, "Shift-tolerant Perceptual Similarity Metric", 2022.
    """
    images_NHWC = checked_images(images_NHWC, ST_LPIPS.name)
    at_least_two(len(images_NHWC), ST_LPIPS.name)
    import torch
    from stlpips_pytorch.utils import normalize_tensor

    network = _st_lpips_network(device)
    images_NCHW = torch.from_numpy(np.ascontiguousarray(images_NHWC.transpose(0, 3, 1, 2))).to(device).float() / 127.5 - 1
    height, width = images_NCHW.shape[2:]
    if min(height, width) < ST_LPIPS_MIN_SIDE:
        scale = ST_LPIPS_MIN_SIDE / min(height, width)
        size = (round(height * scale), round(width * scale))
        images_NCHW = torch.nn.functional.interpolate(images_NCHW, size=size, mode="bicubic", align_corners=False).clamp(-1, 1)
    first, second = zip(*itertools.combinations(range(len(images_NHWC)), 2), strict=True)
    with torch.inference_mode():
        distances = torch.zeros(len(first), dtype=torch.float64)
        for layer, features in enumerate(network.net(network.scaling_layer(images_NCHW))):
            features = normalize_tensor(features)
            for pair, (i, j) in enumerate(zip(first, second, strict=True)):
                # Pair by pair: all pairs at once would hold N (N - 1) / 2 copies of the largest feature map.
                difference = (features[i : i + 1] - features[j : j + 1]) ** 2
                distances[pair] += network.lins[layer](difference).mean().double().cpu()
    return float(checked_scores(distances.numpy(), ST_LPIPS.name).mean())


def clip_distance(embeddings_NE: object) -> float:
    """Mean of 1 - cosine over all pairs of the N >= 2 candidates' image embeddings (N, E); 0 (equal) to 2 (opposite)."""
    vectors = checked_embeddings(embeddings_NE, CLIP_DISTANCE.name)
    at_least_two(len(vectors), CLIP_DISTANCE.name)
    cosines = (vectors @ vectors.T)[np.triu_indices(len(vectors), k=1)]
    return float(np.clip(1 - cosines, 0, 2).mean())


def vendi(embeddings_NE: object) -> float:
    """The Vendi score of the N >= 2 candidates' image embeddings (N, E) under the cosine kernel: 1 (all equal) to N (orthogonal).

    VS = exp(- sum_i l_i log l_i),  l_i the eigenvalues of K / N,  K_jk = cos(x_j, x_k)

    Source: Friedman & Dieng, "The Vendi Score: A Diversity Evaluation Metric for Machine Learning", TMLR 2023.
    """
    vectors = checked_embeddings(embeddings_NE, VENDI.name)
    at_least_two(len(vectors), VENDI.name)
    eigenvalues = np.linalg.eigvalsh(vectors @ vectors.T / len(vectors))
    eigenvalues = eigenvalues[eigenvalues > 0]
    eigenvalues = eigenvalues / eigenvalues.sum()
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def words(text: str) -> list[str]:
    """The words that distinct-n counts: runs of letters and digits, case folded ("close-up" is two words)."""
    return re.findall(r"\w+", text.casefold())


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words over all n-grams of the N >= 2 candidates' texts together: above 0 to 1 (none repeats).

    n is 1 or 2. Hand in the words that were added rather than whole prompts to leave the shared coarse prompt out of it.
    Raises MetricError where no text has n words. Source: Li et al., "A Diversity-Promoting Objective Function for Neural
    Conversation Models", 2016.
    """
    if n not in DISTINCT:
        raise ValueError(f"distinct-n is defined here for n = 1 and 2, not {n!r}")
    if isinstance(texts, str):
        raise MetricError(DISTINCT[n].name, "wants a list of texts, got one text")
    at_least_two(len(texts), DISTINCT[n].name)
    grams: list[tuple[str, ...]] = []
    for text in texts:
        tokens = words(text)
        grams += [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    if not grams:
        raise MetricError(DISTINCT[n].name, f"no text has {n} word{'s' if n > 1 else ''}")
    return len(set(grams)) / len(grams)
