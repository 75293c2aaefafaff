"""Every row's difference from the reference in one metric: over the seeds and prompts that both have, with the spread that arms share.

The report, its verdicts and `python -m ablations.significance` all measure with this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.reporting.evidence import Comparison, Scores
from ablations.reporting.pooling import PooledDifferences, pooled_differences
from ablations.reporting.statistics import MIN_SEEDS, Estimates, MeanSquares, estimate_means

# A text that adds no word has no score of its words: arms that lack so few of the prompts are compared over those that all have.
_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Measured:
    """A row's difference from the reference at an endpoint: the estimate, the mean squares behind it (None where it has no two factors),
    how many arms share them (None: its own), the paired differences (num_seeds, num_prompts), and the seeds that they are of."""

    estimate: Estimates
    squares: MeanSquares | None
    pooled_arms: int | None
    paired: np.ndarray
    seeds: tuple[int, ...]
    candidates: int


def measure(comparison: Comparison, metric: str, seeds: Sequence[int] | None = None) -> dict[str, Measured]:
    """Every row's difference from the reference in a metric, by row key, over the seeds and prompts that both have (`seeds`: of these
    alone); rows without any are left out.

    Arms that have all of the reference's seeds and nearly all of its prompts share their spread where they may (`pooled_differences`);
    others have their own.
    """
    planned = None if seeds is None else set(seeds)
    scores = {key: _of_seeds(arm.scores.get(metric), planned) for key, arm in comparison.arms.items()}
    there = {key: own for key, own in scores.items() if own is not None}
    reference = there.pop(comparison.reference, None)
    if reference is None:
        return {}
    shared, common = _pooled(comparison, there, reference)
    found = {}
    for key, own in there.items():
        is_shared = shared is not None and key in shared.by_arm
        both = tuple(seed for seed in reference.seeds if seed in own.seeds)
        known = set(common if is_shared else own.prompts)
        prompts = tuple(prompt for prompt in reference.prompts if prompt in known)
        if not both or not prompts or len(both) * len(prompts) < 2:
            continue
        paired = without_rounding(own.at(both, prompts), reference.at(both, prompts))
        if shared is not None and is_shared:
            parts = shared.by_arm[key], shared.squares[key], shared.pooled_arms(key)
        else:
            parts = estimate_means(paired), _squares_of(paired), None
        found[key] = Measured(*parts, paired, both, min(own.candidates, reference.candidates))
    return found


def without_rounding(a_SP: np.ndarray, b_SP: np.ndarray) -> np.ndarray:
    """a - b, where scores that are equal but for their last bits differ by 0: means of equal scores are not quite equal."""
    differs = np.abs(a_SP - b_SP) > 8 * np.finfo(np.float64).eps * np.maximum(np.abs(a_SP), np.abs(b_SP))
    return np.where(differs, a_SP - b_SP, 0.0)


def _of_seeds(scores: Scores | None, seeds: set[int] | None) -> Scores | None:
    if scores is None or seeds is None:
        return scores
    kept = tuple(seed for seed in scores.seeds if seed in seeds)
    return Scores(scores.at(kept, scores.prompts), kept, scores.prompts, scores.candidates) if kept else None


def _pooled(comparison: Comparison, rows: Mapping[str, Scores], reference: Scores) -> tuple[PooledDifferences | None, tuple[str, ...]]:
    """The differences of arms that have the reference's seeds and nearly all of its prompts, over the prompts that all of these have; None
    where nothing can be pooled."""
    known, enough = set(reference.prompts), _NEARLY_ALL * len(reference.prompts)
    rows = {key: own for key, own in rows.items() if own.seeds == reference.seeds and len(known & set(own.prompts)) >= enough}
    in_all = known.intersection(*(own.prompts for own in rows.values()))
    prompts = tuple(prompt for prompt in reference.prompts if prompt in in_all)
    if not comparison.poolable or len(rows) < 2 or len(reference.seeds) < MIN_SEEDS or len(prompts) < max(2, enough):
        return None, ()
    values = {key: own.at(reference.seeds, prompts) for key, own in {comparison.reference: reference, **rows}.items()}
    return pooled_differences(values, comparison.reference), prompts


def _squares_of(paired: np.ndarray) -> MeanSquares | None:
    num_seeds, num_prompts = paired.shape
    if min(num_seeds, num_prompts) < 2:
        return None
    seeds, prompts = paired.mean(axis=1, keepdims=True), paired.mean(axis=0, keepdims=True)
    rest = ((paired - seeds - prompts + paired.mean()) ** 2).sum() / ((num_seeds - 1) * (num_prompts - 1))
    freedoms = (num_seeds - 1, num_prompts - 1, (num_seeds - 1) * (num_prompts - 1))
    return MeanSquares(num_prompts * seeds.var(ddof=1), num_seeds * prompts.var(ddof=1), rest, freedoms)
