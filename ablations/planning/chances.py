"""What a design can say of a contrast: its interval's half-width, and the chances to find a difference and to show that there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from ablations.planning.measured import Measured
from ablations.reporting.pooling import half_width, power, power_of_equivalence

# A claim counts as decided by a design that finds a difference as large as the margin, and recognises none as none, so often.
ENOUGH = 0.8


@dataclass(frozen=True)
class Chances:
    """Of one contrast in one design; None where no margin is declared, or the fine prompts have no such score.

    `half_width` of the 95% interval, in units of the score; `power` to find a difference of the margin, `power_of_five` one of 5% of the
    fine prompts' value; `equivalence` to show "no effect larger than the margin" where there is none.
    """

    half_width: float
    power: float | None
    power_of_five: float | None
    equivalence: float | None

    @property
    def decides(self) -> float | None:
        """The lesser chance of the two that a verdict needs, whichever is true; None without a margin."""
        return None if self.power is None or self.equivalence is None else min(self.power, self.equivalence)


@dataclass(frozen=True)
class Sizes:
    """What a contrast is judged on: seeds, prompts (or texts) and candidates, and how many arms share a spread (None: an own one)."""

    seeds: int
    prompts: int
    candidates: int
    pooled_arms: int | None


@lru_cache(maxsize=4096)
def chances_of(measured: Measured, sizes: Sizes, margin: float | None) -> Chances:
    """The chances of a contrast with these components."""
    if measured.num_prompts == 1:
        return _of_seeds_alone(measured, sizes, margin)
    n = (sizes.seeds, max(2, sizes.prompts), sizes.candidates, sizes.pooled_arms)
    c, five = measured.components, measured.five_percent
    return Chances(
        half_width=half_width(c, *n),
        power=None if margin is None else power(c, margin, *n),
        power_of_five=None if not five else power(c, five, *n),
        equivalence=None if margin is None else power_of_equivalence(c, margin, *n),
    )


def _of_seeds_alone(measured: Measured, sizes: Sizes, margin: float | None) -> Chances:
    """Of an endpoint that has one value for a whole seed: t intervals over seeds."""
    from scipy.stats import nct, t

    freedom = (sizes.seeds - 1) * ((sizes.pooled_arms or 2) - 1)
    error = math.sqrt(measured.components.seed / sizes.seeds)

    def finds(effect: float | None) -> float | None:
        if effect is None:
            return None
        return float(nct.sf(t.isf(0.025, freedom), freedom, effect / error)) if error else 1.0

    equivalence = None
    if margin is not None:
        equivalence = max(0.0, 2 * float(t.cdf(margin / error - t.isf(0.05, freedom), freedom)) - 1) if error else 1.0
    return Chances(float(t.isf(0.025, freedom)) * error, finds(margin), finds(measured.five_percent or None), equivalence)
