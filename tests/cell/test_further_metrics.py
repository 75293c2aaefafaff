"""eval.metrics in a cell: further scores beside those that are always there, and "not available" where a metric could not be computed."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ablations.cell.scoring.further import FurtherMetrics, FurtherScores
from ablations.cell.scoring.pictures import Pictures
from ablations.cell.scoring.score_store import ScoreStore
from ablations.metrics.base import Metric, MetricError
from ablations.metrics.register import Required
from ablations.results.prompts_and_scores import Drawing
from ablations.runtime.errors import UserError


@pytest.fixture
def random_nima(tmp_path, monkeypatch):
    """A folder with NIMA's aesthetic model at random weights, which pass for the published ones; no other weights are there."""
    import dataclasses
    import hashlib

    import h5py

    from ablations.metrics import nima, weights

    name = nima.WEIGHTS_OF["nima-aesthetic"]
    folder = tmp_path / "weights"
    folder.mkdir()
    network = nima.build()
    convolutions = [layer for layer in network if hasattr(layer, "kernel_size")]
    norms = [layer for layer in network if hasattr(layer, "running_mean")]
    titles = ["conv1", *(f"conv_{kind}_{block}" for block in range(1, len(nima.BLOCKS) + 1) for kind in ("dw", "pw"))]
    with h5py.File(folder / name, "w") as file:
        for title, convolution, norm in zip(titles, convolutions, norms, strict=True):
            depthwise = convolution.groups > 1
            axes = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
            file[f"{title}/{title}/{'depthwise_kernel' if depthwise else 'kernel'}:0"] = convolution.weight.permute(axes).numpy()
            parts = {"gamma": norm.weight, "beta": norm.bias, "moving_mean": norm.running_mean, "moving_variance": norm.running_var}
            for part, values in parts.items():
                file[f"{title}_bn/{title}_bn/{part}:0"] = values.numpy()
        file["dense_1/dense_1/kernel:0"] = network[-2].weight.T.numpy()
        file["dense_1/dense_1/bias:0"] = network[-2].bias.numpy()
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    monkeypatch.setitem(weights.WEIGHTS, name, dataclasses.replace(weights.WEIGHTS[name], sha256=digest))
    return folder


def drawings_of(conditions: tuple[str, ...], count: int) -> list[Drawing]:
    return [Drawing(i, condition, 0, "a cat", "a cat, oil", 1, 2) for condition in conditions for i in range(count)]


def brightness(seen: list[int], fails_on: int = -1) -> Metric:
    """A metric that is the picture's first pixel, and notes how many pictures it sees at a time."""

    def function(inputs):
        seen.append(len(inputs.images_NHWC))
        values = inputs.images_NHWC[:, 0, 0, 0].astype(float)
        return np.where(values == fails_on, np.nan, values)

    return Metric("brightness", "Brightness", "image", True, (0, 255), ("images",), "none", pixels_at_once=4 * 8 * 8, function=function)


