"""A source's own split is kept to: a column, folders, or a second source; and no prompt is on both sides."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from datamodules.readers.collecting import split_named_by
from datamodules.readers.source import read_source
from datamodules.records import CFPRecord
from datamodules.splits import own_split, split_as_told


def records(*splits: str, prompts: list[str] | None = None, column: str = "split") -> list[CFPRecord]:
    texts = prompts or [f"a cat number {row}" for row in range(len(splits))]
    rows = enumerate(zip(texts, splits, strict=True))
    return [CFPRecord(row, text, ("a cat",), metadata={column: split}) for row, (text, split) in rows]


def told(rows: list[CFPRecord], num_validation: int = 100, num_train: int | None = None):
    kinds, remark = own_split(rows)
    assert not remark
    return split_as_told(rows, kinds, num_validation, num_train)


@pytest.mark.parametrize(
    ("names", "column"),
    [(("train", "test"), "split"), (("Training", "TEST "), "Split"), (("train", "eval"), "split"), (("train", "held-out"), "SPLIT")],
)
def test_a_column_says_which_rows_are_held_out(names, column):
    train, test = names
    split = told(records(*[train] * 6, *[test] * 3, column=column))
    assert list(split.train) == list(range(6)) and list(split.validation) == [6, 7, 8]
    assert sorted(split.distinct["validation"]) == [6, 7, 8] and sorted(split.distinct["train"]) == list(range(6))
    assert split.remark == "held out by the source's own split: 3 of 3 test rows"


def test_where_there_are_test_rows_those_of_validation_are_neither_trained_on_nor_held_out():
    split = told(records(*["train"] * 4, *["val"] * 3, *["test"] * 2))
    assert list(split.train) == [0, 1, 2, 3] and list(split.validation) == [7, 8]
    split = told(records(*["train"] * 4, *["dev"] * 3))
    assert list(split.validation) == [4, 5, 6]


def test_at_most_as_many_are_held_out_as_asked_for_and_the_first_ones_stay():
    rows = records(*["train"] * 4, *["test"] * 30)
    few, more = told(rows, 5), told(rows, 12)
    assert (len(few.validation), len(more.validation)) == (5, 12)
    assert list(more.distinct["validation"][:5]) == list(few.distinct["validation"])
    assert few.remark.startswith("held out by the source's own split: 5 of 30 test rows")
    assert len(few.train) == 4  # what is not asked for is not trained on


def test_a_training_row_whose_prompt_is_held_out_is_not_trained_on():
    prompts = ["a cat", "a dog", "A Dog!", "a bird", "a dog", "a fish"]
    split = told(records("train", "train", "train", "train", "test", "test", prompts=prompts))
    assert list(split.train) == [0, 3] and list(split.validation) == [4, 5]
    assert split.remark.endswith("; 2 training rows have a prompt that is held out, and are not trained on")
    # Held out or not in the end: a prompt of the test rows is never trained on.
    assert list(told(records(*["train"] * 4, "test", "test", prompts=prompts), 1).train) == [0, 3]


@pytest.mark.parametrize(
    ("splits", "remark"),
    [
        (
            ("train", "test", "a", "b"),
            "the source's split is 'a', 'b', neither train nor test, for some rows: rows are held out by their text",
        ),
        (("train", "train"), "the source's split is train for all rows: rows are held out by their text instead"),
        (("test", "val"), "the source's split is test or validation for all rows: rows are held out by their text instead"),
        (("train", ""), "the source's split is '', neither train nor test, for some rows"),
    ],
)
def test_what_does_not_tell_training_from_test_is_said_and_left(splits, remark):
    kinds, said = own_split(records(*splits))
    assert kinds == {} and said.startswith(remark)
    assert own_split(records(*splits, column="style")) == ({}, "")


def test_a_split_that_leaves_nothing_says_so():
    with pytest.raises(ValueError, match=r"leaves nothing to train on: every training prompt is one of test too"):
        told(records("train", "test", prompts=["a cat", "A cat"]))
    with pytest.raises(ValueError, match=r"data\.num_train=9 is more than the 2 training records of the source's own split"):
        told(records("train", "train", "test"), num_train=9)
    with pytest.raises(ValueError, match=r"data\.num_validation=1 holds out nothing: the 1 test prompts .* have 2 rows or more each"):
        told(records("train", "test", "test", prompts=["a cat", "a dog", "a dog"]), num_validation=1)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00004.parquet", "train"),
        ("train/metadata.csv", "train"),
        ("test/0001.png", "test"),
        ("validation.parquet", "validation"),
        ("Test_1/a.png", "test"),
        ("data/part-0.parquet", ""),
        ("training notes/a.png", ""),
        ("testament/a.png", ""),
        ("trains/a.png", ""),
    ],
)
def test_files_and_folders_have_a_split_by_the_names_that_are_usual(path, split):
    assert split_named_by(Path("/root") / path, Path("/root")) == split


def table(path: Path, prompts: list[str], split: str | None = None) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["fine", "coarse", "image", *(["split"] if split else [])])
        writer.writerows([prompt, prompt[:5], "", *([split] if split else [])] for prompt in prompts)
    return path


def test_a_second_source_is_held_out_whatever_either_says_of_its_rows(tmp_path):
    train = table(tmp_path / "train.csv", [f"a cat number {i}" for i in range(5)], "test")
    test = table(tmp_path / "test.csv", [f"a dog number {i}" for i in range(3)], "train")
    read = read_source(train, None, len).with_test(read_source(test, None, len), test)
    assert [record.id for record in read.records] == list(range(8)) and read.total == 8
    split = told(read.records)
    assert list(split.train) == [0, 1, 2, 3, 4] and list(split.validation) == [5, 6, 7]
    assert read.layout.endswith("of test.csv")
