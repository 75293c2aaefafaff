"""Verdicts of run folders: the evidence is what the files say, and a registration, failures and looks are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ablations.reporting.assembly import assemble
from ablations.reporting.collect import Section, collect
from ablations.reporting.evidence import Plan
from ablations.reporting.gathering import evidence_of
from ablations.reporting.verdicts import Verdict, summary, verdicts_of
from helpers.synthetic_runs import ALL_SEEDS, every_arm, write_arms, write_cell


@pytest.fixture(scope="module")
def section(tmp_path_factory) -> Section:
    return collect(every_arm(tmp_path_factory.mktemp)).sections[0]


@pytest.fixture(scope="module")
def found(section) -> dict[tuple[str, str], Verdict]:
    return {(v.claim.id, v.condition): v for v in verdicts_of(section)}


def test_the_evidence_is_the_scores_of_the_files(section):
    (comparison,) = evidence_of(section).of("losses", "plug_in")
    own = comparison.arms["text+clip"].scores["style_fits"]
    cell = next(c for c in section.cells if c.seed == 3 and c.arm.startswith("tiny-len6-text-clip-afe"))
    scores = pd.read_parquet(cell.folder / "scores.parquet")
    chosen = scores[(scores.metric == "style_fits") & (scores.condition == "plug_in")]
    assert own.seeds == ALL_SEEDS and len(own.prompts) == 6 and own.candidates == 3
    assert own.values[3].mean() == pytest.approx(chosen.value.mean())


def test_verdicts_say_what_is_true_of_the_synthetic_arms(found):
    assert found["l_mse", "plug_in"].verdict == "reproduced"
    assert found["l_text", "refined"].verdict == "reproduced"
    assert found["feature", "refined"].verdict == "contradicted"
    assert found["l_clip", "plug_in"].verdict != "reproduced"
    assert "no assay sensitivity: the positive control was not measured" in found["afe", "refined_shared_noise"].reason
    assert "manipulation check not measured" in found["l_mse", "plug_in"].marks and "no placebo was run" in found["l_mse", "plug_in"].marks


def test_a_verdict_names_the_difference_the_interval_n_its_own_p_and_what_it_is_about(found):
    verdict = found["l_mse", "plug_in"]
    assert verdict.line.startswith("without L_mse: ") and "(N = 5 × 6 × 3)" in verdict.line  # noqa: RUF001
    assert "; p < 0.001, Holm p " in verdict.line and verdict.p_holm > verdict.p_value
    assert verdict.table.endswith("losses-plug-in")
    assert all("tiny world" in v.scope and "nothing about Stable Diffusion 2.1" in v.scope for v in found.values())
    assert summary([verdict])[0].startswith("reproduced: L_mse matters, in plug_in (without L_mse: ")


def test_a_failed_cell_counts_against_its_arm_and_is_said(tmp_path):
    def effect(settings, metric):
        return -0.2 * (settings.get("use_mse") is False)

    write_arms(tmp_path, [{}], ALL_SEEDS, effect, num_prompts=5, pictures=False)
    write_arms(tmp_path, [{"use_mse": False}], ALL_SEEDS[:4], effect, num_prompts=5, pictures=False)
    before = next(v for v in verdicts_of(collect(tmp_path).sections[0]) if v.claim.id == "l_mse")
    write_cell(tmp_path, {"use_mse": False}, 4, num_prompts=5, pictures=False, finish=False).fail("FloatingPointError: L_text")
    verdict = next(v for v in assemble(tmp_path).sections[0].verdicts if v.claim.id == "l_mse")
    assert "4 of 5 seeds of without L_mse finished" in verdict.marks and "failed seeds count against what is said" in verdict.marks
    assert verdict.p_value > before.p_value and verdict.findings[0].failed == 1


def test_a_plan_judges_its_seeds_alone(section):
    planned = next(v for v in verdicts_of(section, Plan(seeds=(0, 1, 2))) if v.claim.id == "l_mse")
    assert planned.findings[0].num_seeds == 3 and "2 seeds beyond the registered ones are left out" in planned.marks
    early = next(v for v in verdicts_of(section, Plan(seeds=tuple(range(8)))) if v.claim.id == "l_mse")
    assert early.verdict == "undecided" and "5 of 8 registered seeds are in" in early.reason


def test_arms_that_were_not_drawn_in_a_condition_are_not_measured_there(section):
    cells = tuple(c for c in section.cells if c.settings["use_mse"])
    verdicts = {(v.claim.id, v.condition): v for v in verdicts_of(replace(section, cells=cells))}
    assert verdicts["l_mse", "plug_in"].verdict == "not measured"
    assert verdicts["feature", "refined"].verdict == "contradicted"


def test_metrics_of_claims_are_read_in_the_folder_of_an_arm_alone(tmp_path: Path):
    write_arms(tmp_path, [{}], range(3), num_prompts=3, pictures=False)
    assert {v.verdict for v in verdicts_of(collect(tmp_path).sections[0]) if v.claim.table != "conditions"} == {"not measured"}
