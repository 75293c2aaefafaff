"""What a difference between two arms varies with, how precise a design will be, and the spread that the arms of a table share.

A paired difference of one candidate is

    d_spc = mu + a_s + b_p + (ab)_sp + e_spc          s = 1..S seeds, p = 1..P prompts, c = 1..C candidates

and `Components` are the variances of these four. Arms of one table were made in the same way, so that a difference between two of them
varies as one between two others does: with K arms each mean square has K - 1 times the degrees of freedom that two arms give it.
Differences from one reference share that reference, so they are not pooled as if they were independent: the mean squares are those of
the interactions arm x seed, arm x prompt and arm x seed x prompt of the crossed layout, of which a difference has twice the variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ablations.reporting.statistics import Estimates, MeanSquares, estimates

# Simulated studies behind a planned half-width or power: these are then exact to 2%.
_PLANNED_DRAWS = 4000


@dataclass(frozen=True)
class Components:
    """Variances of one paired difference, in squared units of the score: of seeds, of prompts, of seed x prompt (`rest`), and of the
    candidates of one seed and prompt. Estimates may be 0, never negative."""

    seed: float
    prompt: float
    rest: float
    candidate: float = 0.0

    def variance(self, seeds: int, prompts: int, candidates: int = 1) -> float:
        """Of the mean over a design."""
        per_cell = self.rest + self.candidate / candidates
        return self.seed / seeds + self.prompt / prompts + per_cell / (seeds * prompts)


def components_of(differences: np.ndarray) -> Components:
    """The components of differences (num_seeds, num_prompts, num_candidates), or (num_arms, ...) of that, then averaged over the arms.

    They follow from the ANOVA's expected mean squares, negative ones being set to 0. With one candidate the candidates' component is a
    part of `rest`. Raises ValueError below 2 seeds or 2 prompts, and for values that are not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    values_ASPC = values[None] if values.ndim == 3 else values
    if values_ASPC.ndim != 4 or min(values_ASPC.shape[1:3]) < 2 or values_ASPC.shape[3] < 1:
        raise ValueError(f"differences must be (seeds, prompts, candidates) with 2 seeds and 2 prompts at least, got {values.shape}")
    if not np.isfinite(values_ASPC).all():
        raise ValueError("differences must be finite")
    _, num_seeds, num_prompts, num_candidates = values_ASPC.shape
    cell_ASP = values_ASPC.mean(axis=3)
    candidate = float(values_ASPC.var(axis=3, ddof=1).mean()) if num_candidates > 1 else 0.0
    mean_A11 = cell_ASP.mean(axis=(1, 2), keepdims=True)
    seed_AS1, prompt_A1P = cell_ASP.mean(axis=2, keepdims=True), cell_ASP.mean(axis=1, keepdims=True)
    rest_A = ((cell_ASP - seed_AS1 - prompt_A1P + mean_A11) ** 2).sum(axis=(1, 2)) / ((num_seeds - 1) * (num_prompts - 1))
    rest = float(rest_A.mean())
    seed = float(seed_AS1.var(axis=1, ddof=1).mean()) - rest / num_prompts
    prompt = float(prompt_A1P.var(axis=2, ddof=1).mean()) - rest / num_seeds
    return Components(max(seed, 0.0), max(prompt, 0.0), max(rest - candidate / num_candidates, 0.0), candidate)


def half_width(components: Components, seeds: int, prompts: int, candidates: int, pooled_arms: int | None = None) -> float:
    """The median half-width of the 95% interval that a design gives, in units of the score.

    `pooled_arms` is the number of arms, with the reference, whose spread is pooled; None for a difference by itself. Raises ValueError
    below 2 seeds or prompts, 1 candidate or 2 arms.
    """
    planned = _planned(components, 0.0, (seeds, prompts, candidates), pooled_arms)
    return float(np.median(planned.quantile() * planned.error))


def power(components: Components, effect: float, seeds: int, prompts: int, candidates: int, pooled_arms: int | None = None) -> float:
    """The chance, in [0, 1], that the 95% interval of a true difference `effect` lies on its side of 0. Raises as `half_width` does."""
    planned = _planned(components, abs(effect), (seeds, prompts, candidates), pooled_arms)
    return float((planned.interval()[0] > 0).mean())


def power_of_equivalence(
    components: Components, margin: float, seeds: int, prompts: int, candidates: int, pooled_arms: int | None = None
) -> float:
    """The chance, in [0, 1], that "no effect larger than `margin`" is shown where there is none: that the 90% interval lies within.

    Raises as `half_width` does.
    """
    low, high = _planned(components, 0.0, (seeds, prompts, candidates), pooled_arms).interval(0.90)
    return float(((low > -margin) & (high < margin)).mean())


def seeds_to_decide(
    components: Components, margin: float, prompts: int, candidates: int, pooled_arms: int | None = None, chance: float = 0.8
) -> int | None:
    """The fewest seeds, from 3 to 40, with which a true difference of `margin` is found and none is recognised as none, each with
    `chance`; None where 40 are too few."""
    for seeds in (*range(3, 13), 15, 20, 25, 30, 40):
        design = (seeds, prompts, candidates, pooled_arms)
        if power(components, margin, *design) >= chance and power_of_equivalence(components, margin, *design) >= chance:
            return seeds
    return None


def _planned(components: Components, effect: float, design: tuple[int, int, int], pooled_arms: int | None) -> Estimates:
    """Estimates of `_PLANNED_DRAWS` studies of a design (seeds, prompts, candidates), drawn with one fixed seed."""
    seeds, prompts, candidates = design
    arms = 2 if pooled_arms is None else pooled_arms
    if min(seeds, prompts, arms) < 2 or candidates < 1:
        raise ValueError(f"a design needs 2 seeds, 2 prompts, 1 candidate and 2 arms, got {design} and {arms} arms")
    rng = np.random.default_rng(20)
    rest = components.rest + components.candidate / candidates
    expected = (rest + prompts * components.seed, rest + seeds * components.prompt, rest)
    freedoms = tuple((arms - 1) * freedom for freedom in (seeds - 1, prompts - 1, (seeds - 1) * (prompts - 1)))
    squares = [square * rng.chisquare(freedom, _PLANNED_DRAWS) / freedom for square, freedom in zip(expected, freedoms, strict=True)]
    mean = effect + np.sqrt(components.variance(seeds, prompts, candidates)) * rng.standard_normal(_PLANNED_DRAWS)
    return estimates(mean, MeanSquares(*squares, freedoms).total(), seeds * prompts, np.zeros(_PLANNED_DRAWS))
