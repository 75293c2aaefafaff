"""Simulations that hold the report's intervals against what they promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ablations.reporting.statistics import holm, mean_intervals

SEED_COUNTS, PROMPT_COUNTS = (3, 5, 10), (10, 16, 64, 256)


# Standard deviations (seed effect, prompt effect) in units of the rest's.
EFFECTS = {
    "none": ((0.0, 0.0),),
    "seed": ((0.1, 0.0), (0.2, 0.0), (0.35, 0.0), (0.6, 0.0), (1.0, 0.0), (2.0, 0.0)),
    "prompt": ((0.0, 0.3), (0.0, 1.0), (0.0, 2.0)),
    "both": ((0.1, 0.3), (0.2, 0.3), (0.35, 1.0), (0.6, 0.3), (0.6, 1.0), (1.0, 1.0), (1.0, 2.0), (2.0, 1.0)),
}


LEAST_COVERAGE, MOST_FALSE_ALARMS = 0.93, 0.065


# The greatest mean width in units of the oracle's; at 3 seeds the t quantile alone is 2.2 times the oracle's 1.96.
MOST_WIDTH, WIDTH_FROM_SEEDS = 1.55, 5


NUM_ARMS = 7


_TRUTH = 0.7


@dataclass(frozen=True)
class Coverage:
    """One simulated setting: how many of the studies' intervals cover the truth, and their mean width in units of the oracle's."""

    level: str
    num_seeds: int
    num_prompts: int
    seed_effect: float
    prompt_effect: float
    coverage: float
    width: float

    @property
    def holds(self) -> bool:
        return self.coverage >= LEAST_COVERAGE and (self.num_seeds < WIDTH_FROM_SEEDS or self.width <= MOST_WIDTH)


@dataclass(frozen=True)
class FalseAlarms:
    """The share of studies without an effect in which at least one of the arms shows one, after Holm's correction and before."""

    num_seeds: int
    num_prompts: int
    seed_effect: float
    prompt_effect: float
    corrected: float
    uncorrected: float

    @property
    def holds(self) -> bool:
        return self.corrected <= MOST_FALSE_ALARMS


def draw_differences(
    rng: np.random.Generator, shape_X: tuple[int, ...], num_seeds: int, num_prompts: int, seed_effect: float, prompt_effect: float
) -> np.ndarray:
    """Differences without a true effect, (X..., num_seeds, num_prompts): seed + prompt + rest, all normal, the rest of variance 1."""
    seed = rng.normal(0, seed_effect, (*shape_X, num_seeds, 1))
    prompt = rng.normal(0, prompt_effect, (*shape_X, 1, num_prompts))
    return seed + prompt + rng.normal(0, 1, (*shape_X, num_seeds, num_prompts))


def coverage(draws: int, seed: int = 0) -> list[Coverage]:
    """Every setting of EFFECTS x SEED_COUNTS x PROMPT_COUNTS, `draws` studies each."""
    found = []
    for num_seeds in SEED_COUNTS:
        for num_prompts in PROMPT_COUNTS:
            for level, pairs in EFFECTS.items():
                for seed_effect, prompt_effect in pairs:
                    rng = np.random.default_rng([seed, num_seeds, num_prompts, int(100 * seed_effect), int(100 * prompt_effect)])
                    values = _TRUTH + draw_differences(rng, (draws,), num_seeds, num_prompts, seed_effect, prompt_effect)
                    intervals = mean_intervals(values)
                    covered = (intervals.low <= _TRUTH) & (intervals.high >= _TRUTH)
                    deviation = np.sqrt(seed_effect**2 / num_seeds + prompt_effect**2 / num_prompts + 1 / (num_seeds * num_prompts))
                    width = (intervals.high - intervals.low).mean() / (2 * 1.959964 * deviation)
                    found.append(Coverage(level, num_seeds, num_prompts, seed_effect, prompt_effect, float(covered.mean()), float(width)))
    return found


def false_alarms(draws: int, seed: int = 1) -> list[FalseAlarms]:
    """NUM_ARMS arms against one reference arm, all of equal quality, each with its own seed and prompt effects."""
    found = []
    for num_seeds in SEED_COUNTS:
        for num_prompts in (10, 16, 64):
            for seed_effect, prompt_effect in ((0.0, 0.0), (0.2, 0.0), (0.6, 0.3), (1.0, 1.0), (2.0, 0.0), (0.0, 1.0)):
                rng = np.random.default_rng([seed, num_seeds, num_prompts, int(100 * seed_effect), int(100 * prompt_effect)])
                scores = draw_differences(rng, (draws, NUM_ARMS + 1), num_seeds, num_prompts, seed_effect, prompt_effect)
                p_values = mean_intervals(scores[:, 1:] - scores[:, :1]).p_value
                alarms = [float((p < 0.05).any(axis=-1).mean()) for p in (holm(p_values), p_values)]
                found.append(FalseAlarms(num_seeds, num_prompts, seed_effect, prompt_effect, *alarms))
    return found


def say_what_holds(say: Callable[[str], object], coverages: list[Coverage], alarms: list[FalseAlarms]) -> bool:
    """Say what was found, worst and mean by number of seeds and level of the effects; whether every promise is kept."""
    say("95% intervals: coverage of the truth, and mean width in units of the oracle's that knows the variances")
    say(f"{'effects at':<12}{'seeds':>6}{'settings':>10}{'coverage: least':>17}{'mean':>8}{'width: mean':>13}{'greatest':>10}")
    for level in EFFECTS:
        for num_seeds in SEED_COUNTS:
            chosen = [c for c in coverages if c.level == level and c.num_seeds == num_seeds]
            shares, widths = [c.coverage for c in chosen], [c.width for c in chosen]
            figures = f"{min(shares):>17.3f}{np.mean(shares):>8.3f}{np.mean(widths):>13.2f}{max(widths):>10.2f}"
            say(f"{level:<12}{num_seeds:>6}{len(chosen):>10}{figures}")
    say("")
    say(f"no effect in any of {NUM_ARMS} arms: share of studies with a false alarm")
    say(f"{'seeds':>6}{'prompts':>9}{'settings':>10}{'Holm: mean':>12}{'greatest':>10}{'uncorrected: greatest':>23}")
    for num_seeds, num_prompts in dict.fromkeys((a.num_seeds, a.num_prompts) for a in alarms):
        chosen = [a for a in alarms if (a.num_seeds, a.num_prompts) == (num_seeds, num_prompts)]
        corrected, plain = [a.corrected for a in chosen], [a.uncorrected for a in chosen]
        figures = f"{np.mean(corrected):>12.3f}{max(corrected):>10.3f}{max(plain):>23.3f}"
        say(f"{num_seeds:>6}{num_prompts:>9}{len(chosen):>10}{figures}")
    broken = [item for item in (*coverages, *alarms) if not item.holds]
    for item in broken:
        say(f"not kept: {item}")
    say(
        f"{'all' if not broken else 'not all'} kept: coverage >= {LEAST_COVERAGE:.0%}; width <= {MOST_WIDTH} x oracle from "
        f"{WIDTH_FROM_SEEDS} seeds on; corrected false alarms <= {MOST_FALSE_ALARMS:.1%}"
    )
    return not broken
