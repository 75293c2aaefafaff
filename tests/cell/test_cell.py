"""A whole cell on the shipped backbones, small: what it leaves behind, and what it does when asked again or stopped."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ablations.cell import on_the_way
from ablations.cell.cell import run_cell
from ablations.config import parse
from ablations.results.conditions import controls
from ablations.results.run_folder import RunFolder
from ablations.results.scores import COLUMNS
from ablations.runtime.files import write_sealed
from ablations.runtime.stopping import Preempted, StopRequest

CONTROLS = controls()
# A text that adds no phrase has none of these.
OF_ADDED_WORDS = ("added_words_fit", "added_words_recall", "phrases_cut", "words_f1", "words_f1_of_ceiling")
SMALL = {
    **{
        "data.num_train": 48,
        "data.num_validation": 8,
        "train.max_steps": 3,
        "train.batch_size": 8,
        "loss.clip_bank": 8,
        "train.log_every": 1,
        "train.validate_every": 2,
        "train.check_records": 12,
    },
    **{"eval.num_prompts": 3, "eval.num_candidates": 2, "eval.steps": 2, "eval.grid_prompts": 2, "eval.text_prompts": 5},
    **{"trainer.progress": "none", "wandb.mode": "offline"},
}


def small(folder, *arguments: str) -> list[str]:
    settings = {**SMALL, "output_dir": folder, **dict(argument.split("=", 1) for argument in arguments)}
    return [f"{name}={value}" for name, value in settings.items()]


def run_small(folder, *arguments: str) -> RunFolder:
    config = parse(small(folder, *arguments))
    run_cell(config, StopRequest())
    return RunFolder(config)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    return run_small(tmp_path_factory.mktemp("outputs"))


def test_a_cell_leaves_every_file_of_its_contract(finished):
    names = {path.name for path in finished.path.iterdir()}
    assert {"run.json", "prompts.jsonl", "scores.parquet", "images", "diversity_grid.png", "metrics.csv", "wandb"} <= names
    run = json.loads(finished.run_json.read_text())
    assert run["status"] == "finished"
    assert run["seed"] == 0 and run["arm"] == finished.arm and run["train_id"] == finished.train_id
    assert run["config"]["prompt_len"] == 6 and run["config"]["use_afe"] is True
    assert all(len(run["digests"][name]) >= 16 for name in ("data", "weights"))
    assert set(run["timings"]) == {"backbones", "data", "training", "checks", "refining", "drawing", "scoring"}
    assert run["versions"]["torch"] and run["threads"] >= 1
    assert not list(finished.path.rglob(".partial-*"))


def test_grids_on_the_way_change_no_bit_of_a_cell(finished, tmp_path):
    looked = run_small(tmp_path, "train.grid_every=1", "wandb.mode=disabled")
    grids = sorted(looked.grids.iterdir())
    assert [path.name for path in grids] == ["step-1.png", "step-2.png"]  # the third and last is the cell's own
    with Image.open(grids[0]) as grid, Image.open(looked.diversity_grid) as last:
        assert 700 < grid.width < last.width and grid.height > 700  # two prompts, two candidates each, without the scores beside them
    assert looked.path.name == finished.path.name and looked.arm == finished.arm
    for name in ("metrics.csv", "prompts.jsonl", "diversity_grid.png"):
        assert (looked.path / name).read_bytes() == (finished.path / name).read_bytes(), name
    assert not finished.grids.exists()


def test_a_grid_on_the_way_gives_way_to_a_signal(tmp_path, monkeypatch):
    stop, plan = StopRequest(), on_the_way.plan_drawings

    def signalled(*arguments, **options):
        stop.requested = True
        return plan(*arguments, **options)

    monkeypatch.setattr(on_the_way, "plan_drawings", signalled)
    config = parse(small(tmp_path, "train.grid_every=1", "wandb.mode=disabled"))
    with pytest.raises(Preempted, match="training, step 2"):
        run_cell(config, stop)
    assert not list(RunFolder(config).grids.glob("*"))


def test_a_cell_is_checked_and_arms_of_one_training_share_the_checks(finished, tmp_path):
    kept = json.loads((finished.training_path / "checks.json").read_text())
    run = json.loads(finished.run_json.read_text())
    assert run["checks"] == kept["checks"] and run["checks"]["records"] == 12
    assert {"afe_cosine_to_pooled", "afe_entropy_share", "clip_accuracy", "mse_gap_closed", "text_loss"} <= set(run["checks"])
    kept["checks"]["text_loss"] = 7.0
    write_sealed(finished.training_path / "checks.json", kept)
    other = run_small(finished.training_path.parents[2], "prompt_len=4", "eval.num_prompts=0")
    assert json.loads(other.run_json.read_text())["checks"]["text_loss"] == 7.0
    curves = pd.read_csv(finished.metrics_csv)
    assert curves["val/l_text"].notna().tolist() == [False, True, True]


def test_every_drawing_has_a_line_a_picture_and_scores(finished):
    lines = [json.loads(line) for line in finished.prompts.read_text().splitlines()]
    drawn = [line for line in lines if line["image"]]
    once = {"fine", "plug_in", "rewrite", "fine_prefix", *CONTROLS}
    counts = dict.fromkeys(once, 3) | {"coarse": 6, "refined": 6, "refined_shared_noise": 6, "fitting_styles": 6}
    assert {name: sum(line["condition"] == name for line in drawn) for name in counts} == counts
    assert len(drawn) == sum(counts.values())
    scores = pd.read_parquet(finished.scores)
    assert tuple(scores.columns) == COLUMNS
    per_image = scores[(scores.candidate >= 0) & (scores.image != "")]
    metrics = {"fidelity", "words_drawn", "subject_kept", "clip_score", "clip_score_coarse", "piqe", "entropy"}
    assert metrics <= set(per_image.metric)
    sizes = per_image[~per_image.metric.isin(OF_ADDED_WORDS)].groupby("metric").size()
    assert (sizes == len(drawn)).all()
    assert scores.value.notna().all()
    for line in drawn:
        assert Image.open(finished.path / line["image"]).size == (64, 64)


def test_held_out_prompts_without_pictures_are_refined_and_scored_as_texts(finished):
    lines = [json.loads(line) for line in finished.prompts.read_text().splitlines()]
    alone = [line for line in lines if not line["image"]]
    # Five prompts, the first three of which have pictures; two candidates of the refined ones, one of the others.
    counts = {"refined": 2 * 2, "rewrite": 2, "fine": 2, "fine_prefix": 2, "refined_may_stop": 5}
    assert {name: sum(line["condition"] == name for line in alone) for name in counts} == counts and len(alone) == sum(counts.values())
    scores = pd.read_parquet(finished.scores)
    texts = scores[(scores.candidate >= 0) & (scores.image == "")]
    assert {"content_words_kept", "sentence_similarity"} <= set(texts.metric)
    assert not {"fidelity", "clip_score", "piqe"} & set(texts.metric)
    assert (texts[~texts.metric.isin(OF_ADDED_WORDS)].groupby("metric").size() == len(alone)).all()
    sets = scores[(scores.candidate < 0) & (scores.condition == "refined")].groupby("metric").prompt_id.nunique()
    assert (sets["st_lpips"], sets["distinct_2"]) == (3, 5)


def test_extended_prompts_keep_the_users_words_and_add_exactly_prompt_len_tokens(finished):
    lines = [json.loads(line) for line in finished.prompts.read_text().splitlines()]
    for line in (line for line in lines if line["condition"] in ("refined", *CONTROLS)):
        assert line["refined"].startswith(line["coarse"])
        assert line["num_new_tokens"] == 6


def test_all_conditions_share_a_candidates_image_noise(finished):
    lines = pd.DataFrame(json.loads(line) for line in finished.prompts.read_text().splitlines())
    at_one_noise = lines.condition.isin(["refined_shared_noise", "fitting_styles"])
    own = lines[~at_one_noise]
    assert (own.groupby(["prompt_id", "candidate"]).image_seed.nunique() == 1).all()
    assert own.groupby("prompt_id").image_seed.nunique().tolist() == [2] * 5
    shared = lines[at_one_noise]
    assert (shared.groupby("prompt_id").image_seed.nunique() == 1).all()


def test_the_means_in_run_json_are_those_of_the_scores(finished):
    run = json.loads(finished.run_json.read_text())
    scores = pd.read_parquet(finished.scores)
    chosen = scores[(scores.condition == "refined") & (scores.metric == "fidelity")]
    assert run["metrics"]["refined"]["fidelity"] == pytest.approx(chosen.groupby("prompt_id").value.mean().mean(), abs=1e-12)
    assert run["metrics"]["n"] == {"prompts": 3, "candidates": 2}


def test_the_same_command_gives_the_same_scores_bit_for_bit(finished, tmp_path):
    again = run_small(tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(finished.scores), pd.read_parquet(again.scores), check_exact=True)
    assert finished.prompts.read_bytes() == again.prompts.read_bytes()
    assert finished.diversity_grid.read_bytes() == again.diversity_grid.read_bytes()


def test_an_arm_that_differs_in_a_loss_sees_the_same_prompts_and_image_noise(finished):
    other = run_small(finished.config.output_dir, "use_clip=false")
    columns = ["prompt_id", "condition", "candidate", "prompt_seed", "image_seed"]
    mine, theirs = (pd.read_json(run.prompts, lines=True, dtype=False)[columns] for run in (finished, other))
    both = theirs.merge(mine, on=columns[:3], suffixes=("", "_of_mine"))
    assert len(both) == len(theirs) < len(mine)
    assert (both.prompt_seed == both.prompt_seed_of_mine).all() and (both.image_seed == both.image_seed_of_mine).all()
    one, two = (pd.read_parquet(run.scores) for run in (finished, other))
    chosen = [t[(t.condition == "coarse") & (t.metric == "fidelity") & (t.candidate == 0)] for t in (one, two)]
    np.testing.assert_array_equal(*(table.value.to_numpy() for table in chosen))


def test_a_finished_cell_is_not_run_again_unless_forced(finished):
    before = finished.run_json.stat().st_mtime_ns
    run_small(finished.config.output_dir)
    assert finished.run_json.stat().st_mtime_ns == before
    run_small(finished.config.output_dir, "force=true")
    assert finished.run_json.stat().st_mtime_ns > before
