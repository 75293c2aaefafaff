"""What a difference between two arms varies with, how precise a design will be, and the spread that the arms of a table share.

A paired difference of one candidate is

    d_spc = mu + a_s + b_p + (ab)_sp + e_spc          s = 1..S seeds, p = 1..P prompts, c = 1..C candidates

and `Components` are the variances of these four. Arms of one table were made in the same way, so that a difference between two of them
varies as one between two others does: with K arms each mean square has K - 1 times the degrees of freedom that two arms give it.
Differences from one reference share that reference, so they are not pooled as if they were independent: the mean squares are those of
the interactions arm x seed, arm x prompt and arm x seed x prompt of the crossed layout, of which a difference has twice the variance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ablations.reporting.statistics import Estimates, MeanSquares, estimates

# Simulated studies behind a planned half-width or power: these are then exact to 2%.
_PLANNED_DRAWS = 4000
# An arm leaves the pool where its mean square for seeds, for prompts or for the rest lies beyond that of the others, in an F test with
# this much in each tail. More is asked of seeds, since with 3 to 5 of them only a coarse difference shows, and since it is their
# variance that decides: chosen by simulation (docs/statistics.md).
_TAILS = np.array([0.05, 0.005, 0.005])
# The fewest arms, with the reference, whose spread is pooled. Of fewer, left over after others were left out, those with the least spread
# are what is left: simulated intervals of three of five arms were too narrow.
FEWEST_POOLED = 4


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


def smallest_effect(components: Components, seeds: int, prompts: int, pooled_arms: int | None = None, chance: float = 0.8) -> float:
    """The true difference whose 95% interval lies on its side of 0 with `chance`, in units of the score, of one candidate a cell.

    With 1 seed or 1 prompt all spread is `components.rest`, and the interval is for new units of the other factor alone. Raises ValueError
    where both are 1.
    """
    if min(seeds, prompts) > 1:
        planned = _planned(components, 0.0, (seeds, prompts, 1), pooled_arms)
        return float(np.quantile(-planned.interval()[0], chance))
    freedom = seeds * prompts - 1
    if freedom < 1:
        raise ValueError("one value has no spread")
    rng = np.random.default_rng(20)
    drawn = components.rest * rng.chisquare(freedom, _PLANNED_DRAWS) / freedom
    shares = np.broadcast_to([1.0, 0.0, 0.0], (_PLANNED_DRAWS, 3))
    mean = np.sqrt(components.rest / (freedom + 1)) * rng.standard_normal(_PLANNED_DRAWS)
    planned = estimates(mean, (drawn, shares, (freedom, freedom, freedom)), freedom + 1, np.zeros(_PLANNED_DRAWS))
    return float(np.quantile(-planned.interval()[0], chance))


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


def size_to_decide(
    components: Components, margin: float, prompts: int, candidates: int, pooled_arms: int | None = None
) -> tuple[int, int] | None:
    """(seeds, prompts) that decide as `seeds_to_decide` has it: with as many prompts or, where 20 seeds are too few, with 2, 4, 8 or
    16 times as many; None where these are too few."""
    for factor in (1, 2, 4, 8, 16):
        seeds = seeds_to_decide(components, margin, factor * prompts, candidates, pooled_arms)
        if seeds is not None and seeds <= 20:
            return seeds, factor * prompts
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


@dataclass(frozen=True)
class CrossedArms:
    """K arms at the same S seeds and P prompts, for X studies at once: all that estimates of their differences need.

    `means` (X, K). `products` (X, 3, K, K): sums of products of two arms' deviations by seed, by prompt and of the rest, so that the sum of
    squares of a difference i - j is products[i, i] + products[j, j] - 2 products[i, j]. `largest` (X,): the greatest absolute score.
    """

    means: np.ndarray
    products: np.ndarray
    num_seeds: int
    num_prompts: int
    largest: np.ndarray

    @classmethod
    def of(cls, values_XKSP: np.ndarray) -> CrossedArms:
        """Raises ValueError below 2 seeds or prompts, and for values that are not finite."""
        values_XKSP = np.asarray(values_XKSP, dtype=np.float64)
        *_, num_seeds, num_prompts = values_XKSP.shape
        if values_XKSP.ndim != 4 or min(num_seeds, num_prompts) < 2 or not np.isfinite(values_XKSP).all():
            raise ValueError(f"arms are crossed with 2 seeds and 2 prompts at least, all values finite; got {values_XKSP.shape}")
        mean = values_XKSP.mean(axis=(2, 3), keepdims=True)
        seed, prompt = values_XKSP.mean(axis=3, keepdims=True), values_XKSP.mean(axis=2, keepdims=True)
        deviations = (seed - mean, prompt - mean, values_XKSP - seed - prompt + mean)
        flat = [part.reshape(*part.shape[:2], -1) for part in deviations]
        times = (num_prompts, num_seeds, 1)
        products = np.stack([time * part @ part.swapaxes(1, 2) for time, part in zip(times, flat, strict=True)], axis=1)
        return cls(mean[..., 0, 0], products, num_seeds, num_prompts, np.abs(values_XKSP).max(axis=(1, 2, 3)))

    @property
    def freedoms(self) -> tuple[int, int, int]:
        """Those of the mean squares of one difference: seeds, prompts, rest."""
        seeds, prompts = self.num_seeds - 1, self.num_prompts - 1
        return seeds, prompts, seeds * prompts

    def own_squares(self, arm: int, other: int) -> MeanSquares:
        """The mean squares (X,) of arm - other alone."""
        q = self.products
        sums_X3 = q[:, :, arm, arm] + q[:, :, other, other] - 2 * q[:, :, arm, other]
        return MeanSquares(*(np.maximum(sums_X3, 0) / self.freedoms).T, self.freedoms)

    def pooled_squares(self, in_pool_XK: np.ndarray) -> MeanSquares:
        """The mean squares (X,) of a difference between any two arms of a pool that has the same size in every study."""
        (size,) = set(in_pool_XK.sum(axis=1).tolist())
        freedoms = tuple((size - 1) * freedom for freedom in self.freedoms)
        sums_X3 = 2 * self._spread(in_pool_XK)[0].sum(axis=2)
        return MeanSquares(*(np.maximum(sums_X3, 0) / freedoms).T, freedoms)

    def difference(self, arm: int, other: int, squares: MeanSquares) -> Estimates:
        """arm - other with the spread of some mean squares: (X,)."""
        return estimates(self.means[:, arm] - self.means[:, other], squares.total(), self.num_seeds * self.num_prompts, self.largest)

    def standing(self) -> np.ndarray:
        """Where every arm stands beside the pool (X, K): 0 in it, 1 left out for more spread than the others, -1 for less.

        The arm that differs most leaves first, until none differs or three are left.
        """
        standing_XK = np.zeros(self.means.shape, dtype=np.int64)
        for _ in range(self.means.shape[1] - 3):
            inside_XK = standing_XK == 0
            distance, is_more = self._distance(inside_XK)
            studies = np.flatnonzero((distance.max(axis=1) > 0) & (inside_XK.sum(axis=1) > 3))
            if not studies.size:
                break
            arms = distance.argmax(axis=1)[studies]
            standing_XK[studies, arms] = np.where(is_more[studies, arms], 1, -1)
        return standing_XK

    def _spread(self, in_pool_XK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums of squares of every arm's deviation from the pool's mean (X, 3, K): those in the pool, else 0; and all."""
        inside = in_pool_XK[:, None].astype(np.float64)
        size = inside.sum(axis=2, keepdims=True)
        to_mean = (self.products @ inside[..., None])[..., 0] / size
        all_ = np.einsum("xckk->xck", self.products) - 2 * to_mean + (to_mean * inside).sum(axis=2, keepdims=True) / size
        return all_ * inside, all_

    def _distance(self, in_pool_XK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far the mean squares of an arm of the pool are from the median arm's where they differ from the others', as the greatest
        absolute log ratio (X, K), 0 where they do not differ; and whether they are greater."""
        from scipy.special import fdtrc

        inside, all_ = self._spread(in_pool_XK)
        size = in_pool_XK.sum(axis=1)[:, None, None]
        own = np.maximum(all_ * size / (size - 1), 0)
        others = np.maximum(inside.sum(axis=2, keepdims=True) - own, 0)
        freedoms = np.array(self.freedoms)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = (own / freedoms) / (others / ((size - 2) * freedoms))
            # Not the ratio to the others: one arm of much spread makes all of the others look calm.
            ordered = np.sort(np.where(in_pool_XK[:, None], own, np.inf), axis=2)
            median = np.take_along_axis(ordered, np.broadcast_to((size - 1) // 2, (*ordered.shape[:2], 1)), axis=2)
            log_ratio = np.log(own / median)
        is_spread = (own > 1e-24) | (others > 1e-24)
        upper = fdtrc(freedoms, (size - 2) * freedoms, np.where(is_spread, ratio, 1.0))
        differs = ((upper < _TAILS[:, None]) | (1 - upper < _TAILS[:, None])) & is_spread & in_pool_XK[:, None]
        log_ratio = np.where(differs, np.clip(np.nan_to_num(log_ratio), -700, 700), 0.0)
        furthest = np.abs(log_ratio).argmax(axis=1)[:, None]
        return np.abs(log_ratio).max(axis=1), np.take_along_axis(log_ratio, furthest, axis=1)[:, 0] > 0


@dataclass(frozen=True)
class PooledDifferences:
    """Every arm's difference from the reference. `by_arm` holds an `Estimates` of one study, by key; `squares` the mean squares behind it.

    `pooled` names the arms, with the reference, whose spread was pooled (none: every difference has its own), `wider` those that have more
    spread and so an interval of their own, `calmer` those that have less, whose intervals have the pool's.
    """

    by_arm: Mapping[str, Estimates]
    squares: Mapping[str, MeanSquares]
    pooled: tuple[str, ...]
    wider: tuple[str, ...]
    calmer: tuple[str, ...]

    def pooled_arms(self, key: str) -> int | None:
        """The number of arms whose spread is behind the difference of `key`, None where it is its own."""
        return len(self.pooled) if self.pooled and key not in self.wider else None


def pooled_differences(values: Mapping[str, np.ndarray], reference: str) -> PooledDifferences:
    """Differences of arms from the reference with the spread that they share, where they share it.

    `values` (num_seeds, num_prompts) by key, the reference's among them, all at the same seeds and prompts. Where the reference's own
    spread differs from the others', or fewer than FEWEST_POOLED arms are alike, nothing is pooled. Raises as `CrossedArms.of` does.
    """
    keys = list(values)
    arms, at = CrossedArms.of(np.stack([values[key] for key in keys])[None]), keys.index(reference)
    standing_K = arms.standing()[0] if len(keys) >= FEWEST_POOLED else np.ones(len(keys), dtype=np.int64)
    is_pooled = standing_K[at] == 0 and (standing_K == 0).sum() >= FEWEST_POOLED
    shared = arms.pooled_squares(standing_K[None] == 0) if is_pooled else None
    squares = {}
    for i, key in enumerate(keys):
        if key != reference:
            squares[key] = shared if shared is not None and standing_K[i] <= 0 else arms.own_squares(i, at)
    named = lambda which: tuple(key for key, own in zip(keys, standing_K, strict=True) if is_pooled and own == which)  # noqa: E731
    differences = {key: arms.difference(keys.index(key), at, own) for key, own in squares.items()}
    return PooledDifferences({key: each.study(0) for key, each in differences.items()}, squares, named(0), named(1), named(-1))


def components_from(squares: MeanSquares, seeds: int, prompts: int) -> Components:
    """The components that mean squares of one study stand for; the candidates' is a part of the rest."""
    seed, prompt, rest = (float(np.ravel(square)[0]) for square in squares[:3])
    return Components(max(seed - rest, 0.0) / prompts, max(prompt - rest, 0.0) / seeds, rest)
