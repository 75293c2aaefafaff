"""Simulations of intervals whose spread is pooled, of seeds that collapse, of equivalence, of the best of many, and of optional stopping.

Every study is drawn as crossed arms at equal seeds and prompts; figures are shares of studies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ablations.reporting.best_of_many import best_of
from ablations.reporting.drawn_studies import seed_effects
from ablations.reporting.equivalence import equivalences
from ablations.reporting.pooling import FEWEST_POOLED, CrossedArms
from ablations.reporting.statistics import Estimates, mean_intervals

# (seeds, prompts, arms with the reference): the example of before, the shipped design with pictures and with texts, and the table of AFE.
DESIGNS = ((3, 10, 7), (5, 64, 8), (5, 256, 8), (5, 64, 4))
# Variances of an arm's seeds, prompts and rest: none but the rest, measured ones, and seeds that weigh as much as the rest.
SPREADS = ((0.0, 0.0, 1.0), (0.01, 0.02, 1.0), (0.12, 0.1, 1.0), (1.0, 0.3, 1.0))
LEAST_COVERAGE, LEAST_COVERAGE_OF_OTHER_SPREAD = 0.93, 0.88
MOST_WRONG = 0.05
_MARGIN_IN_ERRORS = 3.5
# Three standard errors of a share of 5% are allowed on top of a promise.
_CHUNK = 500


@dataclass(frozen=True)
class Share:
    """What was counted: the share of `studies` that it was seen in, and what is promised of it (None: only reported)."""

    what: str
    share: float
    studies: int
    at_least: float | None = None
    at_most: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the promise is kept, but for what so many studies cannot tell (three standard errors)."""
        promised = self.at_least if self.at_least is not None else self.at_most
        if promised is None:
            return True
        noise = 3 * (promised * (1 - promised) / self.studies) ** 0.5
        return self.share >= promised - noise if self.at_least is not None else self.share <= promised + noise

    @property
    def line(self) -> str:
        promise = "" if self.at_least is None else f"  (at least {self.at_least:.0%})"
        promise = promise if self.at_most is None else f"  (at most {self.at_most:.0%})"
        return f"{self.what:<92}{self.share:>7.3f}{promise}"


def draw_arms(
    rng: np.random.Generator, studies: int, design: tuple[int, int, int], spread: tuple[float, float, float], scale_K: np.ndarray, kind: str
) -> np.ndarray:
    """(X, K, S, P) without an effect: every arm's own seeds, prompts and rest, times its scale."""
    seeds, prompts, arms = design
    deviation = np.sqrt(spread)
    own = deviation[0] * seed_effects(rng, kind, (studies, arms, seeds, 1))
    values = own + rng.normal(0, deviation[1], (studies, arms, 1, prompts)) + rng.normal(0, deviation[2], (studies, arms, seeds, prompts))
    return values * scale_K[:, None, None]


