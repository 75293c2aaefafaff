"""That there is no effect larger than a margin: two one-sided tests (TOST), and what the data bound in any case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ablations.reporting.statistics import Estimates

# Two one-sided tests at 5% each: "no effect" is then said wrongly in at most 5% of studies, and the interval that lies within the margin is
# that of 90%.
EQUIVALENCE_CONFIDENCE = 0.90


@dataclass(frozen=True)
class Equivalence:
    """A difference beside its margin, in the endpoint's units. `p_value` is the larger of the two one-sided p-values for "the difference is
    at least `margin`" and "at most -`margin`"; it is below 0.05 exactly where the 90% interval [low, high] lies within the margin."""

    margin: float
    low: float
    high: float
    p_value: float

    @property
    def holds(self) -> bool:
        return -self.margin < self.low and self.high < self.margin


def equivalence(estimate: Estimates, margin: float) -> Equivalence:
    """Two one-sided tests of one difference (Schuirmann 1987). Raises ValueError for a margin that is not above 0."""
    low, high, p_values = equivalences(estimate, margin)
    return Equivalence(margin, float(low), float(high), float(p_values))


def equivalences(estimates_X: Estimates, margin: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For X studies at once: the ends of the 90% intervals, and the larger of the two one-sided p-values; (X...) each."""
    if not margin > 0:
        raise ValueError(f"a margin must be above 0, got {margin}")
    low, high = estimates_X.interval(EQUIVALENCE_CONFIDENCE)
    return low, high, np.maximum(estimates_X.p_below(margin), estimates_X.p_above(-margin))
