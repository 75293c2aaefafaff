"""Claims about reading: every layout, text kept intact, and a damaged row that costs itself only."""

import csv
import json
import os
import re
from pathlib import Path

import pytest

from datamodules.readers.captions import clean_caption
from datamodules.readers.coarse_prompts import TOKEN_RANGES, CoarsePromptCutter
from datamodules.readers.record_parser import parse_coarse_list
from datamodules.readers.tables import read_table
from datamodules.readers.tiny_world import read_tiny_world
from datamodules.records import prefix_share, text_group
from datamodules.tiny_world.worlds import WORLDS, world

IMAGE_TABLE = "prompt,step,seed,height,width,cfg,sampler,image_name,image_path"


def count_tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def table(folder: Path, *rows: str | bytes, header: str = IMAGE_TABLE) -> Path:
    path = folder / "table.csv"
    path.write_bytes(b"".join((row.encode() if isinstance(row, str) else row) + b"\n" for row in (header, *rows)))
    return path


def image_row(prompt: str | bytes, name: str = "1.png") -> bytes:
    return (prompt.encode() if isinstance(prompt, str) else prompt) + f",50,7,512,512,7.5,Euler a,{name},eval/{name}".encode()


def real_table() -> Path:
    path = Path(os.environ.get("UF_FGTG_TEST_DATA", "/nowhere")) / "cfp" / "eval_images.csv"
    if not path.is_file():
        pytest.skip("UF_FGTG_TEST_DATA does not name a folder with cfp/eval_images.csv")
    return path


def test_real_image_table_is_read_whole_and_verbatim():
    path = real_table()
    read = read_table(path, None, count_tokens)
    with open(path, encoding="utf-8", newline="") as file:
        expected = list(csv.DictReader(file))
    assert (read.layout, read.total, read.bad, read.any_image) == ("image table", 8192, [], False)
    assert [record.id for record in read.records] == list(range(8192))
    assert [record.fine_prompt for record in read.records] == [row["prompt"] for row in expected]
    assert [record.metadata["seed"] for record in read.records] == [row["seed"] for row in expected]
    assert len({record.fine_prompt for record in read.records}) == 8036


def test_real_prompts_are_cut_within_every_token_range():
    records = read_table(real_table(), None, count_tokens).records
    assert prefix_share(records) == 1.0
    for (low, high), length in zip(TOKEN_RANGES, range(3), strict=True):
        counts = [count_tokens(record.coarse_prompts[length]) for record in records]
        assert min(counts) >= 1 and max(counts) <= high
        long_enough = [count for count, record in zip(counts, records, strict=True) if count_tokens(record.fine_prompt) >= 16]
        assert sum(count >= low for count in long_enough) / len(long_enough) > 0.99


def test_quotes_commas_newlines_and_other_scripts_stay_intact(tmp_path):
    prompt = 'a "red" cat, 猫 on a\nroof , 8 k'
    quoted = '"' + prompt.replace('"', '""') + '"'
    (record,) = read_table(table(tmp_path, image_row(quoted)), None, count_tokens).records
    assert record.fine_prompt == prompt


