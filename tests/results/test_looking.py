"""What is looked at in the run folder of somebody else: shapes, names, digests, and pictures that never lie elsewhere."""

from __future__ import annotations

import json
import os

import pytest
from PIL import Image

from ablations.config import parse
from ablations.results.looking import Damaged, MissingPicture, Run, look_at_run, picture_within
from ablations.results.run_folder import RunFolder, read_run
from ablations.results.run_pictures import read_picture
from helpers.synthetic_runs import forget_digests


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    made = RunFolder(parse([f"output_dir={tmp_path / 'out'}"]))
    with made.lock():
        made.start({"data": "d" * 64, "weights": "e" * 16}, threads=1)
        made.finish({"refined": {"fidelity": 0.5}, "unavailable": {"nima": "no weights"}}, {"training": 2.5}, reused={"pictures": 3})
        made.record(checks={"afe_entropy": 0.5, "odd": None})
    return made


def test_what_a_run_writes_is_a_run(folder):
    run = look_at_run(folder.path)
    assert isinstance(run, Run) and run.status == "finished" and run.content == folder.read()
    assert (run.data_digest, run.weights_digest, run.timings) == ("d" * 64, "e" * 16, {"training": 2.5})
    assert run.checks == {"afe_entropy": 0.5} and run.unavailable == {"nima": "no weights"} and run.reused["pictures"] == 3
    assert run.seconds is not None and 0 <= run.seconds < 60
    assert look_at_run(folder.path / "nowhere") is None


@pytest.mark.parametrize("revision", [None, "0" * 40, "0" * 40 + "+dirty", "uf-fgtg-0.2.0", "uf_fgtg-1!2.0rc1+cpu"])
def test_code_is_named_by_its_revision_or_its_release(folder, revision):
    folder.record(code_revision=revision)
    assert isinstance(look_at_run(folder.path), Run)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"digests": {"data": "../../../etc"}}, "digests: that of 'data' is not hexadecimal"),
        ({"digests": {"weights": 3}}, "digests: that of 'weights' is not hexadecimal"),
        ({"digests": ["a"]}, "digests is no JSON object"),
        ({"status": "done"}, "status or config is missing"),
        ({"config": [1]}, "status or config is missing"),
        ({"config": {"seed": [0]}}, "config: 'seed' is no plain value"),
        ({"timings": {"training": "long"}}, "timings: 'training' has no seconds"),
        ({"timings": {"training": True}}, "timings: 'training' has no seconds"),
        ({"metrics": None}, "finished, but without metrics"),
        ({"metrics": [1]}, "metrics is no JSON object"),
        ({"metrics": {"refined": "good"}}, "metrics: 'refined' is no number"),
        ({"metrics": {"unavailable": {"nima": 3}}}, "metrics: what is unavailable has no reasons"),
        ({"code_revision": "<b>"}, "code_revision is no name of one"),
        ({"arm": "../x"}, "arm is no name of a folder"),
        ({"seed": "0"}, "seed is no whole number from 0"),
        ({"reason": {"a": 1}}, "reason is no text"),
        ({"reused": {"pictures": "all"}}, "reused: pictures and scores are no numbers"),
    ],
)
def test_another_shape_is_damage_with_the_reason(folder, change, why):
    forget_digests(folder.path.parents[1])
    folder.run_json.write_text(json.dumps(json.loads(folder.run_json.read_text()) | change))
    assert look_at_run(folder.path) == Damaged(why)


def test_a_deep_run_json_is_no_run_and_the_cell_counts_as_not_finished(folder, caplog):
    folder.run_json.write_text('{"status": ' + "[" * 100_000)
    assert isinstance(look_at_run(folder.path), Damaged) and read_run(folder.path) is None and folder.status() == "absent"
    assert "nested more than" in caplog.messages[0]


def picture(path, colour=(1, 2, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(path)


def test_a_picture_is_read_from_within_the_folder_also_where_the_folder_itself_is_a_link(tmp_path):
    picture(tmp_path / "real" / "images" / "0.png")
    os.symlink(tmp_path / "real", tmp_path / "link")
    for folder in (tmp_path / "real", tmp_path / "link"):
        assert picture_within(folder, "images/0.png") == (tmp_path / "real" / "images" / "0.png").resolve()
        assert read_picture(folder, "images/../images/0.png").getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../secret.png", "lies outside the run folder"),
        ("images/link.png", "lies outside the run folder"),
        ("linked/secret.png", "lies outside the run folder"),
        ("images/9.png", "is missing"),
        ("images", "is missing"),
        ("images/loop.png", "is missing"),
        ("x" * 5000, "is missing"),
        ("a\0b", "is no picture of the run folder"),
        ("", "is no picture of the run folder"),
    ],
)
def test_no_name_and_no_link_leads_out_of_the_folder(name, why, tmp_path):
    run = tmp_path / "run"
    picture(tmp_path / "secret.png")
    picture(run / "images" / "0.png")
    os.symlink(tmp_path / "secret.png", run / "images" / "link.png")
    os.symlink(tmp_path, run / "linked")
    os.symlink("loop.png", run / "images" / "loop.png")
    for given in (name, *([str(tmp_path / "secret.png")] if name == "../secret.png" else [])):
        with pytest.raises(MissingPicture) as caught:
            picture_within(run, given)
        assert (why in str(caught.value) or os.path.isabs(given)) and len(str(caught.value)) < 200


@pytest.mark.parametrize("damage", ["cut", "gif", "text", "bomb"])
def test_a_picture_that_cannot_be_shown_is_missing_with_the_reason(damage, tmp_path):
    path = tmp_path / "0.png"
    Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "gif":
        Image.new("RGB", (8, 8)).save(path, format="GIF")
    elif damage == "text":
        path.write_text("no picture")
    else:
        path.write_bytes(content[:16] + (9_000).to_bytes(4, "big") * 2 + content[24:])
    with pytest.raises(MissingPicture, match=r"'0\.png' (cannot be read|is too large)"):
        read_picture(tmp_path, "0.png")
