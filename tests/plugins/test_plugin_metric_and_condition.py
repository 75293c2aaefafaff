"""A metric and a condition from plug-in modules: drawn, scored, shown and tabulated by their own rows, without touching the package."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ablations.analysing.controls import compared_metrics, compared_pairs
from ablations.cell.cell import run_cell
from ablations.cell.refining.refine import Sources, plan_drawings
from ablations.cell.scoring.candidates import sets_of_candidates
from ablations.cell.scoring.further import FurtherMetrics, FurtherScores
from ablations.cell.scoring.pictures import Pictures
from ablations.cell.scoring.score_store import ScoreStore
from ablations.config import parse
from ablations.metrics.register import Required, metric_named
from ablations.refiner.model_card import _scores
from ablations.reporting.assembly import assemble
from ablations.reporting.writing import write
from ablations.results.conditions import as_they_are
from ablations.results.prompts_and_scores import Drawing, drawn, read_drawings, read_prompts, read_scores, write_prompts, write_scores
from ablations.results.run_folder import RunFolder
from ablations.results.tracking import flatten
from ablations.results.trained_run import TrainedRun
from ablations.runtime.errors import UserError
from ablations.runtime.plugins import digest_of_plugin
from ablations.runtime.stopping import StopRequest
from ablations.sweeping.forecast import picture_groups, refined_tokens
from datamodules.records import EvalPrompt
from helpers.plugins import EXAMPLES, loaded, open_tables
from helpers.small_sweeps import small
from helpers.synthetic_runs import forget_digests, write_arms

CONDITION, STYLE = "control_fixed_style", ", oil painting, highly detailed"


class Ran:
    """A small cell on random networks with three plug-ins, a loss term among them: its folder, and what it showed."""

    def __init__(self, folder: Path) -> None:
        plugins = "plugins=plugin_loss,plugin_metric,plugin_condition"
        settings = small(
            plugins, "use_anchor=true", "eval.rewrite_too=false", "use_mse=false", "use_clip=false", f"output_dir={folder / 'outputs'}"
        )
        self.config = parse([word for word in settings if not word.startswith("loss.clip_bank")])
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.metrics = run_cell(self.config, StopRequest())
        self.shown, self.folder = out.getvalue(), RunFolder(self.config)
        self.scores = read_scores(self.folder.scores)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    with open_tables(EXAMPLES):
        yield Ran(folder)


def test_run_json_says_which_plug_ins_there_were_and_which_code(ran):
    run = json.loads(ran.folder.run_json.read_text())
    assert run["plugins"] == {
        name: digest_of_plugin(str(EXAMPLES / f"{name}.py")) for name in ("plugin_loss", "plugin_metric", "plugin_condition")
    }
    assert run["config"]["plugins"] == "plugin_loss,plugin_metric,plugin_condition" and "-anchor-" in run["arm"]


def test_the_loss_term_is_trained_with_its_weight_and_logged(ran):
    curves = pd.read_csv(ran.folder.metrics_csv)
    assert curves["train/l_anchor"].iloc[-1] > 0
    expected = curves["train/l_text"] * ran.config.loss.text_weight + 0.5 * curves["train/l_anchor"]
    assert curves["train/loss"].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-5)


def test_the_condition_is_written_and_drawn_for_every_prompt_and_candidate(ran):
    lines = [line for line in read_prompts(ran.folder.prompts) if line["condition"] == CONDITION]
    assert len(lines) == 2 * 2
    assert all(line["refined"] == line["coarse"] + STYLE and line["num_new_tokens"] == 0 for line in lines)
    for line in lines:
        with Image.open(ran.folder.path / line["image"]) as image:
            assert image.size == (64, 64)
    by_place = {(line["prompt_id"], line["condition"], line["candidate"]): line["image_seed"] for line in read_prompts(ran.folder.prompts)}
    assert by_place[0, "refined", 1] == by_place[0, CONDITION, 1]  # at the noise of every other condition
    assert [by_place[i, "coarse", 0] for i in (0, 1)] == [by_place[i, CONDITION, 0] for i in (0, 1)]


def test_the_metric_is_scored_on_every_picture_and_is_what_the_plug_in_computes(ran):
    drawings, images = read_drawings(ran.folder.prompts)
    found = ran.scores[ran.scores.metric == "brightness"].set_index(["prompt_id", "condition", "candidate"])["value"]
    assert len(found) == len(images)
    for drawing, image in zip(drawn(drawings), images, strict=True):
        assert found[drawing.prompt_id, drawing.condition, drawing.candidate] == pytest.approx(image.mean() / 2.55)


def test_the_condition_is_scored_like_any_other_and_has_a_diversity(ran):
    of = ran.scores[ran.scores.condition == CONDITION]
    others = ran.scores[ran.scores.condition == "refined"]
    # A random refiner may add a single word, which has no pairs of words.
    assert {"fidelity", "piqe", "st_lpips", "brightness"} <= set(of.metric) <= {*others.metric, "vendi_texts", "distinct_2"}
    assert (of[of.metric == "distinct_2"].value < 1).all()  # its candidates are the same text


def test_both_are_on_the_screen(ran):
    heading, row = (next(line for line in ran.shown.splitlines() if word in line) for word in ("fixed_", "brightness"))
    assert heading.count("┃") == row.count("│") == 1 + 5  # the metric, coarse, plug_in, refined, fixed_style and the frame
    assert f"{ran.metrics[CONDITION]['brightness']:.3f}" in row


def test_both_are_in_run_json_and_so_in_what_wandb_is_told(ran):
    told = flatten(json.loads(ran.folder.run_json.read_text())["metrics"])
    assert 0 < told[f"{CONDITION}/brightness"] < 100 and f"diversity/{CONDITION}/st_lpips" in told


def test_both_are_in_the_model_card_and_among_the_controls(ran):
    run = TrainedRun(ran.folder.path, json.loads(ran.folder.run_json.read_text()), ran.config, Path())
    card = _scores(run)
    assert f"| {CONDITION} |" in card and "| brightness |" in card
    assert "brightness" in compared_metrics()
    assert ("refined", CONDITION) in compared_pairs(ran.scores.condition)


def test_forecasts_count_the_conditions_pictures_once_for_all_arms_and_no_tokens(ran):
    groups = picture_groups(ran.config)
    own = [key for key in groups if CONDITION in key]
    assert sum(groups[key] for key in own) == 2 * 2
    # This arm is one of the loss tables: its refined prompts, three of them, and the other candidate of the one that is in the grid.
    assert refined_tokens(ran.config) == (3 + 1) * (ran.config.prompt_len + 1)
    other = dataclasses.replace(ran.config, use_text=False, use_feature=True)
    assert set(own) <= set(picture_groups(other)) != set(groups)


def test_both_are_rows_and_columns_of_the_report(tmp_path, ran):
    outputs = tmp_path / "outputs"
    write_arms(outputs, [{}, {"use_mse": False}], range(3), num_prompts=3, pictures=False)
    for folder in outputs.glob("*/seed-*"):
        _add_plug_ins_results(folder)
    forget_digests(outputs)
    report = assemble(outputs)
    table = next(table for table in report.sections[0].tables if table.layout == "conditions")
    row = table.row(CONDITION)
    assert row.label == "control: one fixed style for all prompts"
    assert [row.key for row in table.rows][-2:] == [CONDITION, "fine"]
    column = next(column for column in table.columns if column.metric == "brightness")
    assert (column.heading, column.better, column.digits, column.block) == ("Brightness", "", 1, "quality")
    assert row.entries["brightness"].mean == pytest.approx(40.0)
    assert "the style is added as it stands" in " ".join(table.notes)
    write(report, tmp_path / "report")
    page = (tmp_path / "report" / "report.md").read_text()
    assert "| Brightness |" in page and "control: one fixed style for all prompts" in page and " 40.0 " in page


def _add_plug_ins_results(folder: Path) -> None:
    """To a synthetic cell: the plug-in's condition, a copy of a control, and its metric on every picture."""
    lines, scores = read_prompts(folder / "prompts.jsonl"), pd.read_parquet(folder / "scores.parquet")
    lines += [{**line, "condition": CONDITION} for line in lines if line["condition"] == "control_step0"]
    scores = pd.concat([scores, scores[scores.condition == "control_step0"].assign(condition=CONDITION)])
    pictures = scores[scores.metric == "fidelity"]
    scores = pd.concat([scores, pictures.assign(metric="brightness", value=40.0)], ignore_index=True)
    write_prompts(folder / "prompts.jsonl", lines)
    write_scores(folder / "scores.parquet", scores)


