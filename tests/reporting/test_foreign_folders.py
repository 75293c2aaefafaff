"""Reports of folders that others made, or that are damaged: what cannot be shown is left out, nothing leads elsewhere."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from ablations.reporting.assembly import assemble
from ablations.reporting.collect import collect
from ablations.reporting.writing import write
from ablations.runtime.errors import UserError
from helpers.synthetic_runs import forget_digests, write_cell

SCRIPT = "<script>alert(1)</script>"
SECRET = (255, 0, 255)


@pytest.fixture
def outputs(tmp_path) -> Path:
    for settings in ({}, {"use_mse": False}):
        for seed in (0, 1):
            write_cell(tmp_path / "outputs", settings, seed, num_prompts=2, num_candidates=2)
    forget_digests(tmp_path / "outputs")
    return tmp_path / "outputs"


def cell_of(outputs: Path, seed: int = 1) -> Path:
    return sorted(outputs.glob(f"tiny-len6-mse-*/seed-{seed}"))[0]


def change(path: Path, **fields) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def left_out(outputs: Path) -> dict[str, str]:
    return {item.name: item.reason for item in collect(outputs).left_out}


def test_digests_that_are_paths_write_nothing_elsewhere(outputs, tmp_path):
    change(cell_of(outputs) / "run.json", digests={"data": "../../../../x", "weights": "../../y"})
    written = write(assemble(outputs), tmp_path / "report")
    assert all(path.resolve().is_relative_to(tmp_path / "report") for path in written.files)
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "report"}
    assert left_out(outputs) == {
        str(cell_of(outputs).relative_to(outputs)): "run.json: digests: that of 'data' is not hexadecimal: run the cell again"
    }


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("run.json", '{"status": ' + "[" * 100_000, "nested more than"),
        ("run.json", "[]", "it holds no JSON object"),
        ("run.json", '{"status": "finished", "config": {}, "metrics": null}', "finished, but without metrics"),
        ("prompts.jsonl", '{"prompt_id": 0}', "has no 'condition'"),
        ("prompts.jsonl", "[" * 100_000, "nested more than"),
        ("scores.parquet", "PAR1", "cannot be read"),
    ],
)
def test_a_cell_of_another_shape_is_left_out_with_the_reason(file, content, reason, outputs):
    (cell_of(outputs) / file).write_text(content)
    ((name, said),) = left_out(outputs).items()
    assert name == str(cell_of(outputs).relative_to(outputs)) and reason in said and len(said) < 300


@pytest.mark.parametrize(
    ("column", "value"),
    [("prompt_id", "one"), ("value", "good"), ("value", float("inf")), ("condition", None), ("candidate", 1.5), ("metric", 3)],
)
def test_scores_of_other_types_are_left_out(column, value, outputs):
    path = cell_of(outputs) / "scores.parquet"
    pd.read_parquet(path).assign(**{column: value}).to_parquet(path, index=False)
    (reason,) = left_out(outputs).values()
    assert "scores.parquet" in reason and reason.endswith("run the cell again with force=true")


def test_folders_that_are_no_cells_are_listed_and_end_nothing(outputs):
    cell_of(outputs).rename(cell_of(outputs).parent / "seed-x")
    cell_of(outputs, 0).rename(cell_of(outputs, 0).parent / "seed-7")
    reasons = [reason for _, reason in sorted(left_out(outputs).items())]
    assert reasons == ["run.json is that of seed 0: move the folder back", "it is no folder of a cell, which is called ARM/seed-0"]


def embedded(page: str) -> list[tuple[int, ...]]:
    """The middle pixel of every picture in a page."""
    found = []
    for data in re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", page):
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            found.append(picture.convert("RGB").getpixel((picture.width // 2, picture.height // 2)))
    return found


@pytest.mark.parametrize("image", ["../../../secret.png", "SECRET", "images/link.png"])
def test_a_picture_that_lies_elsewhere_is_missing_and_never_embedded(image, outputs, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (64, 64), SECRET).save(secret)
    for cell in outputs.glob("*/seed-*"):
        (cell / "images" / "link.png").symlink_to(secret)
        lines = [json.loads(line) for line in (cell / "prompts.jsonl").read_text().splitlines()]
        named = str(secret) if image == "SECRET" else image
        (cell / "prompts.jsonl").write_text("".join(json.dumps(line | {"image": named}) + "\n" for line in lines))
    page = write(assemble(outputs), tmp_path / "report").page.read_text()
    assert embedded(page) == [] and 'class="missing" title="' in page and "run folder" in page


def test_one_damaged_picture_is_missing_with_the_reason_and_the_others_are_shown(outputs, tmp_path):
    whole = embedded(write(assemble(outputs), tmp_path / "whole").page.read_text())
    damaged = outputs / next(path for path in sorted(outputs.glob("*/seed-0/images/0000-coarse-0.png")))
    damaged.write_bytes(damaged.read_bytes()[:60])
    page = write(assemble(outputs), tmp_path / "report").page.read_text()
    assert 0 < len(whole) - len(embedded(page)) < len(whole) and "cannot be read (" in page


def test_names_of_others_are_text_in_every_file_of_the_report(outputs, tmp_path):
    arm = cell_of(outputs).parent
    arm.rename(outputs / '=HYPERLINK("x")')
    for path in outputs.glob("*/seed-*/scores.parquet"):
        table = pd.read_parquet(path)
        table["metric"] = table.metric.replace("piqe", SCRIPT)
        table.to_parquet(path, index=False)
    for path in outputs.glob("*/seed-*/prompts.jsonl"):
        path.write_text(path.read_text().replace("a cat", "a <script>alert(2)</script>"))
    try:
        written = write(assemble(outputs), tmp_path / "report")
    except UserError as error:
        pytest.fail(str(error))
    for path in written.files:
        if path.suffix in (".html", ".md", ".svg"):
            assert "<script>alert" not in path.read_text()
        if path.suffix == ".csv":
            assert not [cell for row in csv.reader(path.open()) for cell in row if cell.startswith(("=", "@"))]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in (tmp_path / "report" / "report.md").read_text()


def test_a_forecast_of_others_is_a_note_and_leads_nowhere(outputs, tmp_path):
    path = outputs / "sweeps" / "mine" / "forecast.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cells": {"../../../etc/seed-0": {"seconds": {"training": 1.0}}}}))
    report = assemble(outputs)
    assert report.forecasts == () and "is no cell, as in ARM/seed-0" in report.collection.warnings[-1]