def rows(metric: Metric, images: np.ndarray, conditions: tuple[str, ...], store: ScoreStore, missing: str = "error", **required):
    further = FurtherMetrics(Required((metric,), required.get("unavailable", {})), missing)
    drawings = drawings_of(conditions, len(images) // len(conditions))
    scorer = FurtherScores(further, store, "cpu")
    return scorer.of(Pictures(drawings, images), {"piqe"}) + scorer.of_conditions(), scorer.unavailable


def pictures(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)


def test_a_picture_is_scored_once_in_full_batches_and_never_again(tmp_path):
    seen: list[int] = []
    images = pictures([1, 2, 3, 4, 5, 1])
    found, unavailable = rows(brightness(seen), images, ("coarse", "refined"), ScoreStore(tmp_path, {}))
    assert [(score.prompt_id, score.condition, score.metric, score.value) for score in found] == [
        *((i, "coarse", "brightness", float(i + 1)) for i in range(3)),
        *((i, "refined", "brightness", value) for i, value in enumerate((4.0, 5.0, 1.0))),
    ]
    assert unavailable == {} and seen == [4, 4]  # five different pictures, four at a time, the last batch filled up
    assert rows(brightness(seen), images[::-1], ("coarse", "refined"), ScoreStore(tmp_path, {}))[0][0].value == 1.0
    assert seen == [4, 4]


def test_a_value_of_all_pictures_is_one_row_per_condition():
    metric = Metric(
        *("spread", "Spread", "pictures", True, (0, 255), ("images",), "none"),
        function=lambda inputs: inputs.images_NHWC[:, 0, 0, :2].astype(float),
        together=lambda values: float(values[:, 0].max() - values[:, 0].min()),
    )
    found, _ = rows(metric, pictures([1, 5, 7, 20]), ("coarse", "refined"), ScoreStore(None, {}))
    assert found == [(-1, "coarse", -1, "spread", 4.0, -1, ""), (-1, "refined", -1, "spread", 13.0, -1, "")]


def test_a_metric_that_gives_no_number_is_an_error_or_not_available_but_never_a_value():
    images = pictures([1, 2, 9])
    with pytest.raises(UserError, match=r"metric brightness: gave nan for item 2 of 4\. Leave it out .* what was trained"):
        rows(brightness([], fails_on=9), images, ("refined",), ScoreStore(None, {}))
    found, unavailable = rows(
        brightness([], fails_on=9), images, ("refined",), ScoreStore(None, {}), "skip", unavailable={"nima": "missing"}
    )
    assert found == []
    assert unavailable == {"nima": "missing", "brightness": "metric brightness: gave nan for item 2 of 4"}


def test_a_metric_that_is_scored_in_any_case_is_not_scored_twice():
    piqe = Metric("piqe", "PIQE", "image", False, (0, 100), ("images",), "none", function=lambda inputs: pytest.fail("twice"))
    assert rows(piqe, pictures([1]), ("refined",), ScoreStore(None, {})) == ([], {})


def test_what_a_metric_needs_must_be_handed_in():
    with_text = Metric("m", "M", "image", True, (0, 1), ("images", "texts"), "none", function=lambda inputs: np.zeros(1))
    with pytest.raises(MetricError, match="metric m: wants 2 texts, got none"):
        with_text.compute(pictures([1, 2]))
    with pytest.raises(MetricError, match="metric m: wants 2 texts, got 1"):
        with_text.compute(pictures([1, 2]), texts=["a"])


@pytest.mark.slow
def test_a_cell_scores_what_was_asked_for_and_its_report_says_what_is_not_available(tmp_path, random_nima, capsys):
    from ablations.cell.cell import run_cell
    from ablations.config import parse
    from ablations.reporting.assembly import assemble
    from ablations.reporting.writing import write
    from ablations.results.run_folder import RunFolder
    from ablations.runtime.stopping import StopRequest

    settings = {
        **{"data.num_train": 16, "data.num_validation": 8, "train.max_steps": 1, "train.batch_size": 8, "loss.clip_bank": 8},
        **{"train.check_records": 0},
        **{"eval.num_prompts": 2, "eval.num_candidates": 1, "eval.steps": 1, "eval.grid_prompts": 0, "eval.controls": False},
        **{"trainer.progress": "none", "wandb.mode": "disabled", "output_dir": tmp_path / "outputs"},
        **{"eval.metrics": "nima-aesthetic,nima-technical,niqe", "eval.missing_metrics": "skip", "eval.metrics_dir": random_nima},
    }
    config = parse([f"{name}={value}" for name, value in settings.items()])
    run_cell(config, StopRequest())
    folder = RunFolder(config)
    scores = pd.read_parquet(folder.scores)
    found = scores[scores.metric == "nima-aesthetic"]
    assert len(found) == (scores.metric == "piqe").sum() and found.value.between(1, 10).all()
    assert not {"nima-technical", "niqe"} & set(scores.metric)
    unavailable = json.loads(folder.run_json.read_text())["metrics"]["unavailable"]
    assert "weights_mobilenet_technical_0.11.hdf5 is missing" in unavailable["nima-technical"]
    assert "192 px or more" in unavailable["niqe"]
    assert capsys.readouterr().out.count("not available") >= 2
    write(assemble(tmp_path / "outputs"), tmp_path / "report")
    for ending in ("md", "html", "tex"):
        assert any("not available" in path.read_text() for path in (tmp_path / "report").rglob(f"*.{ending}")), ending
    lines = pd.concat([pd.read_csv(path) for path in (tmp_path / "report" / "tables").glob("*.csv")])
    mine = lines[lines.metric == "nima-technical"]
    assert len(mine) and mine["mean"].isna().all() and (mine.note == "not available").all()
