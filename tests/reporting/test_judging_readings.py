"""Other readings of the method beside the one that is shown: they cost it no power, and are judged as if they were in its place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ablations.reporting.drawn_studies import Design, draw_study, sensitive
from ablations.reporting.evidence import Evidence, Plan
from ablations.reporting.judging import Verdict, judge
from ablations.reporting.pooling import Components

OTHERS = ("other reading, clip weight 0.03", "other reading, clip weight 1")


def study(rng: int = 0, plan: Plan | None = None) -> Evidence:
    design = Design(5, 64, 64, Components(0.0, 0.0, 0.15**2), 0.0, zero_one=())
    return draw_study(np.random.default_rng(rng), design, sensitive() | {("losses", "mse+text", "style_fits"): -0.05}, plan)


def with_others(evidence: Evidence, rows=("mse+text+clip", "mse+text"), **changes) -> Evidence:
    """The evidence with the losses' table of two more readings, which have few rows; their figures are those of the shown one."""
    losses = [c for c in evidence.comparisons if c.table == "losses"]
    more = [replace(c, family=name, arms={key: c.arms[key] for key in rows}, **changes) for name in OTHERS for c in losses]
    return replace(evidence, comparisons=(*evidence.comparisons, *more))


def is_aside(table: str, family: str) -> bool:
    return family in OTHERS


def of(verdicts: list[Verdict], claim: str, family: str = "") -> list[Verdict]:
    return [v for v in verdicts if v.claim.id == claim and v.family == family]


def test_what_is_shown_has_the_same_verdicts_and_p_with_and_without_other_readings_beside_it():
    alone = judge(study(), False)
    beside = [v for v in judge(with_others(study()), False, is_aside) if v.family not in OTHERS]
    assert [(v.claim.id, v.verdict, v.p_holm) for v in beside] == [(v.claim.id, v.verdict, v.p_holm) for v in alone]
    # Told nothing, the correction is over all of them.
    together = [v for v in judge(with_others(study()), False) if v.family not in OTHERS]
    assert any(a.p_holm < b.p_holm for a, b in zip(alone, together, strict=True) if a.p_holm is not None)


def test_another_reading_is_corrected_as_if_it_were_the_shown_one():
    evidence = study()
    every_row = next(c for c in evidence.comparisons if c.table == "losses").arms
    verdicts = judge(with_others(evidence, rows=tuple(every_row)), False, is_aside)
    for claim in ("l_mse", "l_clip", "l_text", "feature"):
        shown = [(v.condition, v.verdict, v.p_value, v.p_holm) for v in of(verdicts, claim)]
        for name in OTHERS:
            assert [(v.condition, v.verdict, v.p_value, v.p_holm) for v in of(verdicts, claim, name)] == shown


def test_a_reading_without_the_controls_arms_has_the_control_of_the_reading_that_is_shown():
    found = of(judge(with_others(study()), False, is_aside), "l_clip", OTHERS[1])
    shown = of(judge(study(), False), "l_clip")
    assert [v.control.text for v in found] == [v.control.text for v in shown] and all(v.control.state == "found" for v in found)


def test_what_nobody_planned_is_judged_at_the_seeds_it_has_and_is_no_look():
    plan = Plan(seeds=(0, 1, 2, 3, 4, 5))
    unplanned = with_others(study(plan=plan), is_planned=False)
    verdicts = judge(unplanned, False, is_aside)
    assert "5 of 6 registered seeds are in" in of(verdicts, "l_clip")[0].reason
    assert not any("registered seeds" in v.reason for v in of(verdicts, "l_clip", OTHERS[0]))
    assert of(verdicts, "l_clip", OTHERS[0])[0].findings[0].num_seeds == 5
