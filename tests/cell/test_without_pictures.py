"""A cell whose table's pictures are not there: without L_mse and L_clip nothing needs them, from the training to the scores."""

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from ablations.cell.cell import run_cell
from ablations.config import parse
from ablations.results.prompts_and_scores import read_scores
from ablations.results.run_folder import RunFolder
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest

SMALL = {
    **{"data.num_validation": 8, "train.max_steps": 2, "train.batch_size": 8, "train.check_records": 6, "eval.num_prompts": 2},
    **{"eval.num_candidates": 2, "eval.steps": 2, "eval.grid_prompts": 0, "trainer.progress": "none", "wandb.mode": "disabled"},
}
TEXTS_ALONE = ["use_mse=false", "use_clip=false"]


@pytest.fixture
def table(tmp_path):
    """24 prompts of a table whose pictures are elsewhere."""
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["coarse", "fine", "image"])
        rows.writerows([f"a boat number {n}", f"a boat number {n}, oil painting, sharp focus", f"{n}.png"] for n in range(24))
    return path


def run_on(table, *words: str) -> RunFolder:
    settings = {**SMALL, "data.source": table, "output_dir": table.parent / "outputs"}
    config = parse([*(f"{name}={value}" for name, value in settings.items()), *words])
    run_cell(config, StopRequest())
    return RunFolder(config)


@pytest.mark.parametrize("cache", ["true", "false"])
def test_a_table_without_pictures_trains_is_checked_drawn_and_scored_by_its_texts(cache, table):
    folder = run_on(table, *TEXTS_ALONE, f"data.cache={cache}")
    run = json.loads(folder.run_json.read_text())
    assert run["status"] == "finished" and set(run["checks"]) == {"text_loss", "records"} and run["checks"]["records"] == 6
    scores = read_scores(folder.scores)
    assert {"clip_score", "sentence_similarity"} <= set(scores[scores.condition == "refined"].metric)


def test_the_remedy_for_too_few_records_is_one_that_a_table_has(table):
    for number in range(24):
        Image.new("RGB", (64, 64), "red").save(table.parent / f"{number}.png")
    with pytest.raises(UserError) as raised:
        run_on(table, "use_mse=false", "loss.clip_bank=20")
    needs = "loss.clip_bank=20 and train.batch_size=8 need 28 training records"
    assert str(raised.value) == f"{needs}; {table} gives 16: lower loss.clip_bank"
