"""Claims about pictures in training: what is done to them is counted, and what was made of other pixels is not used again."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import images
from datamodules.cfp import CFPDataModule
from datamodules.images import ImageChecker
from datamodules.settings import DataSettings
from helpers.made_pictures import encoded, exif, lying, quarters

SIZE = 16
COLOURS = np.array([[220, 30, 30], [40, 200, 60], [30, 40, 220], [230, 210, 40]], dtype=np.uint8)
UPRIGHT = encoded(Image.fromarray(quarters(COLOURS)), "PNG")
LYING = encoded(Image.fromarray(lying(quarters(COLOURS), 6)), "PNG", exif=exif(6))
CLEAR = encoded(Image.fromarray(quarters(np.concatenate([COLOURS, [[255], [0], [255], [255]]], 1).astype(np.uint8)), "RGBA"), "PNG")


class MeanColours:
    """Stands for a frozen network: the mean colours of the picture's quarters. Counts the pictures that it saw."""

    name, digest = "latents", "means"

    def __init__(self):
        self.seen = 0

    def shapes(self):
        return {"latent_mean": (3, 2, 2), "latent_logvar": (3, 2, 2)}

    def encode(self, images_BCHW):
        self.seen += len(images_BCHW)
        mean = images_BCHW.unflatten(3, (2, SIZE // 2)).unflatten(2, (2, SIZE // 2)).mean((3, 5))
        return {"latent_mean": mean, "latent_logvar": -mean}


def count_tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def write_table(folder: Path, contents: list[bytes]) -> Path:
    with open(folder / "t.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["coarse", "fine", "image"])
        for number, content in enumerate(contents):
            (folder / f"{number}.png").write_bytes(content)
            writer.writerow(["a cat", f"a cat number {number}, oil, 8k", f"{number}.png"])
    return folder / "t.csv"


def data_module(table: Path, lines: list[str] | None = None, **options) -> CFPDataModule:
    tokenizers = SimpleNamespace(
        tokenize=lambda texts: torch.ones(len(texts), 77, dtype=torch.int64),
        tokenize_t5=lambda texts: [[5, 1] for _ in texts],
        t5_pad_id=0,
        count_tokens=count_tokens,
    )
    options = {"cache_dir": table.parent / "cache", "num_validation": 0, "random_flip": False, "max_bad_fraction": 0.9, **options}
    return CFPDataModule(
        DataSettings(table, SIZE, 2, **options), 0, tokenizers, [MeanColours()], (lambda line: None) if lines is None else lines.append
    )


def test_pictures_are_trained_on_as_a_viewer_shows_them_and_a_line_counts_what_was_done(tmp_path):
    lines: list[str] = []
    data = data_module(write_table(tmp_path, [UPRIGHT, LYING, LYING, CLEAR]), lines, manifest_path=tmp_path / "m.json")
    data.setup("fit")
    assert lines[1] == "data: turned upright as EXIF says 2, transparency laid on white 1"
    assert json.loads((tmp_path / "m.json").read_text())["done"] == {"turned upright as EXIF says": 2, "transparency laid on white": 1}
    seen = [images.load_pixels(record, SIZE)[[2, 2, -3, -3], [2, -3, 2, -3]] for record in data.records]
    assert (seen[0] == COLOURS).all() and (seen[1] == COLOURS).all() and (seen[2] == COLOURS).all()
    assert (seen[3] == np.where(np.arange(4)[:, None] == 1, 255, COLOURS)).all()


def test_digest_of_a_picture_changes_with_the_decoding_only_where_its_pixels_do(tmp_path, monkeypatch):
    (tmp_path / "plain.png").write_bytes(UPRIGHT)
    (tmp_path / "lying.png").write_bytes(LYING)
    paths = [tmp_path / "plain.png", tmp_path / "lying.png"]
    plain, turned = (ImageChecker(None, print).check(paths)[path].digest for path in paths)
    assert plain == hashlib.blake2b(UPRIGHT, digest_size=16).hexdigest()  # as before there was a number
    assert turned != hashlib.blake2b(LYING, digest_size=16).hexdigest()
    monkeypatch.setattr(images, "DECODING", images.DECODING + 1)
    again = [ImageChecker(None, print).check(paths)[path].digest for path in paths]
    assert again[0] == plain and again[1] != turned


def test_features_of_an_earlier_decoding_are_not_used_again(tmp_path, monkeypatch):
    table = write_table(tmp_path, [UPRIGHT, LYING])
    first = data_module(table)
    first.setup("fit")
    again = data_module(table)
    again.setup("fit")
    assert (first.encoders[0].seen, again.encoders[0].seen) == (2, 0)
    monkeypatch.setattr(images, "DECODING", images.DECODING + 1)
    later = data_module(table)
    later.setup("fit")
    assert later.encoders[0].seen == 2 and later.digest != first.digest


def test_rendered_pictures_have_the_preprocessing_that_they_had():
    assert images.PREPROCESSING == "shorter side to size, bilinear, centre crop, [-1, 1]; 1"


def test_what_an_older_ledger_says_is_looked_at_again(tmp_path):
    (tmp_path / "a.png").write_bytes(LYING)
    stat = (tmp_path / "a.png").stat()
    ledger = tmp_path / "ledger.json"
    ledger.write_text(json.dumps({str(tmp_path / "a.png"): [[stat.st_size, stat.st_mtime_ns], ["", "old"]]}))
    assert ImageChecker(ledger, print).check([tmp_path / "a.png"])[tmp_path / "a.png"].done == ("turned upright as EXIF says",)
    for damaged in ("[" * 100_000, "[1]", "{", '{"x": 3}', json.dumps({str(tmp_path / "a.png"): 7})):
        ledger.write_text(damaged)
        assert ImageChecker(ledger, print).check([tmp_path / "a.png"])[tmp_path / "a.png"].problem == ""


def test_a_picture_that_is_not_there_yet_is_looked_for_again(tmp_path):
    ledger, path = tmp_path / "ledger.json", tmp_path / "a.png"
    assert ImageChecker(ledger, print).check([path])[path].problem.startswith("its file cannot be read")
    path.write_bytes(UPRIGHT)
    assert ImageChecker(ledger, print).check([path])[path].problem == ""


def test_a_ledger_that_cannot_be_written_costs_a_line_and_a_manifest_stops_the_run(tmp_path):
    (tmp_path / "a.png").write_bytes(UPRIGHT)
    (tmp_path / "file").write_text("")
    lines: list[str] = []
    found = ImageChecker(tmp_path / "file" / "ledger.json", lines.append).check([tmp_path / "a.png"])
    assert found[tmp_path / "a.png"].problem == "" and len(lines) == 1 and "checks these pictures again" in lines[0]
    table = write_table(tmp_path, [UPRIGHT, UPRIGHT])
    with pytest.raises(ValueError, match=r"cannot write .*file.*: [A-Z].* \(free space or permissions"):
        data_module(table, manifest_path=tmp_path / "file" / "manifest.json").setup("fit")


def test_a_full_disk_and_a_folder_that_cannot_be_written_are_one_line(tmp_path, monkeypatch):
    table = write_table(tmp_path, [UPRIGHT, UPRIGHT])
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write .*file.*: .* set data\.cache_dir to another disk, or data\.cache=false\)"):
        data_module(table, cache_dir=tmp_path / "file").setup("fit")

    def full_disk(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(ValueError, match=r"cannot write .*m\.json: No space left on device \(free space .*\)") as raised:
        data_module(table, manifest_path=tmp_path / "m.json").setup("fit")
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match=r"No space left on device|filled the disk"):
        data_module(table).setup("fit")
