"""Lists of prompts that others evaluate with: PartiPrompts, DrawBench and GenEval 2 as they are laid out, and what cannot be had."""

from __future__ import annotations

import json

import pytest

from datamodules.readers.evaluation_prompts import is_list_of_prompts, read_evaluation_prompts
from datamodules.readers.source import read_source

PARTI = (
    "Prompt\tCategory\tChallenge\tNote\n"
    "bond\tAbstract\tBasic\tBiology-inspired concepts\n"
    'A sign that says "Deep Learning"\tWorld Knowledge\tWriting & Symbols\t\n'
    "a shiba inu\tAnimals\tBasic\n"
    "  \tAnimals\tBasic\t\n"
    "bond\tAbstract\tBasic\tthe same again\n"
)
DRAWBENCH = 'Prompts,Category\nA red colored car.,Colors\n"Three cats, one dog.",Counting\n'
GENEVAL2 = [
    {
        "prompt": "four white bicycles in front of three plastic cows",
        "atom_count": 7,
        "vqa_list": [["How many bicycles are in the image?", "four"]],
        "skills": ["count"],
    },
    {"prompt": "a blue giraffe", "atom_count": 2, "vqa_list": [], "skills": ["attribute", "object"]},
]


@pytest.fixture
def lists(tmp_path):
    (tmp_path / "PartiPrompts.tsv").write_text(PARTI)
    (tmp_path / "DrawBench.csv").write_text(DRAWBENCH)
    (tmp_path / "geneval2_data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in GENEVAL2) + "{torn\n[1]\n")
    return tmp_path


def prompts_of(read) -> set[str]:
    return {record.coarse_prompts[0] for record in read.records}


def test_partiprompts_are_read_with_their_categories_and_a_prompt_that_is_there_twice_counts_once(lists):
    read = read_evaluation_prompts(lists / "PartiPrompts.tsv")
    assert prompts_of(read) == {"bond", 'A sign that says "Deep Learning"', "a shiba inu"}
    assert (read.total, len(read.records), read.any_image) == (5, 3, False)
    assert [(bad.id, bad.line, bad.reason) for bad in read.bad] == [(3, 5, "empty_prompt")]
    (bond,) = (record for record in read.records if record.coarse_prompts == ("bond",))
    assert bond.metadata == {"Category": "Abstract", "Challenge": "Basic", "Note": "Biology-inspired concepts"}
    assert all(record.fine_prompt == "" and record.image is None and record.scene is None for record in read.records)


def test_drawbench_and_geneval_2_are_read_as_they_are_laid_out(lists):
    assert prompts_of(read_evaluation_prompts(lists / "DrawBench.csv")) == {"A red colored car.", "Three cats, one dog."}
    read = read_evaluation_prompts(lists / "geneval2_data.jsonl")
    assert prompts_of(read) == {line["prompt"] for line in GENEVAL2}
    assert [(bad.line, bad.reason) for bad in read.bad] == [(3, "malformed"), (4, "malformed")]
    (giraffe,) = (record for record in read.records if "giraffe" in record.coarse_prompts[0])
    assert giraffe.metadata == {"atom_count": "2", "vqa_list": "[]", "skills": '["attribute", "object"]'}


def test_the_order_is_that_of_the_texts_hash_so_that_the_first_are_not_of_one_category(lists):
    rows = [f"prompt number {i}\tA{i // 50}\tBasic\t" for i in range(200)]
    (lists / "long.tsv").write_text("Prompt\tCategory\tChallenge\tNote\n" + "\n".join(rows) + "\n")
    (lists / "turned.tsv").write_text("Prompt\tCategory\tChallenge\tNote\n" + "\n".join(reversed(rows)) + "\n")
    first, turned = (read_evaluation_prompts(lists / name).records for name in ("long.tsv", "turned.tsv"))
    assert [record.coarse_prompts for record in first] == [record.coarse_prompts for record in turned]
    assert {record.metadata["Category"] for record in first[:16]} == {"A0", "A1", "A2", "A3"}


def test_texts_are_cleaned_as_captions_are_where_the_run_does_so(lists):
    assert prompts_of(read_evaluation_prompts(lists / "DrawBench.csv", str.upper)) == {"A RED COLORED CAR.", "THREE CATS, ONE DOG."}


@pytest.mark.parametrize(
    ("name", "content", "is_list"),
    [
        ("a.csv", "prompt\na cat\n", True),
        ("a.csv", "\ufeffPrompt;Note\na cat;x\n", True),
        ("a.jsonl", '{"prompt": "a cat", "tag": "single_object"}\n', True),
        ("a.csv", "prompt,image_path\na cat,1.png\n", False),
        ("a.csv", "coarse,fine,image\na,b,1.png\n", False),
        ("a.jsonl", '{"file_name": "1.png", "prompt": "a cat"}\n', False),
        ("a.jsonl", "{torn\n", False),
        ("a.csv", "", False),
        ("a.parquet", "prompt\na cat\n", False),
    ],
)
def test_a_list_is_told_by_its_header_and_has_nothing_of_a_pair(tmp_path, name, content, is_list):
    (tmp_path / name).write_text(content)
    assert is_list_of_prompts(tmp_path / name) is is_list
    assert not is_list_of_prompts(tmp_path)


@pytest.mark.parametrize("name", ["PartiPrompts.tsv", "DrawBench.csv", "geneval2_data.jsonl"])
def test_nothing_can_be_trained_on_a_list_and_the_refusal_says_what_it_is_for(lists, name):
    with pytest.raises(ValueError, match=r"unknown table layout.*a list of prompts alone can be data\.test_source, not data\.source"):
        read_source(lists / name, None, len)
