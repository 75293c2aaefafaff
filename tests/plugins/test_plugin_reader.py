"""A reader from a plug-in module: it reads the sources that it says it fits, before those of the package are asked."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from datamodules.readers.register import all_readers, what_a_source_may_be
from datamodules.readers.source import read_source
from helpers.plugins import loaded

BUILT_IN = (
    "a CSV or parquet file, a folder with a saved datasets folder (dataset_info.json or dataset_dict.json), parquet files, or pictures "
    "with metadata.csv, metadata.jsonl or .txt captions"
)


def count_tokens(text: str) -> int:
    return len(text.split())


def test_the_file_is_read_by_it_and_a_damaged_line_costs_no_other(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "1.png")
    rows = [json.dumps({"prompt": "a cat in the snow, oil painting", "picture": "1.png"}), "{torn", json.dumps({"prompt": "a red boat"})]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    with loaded(tmp_path, "plugin_reader"):
        read = read_source(tmp_path / "prompts.jsonl", None, count_tokens)
    assert [(record.id, record.fine_prompt) for record in read.records] == [(0, "a cat in the snow, oil painting"), (2, "a red boat")]
    assert read.records[0].image == tmp_path / "1.png" and read.records[1].image is None
    assert [len(record.coarse_prompts) for record in read.records] == [3, 3]
    assert [(bad.id, bad.line, bad.reason) for bad in read.bad] == [(1, 2, "malformed")]
    assert (read.layout, read.total, read.any_image) == ("JSON lines: 'prompt', 'picture'", 3, True)


def test_without_the_plug_in_the_same_file_is_an_unknown_table(tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(ValueError, match="unknown table layout"):
        read_source(tmp_path / "prompts.jsonl", None, count_tokens)


def test_a_plug_in_is_asked_first_and_stands_in_the_message_of_what_a_source_may_be(tmp_path):
    assert what_a_source_may_be() == BUILT_IN
    assert [reader.name for reader in all_readers()] == ["table", "saved datasets", "parquet", "image folder"]
    with loaded(tmp_path, "plugin_reader"):
        assert [reader.name for reader in all_readers()][0] == "JSON lines"  # noqa: RUF015
        assert what_a_source_may_be() == BUILT_IN.replace("a CSV or parquet file", "a CSV, parquet or JSON lines file")
        with pytest.raises(FileNotFoundError, match="name a CSV, parquet or JSON lines file, a folder with"):
            read_source(tmp_path / "nowhere", None, count_tokens)


def test_every_reader_says_in_one_line_what_it_reads():
    about = {reader.name: reader.about for reader in all_readers()}
    assert about["parquet"] == "a parquet file, or a folder with parquet files" and about["table"] == "a CSV file"