def test_coarse_fine_table_takes_json_and_python_lists(tmp_path):
    prompts = ["cat", "a cat's roof", "a cat on a roof at night"]
    value = [{"prompt": text} for text in prompts]
    header = f"{IMAGE_TABLE},coarse-grained prompt,fine-grained prompt"
    path = tmp_path / "table.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        for cell in (json.dumps(value), repr(value), "[{'prompt': 'cat'}]", "cat", "[1, 2, 3]", "[" * 5000):
            writer.writerow(["x", 50, 7, 512, 512, 7.5, "Euler a", "1.png", "eval/1.png", cell, "a fine cat"])
    read = read_table(path, None, count_tokens)
    assert read.layout == "coarse-fine table"
    assert [record.coarse_prompts for record in read.records] == [tuple(prompts)] * 2
    assert [record.fine_prompt for record in read.records] == ["a fine cat"] * 2
    assert [(bad.id, bad.reason) for bad in read.bad] == [(row, "coarse_list") for row in (2, 3, 4, 5)]


def test_plain_table_finds_images_beside_it_and_in_the_images_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.png").touch()
    (tmp_path / "a.png").touch()
    path = table(tmp_path, "cat,a fine cat,a.png", "owl,a fine owl,b.png", "tree,a fine tree,c.png", header="\ufeffcoarse,fine,image")
    read = read_table(path, None, count_tokens)
    assert [record.image for record in read.records] == [tmp_path / "a.png", tmp_path / "images" / "b.png", None]
    assert [record.coarse_prompts for record in read.records] == [("cat",), ("owl",), ("tree",)]
    assert prefix_share(read.records) == 0.0


def test_images_folder_may_be_the_one_that_the_table_names(tmp_path):
    elsewhere = tmp_path / "elsewhere" / "eval"
    elsewhere.mkdir(parents=True)
    (elsewhere / "1.png").touch()
    path = table(tmp_path, image_row("a cat"))
    for folder in (elsewhere, elsewhere.parent):
        assert read_table(path, folder, count_tokens).records[0].image == elsewhere / "1.png"
    with pytest.raises(FileNotFoundError, match=r"data\.images=.*nowhere is not a folder"):
        read_table(path, tmp_path / "nowhere", count_tokens)


def test_each_damaged_row_is_one_bad_record_and_later_rows_are_read(tmp_path):
    path = table(
        tmp_path,
        image_row("a cat"),
        image_row(b"a c\xe2\x80t"),
        image_row('"an unclosed quote'),
        image_row('"a quoted" owl"'),
        "too,short",
        image_row("too, long"),
        image_row("  "),
        "",
        image_row('"a dog, at\nnoon"'),
        image_row('"unclosed to the end'),
        image_row("a tree"),
    )
    read = read_table(path, None, count_tokens)
    assert [(record.id, record.fine_prompt) for record in read.records] == [(0, "a cat"), (7, "a dog, at\nnoon"), (9, "a tree")]
    reasons = [(bad.id, bad.line, bad.reason) for bad in read.bad]
    assert reasons == [
        (1, 3, "encoding"), (2, 4, "quoting"), (3, 5, "quoting"), (4, 6, "short_row"), (5, 7, "long_row"), (6, 8, "empty_prompt"),
        (8, 12, "quoting"),
    ]  # fmt: skip
    assert read.total == 10


def test_unknown_header_names_what_was_found_and_what_is_known(tmp_path):
    message = r"columns found: 'caption', 'file'; expected .*image_path.*coarse-grained prompt.*coarse,fine,image"
    with pytest.raises(ValueError, match=message):
        read_table(table(tmp_path, "a,b", header="caption,file"), None, count_tokens)
    with pytest.raises(FileNotFoundError, match=r"data\.source=.*nowhere\.csv is not a file"):
        read_table(tmp_path / "nowhere.csv", None, count_tokens)


def test_caption_cleaning_follows_the_authors():
    assert clean_caption("A Close-Up; of/the (OLD)  Cat's eye, 4K! #art ~*") == "a close up of the old cats eye, 4k art"
    assert len(clean_caption("word " * 300).split()) == 256


def test_cleaning_applies_before_coarse_prompts_are_cut(tmp_path):
    (record,) = read_table(table(tmp_path, image_row("A Red-Haired Girl!")), None, count_tokens, clean_caption).records
    assert (record.fine_prompt, record.coarse_prompts[0]) == ("a red haired girl", "a red haired girl")


@pytest.mark.parametrize(
    ("fine", "coarse"),
    [
        ("a cat, on a roof, oil painting, very fine", ("a cat", "a cat, on a roof, oil painting", None)),
        ("a knight in shining armour riding a horse", ("a knight", "a knight in shining armour riding a horse", None)),
        ("one", ("one", "one", "one")),
    ],
)
def test_cuts_fall_where_phrases_end(fine, coarse):
    cuts = CoarsePromptCutter(count_tokens)(fine)
    assert cuts == tuple(expected if expected is not None else fine for expected in coarse)


def test_word_longer_than_the_range_is_cut_inside():
    assert CoarsePromptCutter(len)("unpronounceable thing")[0] == "unpro"


def test_coarse_list_errors_name_the_cell():
    with pytest.raises(ValueError, match="2 coarse prompts, not 3"):
        parse_coarse_list('[{"prompt": "a"}, {"prompt": "b"}]')


@pytest.mark.parametrize("number", WORLDS)
def test_tiny_world_is_the_same_every_time_and_its_splits_share_no_id_and_no_prompt(number):
    splits = {split: read_tiny_world(split, 50, world(number), count_tokens) for split in ("train", "validation", "test")}
    assert splits["train"] == read_tiny_world("train", 60, world(number), count_tokens)[:50]
    assert len({record.id for records in splits.values() for record in records}) == 150
    assert len({record.fine_prompt for records in splits.values() for record in records}) == 150
    assert prefix_share(splits["test"]) == 1.0
    with pytest.raises(ValueError, match="gives 0 to 4000 records, not 4001"):
        read_tiny_world("validation", 4001, world(number), count_tokens)


def test_text_groups_are_stable_across_processes():
    assert text_group("a green tree") == text_group("a green tree") != text_group("a green tree ")
    assert text_group("a green tree") == 1652241946578393978
