"""Simulated studies, fewer than `check_statistics` draws: pooled intervals, equivalence, the best of many, looks, and the whole of it."""

from __future__ import annotations

import numpy as np
import pytest

from ablations.reporting import pipeline_check, pooling_check
from ablations.reporting.best_of_many import best_of
from ablations.reporting.drawn_studies import Design, draw_study
from ablations.reporting.equivalence import equivalence
from ablations.reporting.evidence import Arm, Comparison, Scores
from ablations.reporting.measuring import measure
from ablations.reporting.pooling_check import Share, say_shares
from ablations.reporting.statistics import estimate_means


def shares(found: list[Share]) -> dict[str, float]:
    return {share.what: share.share for share in found}


def test_pooled_intervals_cover_in_93_percent_and_are_narrower(monkeypatch):
    monkeypatch.setattr(pooling_check, "DESIGNS", ((3, 10, 7), (5, 64, 8)))
    monkeypatch.setattr(pooling_check, "SPREADS", ((0.0, 0.0, 1.0), (0.12, 0.1, 1.0)))
    found = pooling_check.pooled_coverage(500)
    assert all(share.holds for share in found)
    assert shares(found)["3 x 10, 7 arms: mean width, in units of the interval by itself"] < 0.75
    assert 0.75 < shares(found)["5 x 64, 8 arms: mean width, in units of the interval by itself"] < 0.95


def test_no_effect_is_said_of_the_margin_itself_in_at_most_5_percent():
    found = pooling_check.equivalence_at_the_margin(400)
    assert all(share.holds for share in found) and max(share.share for share in found) > 0.03


def test_looking_after_every_seed_errs_and_a_plan_does_not():
    looks, planned = pooling_check.optional_stopping(2000)
    assert looks.share > 0.08 and planned.share < 0.065


def test_one_of_five_seeds_that_collapses_breaks_the_coverage_of_few_seeds_alone():
    found = shares(pooling_check.collapsed_seeds(1000))
    assert found["10 x 64: coverage with collapsed seeds, by itself"] >= 0.9
    assert found["5 x 64: coverage with skewed seeds, by itself"] >= 0.93


def test_two_one_sided_tests_are_the_90_percent_interval_within_the_margin():
    rng = np.random.default_rng(4)
    for study in rng.normal(0.02, 0.1, (60, 5, 16)):
        estimate = estimate_means(study)
        found = equivalence(estimate, 0.05)
        low, high = estimate.interval(0.90)
        assert found.holds == (found.p_value < 0.05) == (low > -0.05 and high < 0.05)
    with pytest.raises(ValueError, match="above 0"):
        equivalence(estimate, 0.0)


def test_the_best_is_found_and_what_may_be_best_is_never_empty():
    rng = np.random.default_rng(5)
    values = {str(i): rng.normal(0.3 * (i == 2), 0.2, (5, 32)) for i in range(6)}
    found = best_of(values)
    assert found.may_be_best == ("2",) and found.p_only_best("2") < 0.01 and found.p_not_best("4") < 0.01
    assert found.low["2"] == 0 < found.high["2"] and found.low["4"] < 0 == found.high["4"]
    upside_down = best_of({key: -own for key, own in values.items()}, higher_is_better=False)
    assert upside_down.may_be_best == ("2",)
    with pytest.raises(ValueError, match="two arms"):
        best_of({"a": values["1"]})


def test_a_best_of_equals_is_ruled_out_in_at_most_5_percent():
    assert all(share.holds for share in pooling_check.best_of_equals(10))


def test_whole_studies_say_few_effects_that_are_not_there(monkeypatch):
    monkeypatch.setattr(pipeline_check, "DESIGNS", {"3 x 10": Design(3, 10, 24), "5 x 24": Design(5, 24, 24)})
    found = pipeline_check.false_effects(4)
    assert len(found) == 4 and sum(share.share for share in found) <= 0.25


def test_pictures_of_zero_and_one_and_texts_have_the_designs_size():
    evidence = draw_study(np.random.default_rng(0), Design(4, 8, 16))
    (pictures,) = evidence.of("losses", "plug_in")
    own = pictures.arms["placebo"].scores["style_fits"]
    assert own.values.shape == (4, 8) and set(np.unique(own.values)) == {0.0, 1.0}
    (texts,) = evidence.of("losses", "refined")
    assert texts.arms["placebo"].scores["added_words_fit"].values.shape == (4, 16)


def test_arms_that_lack_a_few_prompts_are_pooled_over_those_that_all_have():
    rng, prompts = np.random.default_rng(7), tuple(f"prompt {i}" for i in range(40))

    def arm(key: str, without: int) -> Arm:
        kept = prompts[without:]
        return Arm(key, key, {"m": Scores(rng.normal(size=(5, len(kept))), tuple(range(5)), kept)}, tuple(range(5)))

    arms = {"a": arm("a", 0), "b": arm("b", 0), "c": arm("c", 2), "d": arm("d", 20), "e": arm("e", 1)}
    found = measure(Comparison("losses", "refined", "a", arms), "m")
    assert {key: own.paired.shape[1] for key, own in found.items()} == {"b": 38, "c": 38, "d": 20, "e": 38}
    assert found["b"].pooled_arms == 4 and found["d"].pooled_arms is None


def test_a_promise_that_is_not_kept_is_said():
    lines: list[str] = []
    assert say_shares(lines.append, [Share("kept", 0.06, 100, at_most=0.05), Share("reported", 0.5, 100)])
    assert not say_shares(lines.append, [Share("broken", 0.2, 1000, at_most=0.05)])
    assert lines[-1].startswith("not kept: broken")
