"""Ridge regression in closed form, its strength chosen by leaving one out: what readings of AFE start from."""

from __future__ import annotations

import torch
from torch import Tensor

_STRENGTHS = tuple(10.0**power for power in range(-6, 3))


def ridge_regression(inputs_NI: Tensor, targets_NO: Tensor) -> Tensor:
    """B (I, O) that minimises |X B - Y|^2 + s |B|^2, float32; s, relative to the mean square of a row, has the least leave-one-out error.

    Worked out in double precision on N x N numbers: many inputs cost little, pictures in their thousands much. No intercept.
    """
    inputs, targets = inputs_NI.double(), targets_NO.double()
    values_N, vectors_NN = torch.linalg.eigh(inputs @ inputs.T)
    values_N, rotated_NO = values_N.clamp_min(0), vectors_NN.T @ targets
    best, best_error = torch.zeros_like(targets), float("inf")
    for strength in (relative * float(values_N.mean()) for relative in _STRENGTHS):
        kept_N = values_N / (values_N + strength)
        leverage_N = (vectors_NN.square() * kept_N).sum(dim=1).clamp_max(1 - 1e-9)
        residuals_NO = targets - vectors_NN @ (kept_N[:, None] * rotated_NO)
        error = float((residuals_NO / (1 - leverage_N)[:, None]).square().mean())
        if error < best_error:
            best, best_error = vectors_NN @ (rotated_NO / (values_N + strength)[:, None]), error
    return (inputs.T @ best).float()
