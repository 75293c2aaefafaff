"""Verdicts from evidence whose truth is known: what is found, what is not there, and what must not be judged."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from ablations.metrics.register import all_metrics
from ablations.reporting.claims import load_claims, margins
from ablations.reporting.drawn_studies import CHECKS, FULL, PICTURES, TEXTS, Design, draw_study, sensitive, with_arm
from ablations.reporting.evidence import Evidence, Plan, Scores
from ablations.reporting.judging import Verdict, judge
from ablations.reporting.layouts import LAYOUTS
from ablations.reporting.pooling import Components

LENGTHS = ("2", "4", "8", "10", "12", "16", "20")
NONE = "no effect larger than the margin"


def drawn(effects=None, seeds=range(5), num_prompts=64, plan=None, noise=0.08, rng=0) -> Evidence:
    """A study of scores that vary with nothing but a rest of this deviation."""
    design = Design(len(seeds), num_prompts, num_prompts, Components(0.0, 0.0, noise**2), 0.0, zero_one=())
    return draw_study(np.random.default_rng(rng), design, effects, plan)


def verdict(evidence: Evidence, claim: str, condition: str | None = None, number: int = 0) -> Verdict:
    own = [v for v in judge(evidence) if v.claim.id == claim and (condition is None or v.condition == condition)]
    return own[number]


def test_effects_that_were_drawn_are_found_and_arms_without_one_have_none():
    found = {(v.claim.id, v.condition): v.verdict for v in judge(drawn(sensitive(), num_prompts=200)) if v.is_primary}
    assert found == {
        ("l_mse", "plug_in"): "reproduced",
        ("l_clip", "plug_in"): NONE,
        ("l_text", "refined"): "reproduced",
        ("feature", "refined"): NONE,
        ("afe", "refined_shared_noise"): NONE,
        ("length_6", "refined"): NONE,
        ("refiner", "refined"): "reproduced",
    }


def test_an_effect_the_other_way_contradicts_and_one_endpoint_of_two_reproduces_nothing():
    other_way = sensitive() | {("losses", "mse+text", metric): 0.2 for metric in PICTURES}
    assert verdict(drawn(other_way, num_prompts=64), "l_clip").verdict == "contradicted"
    one_of_two = sensitive() | {("losses", "mse+text", PICTURES[0]): -0.2}
    found = verdict(drawn(one_of_two, num_prompts=200), "l_clip")
    assert found.verdict == "undecided" and "more seeds would not change that" in found.reason


def test_an_undecided_claim_says_what_the_data_bound_and_how_many_seeds_would_decide():
    noisy = drawn(sensitive() | {("losses", "mse+text", metric): -0.04 for metric in PICTURES}, num_prompts=24, noise=0.2)
    found = verdict(noisy, "l_clip")
    assert found.verdict == "undecided"
    worst = max(-f.low for f in found.findings if f.endpoint.name == PICTURES[0])
    assert f"at most {worst:.3f} worse" in found.line and re.search(r"\d+ seeds . \d+ prompts would decide", found.reason)


@pytest.mark.parametrize(
    ("claim", "measure", "value", "said"),
    [
        ("l_mse", "mse_gap_closed", 0.45, "wanted: at least 0.5"),
        ("l_mse", "mse_gap_closed", 0.3, "0.2 above the arm without"),
        ("l_clip", "clip_accuracy", 0.15, "0.1 above the arm without"),
        ("l_text", "text_loss", 2.9, "0.2 below the arm without"),
        ("afe", "afe_cosine_to_pooled", 0.99, "at most 0.95"),
        ("afe", "afe_entropy_share", 0.95, "at least 0.2, at most 0.9"),
        ("afe", "afe_retrieval_coarse", 0.5, "at least 0.9 x pooled_retrieval_coarse of the arm without"),
    ],
)
def test_a_treatment_that_fails_its_check_in_one_seed_was_not_delivered(claim, measure, value, said):
    evidence = drawn(sensitive(), num_prompts=24)
    table, reference = ("afe", "with") if claim == "afe" else ("losses", FULL)
    broken = dict.fromkeys(range(5), CHECKS) | {3: CHECKS | {measure: value}}
    found = verdict(with_arm(evidence, table, reference, checks=broken), claim)
    assert found.verdict == "not delivered" and said in found.reason and "kept to in 4 of 5 seeds" in found.reason


def test_without_checks_a_claim_is_judged_and_says_so():
    found = verdict(with_arm(drawn(sensitive(), num_prompts=64), "losses", FULL, checks={}), "l_mse")
    assert found.verdict == "reproduced" and "manipulation check not measured" in found.marks


def test_a_control_that_is_not_found_and_a_placebo_that_is_leave_no_assay_sensitivity():
    effects = sensitive() | {("conditions", "fine", metric): -0.3 for metric in PICTURES}
    found = verdict(drawn(effects, num_prompts=64), "l_mse", "plug_in")
    assert found.verdict == "undecided" and "the positive control was not found (fine against coarse" in found.reason
    effects = sensitive() | {("losses", "placebo", metric): 0.1 for metric in PICTURES}
    evidence = drawn(effects, num_prompts=64)
    found = verdict(evidence, "l_mse", "plug_in")
    assert found.verdict == "undecided" and "the placebo shows a difference" in found.reason
    assert verdict(evidence, "l_mse", "refined").verdict == "reproduced"  # its endpoints there are others


def test_an_endpoint_at_its_ceiling_leaves_no_room():
    evidence = drawn(sensitive(), num_prompts=24, noise=0.2)
    endpoints = {name: replace(endpoint, ceiling=0.52) for name, endpoint in evidence.endpoints.items()}
    found = verdict(replace(evidence, endpoints=endpoints), "feature")
    assert found.verdict == "no room" and "less room than its margin of 0.05" in found.reason


def test_a_failed_seed_counts_against_what_is_said():
    effects = sensitive() | {("losses", "mse+text", metric): -0.4 for metric in PICTURES}
    evidence = drawn(effects, num_prompts=64, rng=1)
    arm = next(c for c in evidence.comparisons if c.table == "losses" and c.condition == "plug_in").arms["mse+text"]
    scores = {name: Scores(own.values[:4], own.seeds[:4], own.prompts) for name, own in arm.scores.items()}
    lacking = with_arm(evidence, "losses", "mse+text", scores=scores, seeds=(0, 1, 2, 3))
    whole, four, failed = (verdict(e, "l_clip") for e in (evidence, lacking, with_arm(lacking, "losses", "mse+text", failed=(4,))))
    assert whole.verdict == four.verdict == "reproduced"
    assert failed.verdict == "undecided" and failed.p_value > 10 * four.p_value and failed.findings[0].mean == four.findings[0].mean
    assert "4 of 5 seeds of mse+text finished" in failed.marks and failed.findings[0].num_seeds == 4
    # As if the fifth had shown no effect.
    assert failed.findings[0].p_supports > 0.01


def test_by_a_plan_its_seeds_alone_are_judged_and_nothing_before_they_are_in():
    plan = Plan(seeds=(0, 1, 2, 3, 4))
    found = verdict(drawn(sensitive(), seeds=range(7), num_prompts=64, plan=plan), "l_mse")
    assert found.verdict == "reproduced" and found.findings[0].num_seeds == 5
    assert "2 seeds beyond the registered ones are left out" in found.marks
    early = verdict(drawn(sensitive(), seeds=range(3), num_prompts=64, plan=plan), "l_mse")
    assert early.verdict == "undecided" and "3 of 5 registered seeds are in" in early.reason


def test_two_seeds_decide_nothing_and_arms_that_nobody_ran_are_not_measured():
    found = verdict(drawn(sensitive(), seeds=range(2), num_prompts=24), "l_mse")
    assert found.verdict == "undecided" and found.reason == "fewer than 3 seeds" and "no interval below 3 seeds" in found.line
    nothing = replace(drawn(sensitive()), comparisons=())
    assert {v.verdict for v in judge(nothing)} == {"not measured"}
    assert verdict(nothing, "l_mse").line == "no finished arms with other loss terms and all else equal"


def test_length_6_is_best_alone_or_ruled_out_or_one_of_several():
    best = sensitive() | {("prompt_length", row, "words_f1_of_ceiling"): -0.2 for row in LENGTHS}
    assert verdict(drawn(best, num_prompts=64), "length_6").verdict == "reproduced"
    beaten = sensitive() | {("prompt_length", "8", "words_f1_of_ceiling"): 0.2}
    found = verdict(drawn(beaten, num_prompts=64), "length_6")
    assert found.verdict == "contradicted" and found.best["words_f1_of_ceiling"].may_be_best == ("8",)
    # 8 may be as good: neither.
    worse = sensitive() | {("prompt_length", row, "words_f1_of_ceiling"): -0.2 for row in LENGTHS if row != "8"}
    assert verdict(drawn(worse, num_prompts=64), "length_6").verdict == "undecided"


def test_holm_is_over_everything_that_is_judged_and_the_claims_own_p_is_the_largest_of_its_comparisons():
    evidence = drawn(sensitive() | {("losses", "mse+text", m): -0.03 for m in PICTURES}, num_prompts=24, noise=0.15)
    found = verdict(evidence, "l_clip")
    assert found.p_value == max(f.p_supports for f in found.findings) or found.p_value < 1
    judged = [v for v in judge(evidence) if v.p_holm is not None]
    assert all(v.p_holm >= v.p_value for v in judged) and len(judged) >= 5


def test_every_claim_has_a_margin_and_a_control_at_every_endpoint():
    claims = load_claims()
    assert [claim.id for claim in claims] == ["l_mse", "l_clip", "l_text", "feature", "afe", "length_6", "refiner"]
    for profile in ("tiny", "paper"):
        names = {name for claim in claims for setting in claim.settings for name in setting.endpoints[profile]}
        assert names <= set(margins(profile)) and all(value > 0 for value in margins(profile).values())
    assert all(setting.positive_control.better for claim in claims for setting in claim.settings)
    registered = set(all_metrics())
    assert {name for claim in claims for setting in claim.settings for names in setting.endpoints.values() for name in names} <= registered
    assert {claim.table for claim in claims} <= {"conditions", *(layout.id for layout in LAYOUTS)}
    assert claims[0].conditions == ("plug_in", "refined") and claims[0].endpoints_in("refined", "tiny") == TEXTS
    assert "style_entropy" not in margins("tiny")  # it was at its ceiling


def test_pooling_leaves_an_arm_of_other_spread_its_own_interval():
    from ablations.reporting.pooling import pooled_differences

    rng = np.random.default_rng(3)
    values = {f"arm {i}": rng.normal(0, 0.1, (5, 64)) + rng.normal(0, 0.02, (5, 1)) for i in range(7)}
    values["arm 6"] = values["arm 6"] * 4
    found = pooled_differences(values, "arm 0")
    assert "arm 6" in found.wider and found.pooled_arms("arm 6") is None and len(found.pooled) >= 5
    low, high = found.by_arm["arm 6"].interval()
    calm_low, calm_high = found.by_arm["arm 1"].interval()
    assert high - low > 2 * (calm_high - calm_low)
