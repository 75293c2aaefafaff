"""Manipulation checks side by side: arms, twins, the arm without AFE, and in how many seeds AFE was delivered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablations.analysing.checks import checked_arms, failures, verdict, without_afe_beside
from ablations.checks import main
from ablations.config import arm_name, parse, to_flat_dict
from ablations.runtime.errors import UserError

NONE = {"pooled_retrieval_coarse": 0.5, "text_loss": 0.25}
GOOD = {
    **{"afe_cosine_to_pooled": 0.7, "afe_entropy_share": 0.6, "afe_cosine_to_mean_weights": 0.9, "afe_retrieval_coarse": 0.48},
    **{"pooled_retrieval_coarse": 0.3, "text_loss": 0.26},
}


def write_run(folder: Path, checks: dict, *words: str) -> None:
    config = parse([*words, f"output_dir={folder}"])
    path = folder / arm_name(config) / f"seed-{config.seed}" / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"status": "finished", "config": to_flat_dict(config), "metrics": {}, "checks": checks}))


def test_afe_is_delivered_where_all_four_hold_against_the_arm_without_afe():
    assert failures(GOOD, NONE) == []
    # 0.9 of what the arm without AFE retrieves, not of what this one retrieves by the pooled feature.
    assert failures(GOOD | {"afe_retrieval_coarse": 0.44}, NONE) == ["afe_retrieval_coarse"]
    assert failures(GOOD, None) == ["afe_retrieval_coarse"]
    assert failures(GOOD | {"afe_entropy_share": 0.95}, NONE) == ["afe_entropy_share"]
    assert failures(GOOD | {"afe_entropy_share": 0.1, "afe_cosine_to_pooled": 0.96}, NONE) == ["afe_cosine_to_pooled", "afe_entropy_share"]
    assert failures(GOOD | {"afe_cosine_to_mean_weights": 0.98}, NONE) == ["afe_cosine_to_mean_weights"]


def test_arms_are_trainings_and_the_one_without_afe_is_found_whatever_its_idle_keys(tmp_path):
    for seed in (1000, 1001):
        write_run(tmp_path, GOOD, "afe.reading=layers", "afe.forcing=0.3", "eval.num_prompts=0", f"seed={seed}")
        write_run(tmp_path, NONE, "use_afe=false", f"seed={seed}")
    write_run(tmp_path, GOOD | {"afe_entropy_share": 1.0}, "afe.reading=layers", "afe.weights=uniform", "eval.num_prompts=0", "seed=1000")
    write_run(tmp_path, NONE, "use_afe=false", "use_mse=false", "seed=1000")
    arms = {arm.label: arm for arm in checked_arms(tmp_path)}
    layers, uniform = "layers, forcing 0.3 (L_mse + L_text + L_clip)", "layers, uniform (L_mse + L_text + L_clip)"
    assert set(arms) == {layers, uniform, "without AFE (L_mse + L_text + L_clip)", "without AFE (L_text + L_clip)"}
    without = without_afe_beside(arms[layers], list(arms.values()))
    assert set(without) == {1000, 1001}
    assert verdict(arms[layers], without) == "in 2 of 2 seeds"
    assert verdict(arms[uniform], without) == "in 0 of 1 seeds; fails afe_entropy_share in 1000"
    assert verdict(arms["without AFE (L_text + L_clip)"], {}) == ""


def test_the_command_prints_every_arm_and_writes_the_figures(tmp_path, capsys):
    write_run(tmp_path / "runs", GOOD, "seed=0")
    write_run(tmp_path / "runs", NONE, "use_afe=false", "seed=0")
    assert main([str(tmp_path / "runs"), "--to", str(tmp_path / "checks.json")]) == 0
    said = capsys.readouterr().out
    assert "in 1 of 1" in said and "without AFE" in said
    content = json.loads((tmp_path / "checks.json").read_text())
    assert content[0]["checks"]["0"]["afe_cosine_to_pooled"] == 0.7


@pytest.mark.parametrize(("name", "message"), [("absent", "there is no folder"), ("", "no finished cell in .* has manipulation checks")])
def test_a_folder_without_checks_is_one_line(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        checked_arms(tmp_path / name)
