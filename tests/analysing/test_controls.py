"""The refiner against the controls: what is compared, the figures, and that nothing that is not finite is averaged."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ablations.analysing.controls import compare_conditions, compared_metrics, compared_pairs, scores_of_arm
from ablations.controls import main
from ablations.results.conditions import all_conditions
from ablations.runtime.errors import UserError
from helpers.synthetic_runs import forget_digests, write_arms, write_cell


@pytest.fixture
def arm(tmp_path):
    write_arms(tmp_path, [{}], range(3), num_prompts=4, pictures=False)
    forget_digests(tmp_path)
    return next(path for path in tmp_path.iterdir() if path.is_dir())


def test_what_is_compared_follows_from_the_rows_of_metrics_and_conditions():
    oracles = ["fidelity", "words_drawn", "style_drawn", "style_fits", "qualities_fit", "subject_kept", "subject_in_text"]
    assert compared_metrics() == [*oracles, "clip_score_coarse"]
    controls = ["control_known_words", "control_shuffled", "control_step0", "control_t5_direct"]
    assert compared_pairs(all_conditions()) == [
        *(("refined", against) for against in ("coarse", *controls)),
        ("refined_may_stop", "coarse"),
        ("rewrite", "coarse"),
        ("plug_in", "coarse"),
    ]
    assert compared_pairs(["coarse", "refined", "control_of_a_plug_in_that_is_not_loaded"])[-1] == (
        *("refined", "control_of_a_plug_in_that_is_not_loaded"),
    )


def test_a_line_for_every_comparison_with_the_paired_difference(arm, capsys):
    assert main([str(arm)]) == 0
    out = capsys.readouterr().out
    scores = scores_of_arm(arm)
    one, other, difference = compare_conditions(scores, "fidelity", "refined", "control_step0")
    (line,) = [line for line in out.splitlines() if "fidelity" in line and "refined - control_step0" in line]
    assert f"{one:.3f} {other:.3f}" in line and f"{difference.mean:+.3f}" in line
    assert "N = 3 seeds x 4 distinct prompts" in out and "subject_in_text" not in out  # which these cells did not score


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused_and_never_averaged(arm, capsys, value):
    path = arm / "seed-1" / "scores.parquet"
    scores = pd.read_parquet(path)
    scores.loc[scores.index[5], "value"] = value
    scores.to_parquet(path)
    with pytest.raises(UserError, match=r"1 of \d+ values in .*seed-1/scores\.parquet are not finite, the first is .* of prompt 0"):
        scores_of_arm(arm)
    assert main([str(arm)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "force=true" in captured.err


def test_a_torn_line_of_prompts_is_refused_by_file_and_line(arm, capsys):
    path = arm / "seed-2" / "prompts.jsonl"
    path.write_text(path.read_text()[:-30])
    assert main([str(arm)]) == 2
    assert "seed-2/prompts.jsonl, line " in capsys.readouterr().err


def test_an_arm_without_scores_and_seeds_of_other_data_are_one_line(tmp_path, arm):
    with pytest.raises(UserError, match="holds no finished seed with scores"):
        scores_of_arm(tmp_path / "nowhere")
    write_cell(tmp_path, {}, 3, num_prompts=4, pictures=False, digests={"data": "f" * 64})
    with pytest.raises(UserError, match="made from different data or weights"):
        scores_of_arm(arm)
