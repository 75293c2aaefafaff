"""Claims about the names of pictures in tables: found as people wrote them, and never taken for a picture of the same name elsewhere."""

from __future__ import annotations

import csv
import re
import unicodedata
from pathlib import Path

import pytest

from datamodules.readers.record_parser import ReadTable
from datamodules.readers.tables import read_table

NFC, NFD = "é-日本-Å.png", unicodedata.normalize("NFD", "é-日本-Å.png")


def count_tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def files(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def read(root: Path, cells: list[str], images: Path | None = None) -> ReadTable:
    root.mkdir(exist_ok=True, parents=True)
    with open(root / "t.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["coarse", "fine", "image"])
        writer.writerows(["a cat", f"a cat number {number}", cell] for number, cell in enumerate(cells))
    return read_table(root / "t.csv", images, count_tokens)


def found(root: Path, cells: list[str], images: Path | None = None) -> list[str | None]:
    """For each row the picture's path from `root`, None for one without, and the reason of one that is left out."""
    table = read(root, cells, images)
    by_id = {record.id: None if record.image is None else str(record.image.relative_to(root)) for record in table.records}
    return [by_id[number] if number in by_id else next(bad.reason for bad in table.bad if bad.id == number) for number in range(len(cells))]


def test_back_slashes_dots_and_blanks_are_what_their_writer_meant(tmp_path):
    files(tmp_path, "imgs/1.png", "imgs/sub/2.png", "images/3.png")
    cells = [r"imgs\1.png", r".\imgs\sub\2.png", "./imgs//1.png", " imgs/1.png ", r"imgs\sub/2.png", r"imgs\..\imgs\1.png", r"3.png"]
    expected = ["imgs/1.png", "imgs/sub/2.png", "imgs/1.png", "imgs/1.png", "imgs/sub/2.png", "imgs/../imgs/1.png", "images/3.png"]
    assert found(tmp_path, cells) == expected


def test_a_file_whose_own_name_has_a_back_slash_is_found_first(tmp_path):
    files(tmp_path, r"imgs\1.png", "imgs/1.png")
    assert found(tmp_path, [r"imgs\1.png"]) == [r"imgs\1.png"]


@pytest.mark.parametrize(
    "cell", [r"C:\Users\me\imgs\1.png", "D:/data/1.png", r"c:1.png", r"\\server\share\1.png", "/home/me/set/1.png", "file:///C:/x/1.png"]
)
def test_absolute_paths_of_other_machines_are_found_by_name_in_the_folder_given_only(tmp_path, cell):
    files(tmp_path, "pictures/1.png", "1.png")
    assert found(tmp_path, [cell], tmp_path / "pictures") == ["pictures/1.png"]
    assert found(tmp_path, [cell]) == [None]


def test_absolute_paths_of_other_machines_keep_as_many_folders_as_there_are(tmp_path):
    files(tmp_path, "pictures/train/1.png", "pictures/val/1.png", "pictures/1.png")
    for origin in ("E:\\", "E:\\set\\"):
        cells = [rf"{origin}train\1.png", rf"{origin}val\1.png"]
        assert found(tmp_path, cells, tmp_path / "pictures") == ["pictures/train/1.png", "pictures/val/1.png"]


def test_composed_and_decomposed_letters_are_the_same_name(tmp_path):
    assert NFC != NFD
    files(tmp_path, f"a/{NFC}", f"b/{NFD}", f"{unicodedata.normalize('NFD', 'Bücher')}/1.png")
    assert found(tmp_path, [f"a/{NFD}", f"b/{NFC}", "Bücher/1.png"]) == [
        f"a/{NFC}", f"b/{NFD}", f"{unicodedata.normalize('NFD', 'Bücher')}/1.png",
    ]  # fmt: skip


def test_another_case_is_the_last_resort_and_never_a_guess(tmp_path):
    files(tmp_path, "Imgs/IMG_1.JPG", "two/a.png", "two/A.png", "two/b.PNG")
    table = read(tmp_path, ["imgs/img_1.jpg", "two/a.png", "two/a.PNG", "two/b.png"])
    assert [record.image.relative_to(tmp_path) for record in table.records] == [
        Path("Imgs/IMG_1.JPG"), Path("two/a.png"), Path("two/b.PNG"),
    ]  # fmt: skip
    (bad,) = table.bad
    assert (bad.id, bad.reason) == (2, "ambiguous_image")
    assert "'two/A.png' or 'two/a.png'" in bad.detail and "'two/a.PNG' may be" in bad.detail


def test_a_picture_of_the_same_name_in_another_split_is_not_taken(tmp_path):
    files(tmp_path, *(f"pictures/{split}/000{number}.png" for split in ("train", "val") for number in (1, 2)))
    cells = ["train/0001.png", "train/0002.png", "val/0001.png", r"val\0002.png"]
    train = tmp_path / "pictures" / "train"
    assert found(tmp_path, cells, train) == ["pictures/train/0001.png", "pictures/train/0002.png", None, None]
    assert found(tmp_path, ["val/0001.png"], train) == [None]
    assert found(tmp_path, cells, tmp_path / "pictures") == [f"pictures/{cell}".replace("\\", "/") for cell in cells]


def test_the_folder_that_a_cell_names_is_told_by_its_whole_path_where_several_share_its_name(tmp_path):
    files(tmp_path, *(f"{split}/images/{number}.png" for split in ("train", "val") for number in range(3)))
    cells = [f"{split}/images/{number}.png" for split in ("train", "val") for number in range(2)]
    expected = ["train/images/0.png", "train/images/1.png", "missing_image", "missing_image"]
    elsewhere = tmp_path / "table"
    table = read(elsewhere, cells, tmp_path / "train" / "images")
    assert [record.image.relative_to(tmp_path).as_posix() for record in table.records] == expected[:2]
    assert [bad.reason for bad in table.bad] == expected[2:]
    assert "'val/images/0.png'" in table.bad[0].detail
    windows = [rf"C:\set\{cell}".replace("/", "\\") for cell in cells]
    table = read(elsewhere, windows, tmp_path / "train" / "images")
    assert len(table.records) + len(table.bad) == 4 and not any(r"\val" in r.metadata["image"] and r.image for r in table.records)


def test_two_rows_that_would_share_a_picture_by_its_bare_name_are_left_out(tmp_path):
    files(tmp_path, "all/1.png", "all/2.png")
    table = read(tmp_path, [r"C:\a\1.png", r"C:\b\1.png", r"C:\b\2.png", r"C:\b\2.png"], tmp_path / "all")
    assert [(record.id, record.image.name) for record in table.records] == [(2, "2.png"), (3, "2.png")]
    assert [(bad.id, bad.reason) for bad in table.bad] == [(0, "ambiguous_image"), (1, "ambiguous_image")]
    assert repr(r"C:\a\1.png") in table.bad[0].detail and repr(r"C:\b\1.png") in table.bad[0].detail


def test_names_that_no_file_can_have_cost_their_row_only(tmp_path):
    files(tmp_path, "1.png")
    table = read(tmp_path, ["x" * 5000, "1.png", "d/" * 3000 + "1.png", "https://example.com/1.png", "", " "])
    assert [(record.id, record.image is not None) for record in table.records] == [(number, number == 1) for number in range(6)]
    assert len(table.missing[0]) < 150 and len(table.missing[2]) < 150
    assert table.missing[3] == "'https://example.com/1.png' is an address, not a file: fetch the pictures first"
    assert table.missing[4] == table.missing[5] == "no image is named"


def test_the_folders_that_were_looked_in_are_those_that_are_told(tmp_path):
    assert read(tmp_path, ["1.png"]).looked == (tmp_path, tmp_path / "images")
    files(tmp_path, "pictures/2.png")
    assert read(tmp_path, ["1.png"], tmp_path / "pictures").looked == (tmp_path / "pictures",)
    with pytest.raises(FileNotFoundError, match=r"data\.images=.*x is not a folder"):
        read(tmp_path, ["1.png"], tmp_path / ("x" * 4000))


def test_thousands_of_missing_names_are_looked_up_in_one_listing(tmp_path, monkeypatch):
    files(tmp_path, *(f"{number}.png" for number in range(50)))
    listed = []
    listdir = __import__("os").listdir
    monkeypatch.setattr("os.listdir", lambda folder: listed.append(folder) or listdir(folder))
    table = read(tmp_path, [f"missing-{number}.png" for number in range(2000)])
    assert len(table.missing) == 2000 and len(listed) <= 4
