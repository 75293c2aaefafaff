"""A cell that trains on a table of its own and is evaluated on a list of prompts alone: what is drawn and scored, and what cannot be."""

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from ablations.cell.cell import run_cell
from ablations.config import parse
from ablations.results.prompts_and_scores import read_prompts, read_scores
from ablations.results.run_folder import RunFolder
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest
from datamodules.readers.tiny_world import read_tiny_world
from datamodules.tiny_world.renderer import render
from datamodules.tiny_world.worlds import world

SMALL = {
    **{"data.num_validation": 8, "train.max_steps": 2, "train.batch_size": 8, "loss.clip_bank": 8, "train.check_records": 4},
    **{"train.validate_every": 0, "eval.num_prompts": 3, "eval.num_candidates": 2, "eval.steps": 2, "eval.grid_prompts": 2},
    **{"eval.text_prompts": 5, "trainer.progress": "none", "wandb.mode": "offline"},
}
LISTED = ["a lonely lighthouse on a beach", "a castle on a hill", "a red boat", "a sleepy cat in the snow", "a robot", "a city at night"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """32 pictures of the tiny world as somebody's own table."""
    folder = tmp_path_factory.mktemp("own")
    with (folder / "pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["coarse", "fine", "image"])
        for record in read_tiny_world("train", 32, world(2), lambda text: len(text.split())):
            assert record.scene is not None
            Image.fromarray(render(record.scene)).save(folder / f"{record.id}.png")
            rows.writerow([record.coarse_prompts[1], record.fine_prompt, f"{record.id}.png"])
    return folder


def run_on(folder, table, listed, *more: str) -> RunFolder:
    settings = {**SMALL, "output_dir": folder, "data.source": table / "pairs.csv", "data.test_source": listed}
    config = parse([*(f"{name}={value}" for name, value in settings.items()), *more])
    run_cell(config, StopRequest())
    return RunFolder(config)


def test_a_list_is_refined_drawn_and_scored_and_nothing_is_compared_with_fine_prompts(table, tmp_path):
    listed = tmp_path / "PartiPrompts.tsv"
    listed.write_text("Prompt\tCategory\tChallenge\tNote\n" + "".join(f"{prompt}\tScenes\tBasic\t\n" for prompt in LISTED))
    folder = run_on(tmp_path / "outputs", table, listed)
    assert json.loads(folder.run_json.read_text())["status"] == "finished"
    lines = read_prompts(folder.prompts)
    assert {line["coarse"] for line in lines} <= set(LISTED) and len({line["coarse"] for line in lines if line["image"]}) == 3
    conditions = {line["condition"] for line in lines}
    assert {"coarse", "refined", "refined_shared_noise"} <= conditions and not conditions & {"fine", "fine_prefix", "fitting_styles"}
    scores = read_scores(folder.scores)
    metrics = set(scores[scores.condition == "refined"].metric)
    assert {"clip_score", "clip_score_coarse", "content_words_kept", "st_lpips", "piqe"} <= metrics
    assert not metrics & {"fidelity", "words_drawn", "style_fits", "words_f1", "added_words_fit"}
    assert (folder.path / "diversity_grid.png").is_file()
    manifest = json.loads((folder.path / "manifest.json").read_text())
    assert manifest["total"] == 32 + 6 and manifest["bad"] == []


def test_more_prompts_than_the_list_has_are_refused_before_training(table, tmp_path):
    listed = tmp_path / "DrawBench.csv"
    listed.write_text("Prompts,Category\nA red colored car.,Colors\nA cat.,Colors\n")
    with pytest.raises(
        UserError, match=r"3 evaluation prompts asked for, .*DrawBench.csv has 2 distinct prompts in 'test': lower the number"
    ):
        run_on(tmp_path / "outputs", table, listed)


@pytest.mark.parametrize("source", ["own", "tiny"])
def test_with_eval_prompts_one_training_is_evaluated_on_any_list(source, table, tmp_path):
    lists = {"PartiPrompts.tsv": LISTED[:4], "DrawBench.csv": LISTED[2:]}
    more = ["data.num_train=48"] if source == "tiny" else []
    folders = []
    for name, prompts in lists.items():
        (tmp_path / name).write_text("Prompt\n" + "\n".join(prompts) + "\n")
        settings = {**SMALL, "output_dir": tmp_path / "outputs", "eval.prompts": tmp_path / name}
        settings["data.source"] = "tiny" if source == "tiny" else table / "pairs.csv"
        config = parse([*(f"{key}={value}" for key, value in settings.items()), *more])
        run_cell(config, StopRequest())
        folders.append(RunFolder(config))
    first, second = folders
    assert first.arm != second.arm and first.train_id == second.train_id
    assert len(list((tmp_path / "outputs" / "trainings").iterdir())) == 1
    for folder, prompts in zip(folders, lists.values(), strict=True):
        assert {line["coarse"] for line in read_prompts(folder.prompts)} == set(prompts)
        metrics = set(read_scores(folder.scores).metric)
        assert "clip_score" in metrics and not metrics & {"fidelity", "words_drawn", "style_fits", "words_f1"}


def test_what_is_no_list_is_refused_by_its_key(table, tmp_path):
    with pytest.raises(UserError, match=r"eval\.prompts: there is no file .*nowhere\.tsv'; give a list of prompts"):
        parse([f"eval.prompts={tmp_path / 'nowhere.tsv'}"])
    settings = {**SMALL, "output_dir": tmp_path / "outputs", "data.num_train": 48, "eval.prompts": table / "pairs.csv"}
    with pytest.raises(UserError, match=r"eval\.prompts=.*pairs\.csv is no list of prompts: it has no column prompt, or has fine prompts"):
        run_cell(parse([f"{key}={value}" for key, value in settings.items()]), StopRequest())
