"""A metric of one's own: how bright a picture is. Every cell scores it, shows it and tabulates it.

    python -m ablations.run plugins=plugin_metric

This file is all that it takes, wherever it lies as long as Python finds it: beside where the command is started, or installed.
"""

from __future__ import annotations

import numpy as np

from ablations.metrics.base import Inputs, Metric
from ablations.metrics.register import register


def brightness(inputs: Inputs) -> np.ndarray:
    """The mean of a picture's pixels, 0 (black) to 100 (white): one float64 for each of the N pictures, uint8 (N, H, W, 3)."""
    return inputs.images_NHWC.mean(axis=(1, 2, 3)) / 2.55


register(
    Metric(
        name="brightness",  # its key in scores.parquet; eval.metrics=brightness asks for it where `always` is left out
        title="Brightness",
        per="image",  # a value for each picture; "candidates" and "pictures" make one of several by `together`
        higher_is_better=None,  # True or False for a metric that may enter verdicts
        range=(0.0, 100.0),
        needs=("images",),
        licence="Apache-2.0",
        note="0 (black) to 100 (white): more is not better",
        always=True,  # scored in every cell
        shown=True,  # a row in the table that a cell ends with
        digits=1,  # decimals in the report
        function=brightness,
    )
)
