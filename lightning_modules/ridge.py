"""Ridge regression in closed form, its strength chosen by leaving one out: what readings of AFE start from."""

from __future__ import annotations

import torch
from torch import Tensor

_STRENGTHS = tuple(10.0**power for power in range(-6, 3))


def ridge_regression(inputs_NI: Tensor, targets_NO: Tensor) -> Tensor:
    """B (I, O) that minimises |X B - Y|^2 + s |B|^2, float32; s, relative to the mean square of X's rows, errs least on those left out.

    In double precision on N x N numbers, without intercept: many inputs cost little. N = fitting pictures, I, O = widths.
    """
    inputs, targets = inputs_NI.double(), targets_NO.double()
    values_N, vectors_NN = torch.linalg.eigh(inputs @ inputs.T)
    values_N, rotated_NO = values_N.clamp_min(0), vectors_NN.T @ targets
    best_NO, least = torch.zeros_like(targets), float("inf")
    for strength in (relative * float(values_N.mean()) for relative in _STRENGTHS):
        kept_N = values_N / (values_N + strength)
        leverage_N = (vectors_NN.square() * kept_N).sum(dim=1).clamp_max(1 - 1e-9)
        residuals_NO = targets - vectors_NN @ (kept_N[:, None] * rotated_NO)
        error = float((residuals_NO / (1 - leverage_N)[:, None]).square().mean())
        if error < least:
            best_NO, least = vectors_NN @ (rotated_NO / (values_N + strength)[:, None]), error
    return (inputs.T @ best_NO).float()
