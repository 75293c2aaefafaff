"""Components of a paired difference and what a design's intervals will be: against the truth that was drawn, and against powers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ablations.reporting.pooling import Components, components_of, half_width, power, power_of_equivalence, seeds_to_decide
from ablations.reporting.statistics import mean_intervals

# Of differences in fidelity between arms, refined prompts (docs/statistics.md).
FIDELITY = Components(seed=1e-4, prompt=2e-4, rest=0.0012, candidate=0.0115)


def draw(components: Components, shape: tuple[int, int, int], studies: int, rng: np.random.Generator) -> np.ndarray:
    seeds, prompts, _ = shape
    parts = ((components.seed, (seeds, 1, 1)), (components.prompt, (1, prompts, 1)), (components.rest, (seeds, prompts, 1)))
    parts += ((components.candidate, shape),)
    return sum(rng.normal(0, variance**0.5, (studies, *own)) for variance, own in parts)


def test_components_are_those_that_were_drawn():
    truth = Components(0.01, 0.04, 0.09, 0.16)
    found = [components_of(study) for study in draw(truth, (12, 30, 3), 60, np.random.default_rng(0))]
    for name in ("seed", "prompt", "rest", "candidate"):
        assert np.mean([getattr(one, name) for one in found]) == pytest.approx(getattr(truth, name), rel=0.1)


def test_components_without_a_seed_effect_are_never_negative_and_one_candidate_counts_as_rest():
    found = components_of(draw(Components(0, 0, 1.0, 0), (3, 200, 1), 1, np.random.default_rng(1))[0])
    assert found.seed >= 0 and found.candidate == 0 and found.rest == pytest.approx(1, rel=0.2)
    with pytest.raises(ValueError, match="2 seeds and 2 prompts"):
        components_of(np.zeros((1, 8, 1)))
    with pytest.raises(ValueError, match="finite"):
        components_of(np.full((3, 8, 1), np.nan))


@pytest.mark.parametrize("design", [(3, 10, 3), (5, 64, 1), (10, 64, 3)])
def test_a_planned_half_width_and_power_are_those_of_simulated_studies(design):
    differences = draw(FIDELITY, design, 2000, np.random.default_rng(2)).mean(axis=-1) + 0.03
    found = mean_intervals(differences)
    assert half_width(FIDELITY, *design) == pytest.approx(np.median(found.high - found.low) / 2, rel=0.05)
    assert power(FIDELITY, 0.03, *design) == pytest.approx((found.low > 0).mean(), abs=0.03)


def test_pooling_over_seven_arms_makes_three_seeds_worth_more_than_five_alone():
    assert half_width(FIDELITY, 3, 64, 3, pooled_arms=7) < 0.7 * half_width(FIDELITY, 3, 64, 3)
    assert power_of_equivalence(FIDELITY, 0.02, 3, 64, 3, pooled_arms=7) > power_of_equivalence(FIDELITY, 0.02, 3, 64, 3)


def test_the_seeds_that_decide_find_the_margin_and_its_absence():
    seeds = seeds_to_decide(FIDELITY, 0.03, 64, 1)
    assert seeds is not None and 4 <= seeds <= 6
    assert power(FIDELITY, 0.03, seeds, 64, 1) >= 0.8 and power_of_equivalence(FIDELITY, 0.03, seeds, 64, 1) >= 0.8
    assert seeds_to_decide(FIDELITY, 0.0005, 64, 1) is None
    with pytest.raises(ValueError, match="2 seeds"):
        half_width(FIDELITY, 1, 64, 1)
