"""Claims about lists of prompts, read from every kind of file, and about prompts that are longer than a text encoder's context."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import torch

from ablations.building_cfp.prompts import read_prompts
from lightning_modules.prompt_chunks import encode_in_chunks, pad, padded_length


def write(folder: Path, name: str) -> Path:
    path = folder / name
    texts = ["a cat", "", "a\ndog, \u201cred\u201d"]
    if path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["id", "Prompt"], *enumerate(texts)])
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": texts}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + '{"text": "to')
    else:
        path.write_text(json.dumps(texts if "list" in name else [{"text": text, "image": "x"} for text in texts]))
    return path


@pytest.mark.parametrize("name", ["p.csv", "p.json", "list.json", "p.jsonl", "p.parquet"])
def test_every_kind_of_prompt_list_is_read_verbatim(tmp_path, name):
    prompts, bad = read_prompts(write(tmp_path, name), None, None)
    assert [(prompt.id, prompt.text) for prompt in prompts] == [(0, "a cat"), (2, "a\ndog, \u201cred\u201d")]
    expected = [(1, "empty_prompt")] + ([(3, "malformed")] if name == "p.jsonl" else [])
    assert [(record.id, record.reason) for record in bad] == expected
    assert [prompt.id for prompt in read_prompts(tmp_path / name, None, 2)[0]] == [0]


def test_bad_prompts_of_a_text_file_cost_only_themselves(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"a cat\n\na c\na d\xe2\x80g\na tree\r\n\n")
    prompts, bad = read_prompts(path, None, None)
    assert [(prompt.id, prompt.text) for prompt in prompts] == [(0, "a cat"), (2, "a c"), (4, "a tree")]
    assert [(record.id, record.line, record.reason) for record in bad] == [(1, 2, "empty_prompt"), (3, 4, "encoding")]


def test_ten_thousand_real_prompts_are_read():
    path = Path(os.environ.get("UF_FGTG_TEST_DATA", "/nowhere")) / "prompts" / "imagereward_refl_data.json"
    if not path.is_file():
        pytest.skip("UF_FGTG_TEST_DATA does not name a folder with prompts/imagereward_refl_data.json")
    prompts, bad = read_prompts(path, "text", None)
    assert (len(prompts), len({prompt.text for prompt in prompts}), bad) == (10_000, 9803, [])


def test_chunks_of_the_context_are_encoded_alone_and_put_side_by_side():
    seen = []

    def encode(ids_BS):
        seen.append(ids_BS.tolist())
        return ids_BS[:, :, None].float().expand(-1, -1, 2) + 100 * len(seen)

    states = encode_in_chunks(encode, torch.arange(5)[None], 2)
    assert seen == [[[0, 1]], [[2, 3]], [[4]]] and states[0, :, 0].tolist() == [100, 101, 202, 203, 304]
    assert [padded_length(length, 77) for length in (3, 77, 78, 155)] == [77, 77, 154, 231]
    assert pad([5, 6], 4, 0) == [5, 6, 0, 0]
    with pytest.raises(ValueError, match="3 token ids do not fit into 2 positions"):
        pad([1, 2, 3], 2, 0)
