"""Which of several arms may be the best: Hsu's multiple comparisons with the best, in place of one test for every other arm.

Arm i is ruled out as the best where another one is better by more than chance gives the best of k - 1 (Dunnett's one-sided quantile, as
the k - 1 differences share arm i). The arms that are left hold the true best one in at least 1 - level of studies (Hsu 1984; "Multiple
Comparisons", 1996, ch. 4). Where the arms' spread is not alike, each difference has its own and Bonferroni's correction takes the place
of Dunnett's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ablations.reporting.pooling import FEWEST_POOLED, CrossedArms
from ablations.reporting.statistics import Estimates

# That an arm alone is best, and that it is not best: each is said wrongly in half of these studies at most.
LEVEL = 0.05
# Below this p Dunnett's correction and Bonferroni's differ by less than 2%.
_BONFERRONI_BELOW = 1e-3


@dataclass(frozen=True)
class Best:
    """What is known of which arm is best.

    `p_ruled_out` by key: small where the arm is not the best. `low`, `high`: simultaneous constrained intervals of an arm minus the best of
    the others, in the direction where more is better; an end at 0 says that the arm is not, or is, ruled out. `may_be_best`: at LEVEL / 2.
    """

    p_ruled_out: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    may_be_best: tuple[str, ...]

    def p_not_best(self, key: str) -> float:
        """Two-sided p for "it is the best"."""
        return min(2 * self.p_ruled_out[key], 1.0)

    def p_only_best(self, key: str) -> float:
        """Two-sided p for "another one is as good": all others must be ruled out."""
        return min(2 * max(p for other, p in self.p_ruled_out.items() if other != key), 1.0)


def best_of(values: Mapping[str, np.ndarray], higher_is_better: bool = True) -> Best:
    """Compare arms with scores (num_seeds, num_prompts) by key, all at the same seeds and prompts.

    Raises ValueError for fewer than two arms, and as `CrossedArms.of` does.
    """
    keys = list(values)
    if len(keys) < 2:
        raise ValueError("the best is chosen among two arms at least")
    sign = 1.0 if higher_is_better else -1.0
    arms = CrossedArms.of(sign * np.stack([values[key] for key in keys])[None])
    shared = None
    if len(keys) >= FEWEST_POOLED:
        standing = arms.standing()
        # A calm arm's difference from another varies less than the pool's: the pool's is the cautious one.
        shared = arms.pooled_squares(standing == 0) if (standing <= 0).all() and (standing == 0).sum() >= FEWEST_POOLED else None
    pairs = {
        (i, j): arms.difference(j, i, arms.own_squares(j, i) if shared is None else shared).study(0)
        for i in range(len(keys))
        for j in range(len(keys))
        if i != j
    }
    p_ruled_out = {keys[i]: _p_ruled_out([pairs[i, j] for j in range(len(keys)) if j != i], shared is not None) for i in range(len(keys))}
    may_be_best = tuple(key for key in keys if p_ruled_out[key] >= LEVEL / 2)
    low, high = _constrained(pairs, keys, may_be_best, shared is not None)
    return Best(p_ruled_out, low, high, may_be_best)


def _p_ruled_out(better_by: list[Estimates], is_shared: bool) -> float:
    """p for "none of the others is better", from their differences others - arm."""
    if not is_shared:
        return min(1.0, len(better_by) * min(float(each.p_above(0.0)) for each in better_by))
    # With one spread the greatest difference has the smallest p.
    best = max(better_by, key=lambda each: float(each.mean))
    bonferroni = min(1.0, len(better_by) * float(best.p_above(0.0)))
    if bonferroni < _BONFERRONI_BELOW:
        return bonferroni
    if not float(best.error):
        return bonferroni
    levels, quantiles = _dunnett_grid(len(better_by), best.freedoms, tuple(np.round(best.shares, 3)))
    return min(bonferroni, float(np.interp(float(best.mean / best.error), quantiles, levels)))


def _constrained(
    pairs: Mapping[tuple[int, int], Estimates], keys: list[str], may_be_best: tuple[str, ...], is_shared: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Hsu's constrained intervals at LEVEL / 2 a side."""
    candidates = [i for i, key in enumerate(keys) if key in may_be_best]
    low, high = {}, {}
    for i, key in enumerate(keys):
        reach = {j: _quantile(pairs[i, j], len(keys) - 1, is_shared) * float(pairs[i, j].error) for j in range(len(keys)) if j != i}
        high[key] = max(0.0, min(reach[j] - float(pairs[i, j].mean) for j in reach)) if key in may_be_best else 0.0
        others = [j for j in candidates if j != i]
        low[key] = min(0.0, min(-float(pairs[i, j].mean) - reach[j] for j in others)) if others else 0.0
    return low, high


def _quantile(estimate: Estimates, comparisons: int, is_shared: bool) -> float:
    """The one-sided quantile at LEVEL / 2 for the best of some comparisons."""
    if not is_shared or comparisons == 1:
        return float(estimate.quantile(LEVEL / comparisons))
    levels, quantiles = _dunnett_grid(comparisons, estimate.freedoms, tuple(np.round(estimate.shares, 3)))
    return float(np.interp(-LEVEL / 2, -levels, quantiles))


@lru_cache(maxsize=256)
def _dunnett_grid(comparisons: int, freedoms: tuple[int, int, int], shares: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """One-sided levels, descending, and the quantiles of the best of `comparisons`, weighed over three mean squares as in `Estimates`."""
    levels = np.exp(np.linspace(np.log(0.999), np.log(_BONFERRONI_BELOW / 20), 200))
    squares = [np.sign(own) * own**2 for own in (_dunnett_quantiles(comparisons, freedom, tuple(levels)) for freedom in freedoms)]
    weighed = np.tensordot(np.array(shares), np.stack(squares), axes=1)
    return levels, np.sign(weighed) * np.sqrt(np.abs(weighed))


@lru_cache(maxsize=256)
def _dunnett_quantiles(comparisons: int, freedom: int, levels: tuple[float, ...]) -> np.ndarray:
    """Dunnett's one-sided quantiles for equal numbers in all arms (correlation 1/2), by integration: (len(levels),)."""
    from scipy.special import ndtr
    from scipy.stats import chi2

    if comparisons == 1:
        from scipy.stats import t

        return t.isf(np.array(levels), freedom)
    z_Z, z_weight_Z = np.polynomial.hermite_e.hermegauss(40)
    u_U, u_weight_U = np.polynomial.legendre.leggauss(120)
    spread_U = np.sqrt(chi2.ppf((u_U + 1) / 2, freedom) / freedom)
    # As far as the level needs: Student's quantile by Bonferroni bounds it.
    from scipy.stats import t

    d_D = np.linspace(-3.0, float(t.isf(levels[-1] / comparisons, freedom)), 160)
    inside_DUZ = ndtr(z_Z + np.sqrt(2.0) * d_D[:, None, None] * spread_U[:, None]) ** comparisons
    at_most_D = inside_DUZ @ (z_weight_Z / z_weight_Z.sum()) @ (u_weight_U / 2)
    return np.interp(np.array(levels), 1 - at_most_D[::-1], d_D[::-1])
