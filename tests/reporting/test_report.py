"""The report: what enters which table, what the figures are, and what the verdicts say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ablations.cell.scoring.tiny_world import STYLE_SEEN
from ablations.metrics.oracles import shannon_entropy_bits
from ablations.reporting import columns, verdicts
from ablations.reporting.assembly import Report, assemble
from ablations.reporting.collect import collect
from ablations.reporting.layouts import differing
from ablations.reporting.statistics import holm, paired_difference
from ablations.runtime.errors import UserError
from helpers.synthetic_runs import ALL_SEEDS, FAILURE, every_arm, forget_digests, write_arms, write_cell


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return every_arm(tmp_path_factory.mktemp)


@pytest.fixture(scope="module")
def report(outputs) -> Report:
    return assemble(outputs)


def table_named(report: Report, layout: str, condition: str = "refined"):
    (found,) = [t for t in report.sections[0].tables if t.layout == layout and t.condition in (condition, "")]
    return found


def scores_of(outputs: Path, arm: str, metric: str, condition: str) -> np.ndarray:
    """(seeds, prompts), candidates averaged, straight from the files."""
    parts = []
    for seed in ALL_SEEDS:
        scores = pd.read_parquet(outputs / arm / f"seed-{seed}" / "scores.parquet")
        chosen = scores[(scores.metric == metric) & (scores.condition == condition)]
        parts.append(chosen.groupby("prompt_id").value.mean().to_numpy())
    return np.stack(parts)


# -- tables ---------------------------------------------------------------------------------------------------------------


def test_the_loss_table_has_the_four_arms_then_the_others(report):
    table = table_named(report, "losses")
    assert [row.key for row in table.rows] == ["mse+text+clip", "text+clip", "mse+text", "text", "mse+clip", "mse+text+clip+feature"]
    assert [row.label for row in table.rows][:2] == ["full arm", "without L_mse"]
    assert all(row.size == "5 × 6 × 3" for row in table.rows)  # noqa: RUF001
    assert [row.is_reference for row in table.rows] == [True, False, False, False, False, False]


def test_a_cells_figures_are_those_of_the_paired_statistics_on_the_raw_scores(outputs, report):
    table = table_named(report, "losses")
    full, without = table.row("mse+text+clip"), table.row("text+clip")
    a, b = (scores_of(outputs, row.arm, "fidelity", "refined") for row in (without, full))
    entry, expected = without.entries["fidelity"], paired_difference(a, b)
    assert entry.mean == pytest.approx(a.mean()) and full.entries["fidelity"].mean == pytest.approx(b.mean())
    assert entry.difference.mean == pytest.approx(expected.mean)
    # The interval rests on the spread of several arms, which is about that of two.
    assert entry.pooled_arms and (entry.difference.low, entry.difference.high) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert (entry.num_seeds, entry.num_prompts, entry.shared_seeds) == (5, 6, 5)
    p_values = [row.entries["fidelity"].difference.p_value for row in table.rows if not row.is_reference]
    assert [row.entries["fidelity"].p_holm for row in table.rows if not row.is_reference] == pytest.approx(holm(p_values))


def test_diversity_is_also_shown_at_shared_noise_for_refined_prompts_only(outputs, report):
    row = table_named(report, "afe").row("without")
    expected = scores_of(outputs, row.arm, "st_lpips", "refined_shared_noise").mean()
    assert row.entries["st_lpips@refined_shared_noise"].mean == pytest.approx(expected)
    assert row.entries["st_lpips"].mean != pytest.approx(expected)
    rewritten = {column.key for column in table_named(report, "afe", "rewrite").columns}
    assert "st_lpips" in rewritten and not any("@" in key for key in rewritten)


def test_style_entropy_is_of_the_styles_seen_over_prompts_and_candidates_of_a_seed(outputs, report):
    row = table_named(report, "afe").row("without")
    entropies = []
    for seed in ALL_SEEDS:
        scores = pd.read_parquet(outputs / row.arm / f"seed-{seed}" / "scores.parquet")
        entropies.append(shannon_entropy_bits(scores[(scores.metric == "style_seen") & (scores.condition == "refined")].value))
    entry = row.entries["style_entropy"]
    assert entry.mean == pytest.approx(np.mean(entropies)) and 0 < entry.mean <= 1
    assert (entry.num_seeds, entry.num_prompts, entry.difference.degrees_of_freedom) == (5, 1, pytest.approx(4, abs=0.01))


def test_the_class_of_the_style_is_scored_but_never_averaged():
    from ablations.cell.scoring.summary import summary_of
    from ablations.metrics.word_oracle import style_class
    from datamodules.tiny_world.grammar import STYLES

    assert [style_class(style) for style in (*STYLES, None)] == list(range(7))
    rows = [(0, "refined", c, metric, value) for c in range(2) for metric, value in (("fidelity", 0.5), ("style_seen", 6.0))]
    table = pd.DataFrame(rows, columns=["prompt_id", "condition", "candidate", "metric", "value"])
    assert summary_of(table.assign(image="a.png"), 1, 2)["refined"] == {"fidelity": 0.5}


def test_the_comparison_of_conditions_is_of_the_full_arm(report):
    table = table_named(report, "conditions")
    expected = ["coarse", "plug_in", "refined", "refined_shared_noise", "rewrite"]
    expected += ["control_step0", "control_t5_direct", "control_shuffled", "fine"]
    assert [row.key for row in table.rows] == expected
    assert table.family == f"arm {table_named(report, 'losses').row('mse+text+clip').arm}"
    assert table.row("coarse").entries["fidelity"].difference.mean < 0 < table.row("fine").entries["fidelity"].difference.mean
    assert "st_lpips" not in table.row("control_step0").entries
    quality = [row.key for row in table.rows_of(table.block("quality"))]
    assert "refined_shared_noise" not in quality and "coarse" in quality


def test_classes_parts_of_scores_and_what_is_no_quality_measure_at_64_px_are_no_columns(report):
    shown = {column.metric for table in report.sections[0].tables for column in table.columns}
    assert not shown & {"style_seen", "piqe", "distinct_2"}
    assert {"fidelity", "words_drawn", "style_drawn", "subject_kept", "clip_score", "clip_score_coarse"} <= shown
    assert {"st_lpips", "clip_distance", "vendi", "style_entropy"} <= shown


def test_a_metric_that_the_report_does_not_know_is_a_column_in_no_verdict():
    found = columns.columns_of({"fidelity", "new_metric"}, {"new_set_metric"}, is_tiny=True, own_condition="refined")
    assert [(c.metric, c.better, c.block) for c in found] == [
        ("fidelity", "higher", "quality"),
        ("new_metric", "", "quality"),
        ("new_set_metric", "", "diversity"),
    ]


def test_directions_are_those_of_the_metrics_own_register():
    from ablations.metrics.register import all_metrics

    words = {True: "higher", False: "lower", None: ""}
    registered = all_metrics()
    compared = [column for column in columns.known_columns() if column.metric in registered]
    assert len(compared) >= 5
    assert all(column.better == words[registered[column.metric].higher_is_better] for column in compared)
    assert columns.STYLE_SEEN == STYLE_SEEN


def test_prompts_with_equal_text_are_one_unit(tmp_path):
    coarse = ["a cat", "a dog", "a cat", "an owl"]
    write_arms(tmp_path, [{}, {"use_mse": False}], range(3), num_prompts=4, coarse=coarse, pictures=False)
    row = table_named(assemble(tmp_path), "losses").row("text+clip")
    assert row.size == "3 × 3 × 3"  # noqa: RUF001
    assert row.entries["fidelity"].difference.num_prompts == 3


def test_below_3_seeds_there_is_no_interval_and_the_table_says_why(tmp_path):
    write_arms(tmp_path, [{}, {"use_mse": False}], range(2), num_prompts=4, pictures=False)
    report = assemble(tmp_path)
    table = table_named(report, "losses")
    entry = table.row("text+clip").entries["fidelity"]
    assert entry.difference is None and entry.p_holm is None and entry.interval is None and entry.difference_mean is not None
    assert any("No interval for any row: 2 of the 3 seeds" in note for note in table.notes)
    assert {v.verdict for v in report.sections[0].verdicts} <= {"undecided", "not measured"}


def test_3_seeds_have_an_interval_and_5_are_recommended(tmp_path):
    write_arms(tmp_path, [{}, {"use_mse": False}], range(3), num_prompts=4, pictures=False)
    table = table_named(assemble(tmp_path), "losses")
    assert table.row("text+clip").entries["fidelity"].difference is not None
    assert any("3 seeds: for a headline table 5 are recommended" in note for note in table.notes)


def test_pairs_are_the_seeds_that_both_arms_have(tmp_path):
    write_arms(tmp_path, [{}], (0, 1, 2, 3), num_prompts=4, pictures=False)
    write_arms(tmp_path, [{"use_mse": False}], (1, 2, 3, 7), num_prompts=4, pictures=False)
    row = table_named(assemble(tmp_path), "losses").row("text+clip")
    assert row.seeds == (1, 2, 3, 7) and row.entries["fidelity"].shared_seeds == 3 and row.entries["fidelity"].num_seeds == 4


def test_an_arm_that_nobody_ran_is_listed_as_not_run(tmp_path):
    write_arms(tmp_path, [{}, {"use_mse": False}], range(3), num_prompts=4, pictures=False)
    table = table_named(assemble(tmp_path), "losses")
    assert [row.size for row in table.rows][2:] == ["not run", "not run"]
    found = {v.claim.id: v for v in assemble(tmp_path).sections[0].verdicts}
    assert found["l_clip"].verdict == "not measured" and "mse+text: " in found["l_clip"].line and "not measured" in found["l_clip"].line


def test_a_table_without_its_reference_says_so_and_shows_means(tmp_path):
    write_arms(tmp_path, [{"prompt_len": 4}, {"prompt_len": 8}], range(3), num_prompts=4, pictures=False)
    table = table_named(assemble(tmp_path), "prompt_length")
    assert [row.key for row in table.rows] == ["4", "6", "8"]
    assert any("length 6) was not run" in note for note in table.notes)
    assert table.row("8").entries["fidelity"].difference_mean is None


def test_arms_that_differ_in_other_keys_too_get_tables_of_their_own(tmp_path):
    write_arms(tmp_path, [{}, {"use_mse": False}], range(3), num_prompts=4, pictures=False)
    longer = [{"prompt_len": 12}, {"prompt_len": 12, "use_mse": False}, {"prompt_len": 12, "use_text": False}]
    write_arms(tmp_path, longer, range(3), num_prompts=4, pictures=False)
    tables = [t for t in assemble(tmp_path).sections[0].tables if t.layout == "losses" and t.condition == "refined"]
    assert [t.family for t in tables] == ["prompt_len=12", "prompt_len=6"]
    assert len({t.slug for t in tables}) == 2
    assert all(len({row.arm for row in t.rows if row.arm}) == n for t, n in zip(tables, (3, 2), strict=True))
    assert differing([{"prompt_len": 6, "seed": 1}, {"prompt_len": 6, "seed": 1}]) == ["", ""]


# -- what is kept apart or left out ---------------------------------------------------------------------------------------


def test_cells_in_no_table_are_listed_with_status_and_reason(report):
    found = {item.name.split("/")[0].split("-mse")[0]: (item.status, item.reason) for item in report.collection.left_out}
    assert found["tiny-len10"] == ("failed", FAILURE)
    assert found["tiny-len16"][0] == "interrupted" and "the same command goes on" in found["tiny-len16"][1]
    assert found["tiny-torn"][0] == "absent"
    assert found["tiny-len6"][0] == "rehearsal" and "without pre-training" in found["tiny-len6"][1]


def test_a_rehearsal_enters_no_table_by_its_flag_either(tmp_path):
    write_arms(tmp_path, [{}, {"use_mse": False}], range(3), num_prompts=3, pictures=False)
    write_cell(tmp_path, {"use_text": False}, 0, num_prompts=3, pictures=False).record(rehearsal=True)
    report = assemble(tmp_path)
    assert [item.status for item in report.collection.left_out] == ["rehearsal"]
    assert table_named(report, "losses").row("mse+clip") is None


@pytest.mark.parametrize(
    ("other", "settings"),
    [
        ({"digests": {"data": "f" * 64}}, {}),
        ({"digests": {"weights": "a" * 16}}, {}),
        ({}, {"profile": "paper", "train.precision": "32-true"}),
    ],
)
def test_other_data_weights_or_profiles_never_share_a_table(tmp_path, other, settings):
    write_arms(tmp_path, [{}, {"use_mse": False}], range(3), num_prompts=3, pictures=False)
    write_arms(
        tmp_path,
        [{"use_clip": False, "use_afe": False, **settings}, {"use_text": False, **settings}],
        range(3),
        num_prompts=3,
        pictures=False,
        **other,
    )
    report = assemble(tmp_path)
    assert len(report.sections) == 2
    arms = [{row.arm for table in section.tables for row in table.rows} - {""} for section in report.sections]
    assert len(arms[0]) == len(arms[1]) == 2 and not arms[0] & arms[1]
    warned = any("different data or weights" in warning and "force=true" in warning for warning in report.collection.warnings)
    assert warned == bool(other)


def test_scores_that_are_missing_or_not_finite_leave_the_cell_out_instead_of_being_averaged(tmp_path):
    write_arms(tmp_path, [{}], range(3), num_prompts=3, pictures=False)
    broken = write_cell(tmp_path, {}, 3, num_prompts=3, pictures=False)
    scores = pd.read_parquet(broken.scores)
    scores.loc[0, "value"] = np.nan
    scores.to_parquet(broken.scores)
    write_cell(tmp_path, {}, 4, num_prompts=3, pictures=False).scores.unlink()
    write_cell(tmp_path, {}, 5, num_prompts=3, pictures=False).scores.write_bytes(b"torn")
    torn = write_cell(tmp_path, {}, 6, num_prompts=3, pictures=False).prompts
    torn.write_text(torn.read_text()[:-30])
    forget_digests(tmp_path)
    collection = collect(tmp_path)
    reasons = [item.reason for item in collection.left_out]
    assert "prompts.jsonl, line 81 is torn or damaged" in reasons[3]
    assert "1 of" and "not finite" in reasons[0]
    assert "scores.parquet is missing" in reasons[1] and all("force=true" in reason for reason in reasons)
    assert [cell.seed for cell in collection.sections[0].cells] == [0, 1, 2]


def test_a_folder_without_cells_or_without_finished_ones_is_one_line_that_says_what_to_give(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        collect(tmp_path / "absent")
    with pytest.raises(UserError, match="no run folder"):
        collect(tmp_path)
    folder = write_cell(tmp_path, {}, 0, num_prompts=2, pictures=False, finish=False)
    folder.fail("no space")
    with pytest.raises(UserError, match=r"none of the 1 cells .*1 failed.*no space"):
        collect(tmp_path)
    with pytest.raises(UserError, match="folder of one arm"):
        collect(folder.path.parent)


def test_what_was_not_published_is_empty_in_the_data_and_said_in_the_tables(report):
    data = verdicts.load_published()
    assert not any(values for rows in data["tables"].values() for values in rows.values())
    assert {verdicts.published(table, row) for table in report.sections[0].tables for row in table.rows} == {"not published"}
    assert all(figure["source"] for figure in data["figures"]) and "2402.12760" in data["source"]


def test_forecast_stands_against_actual_time(tmp_path):
    folder = write_cell(tmp_path, {}, 0, num_prompts=2, pictures=False)
    seconds = {"training": 50.0, "refining": 1.0, "drawing": 20.0, "scoring": 3.0, "other": 2.0}
    (tmp_path / "sweeps" / "losses").mkdir(parents=True)
    forecast = tmp_path / "sweeps" / "losses" / "forecast.json"
    forecast.write_text(json.dumps({"cells": {str(folder): {"seconds": seconds}}}))
    found = {(part.sweep, part.part): (part.forecast, part.actual) for part in assemble(tmp_path).forecasts}
    assert found["losses", "training"] == (50.0, 60.0) and found["losses", "drawing"] == (20.0, 20.5)
    forecast.write_text("torn")
    assert any("forecast.json cannot be read" in warning for warning in assemble(tmp_path).collection.warnings)
