"""Claims about the manifest: what is bad is listed and left out, and too much of it stops the run."""

import json

import numpy as np
import pytest
from PIL import Image

from datamodules.files import write_atomically
from datamodules.images import Checked, ImageChecker, load_pixels, resize_and_crop, to_unit_range
from datamodules.manifest import Manifest
from datamodules.records import BadRecord, CFPRecord

BAD = (
    BadRecord(3, 5, "corrupt_image", "x.png: truncated"),
    BadRecord(7, 9, "empty_prompt", "no words"),
    BadRecord(8, 10, "empty_prompt", "é"),
)


def test_manifest_lists_every_bad_record_with_counts(tmp_path):
    path = tmp_path / "folder" / "manifest.json"
    Manifest("table.csv", "plain table", 12, BAD).write(path)
    document = json.loads(path.read_text())
    assert {key: document[key] for key in ("total", "kept", "left_out", "reasons")} == {
        "total": 12, "kept": 9, "left_out": 3, "reasons": {"empty_prompt": 2, "corrupt_image": 1},
    }  # fmt: skip
    assert document["bad"][0] == {"id": 3, "line": 5, "reason": "corrupt_image", "detail": "x.png: truncated"}
    assert [entry.name for entry in path.parent.iterdir()] == ["manifest.json"]


def test_manifest_without_bad_records_is_valid_json(tmp_path):
    Manifest("tiny_world", "tiny world", 12).write(tmp_path / "manifest.json")
    assert json.loads((tmp_path / "manifest.json").read_text())["bad"] == []


def test_too_many_bad_records_stop_the_run_on_one_line(tmp_path):
    manifest = Manifest("table.csv", "plain table", 12, BAD)
    manifest.enforce(0.25, None)
    message = r"3 of 12 records of table\.csv are bad.*data\.max_bad_fraction=0\.2.*empty_prompt 2.*m\.json"
    with pytest.raises(ValueError, match=message) as error:
        manifest.enforce(0.2, tmp_path / "m.json")
    assert "\n" not in str(error.value)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_atomically(tmp_path / "f", b"old")

    def full_disk(_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "f", b"new")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"f": b"old"}


def make_image(path, size=(8, 8)):
    Image.fromarray(np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)).save(path)
    return path


def test_truncated_and_foreign_files_are_found_by_decoding_and_read_once(tmp_path, monkeypatch):
    good, cut, text = (make_image(tmp_path / name, (64, 64)) for name in ("good.png", "cut.png", "text.png"))
    cut.write_bytes(cut.read_bytes()[:-40])
    text.write_bytes(b"not a picture")
    ledger = tmp_path / "ledger.json"
    found = ImageChecker(ledger, print).check([good, cut, text])
    assert found[good][0] == "" and len(found[good][1]) == 32
    assert "runcated" in found[cut][0] and found[text][0] == "not a picture"

    reads = []
    monkeypatch.setattr("datamodules.images._inspect", lambda path: reads.append(path) or Checked("", "again"))
    assert ImageChecker(ledger, print).check([good, cut, text]) == found
    make_image(text, (9, 9))
    assert ImageChecker(ledger, print).check([good, cut, text])[text] == Checked("", "again")
    assert reads == [text]


def test_pictures_are_resized_by_the_shorter_side_and_cropped_in_the_middle(tmp_path):
    wide = Image.new("RGB", (40, 20))
    wide.paste((255, 0, 0), (10, 0, 30, 20))
    assert resize_and_crop(wide, 20).getcolors() == [(400, (255, 0, 0))]
    assert resize_and_crop(Image.new("RGB", (33, 100)), 16).size == (16, 16)
    pixels = load_pixels(CFPRecord(0, "a", ("a",), make_image(tmp_path / "a.png", (30, 20))), 16)
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8


def test_unit_range_is_minus_one_to_one():
    pixels = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    pixels[0, 0, 0] = 255
    images = to_unit_range(pixels)
    assert images.shape == (1, 3, 2, 2) and images.max() == 1.0 and images.min() == -1.0 and images[0, 0, 0, 0] == 1.0


def test_picture_that_vanishes_names_its_record(tmp_path):
    with pytest.raises(ValueError, match=r"record 5: image .*gone\.png can no longer be read"):
        load_pixels(CFPRecord(5, "a", ("a",), tmp_path / "gone.png"), 16)
