"""Paired differences: by hand, by the textbook's variance, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ablations import check_statistics
from ablations.metrics.oracles import shannon_entropy_bits
from ablations.reporting import statistics_check
from ablations.reporting.statistics import Difference, average_equal_prompts, holm, mean_intervals, paired_difference


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
    # Seeds have fewer levels and count with all of MS_A, prompts with what they have beyond MS_E.
    quantile = ((ms_seeds * stats.t.ppf(0.975, 1) ** 2 + (ms_prompts - ms_rest) * stats.t.ppf(0.975, 2) ** 2) / total) ** 0.5
    half = quantile * (total / 6) ** 0.5
    result = paired_difference(d + 10, np.full_like(d, 10))
    assert (result.mean, result.low, result.high) == pytest.approx((4, 4 - half, 4 + half))
    assert stats.t.ppf(0.975, result.degrees_of_freedom) == pytest.approx(quantile, rel=1e-3)
    assert result.standard_error == pytest.approx((total / 6) ** 0.5)
    assert result.note == ""


def test_a_component_that_a_sample_shows_below_nothing_leaves_the_rests_variance():
    d = np.array([[1.0, -1.0], [-1.0, 1.0]]) + np.array([[0.0], [0.1]])
    ms_seeds, ms_rest = 2 * 0.1**2 / 2, 4.0
    result = paired_difference(d, np.zeros((2, 2)))
    assert result.standard_error == pytest.approx((ms_rest / 4) ** 0.5) and ms_seeds < ms_rest


def test_the_p_value_of_one_factor_is_that_of_a_t_test_and_agrees_with_the_interval():
    rng = np.random.default_rng(8)
    for values in rng.normal(0.6, 1, (40, 5)):
        result = paired_difference(values[:, None], np.zeros((5, 1)))
        assert result.p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-3)
    for shape in ((3, 16), (16, 3), (5, 8)):
        for values in rng.normal(0.3, 1, (40, *shape)):
            result = paired_difference(values, np.zeros(shape))
            assert (result.p_value < 0.05) == result.excludes_zero


def test_many_studies_at_once_give_what_one_at_a_time_gives():
    values = np.random.default_rng(9).normal(0.2, 1, (6, 4, 7))
    many = mean_intervals(values)
    one = [paired_difference(study, np.zeros((4, 7))) for study in values]
    np.testing.assert_allclose(many.low, [result.low for result in one])
    np.testing.assert_allclose(many.p_value, [result.p_value for result in one])


def test_no_difference_at_all_has_p_1_and_a_constant_one_has_p_0():
    assert paired_difference(np.ones((3, 4)), np.ones((3, 4))).p_value == 1
    assert paired_difference(np.full((3, 4), 0.1 + 0.2), np.full((3, 4), 0.3)).p_value == 1  # they differ by rounding
    assert paired_difference(np.ones((3, 4)), np.zeros((3, 4))).p_value == 0


def test_holm_by_hand_along_any_axis():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    p_values = np.random.default_rng(0).random((4, 3))
    np.testing.assert_allclose(holm(p_values, axis=0), np.stack([holm(column) for column in p_values.T], axis=1))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([0.1, float("nan")])


@pytest.fixture(scope="module")
def coverages() -> list[statistics_check.Coverage]:
    return statistics_check.coverage(2000)


def test_intervals_cover_the_truth_in_93_percent_at_3_5_and_10_seeds_whatever_varies(coverages):
    assert {(c.num_seeds, c.level) for c in coverages} == {(s, level) for s in (3, 5, 10) for level in statistics_check.EFFECTS}
    assert min(c.coverage for c in coverages) >= 0.93
    assert 0.95 <= np.mean([c.coverage for c in coverages]) <= 0.98


def test_intervals_are_at_most_55_percent_wider_than_the_oracles_from_5_seeds_on(coverages):
    assert max(c.width for c in coverages if c.num_seeds >= 5) <= 1.55
    assert max(c.width for c in coverages if c.num_seeds == 10) <= 1.3


def test_arms_without_an_effect_show_one_in_at_most_6_5_percent_of_studies_after_correction():
    alarms = statistics_check.false_alarms(2000)
    assert max(a.corrected for a in alarms) <= 0.065
    assert max(a.uncorrected for a in alarms) > 0.2  # what the correction is for


def test_the_check_says_what_is_not_kept_and_fails(capsys):
    lines: list[str] = []
    bad = statistics_check.Coverage("seed", 5, 16, 0.1, 0.0, 0.9, 1.2)
    kept = [statistics_check.Coverage(level, s, 16, 0.1, 0.1, 0.95, 1.2) for level in statistics_check.EFFECTS for s in (3, 5, 10)]
    alarms = [statistics_check.FalseAlarms(3, 16, 0.1, 0.0, 0.05, 0.2)]
    assert statistics_check.say_what_holds(lines.append, kept, alarms)
    assert not statistics_check.say_what_holds(lines.append, [*kept, bad], alarms)
    assert any(line.startswith("not kept") and "0.9" in line for line in lines)
    assert check_statistics.main(["--draws", "0"]) == 2


def test_entropy_in_bits():
    assert shannon_entropy_bits([3, 3, 3]) == 0 and str(shannon_entropy_bits([3])) == "0.0"
    assert shannon_entropy_bits([0, 1, 2, 3]) == pytest.approx(2)
    assert shannon_entropy_bits([0, 0, 0, 1]) == pytest.approx(0.811278)
    with pytest.raises(ValueError, match="no item"):
        shannon_entropy_bits([])


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
def test_paired_differences_cover_the_truth_in_93_percent_of_simulated_studies(seed_spread, prompt_spread, rest_spread):
    rng, covered, truth = np.random.default_rng(11), 0, 0.7
    for _ in range(400):
        d = truth + rng.normal(0, seed_spread, (3, 1)) + rng.normal(0, prompt_spread, (1, 32)) + rng.normal(0, rest_spread, (3, 32))
        result = paired_difference(d, np.zeros_like(d))
        covered += result.low <= truth <= result.high
    assert 0.93 <= covered / 400 <= 1


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
