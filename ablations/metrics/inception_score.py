"""Inception Score: whether the pictures of a set are each of one class of ImageNet, and together of many.

IS = exp( mean_i KL( p(y | x_i) || mean_j p(y | x_j) ) ),  1 (bad) to the number of classes        (Salimans et al. 2016)

It is a value of a set, and its expectation grows with the number N of pictures: it cannot exceed N, and is far below its limit while
N is below some thousands. Compare sets of equal N only. The custom of 10 splits of 5,000 pictures each makes no sense of some hundred
pictures, so that one split, the whole set, is the default here. It sees what ImageNet has classes for, and style hardly at all.

The network, its classes and the resizing are those of pyiqa's inception_score: FID's Inception v3, TensorFlow 1's bilinear resizing.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from ablations.metrics.base import Inputs, Metric, MetricError, checked_scores
from ablations.metrics.register import register
from ablations.metrics.weights import path_of

_FILE = "pt_inception-2015-12-05-6726825d.pth"
_SIZE = (299, 299)
NUM_CLASSES = 1008


def inception_score(probabilities_NC: np.ndarray, splits: int = 1) -> float:
    """The Inception Score of pictures by their class probabilities (N, C), C classes: 1 to min(N, C).

    splits: the set is cut, in order, into so many parts of nearly equal size, whose scores are averaged; at most N.
    Raises MetricError for fewer than 2 pictures a part, and for rows that are no distributions.
    """
    probabilities_NC = checked_scores(probabilities_NC, "inception-score")
    if probabilities_NC.ndim != 2 or len(probabilities_NC) < 2 * splits:
        raise MetricError("inception-score", f"wants at least 2 pictures a split, got {len(probabilities_NC)} for {splits}")
    if probabilities_NC.min() < 0 or np.abs(probabilities_NC.sum(axis=1) - 1).max() > 1e-4:
        raise MetricError("inception-score", "wants probabilities: rows that are not negative and sum to 1")
    from scipy.special import rel_entr

    parts = np.array_split(probabilities_NC, splits)
    return float(np.mean([np.exp(rel_entr(part, part.mean(axis=0)).sum(axis=1).mean()) for part in parts]))


def class_probabilities(inputs: Inputs) -> np.ndarray:
    """p(y | x) of each picture under FID's Inception v3: float64 (N, 1008).

    Pictures are uint8 (N, H, W, 3). Raises UserError where the weights are missing.
    """
    import torch
    from pyiqa.archs.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    network = _network(path_of(_FILE, inputs.folder), inputs.device)
    with torch.inference_mode():
        pixels_NCHW = torch.tensor(inputs.images_NHWC.copy()).permute(0, 3, 1, 2).float()
        pixels_NCHW = interpolate_bilinear_2d_like_tensorflow1x(pixels_NCHW, size=_SIZE, align_corners=False)
        logits_NC = network(((pixels_NCHW - 128) / 128).to(inputs.device), False, False)[0]
        return logits_NC.cpu().double().softmax(dim=1).numpy()


@functools.cache
def _network(path: Path, device: str) -> Any:
    from pyiqa.archs.inception import InceptionV3

    from ablations.metrics.pyiqa_metrics import weights_from

    with weights_from({_FILE: path}) as replaced:
        network = InceptionV3(output_blocks="logits_unbiased")
    assert len(replaced) == 1, "pyiqa's Inception was built without its weights"
    return network.to(device).eval()


INCEPTION_SCORE = register(
    Metric(
        name="inception-score",
        title="Inception Score",
        per="pictures",
        higher_is_better=True,
        range=(1.0, float(NUM_CLASSES)),
        needs=("images",),
        licence="Apache-2.0 (this project); network: pyiqa, PolyForm Noncommercial 1.0.0; weights: Apache-2.0",
        note="one value per condition, over all its pictures; grows with their number N and cannot exceed it: compare at equal N only. "
        "One split, not the customary 10",
        source="Salimans et al. 2016, pyiqa",
        weights=(_FILE,),
        function=class_probabilities,
        together=inception_score,
    )
)
