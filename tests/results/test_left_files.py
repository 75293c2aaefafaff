"""What a finished cell left is what is read of it later: a changed file is one line, and no figure comes of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ablations.config import parse
from ablations.results.picture_files import PictureFiles, save_pixels
from ablations.results.prompts_and_scores import Drawing, prompt_line, read_prompts, read_scores, write_prompts, write_scores
from ablations.results.run_folder import RunFolder
from ablations.results.scores import Score, table_of
from ablations.runtime.errors import UserError

DRAWINGS = [Drawing(i, "coarse", 0, "a cat", "a cat", 1, 2) for i in range(3)]


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    folder = RunFolder(parse([f"output_dir={tmp_path}"]))
    with folder.lock():
        folder.start({"data": "d1", "weights": "w1"}, threads=1)
        write_prompts(folder.prompts, map(prompt_line, DRAWINGS))
        scores = [Score.of_picture(drawing, "fidelity", 0.1 * number) for number, drawing in enumerate(DRAWINGS)]
        write_scores(folder.scores, table_of(scores))
        for number, drawing in enumerate(DRAWINGS):
            save_pixels([folder.path / drawing.image], np.full((64, 64, 3), 40 * number, np.uint8))
        folder.finish({}, {})
    return folder


def test_what_is_whole_is_read_and_run_json_has_its_digests(folder):
    assert len(read_prompts(folder.prompts)) == 3 and read_scores(folder.scores).value.tolist() == [0.0, 0.1, 0.2]
    assert [int(pixels.mean()) for pixels in PictureFiles([folder.path / drawing.image for drawing in DRAWINGS])] == [0, 40, 80]
    assert set(folder.read()["files"]) == {"prompts.jsonl", "scores.parquet"}


def test_one_other_letter_in_a_prompt_is_damage(folder):
    folder.prompts.write_text(folder.prompts.read_text().replace("a cat", "a car", 1))
    with pytest.raises(UserError, match=r"prompts\.jsonl is damaged \(it is not what the cell left\)"):
        read_prompts(folder.prompts)


@pytest.mark.parametrize("in_a_run_folder", [True, False])
def test_no_flipped_bit_of_scores_comes_through(folder, tmp_path, in_a_run_folder):
    path = folder.scores if in_a_run_folder else tmp_path / "scores.parquet"
    content = folder.scores.read_bytes()
    path.write_bytes(content)
    whole, rng = read_scores(path), np.random.default_rng(0)
    noticed = 0
    for _ in range(60):
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(flipped))
        try:
            assert read_scores(path).equals(whole)
        except UserError as error:
            assert "\n" not in str(error)
            noticed += 1
    assert noticed == (60 if in_a_run_folder else 30)  # the others are in what parquet says about itself


def test_a_picture_in_the_place_of_another_one_or_of_another_make_is_damage(folder):
    first, second = (folder.path / drawing.image for drawing in DRAWINGS[:2])
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(UserError, match=r"cannot be read \(its pixels are not those that were written\)"):
        PictureFiles([first])[0]
    Image.new("RGB", (64, 64)).save(first)
    with pytest.raises(UserError, match="it is not the picture that the cell left"):
        PictureFiles([first])[0]
    first.write_bytes(content)
    assert PictureFiles([first])[0].max() == 0


def test_a_cell_from_before_there_were_digests_is_read_as_it_is(folder):
    old = {name: value for name, value in json.loads(folder.run_json.read_text()).items() if name not in ("files", "sha256")}
    folder.run_json.write_text(json.dumps(old))
    folder.prompts.write_text(folder.prompts.read_text().replace("a cat", "a car", 1))
    Image.new("RGB", (64, 64)).save(folder.path / DRAWINGS[0].image)
    assert read_prompts(folder.prompts)[0]["coarse"] == "a car"
    assert PictureFiles([folder.path / DRAWINGS[0].image])[0].shape == (64, 64, 3)


def test_a_damaged_run_json_is_set_aside_when_its_cell_runs_again(folder, caplog):
    folder.run_json.write_text(folder.run_json.read_text().replace('"threads": 1', '"threads": 2'))
    assert folder.status() == "absent" and "its content is not what was written" in caplog.text
    with folder.lock():
        folder.start(threads=1)
    assert (folder.path / "run.damaged").exists() and folder.read()["status"] == "running"
    assert "is damaged: it is set aside as run.damaged" in caplog.text