def pooled_intervals(arms: CrossedArms, arm: int) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the 95% interval of arm - arm 0 in every study, pooled where `pooled_differences` would."""
    standing = arms.standing() if arms.means.shape[1] >= FEWEST_POOLED else np.ones(arms.means.shape, dtype=np.int64)
    low, high = (end.copy() for end in arms.difference(arm, 0, arms.own_squares(arm, 0)).interval())
    sizes = (standing == 0).sum(axis=1)
    for size in range(FEWEST_POOLED, arms.means.shape[1] + 1):
        chosen = (sizes == size) & (standing[:, 0] == 0) & (standing[:, arm] <= 0)
        if chosen.any():
            part = CrossedArms(arms.means[chosen], arms.products[chosen], arms.num_seeds, arms.num_prompts, arms.largest[chosen])
            low[chosen], high[chosen] = part.difference(arm, 0, part.pooled_squares(standing[chosen] == 0)).interval()
    return low, high


def pooled_coverage(studies: int, seed: int = 2) -> list[Share]:
    """Coverage of the pooled intervals: of arms that are alike, and of one that varies 4 times as much by seeds, or half as much."""
    found = []
    for design in DESIGNS:
        name = f"{design[0]} x {design[1]}, {design[2]} arms"
        alike, wider, calmer, widths = [], [], [], []
        for spread in SPREADS:
            for odd in ("", "seeds x 4", "all x 0.5"):
                covered, ratio = _covered(np.random.default_rng([seed, *design, len(odd)]), studies, design, spread, odd)
                alike.append(covered[0])
                (wider if odd == "seeds x 4" else calmer if odd else alike).append(covered[1])
                widths += [] if odd else [ratio]
        found.append(Share(f"{name}: pooled, least coverage of arms that are alike", min(alike), studies, at_least=LEAST_COVERAGE))
        found.append(Share(f"{name}: ... of one calmer arm", min(calmer), studies, at_least=LEAST_COVERAGE))
        found.append(Share(f"{name}: ... of one with 4 times the deviation of seeds", min(wider), studies, LEAST_COVERAGE_OF_OTHER_SPREAD))
        found.append(Share(f"{name}: mean width, in units of the interval by itself", float(np.mean(widths)), studies))
    return found


def _covered(
    rng: np.random.Generator, studies: int, design: tuple[int, int, int], spread: tuple[float, float, float], odd: str
) -> tuple[tuple[float, float], float]:
    """Coverage of the second and of the last arm, which may be odd; and the median width of the second's beside its own interval's."""
    hits, ratios = np.zeros(2), []
    for start in range(0, studies, _CHUNK):
        count, scale = min(_CHUNK, studies - start), np.ones(design[2])
        if odd == "all x 0.5":
            scale[-1] = 0.5
        values = draw_arms(rng, count, design, spread, scale, "normal")
        if odd == "seeds x 4":  # 16 times the variance of seeds: 15 more of them
            values[:, -1] += rng.normal(0, (15 * spread[0]) ** 0.5, (count, design[0], 1))
        arms = CrossedArms.of(values)
        for i, arm in enumerate((1, design[2] - 1)):
            low, high = pooled_intervals(arms, arm)
            hits[i] += ((low <= 0) & (high >= 0)).sum()
            if not i:
                own_low, own_high = arms.difference(arm, 0, arms.own_squares(arm, 0)).interval()
                ratios.append(np.median((high - low) / (own_high - own_low)))
    covered = hits / studies
    return (float(covered[0]), float(covered[1])), float(np.mean(ratios))


def collapsed_seeds(studies: int, seed: int = 3) -> list[Share]:
    """Coverage of an arm whose seeds are skewed, or one in five of which collapses: reported, as a few seeds cannot show what is rare."""
    found = []
    for design in ((3, 10, 7), (5, 64, 8), (10, 64, 8)):
        for kind in ("skewed", "collapsed"):
            rng = np.random.default_rng([seed, *design, len(kind)])
            values = draw_arms(rng, studies, design, (0.12, 0.1, 1.0), np.ones(design[2]), "normal")
            values[:, 1] += 0.12**0.5 * seed_effects(rng, kind, (studies, design[0], 1))
            low, high = pooled_intervals(CrossedArms.of(values), 1)
            own = mean_intervals(values[:, 1] - values[:, 0])
            name = f"{design[0]} x {design[1]}: coverage with {kind} seeds"
            found.append(Share(f"{name}, pooled", float(((low <= 0) & (high >= 0)).mean()), studies))
            found.append(Share(f"{name}, by itself", float(((own.low <= 0) & (own.high >= 0)).mean()), studies))
    return found


def equivalence_at_the_margin(studies: int, seed: int = 4) -> list[Share]:
    """How often "no effect larger than the margin" is said of an effect that is as large as the margin."""
    found = []
    for seeds, prompts, arms in DESIGNS[:3]:
        for spread in SPREADS:
            rng = np.random.default_rng([seed, seeds, prompts, int(100 * spread[0])])
            values = draw_arms(rng, studies, (seeds, prompts, arms), spread, np.ones(arms), "normal")
            margin = _MARGIN_IN_ERRORS * (2 * (spread[0] / seeds + spread[1] / prompts + spread[2] / (seeds * prompts))) ** 0.5
            values[:, 1] += margin
            wrong = []
            crossed = CrossedArms.of(values)
            for is_pooled in (False, True):
                estimates = _pool_of_all(crossed) if is_pooled else crossed.difference(1, 0, crossed.own_squares(1, 0))
                wrong.append(float((equivalences(estimates, margin)[2] < 0.05).mean()))
            found.append(Share(f"{seeds} x {prompts}, variances {spread}: no effect, at the margin", wrong[0], studies, at_most=MOST_WRONG))
            found.append(Share(f"{seeds} x {prompts}, variances {spread}: ... pooled", wrong[1], studies, at_most=MOST_WRONG))
    return found


def _pool_of_all(arms: CrossedArms) -> Estimates:
    return arms.difference(1, 0, arms.pooled_squares(np.ones(arms.means.shape, dtype=bool)))


def best_of_equals(studies: int, seed: int = 5) -> list[Share]:
    """How often the best of 8 arms is ruled out where all are equal, and called the only best where another one is as good."""
    found = []
    for seeds, prompts in ((3, 10), (5, 64)):
        for scale in (1.0, 3.0):
            rng = np.random.default_rng([seed, seeds, int(scale)])
            ruled_out = only = 0
            scales = np.array([1.0, scale, *[1.0] * 6])
            for _ in range(studies):
                values = draw_arms(rng, 1, (seeds, prompts, 8), (0.12, 0.1, 1.0), scales, "normal")[0]
                best = best_of({str(i): own for i, own in enumerate(values)})
                values[2:] -= 5.0  # arms 0 and 1 are equally good, all others far behind
                ruled_out += best.p_not_best("0") < 0.05
                only += best_of({str(i): own for i, own in enumerate(values)}).p_only_best("0") < 0.05
            name = f"{seeds} x {prompts}, 8 lengths{'' if scale == 1 else ', one of 3 times the spread'}"
            found.append(Share(f"{name}: a best one is ruled out", ruled_out / studies, studies, at_most=MOST_WRONG))
            found.append(Share(f"{name}: called the only best of two", only / studies, studies, at_most=MOST_WRONG))
    return found


def optional_stopping(studies: int, seed: int = 6) -> list[Share]:
    """False effects of one difference that is looked at after each seed from 3 to 10, and of one that is judged by its plan of 5."""
    rng = np.random.default_rng(seed)
    values = draw_arms(rng, studies, (10, 64, 2), (0.12, 0.1, 1.0), np.ones(2), "normal")
    paired = values[:, 1] - values[:, 0]
    looks = np.stack([mean_intervals(paired[:, :count]).p_value < 0.05 for count in range(3, 11)])
    return [
        Share("10 looks, stopping at the first effect, no plan", float(looks.any(axis=0).mean()), studies),
        Share("the same, judged by a registered plan of 5 seeds", float(looks[2].mean()), studies, at_most=MOST_WRONG),
    ]


def say_shares(say: Callable[[str], object], shares: list[Share]) -> bool:
    """Say every share; whether all promises are kept."""
    for share in shares:
        say(share.line)
    broken = [share for share in shares if not share.holds]
    for share in broken:
        say(f"not kept: {share.line}")
    return not broken
