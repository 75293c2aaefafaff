"""prompts.jsonl and scores.parquet: what is written is what is read, and what is torn or not finite is refused by file and place."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ablations.results.prompts_and_scores import (
    PROMPT_FIELDS,
    SCORE_COLUMNS,
    Drawing,
    prompt_line,
    read_drawings,
    read_prompts,
    read_scores,
    write_prompts,
    write_scores,
)
from ablations.runtime.errors import UserError

DRAWINGS = [
    Drawing(3, "coarse", 0, "a café\u2028", "a café\u2028", 2**62, 5),
    Drawing(3, "plug_in", 0, "a cat", "a cat", 1, 5, by_trained_encoder=True),
    Drawing(3, "refined", 1, "a cat", 'a "cat", oil', 1, 6, 6, True),
]


def scores(**changes) -> pd.DataFrame:
    rows = [(3, name, c, "fidelity", 0.5, 1, "x") for name in ("coarse", "refined") for c in range(2)]
    return pd.DataFrame(rows, columns=["prompt_id", "condition", "candidate", "metric", "value", "image_seed", "image"]).assign(**changes)


def test_drawings_are_read_as_they_were_written_pictures_too(tmp_path):
    path = tmp_path / "prompts.jsonl"
    write_prompts(path, [prompt_line(drawing) for drawing in DRAWINGS])
    pictures = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    for drawing, pixels in zip(DRAWINGS, pictures, strict=True):
        Image.fromarray(pixels).save(tmp_path / drawing.image)
    drawings, images = read_drawings(path)
    assert drawings == DRAWINGS and np.array_equal(images[:], pictures)
    assert list(read_prompts(path)[0]) == list(PROMPT_FIELDS)
    assert "café" in path.read_text()  # as it is, for whoever reads the file


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text[:-20], r"prompts\.jsonl, line 3 is torn or damaged: it is no JSON \(Unterminated string"),
        (lambda text: text.replace('"candidate": 1', '"candidate": "1"'), r"prompts\.jsonl, line 3: 'candidate' is no int: '1'"),
        (lambda text: text.replace('"truncated": true', '"truncated": 1'), r"line 3: 'truncated' is no bool: 1"),
        (lambda text: text.replace('"coarse": "a cat"', '"rough": "a cat"'), r"line 2 has no 'coarse'"),
        (lambda text: "[1]\n" + text, r"line 1 is no JSON object"),
    ],
)
def test_a_torn_or_malformed_line_is_refused_by_file_and_line(tmp_path, spoil, said):
    path = tmp_path / "prompts.jsonl"
    write_prompts(path, [prompt_line(drawing) for drawing in DRAWINGS])
    path.write_text(spoil(path.read_text()))
    with pytest.raises(UserError, match=said) as caught:
        read_prompts(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_reader_need_not_have_the_fields_that_it_does_not_read(tmp_path):
    path = tmp_path / "prompts.jsonl"
    write_prompts(path, [{"coarse": "a cat", "more": 1}])
    assert read_prompts(path, ["coarse"]) == [{"coarse": "a cat", "more": 1}]
    with pytest.raises(UserError, match=r"nothing\.jsonl is missing"):
        read_prompts(tmp_path / "nothing.jsonl")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"prompts\.jsonl cannot be read"):
        read_prompts(path)


def test_scores_are_read_as_they_were_written(tmp_path):
    write_scores(tmp_path / "scores.parquet", scores())
    pd.testing.assert_frame_equal(
        read_scores(tmp_path / "scores.parquet"), scores().drop(columns=["image_seed", "image"]), check_exact=True
    )


def test_numbers_that_pandas_holds_as_objects_are_no_damage(tmp_path):
    rows = [[0, "refined", 0, "fidelity", 0.25]]
    of_nothing = pd.DataFrame(columns=list(SCORE_COLUMNS), dtype=object)
    table = pd.DataFrame(rows, columns=list(SCORE_COLUMNS)).astype(object)
    write_scores(tmp_path / "scores.parquet", pd.concat([of_nothing, table]))
    assert read_scores(tmp_path / "scores.parquet").iloc[0].to_list() == rows[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_neither_written_nor_read(tmp_path, value):
    path, bad = tmp_path / "scores.parquet", scores(value=[0.5, 0.5, value, value])
    said = r"2 of 4 values in .*scores\.parquet are not finite, the first is fidelity of prompt 3, refined"
    with pytest.raises(UserError, match=said):
        write_scores(path, bad)
    assert not path.exists()
    bad.to_parquet(path)
    with pytest.raises(UserError, match=said):
        read_scores(path)


def test_scores_that_are_torn_empty_or_lack_a_column_are_one_line(tmp_path):
    path = tmp_path / "scores.parquet"
    with pytest.raises(UserError, match=r"scores\.parquet is missing"):
        read_scores(path)
    path.write_bytes(b"torn")
    with pytest.raises(UserError, match=r"scores\.parquet cannot be read") as caught:
        read_scores(path)
    assert "\n" not in str(caught.value)
    scores().iloc[:0].to_parquet(path)
    with pytest.raises(UserError, match=r"scores\.parquet is empty"):
        read_scores(path)
    scores().drop(columns="metric").to_parquet(path)
    with pytest.raises(UserError, match=r"scores\.parquet cannot be read .*metric"):
        read_scores(path)


def test_reading_prompts_needs_no_heavy_library(tmp_path):
    write_prompts(tmp_path / "prompts.jsonl", [json.loads(json.dumps(prompt_line(DRAWINGS[2])))])
    program = (
        "import sys, pathlib; from ablations.results.prompts_and_scores import read_prompts\n"
        f"assert len(read_prompts(pathlib.Path({str(tmp_path / 'prompts.jsonl')!r}))) == 1\n"
        "heavy = {'torch', 'pandas', 'PIL', 'numpy'} & set(sys.modules); assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
