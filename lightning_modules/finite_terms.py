"""Loss terms are finite, or training stops before the update: seen by one look at the device an optimiser step.

In float16 a rare micro-batch overflows without anything being wrong: there the optimiser step that it belongs to is skipped (by the
gradient scaler, which finds its gradients not finite either), counted, and only a row of them stops the training. All chance of a step is
keyed by its number, which goes on: no training stops at one batch for ever.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

MOST_IN_A_ROW = 8


class FiniteTerms:
    """The terms of the micro-batches since the last optimiser step, left on the device until `check`; `skipped` counts steps."""

    def __init__(self) -> None:
        self.skipped = 0
        self._in_a_row = 0
        self._names: list[str] = []
        self._values: list[Tensor] = []

    def note(self, terms: Mapping[str, Tensor]) -> None:
        """Take in a micro-batch's terms, detached scalars by name."""
        self._names += terms
        self._values += [value.float() for value in terms.values()]

    def check(self, step: int, may_skip: bool = False) -> None:
        """Look at what was noted since the last time, before optimiser step `step`.

        Raises FloatingPointError, naming the first term that is not finite; with `may_skip` only where this is the last of MOST_IN_A_ROW.
        """
        values = torch.stack(self._values).tolist() if self._values else []
        bad = next(((name, value) for name, value in zip(self._names, values, strict=True) if not math.isfinite(value)), None)
        self._names, self._values = [], []
        if bad is None:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        self.skipped += 1
        message = f"loss term {bad[0]} is {bad[1]} at step {step}: training stops before the update"
        if not may_skip:
            raise FloatingPointError(message)
        if self._in_a_row == MOST_IN_A_ROW:
            raise FloatingPointError(f"{message}, the {MOST_IN_A_ROW}th in a row; train.precision=bf16-mixed has the range of float32")
