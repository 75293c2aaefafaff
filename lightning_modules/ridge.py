"""Ridge regression in closed form, its strength chosen by leaving one out: what readings of AFE start from."""

from __future__ import annotations

import torch
from torch import Tensor

_STRENGTHS = tuple(10.0**power for power in range(-6, 3))


def ridge_regression(inputs_NI: Tensor, targets_NO: Tensor) -> Tensor:
    """B (I, O) that minimises |X B - Y|^2 + s |B|^2, float32; s, relative to X's mean square singular value, errs least on those left out.

    In double precision, without intercept. N = fitting pictures, I, O = widths.
    """
    inputs, targets = inputs_NI.double(), targets_NO.double()
    left_NR, values_R, right_RI = torch.linalg.svd(inputs, full_matrices=False)
    rotated_RO = left_NR.T @ targets
    best_RO, least = torch.zeros_like(rotated_RO), float("inf")
    for strength in (relative * float(values_R.square().mean()) for relative in _STRENGTHS):
        kept_R = values_R.square() / (values_R.square() + strength)
        leverage_N = (left_NR.square() * kept_R).sum(dim=1).clamp_max(1 - 1e-9)
        residuals_NO = targets - left_NR @ (kept_R[:, None] * rotated_RO)
        error = float((residuals_NO / (1 - leverage_N)[:, None]).square().mean())
        if error < least:
            best_RO, least = (values_R / (values_R.square() + strength))[:, None] * rotated_RO, error
    return (right_RI.T @ best_RO).float()
