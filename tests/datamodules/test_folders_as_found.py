"""Claims about folders and containers as people have them: links, other formats, texts that are no captions, pictures named by parquet."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datamodules.decoding import picture_suffixes
from datamodules.images import ImageChecker
from datamodules.readers.collecting import files_in
from datamodules.readers.record_parser import ReadTable
from datamodules.readers.source import read_source
from datamodules.stored_images import StoredImage
from helpers.made_pictures import encoded

PICTURE = encoded(Image.new("RGB", (8, 8), (200, 30, 30)), "PNG")
OTHER = encoded(Image.new("RGB", (8, 8), (30, 30, 200)), "PNG")


def count_tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def read(path: Path) -> ReadTable:
    return read_source(path, None, count_tokens)


def files(root: Path, **contents: bytes | str) -> Path:
    """Files by their names, with __ for the dot and ___ for a slash."""
    for name, content in contents.items():
        path = root / name.replace("___", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def names(table: ReadTable) -> list[str]:
    return [record.image.name for record in table.records]


@pytest.mark.parametrize("suffix", [".avif", ".jfif", ".jpe", ".tga", ".qoi", ".ppm", ".jp2", ".PNG", ".TIFF", ".ico", ".pcx"])
def test_captions_beside_pictures_of_every_format_that_opens_are_read(tmp_path, suffix):
    assert suffix.lower() in picture_suffixes()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(tmp_path / f"y{suffix}")
    files(tmp_path, y__txt="a red square")
    table = read(tmp_path)
    assert names(table) == [f"y{suffix}"] and table.bad == []
    assert ImageChecker(None, print).check([table.records[0].image])[table.records[0].image].problem == ""


def test_a_caption_whose_stem_has_another_file_names_it(tmp_path):
    files(tmp_path, a__png=PICTURE, a__txt="a square", b__txt="b", b__heic=b"x", c__png=PICTURE, c__json="{}", d__txt="d")
    assert [(bad.reason, bad.detail) for bad in read(tmp_path).bad] == [
        ("missing_image", "b.txt has no picture beside it that can be decoded here (b.heic is there)"),
        ("no_caption", "c.png has no c.txt beside it (c.json is there)"),
        ("missing_image", "d.txt has no picture beside it"),
    ]


def test_texts_about_the_folder_are_no_captions_unless_they_have_a_picture(tmp_path):
    files(tmp_path, a__png=PICTURE, a__txt="a square", README__txt="read me", **{"LICENSE-MIT__txt": "x", "readme_zh__txt": "x"})
    files(tmp_path, classes__txt="x", sub___Notes__txt="x", readme2__txt="x")
    table = read(tmp_path)
    assert (names(table), table.bad, table.total) == (["a.png"], [], 1)
    files(tmp_path, README__png=PICTURE)
    assert [record.fine_prompt for record in read(tmp_path).records] == ["read me", "a square"]


def test_of_a_caption_of_several_lines_the_first_is_read_and_counted(tmp_path):
    files(
        tmp_path,
        a__png=PICTURE,
        a__txt="\n a red square \na square that is red\n",
        b__png=PICTURE,
        b__txt="b\n",
        c__png=PICTURE,
        c__caption="c",
    )
    table = read(tmp_path)
    assert [record.fine_prompt for record in table.records] == ["a red square", "b", "c"]
    assert table.done == {"captions of several lines, the first is read": 1}


def test_a_caption_file_that_is_no_text_costs_its_picture_only(tmp_path):
    files(tmp_path, a__png=PICTURE, a__txt=b"PK\x03\x04xx", b__png=PICTURE, b__txt="b", c__png=PICTURE, c__txt=b"c\xff")
    table = read(tmp_path)
    assert names(table) == ["b.png"] and [(bad.id, bad.reason) for bad in table.bad] == [(0, "malformed"), (2, "encoding")]
    assert table.bad[0].detail.startswith("a.txt: it is no text but a workbook or an archive")


def test_captions_may_bear_the_pictures_whole_name_and_any_encoding(tmp_path):
    files(tmp_path, a__png=PICTURE, a__png__txt="a square", b__png=PICTURE, b__txt="a café".encode("utf-16"))
    assert [record.fine_prompt for record in read(tmp_path).records] == ["a square", "a café"]


def test_captions_are_found_by_names_in_other_letters_and_last_in_another_case(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    for name, content in {f"{composed}.png": PICTURE, f"{decomposed}.txt": b"e", "IMG_1.JPG": PICTURE, "img_1.txt": b"one"}.items():
        (tmp_path / name).write_bytes(content)
    files(tmp_path, A__png=PICTURE, a__png=PICTURE, A__txt="large", a__txt="small", B__png=PICTURE, b__txt="b1", b__caption="b2")
    table = read(tmp_path)
    assert {record.image.name: record.fine_prompt for record in table.records} == {
        f"{composed}.png": "e", "IMG_1.JPG": "one", "A.png": "large", "a.png": "small", "B.png": "b1",
    }  # fmt: skip
    assert table.bad == []


def test_linked_folders_are_followed_and_each_is_read_once(tmp_path):
    real = files(tmp_path / "elsewhere", a__png=PICTURE, a__txt="a", deep___b__png=PICTURE, deep___b__txt="b")
    root = files(tmp_path / "root", own___c__png=PICTURE, own___c__txt="c")
    (root / "linked").symlink_to(real, target_is_directory=True)
    (root / "again").symlink_to(real, target_is_directory=True)
    (root / "own" / "up").symlink_to(root, target_is_directory=True)
    (root / "above").symlink_to(tmp_path, target_is_directory=True)
    (root / "self").symlink_to(root / "own", target_is_directory=True)
    (root / "broken").symlink_to(tmp_path / "nowhere", target_is_directory=True)
    (real / "back").symlink_to(root, target_is_directory=True)
    assert sorted(names(read(root))) == ["a.png", "b.png", "c.png"]
    assert [str(file.relative_to(root)) for file in files_in(root)] == [
        "again/a.png", "again/a.txt", "again/deep/b.png", "again/deep/b.txt", "own/c.png", "own/c.txt",
    ]  # fmt: skip


def test_a_folder_that_is_itself_a_link_is_read(tmp_path):
    real = files(tmp_path / "real", a__png=PICTURE, a__txt="a")
    (tmp_path / "root").symlink_to(real, target_is_directory=True)
    assert names(read(tmp_path / "root")) == ["a.png"]


def test_metadata_may_be_of_any_dialect_and_names_pictures_as_people_write_them(tmp_path):
    files(
        tmp_path,
        **{"Imgs___A__PNG": PICTURE},
        metadata__csv="file_name;text\n".encode("utf-16") + "imgs\\a.png;a square\n".encode("utf-16-le"),
    )
    table = read(tmp_path)
    assert names(table) == ["A.PNG"] and table.bad == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", r"columns found: none \(the file is empty\)"),
        ("{torn\n{also\n", r"columns found: none, as no line is a JSON object \(line 1: "),
        ('["a.png", "a"]\n', r"none, as no line is a JSON object \(line 1: not an object\)"),
        ('{"picture": "a.png", "text": "a"}\n', "columns found: 'picture', 'text'"),
    ],
)
def test_a_metadata_file_without_the_columns_says_what_there_is_in_truth(tmp_path, content, reason):
    files(tmp_path, a__png=PICTURE, metadata__jsonl=content)
    with pytest.raises(ValueError, match=reason):
        read(tmp_path)


def test_metadata_lines_of_utf16_are_read(tmp_path):
    files(tmp_path, a__png=PICTURE, metadata__jsonl=(json.dumps({"file_name": "a.png", "text": "a"}) + "\n").encode("utf-16"))
    assert names(read(tmp_path)) == ["a.png"]


def test_a_folder_of_formats_that_do_not_open_says_so(tmp_path):
    files(tmp_path, a__heic=b"x", a__txt="a", b__heic=b"x", b__txt="b")
    with pytest.raises(ValueError, match=r"found: 2 \.heic, 2 \.txt files; \.heic cannot be decoded here: save them as PNG or JPEG"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not there; name a CSV or parquet file") as raised:
        read(Path("x" * 5000))
    assert len(str(raised.value)) < 500


def struct(**columns) -> pa.Table:
    return pa.table({"prompt": [f"a cat {number}" for number in range(len(next(iter(columns.values()))))], **columns})


def write(path: Path, table: pa.Table, saved: bool) -> Path:
    if saved:
        import datasets

        datasets.Dataset(table).save_to_disk(path)
        return path
    pq.write_table(table, path.with_suffix(".parquet"), row_group_size=2)
    return path.with_suffix(".parquet")


@pytest.mark.parametrize("saved", [False, True])
def test_pictures_that_a_container_names_are_files_with_their_own_time(tmp_path, saved):
    files(tmp_path, a__png=PICTURE)
    cells = [
        {"bytes": OTHER, "path": "x.png"},
        {"bytes": OTHER, "path": None},
        {"bytes": None, "path": "a.png"},
        {"bytes": None, "path": "b.png"},
    ]
    source = write(tmp_path / "t", struct(image=[*cells, None, {"bytes": None, "path": "A.PNG"}]), saved)
    if saved:  # its names start in its own folder
        files(source, a__png=PICTURE)
    table = read(source)
    images = [record.image for record in table.records]
    home = source if saved else tmp_path
    assert images[2] == images[5] == home / "a.png" and images[3] is None
    assert [isinstance(image, StoredImage) for image in images] == [True, True, False, False, True, False]
    assert table.missing == {3: "no image 'b.png'"}
    ledger = tmp_path / "ledger.json"
    first = ImageChecker(ledger, print).check([images[2]])[images[2]]
    (home / "a.png").write_bytes(OTHER)
    os.utime(home / "a.png", ns=(1, 1))
    again = ImageChecker(ledger, print).check([images[2]])[images[2]]
    assert first.problem == again.problem == "" and first.digest != again.digest
    (home / "b.png").write_bytes(PICTURE)
    assert read(source).records[3].image == home / "b.png"


def test_paths_of_parquet_are_read_without_reading_a_picture(tmp_path, monkeypatch):
    files(tmp_path, a__png=PICTURE)
    kinds = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": OTHER, "path": "x"}] * 2 + [{"bytes": None, "path": "a.png"}] * 2, kinds)
    source = write(tmp_path / "t", struct(image=cells), False)
    asked = []
    whole = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda self, *a, **k: asked.append(k["columns"]) or whole(self, *a, **k))
    assert [getattr(record.image, "name", None) for record in read(source).records] == ["t.parquet[0]", "t.parquet[1]", "a.png", "a.png"]
    assert asked == [["prompt"], ["prompt", "image.path"]]


def test_parquet_that_does_not_say_how_many_cells_have_bytes_is_looked_at_where_that_is_quick(tmp_path, monkeypatch):
    files(tmp_path, a__png=PICTURE)
    cells = [{"bytes": OTHER, "path": "x"}, {"bytes": None, "path": "a.png"}]
    pq.write_table(struct(image=cells), tmp_path / "t.parquet", write_statistics=False)
    assert [isinstance(record.image, StoredImage) for record in read(tmp_path / "t.parquet").records] == [True, False]
    monkeypatch.setattr("datamodules.readers.parquet.QUICK_BYTES", 0)
    stored = [record.image for record in read(tmp_path / "t.parquet").records]
    assert [image.read_bytes() for image in stored] == [OTHER, PICTURE] and isinstance(stored[1], StoredImage)


@pytest.mark.parametrize(
    "name", ["conditioning_image", "control_image", "mask", "depth_map", "source_image", "input_image", "original_image"]
)
def test_a_picture_that_the_fine_one_was_made_from_is_not_the_fine_one(tmp_path, name):
    cell = {"bytes": OTHER, "path": None}
    alone = write(tmp_path / "alone", struct(**{name: [cell]}), False)
    assert (read(alone).any_image, read(alone).records[0].image) == (False, None)
    for fine in ("image", "edited_image", "target", "picture"):
        both = write(tmp_path / fine, struct(**{name: [cell], fine: [{"bytes": PICTURE, "path": None}]}), False)
        assert read(both).records[0].image.read_bytes() == PICTURE


def test_two_columns_that_may_both_be_the_fine_picture_are_asked_about(tmp_path):
    cell = {"bytes": OTHER, "path": None}
    with pytest.raises(ValueError, match="which of the columns 'jpg_0', 'jpg_1' holds the fine pictures is not plain: call it 'image'"):
        read(write(tmp_path / "t", struct(jpg_0=[cell], jpg_1=[cell]), False))


@pytest.mark.parametrize("name", ["png", "jpg", "webp", "avif", "tiff"])
def test_bytes_are_pictures_under_every_suffix_that_opens(tmp_path, name):
    assert read(write(tmp_path / "t", struct(**{name: [PICTURE]}), False)).records[0].image.read_bytes() == PICTURE


def test_values_that_python_has_not_cost_nothing_and_broken_lists_their_row(tmp_path):
    broken = pa.array([b"a", b"b\xff"], pa.binary()).view(pa.string())
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), broken)
    far = pa.array([2**50, 1], pa.timestamp("ms"))
    table = read(write(tmp_path / "t", pa.table({"prompt": ["a cat", "a dog"], "coarse": lists, "taken": far}), False))
    assert [(bad.id, bad.reason) for bad in table.bad] == [(0, "coarse_list"), (1, "encoding")]
    table = read(write(tmp_path / "u", pa.table({"prompt": ["a cat", "a dog"], "taken": far}), False))
    assert [record.metadata["taken"] for record in table.records] == ["", "1970-01-01 00:00:00.001000"]


def test_pixels_of_named_and_stored_pictures_are_the_same(tmp_path):
    from datamodules.images import load_pixels

    files(tmp_path, a__png=PICTURE)
    cells = [{"bytes": PICTURE, "path": None}, {"bytes": None, "path": "a.png"}]
    stored, named = read(write(tmp_path / "t", struct(image=cells), False)).records
    assert np.array_equal(load_pixels(stored, 8), load_pixels(named, 8))
