"""Rows of the report's tables: twins and placebo, arms in which keys are idle, seeds that did not finish, and what is averaged."""

from __future__ import annotations

import pandas as pd
import pytest

from ablations.reporting import raw_scores
from ablations.reporting.assembly import assemble
from ablations.reporting.collect import collect
from ablations.reporting.layouts import AFE, LOSSES, base_clip_weight, families, is_placebo
from ablations.reporting.tables import plural, tables_of
from helpers.synthetic_runs import write_arms, write_cell

SMALL = {"num_prompts": 4, "pictures": False}


def table_named(report, layout: str, condition: str = "refined"):
    (found,) = [t for t in report.sections[0].tables if t.layout == layout and t.condition in (condition, "")]
    return found


@pytest.mark.parametrize(("weight", "base"), [(0.1, 0.1), (0.10001, 0.1), (0.30003, 0.3), (0.3, 0.3), (1.0001, 1.0), (0.103, 0.103)])
def test_a_placebo_is_told_by_a_weight_that_was_changed_in_the_fifth_digit(weight, base):
    settings = {"use_clip": True, "loss.clip_weight": weight}
    assert base_clip_weight(settings) == base and is_placebo(settings) == (weight != base)


def test_twins_and_the_placebo_stand_behind_the_arms_of_the_afe_table(tmp_path):
    arms = [{}, {"use_afe": False}, {"afe.weights": "uniform"}, {"afe.weights": "frozen"}, {"loss.clip_weight": 0.1 * 1.0001}]
    write_arms(tmp_path, arms, range(3), **SMALL)
    report = assemble(tmp_path)
    table = table_named(report, "afe")
    assert [row.key for row in table.rows] == ["with", "without", "uniform", "frozen", "placebo"]
    assert len({row.arm for row in table.rows}) == 5 and table.row("placebo").entries["fidelity"].difference is not None
    assert [row.key for row in table_named(report, "losses").rows] == ["mse+text+clip", "text+clip", "mse+text", "text", "placebo"]


def test_an_arm_stands_in_every_family_that_differs_from_it_in_idle_keys_alone(tmp_path):
    readings = [{"loss.clip_weight": weight} for weight in (0.1, 0.3)]
    write_arms(tmp_path, [*readings, {"use_clip": False, "use_afe": False}], range(3), **SMALL)
    (section,) = collect(tmp_path).sections
    tables = [t for t in tables_of(section) if t.layout == "losses" and t.condition == "refined"]
    assert [t.family for t in tables] == ["loss.clip_weight=0.1", "loss.clip_weight=0.3"]
    assert len({t.row("mse+text").arm for t in tables}) == 1 and len({t.row("mse+text+clip").arm for t in tables}) == 2
    assert families(AFE, section.cells) == []


@pytest.mark.parametrize("fuller", [0, 1])
def test_of_two_sweeps_that_ran_an_arm_the_cell_with_more_conditions_counts(tmp_path, fuller):
    """As sweeps/ablation_tables.yaml and sweeps/readings.yaml do, in one folder."""
    for number, settings in enumerate(({}, {"eval.controls": False})):
        write_cell(tmp_path, settings, 0, further={"fitting_styles": 0.5} if number == fuller else None, **SMALL)
    write_cell(tmp_path, {"use_mse": False}, 0, **SMALL)
    (section,) = collect(tmp_path).sections
    (family,) = families(LOSSES, section.cells)
    assert len({cell.arm for cell in section.cells}) == 3
    assert "fitting_styles" in family.rows["mse+text+clip"][0].conditions


def test_every_row_says_how_many_of_its_seeds_finished(tmp_path):
    write_arms(tmp_path, [{}, {"use_mse": False}], range(3), **SMALL)
    write_cell(tmp_path, {"use_mse": False}, 3, finish=False, **SMALL).fail("not finite")
    write_cell(tmp_path, {"use_text": False}, 0, finish=False, **SMALL).fail("not finite")
    table = table_named(assemble(tmp_path), "losses")
    assert {row.key: row.finished for row in table.rows} == {
        "mse+text+clip": "3 of 3",
        "text+clip": "3 of 4",
        "mse+text": "not run",
        "text": "not run",
        "mse+clip": "0 of 1",
    }
    assert "without L_mse: 3 of 4 seeds finished." in table.notes and "without L_text: 0 of 1 seeds finished." in table.notes


def test_arms_are_compared_over_the_candidates_that_all_of_them_have(tmp_path):
    write_arms(tmp_path, [{}], range(3), **SMALL)
    write_arms(tmp_path, [{"use_mse": False}], range(3), candidates_of={"refined": 1}, **SMALL)
    table = table_named(assemble(tmp_path), "losses")
    full, other = table.row("mse+text+clip"), table.row("text+clip")
    scores = [pd.read_parquet(tmp_path / full.arm / f"seed-{seed}" / "scores.parquet") for seed in range(3)]
    first = [s[(s.metric == "fidelity") & (s.condition == "refined") & (s.candidate == 0)].value.mean() for s in scores]
    assert full.entries["fidelity"].mean == pytest.approx(sum(first) / 3)
    assert full.entries["fidelity"].by_seed == pytest.approx(first)
    assert {row.size_in(table.block("quality")) for row in (full, other)} == {"3 \N{MULTIPLICATION SIGN} 4 \N{MULTIPLICATION SIGN} 1"}
    difference = other.entries["fidelity"]
    assert difference.difference_mean == pytest.approx(other.entries["fidelity"].mean - full.entries["fidelity"].mean)
    assert difference.differences_by_seed == pytest.approx([a - b for a, b in zip(difference.by_seed, first, strict=True)])


def test_plug_in_has_tables_of_loss_terms_and_of_afe(tmp_path):
    write_arms(tmp_path, [{}, {"use_mse": False}, {"use_afe": False}], range(3), **SMALL)
    report = assemble(tmp_path)
    assert table_named(report, "losses", "plug_in").title == "Loss terms: coarse prompts, drawn with the trained E_T"
    assert table_named(report, "afe", "plug_in").row("without").entries["fidelity"].difference is not None


def test_titles_of_conditions_are_put_in_the_plural_where_they_are_prompts():
    assert plural("refined prompt") == "refined prompts"
    assert plural("coarse prompt, drawn with the trained E_T") == "coarse prompts, drawn with the trained E_T"
    assert plural("control: T5 reads the coarse prompt") == "control: T5 reads the coarse prompt"


def test_the_raw_scores_of_every_cell_in_a_table_are_one_small_file(tmp_path):
    write_arms(tmp_path / "runs", [{}, {"use_mse": False}], range(3), **SMALL)
    write_cell(tmp_path / "runs", {"use_text": False}, 0, finish=False, **SMALL).fail("not finite")
    raw_scores.write(collect(tmp_path / "runs"), tmp_path / "scores.parquet")
    table = pd.read_parquet(tmp_path / "scores.parquet")
    assert list(table.columns) == list(raw_scores.COLUMNS)
    files = sorted((tmp_path / "runs").glob("*/seed-*/scores.parquet"))
    cells = [pd.read_parquet(path) for path in files if "text" in path.parts[-3]]
    assert len(table) == sum(map(len, cells)) and table.arm.nunique() == 2
    assert table.value.sum() == pytest.approx(sum(cell.value.sum() for cell in cells), rel=1e-6)
    assert (tmp_path / "scores.parquet").stat().st_size < 10 * len(table)
