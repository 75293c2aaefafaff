"""Paired differences: by hand, by the textbook's variance, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ablations.statistics import Difference, average_equal_prompts, paired_difference


def test_one_seed_is_a_t_interval_over_prompts_and_says_so():
    a, b = np.array([[3.0, 5.0, 4.0, 8.0]]), np.array([[1.0, 4.0, 4.0, 5.0]])
    result = paired_difference(a, b)
    expected = stats.ttest_1samp([2.0, 1.0, 0.0, 3.0], 0).confidence_interval(0.95)
    assert (result.mean, result.low, result.high) == pytest.approx((1.5, expected.low, expected.high))
    assert result.note == "one seed: interval over prompts only"
    assert (result.num_seeds, result.num_prompts, result.degrees_of_freedom) == (1, 4, 3.0)


def test_one_prompt_is_a_t_interval_over_seeds_and_says_so():
    result = paired_difference(np.array([[1.0], [2.0], [6.0]]), np.zeros((3, 1)))
    expected = stats.ttest_1samp([1.0, 2.0, 6.0], 0).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high))
    assert result.note == "one prompt: interval over seeds only"


def test_crossed_interval_by_hand():
    # Differences; seed means 2 and 6, prompt means 2, 4, 6, grand mean 4.
    d = np.array([[1.0, 1.0, 4.0], [3.0, 7.0, 8.0]])
    ms_seeds, ms_prompts = 3 * (4 + 4) / 1, 2 * (4 + 0 + 4) / 2
    residuals = d - np.array([[2.0], [6.0]]) - np.array([[2.0, 4.0, 6.0]]) + 4
    ms_rest = (residuals**2).sum() / 2
    assert ms_rest == 2.0
    total = ms_seeds + ms_prompts - ms_rest
    freedom = total**2 / (ms_seeds**2 / 1 + ms_prompts**2 / 2 + ms_rest**2 / 2)
    half = stats.t.ppf(0.975, freedom) * (total / 6) ** 0.5
    result = paired_difference(d + 10, np.full_like(d, 10))
    assert (result.mean, result.low, result.high, result.degrees_of_freedom) == pytest.approx((4, 4 - half, 4 + half, freedom))
    assert result.note == ""


def test_a_shift_of_whole_seeds_widens_the_interval_and_equal_prompts_do_not_narrow_it():
    noise = np.random.default_rng(0).normal(0, 0.1, (3, 32))
    plain = paired_difference(noise + 1, np.zeros((3, 32)))
    shifted = paired_difference(noise + 1 + np.array([[-0.5], [0.0], [0.5]]), np.zeros((3, 32)))
    assert plain.excludes_zero and not shifted.excludes_zero
    assert shifted.degrees_of_freedom == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    "seed_spread, prompt_spread, rest_spread",
    [(0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (0.1, 0.3, 1.0), (0.2, 1.0, 1.0), (1.0, 0.1, 0.1), (0.2, 0.5, 1.0)],
)
def test_intervals_cover_the_truth_in_92_to_99_percent_of_simulated_studies(seed_spread, prompt_spread, rest_spread):
    rng, covered, truth = np.random.default_rng(11), 0, 0.7
    for _ in range(400):
        d = truth + rng.normal(0, seed_spread, (3, 1)) + rng.normal(0, prompt_spread, (1, 32)) + rng.normal(0, rest_spread, (3, 32))
        result = paired_difference(d, np.zeros_like(d))
        covered += result.low <= truth <= result.high
    assert 0.92 <= covered / 400 <= 0.99


def test_pairing_by_prompt_removes_what_the_conditions_share():
    rng = np.random.default_rng(2)
    difficulty, noise = rng.normal(0, 10, (1, 64)), rng.normal(0, 0.1, (3, 64))
    result = paired_difference(difficulty + noise + 0.5, np.broadcast_to(difficulty, (3, 64)))
    assert result.mean == pytest.approx(0.5, abs=0.05) and result.high - result.low < 0.1


def test_swapping_the_conditions_mirrors_the_interval():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(3, 8)), rng.normal(size=(3, 8))
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))


@pytest.mark.parametrize("shape", [(3, 8), (1, 8)])
def test_equal_differences_give_a_point_and_a_note(shape):
    result = paired_difference(np.full(shape, 0.3), np.full(shape, 0.1))
    assert (result.low, result.high) == pytest.approx((0.2, 0.2))
    assert "every difference is equal" in result.note


def test_missing_scores_and_shapes_that_differ_are_errors():
    with pytest.raises(ValueError, match="1 of 4 paired scores are not finite"):
        paired_difference([[1.0, np.nan], [0, 0]], np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(2, 2\)"):
        paired_difference(np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="at least 2 pairs"):
        paired_difference([[1.0]], [[0.0]])


def test_prompts_of_equal_text_are_one_unit():
    scores, texts = average_equal_prompts([[1.0, 2.0, 5.0], [0.0, 4.0, 2.0]], ["a cat", "a dog", "a cat"])
    assert texts == ["a cat", "a dog"]
    np.testing.assert_array_equal(scores, [[3.0, 2.0], [1.0, 4.0]])
    with pytest.raises(ValueError, match="2 prompts"):
        average_equal_prompts(np.zeros((2, 3)), ["a", "b"])


def test_zero_is_excluded_only_by_an_interval_on_one_side():
    assert Difference(1, 0.1, 2, 3, 32, 10).excludes_zero and Difference(-1, -2, -0.1, 3, 32, 10).excludes_zero
    assert not Difference(1, 0.0, 2, 3, 32, 10).excludes_zero