OF_SETS = """
import numpy as np

from ablations.metrics.base import Metric
from ablations.metrics.register import register

register(Metric("spread", "Spread", "candidates", True, (0, 255), ("images",), "none", always=True, shown=True,
    function=lambda inputs: inputs.images_NHWC[:, 0, 0, :2].astype(float), together=lambda rows_ND: float(np.ptp(rows_ND[:, 0]))))
"""


def test_a_metric_of_the_candidates_of_a_prompt_has_a_value_for_each_set(tmp_path):
    with loaded(tmp_path, set_metric=OF_SETS):
        drawings = [Drawing(0, name, c, "a cat", "a cat", 1, 2) for name in ("refined", "fine") for c in range(2)]
        images = np.zeros((4, 8, 8, 3), np.uint8)
        images[1] = 7
        metric = metric_named("spread")
        store, pictures = ScoreStore(None, {}), Pictures(drawings, images)
        rows = FurtherScores(FurtherMetrics(Required((metric,), {})), store, "cpu").of(pictures)
        assert rows == [(0, "refined", -1, "spread", 7.0, -1, "")]  # the fine prompt's candidates are not compared
        assert list(sets_of_candidates(drawings)) == [(0, "refined")] and metric.block == "diversity"


def test_scores_of_a_plug_ins_metric_are_kept_by_what_its_module_says(tmp_path):
    text = (EXAMPLES / "plugin_metric.py").read_text().replace("brightness", "darkness")
    with loaded(tmp_path, darkness_plugin=text):
        first = metric_named("darkness").key()
        assert first.startswith("darkness.v1.") and len(first) == len("darkness.v1.") + 8
        (tmp_path / "darkness_plugin.py").write_text("# other code")
        assert metric_named("darkness").key() != first


class Copier:
    """Stands for a refiner: writes what it reads."""

    @staticmethod
    def refine(texts, seeds, settings):
        return as_they_are(texts)


TOO_FEW = """
from ablations.results.conditions import Condition, always, as_they_are, register

register(Condition("few", "few", always, lambda round: as_they_are(["a"])))
"""


def test_a_condition_that_writes_too_few_prompts_is_refused(tmp_path):
    config = parse(["eval.controls=false", "eval.rewrite_too=false", "eval.num_candidates=1", "eval.plug_in=false", "eval.mode=rewrite"])
    prompts = [EvalPrompt(0, "a cat", "a cat, 8k"), EvalPrompt(1, "a dog", "a dog, 8k")]
    said = "condition few must write a Refinement for each of the 2 prompts"
    with loaded(tmp_path, few_prompts=TOO_FEW), pytest.raises(UserError, match=said):
        plan_drawings(config, Sources(prompts, Copier, Copier))
