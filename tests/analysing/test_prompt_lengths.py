"""The motive figure: lengths of two files of prompts, counted by hand, in a table, a CSV and a figure."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablations.analysing.prompt_lengths import CLIP_TOKENS, count_words, share_shorter
from ablations.prompt_lengths import main

NOVICES = ["a cat", "red boat", "", "a castle on a hill"]
TRAINING = ["a cat in the snow, oil painting, sharp focus", "castle , 8k -- trending on canvas"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    text, table = tmp_path / "novices.txt", tmp_path / "training.csv"
    text.write_text("\n".join(NOVICES) + "\n", encoding="utf-8")
    with open(table, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["id", "fine"], *enumerate(TRAINING)])
    return text, table


def rows_of(folder: Path) -> list[dict]:
    with open(folder / "prompt_lengths.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_words_are_parts_between_blanks_that_hold_a_letter_or_a_digit():
    assert [count_words(text) for text in ("a close-up , 8k", "", " -- ", "f/1.8 кот")] == [3, 0, 0, 2]


def test_the_chance_of_being_shorter_counts_ties_as_half():
    assert share_shorter(np.array([1, 2]), np.array([2, 3])) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert share_shorter(np.array([5, 5]), np.array([5])) == 0.5
    rng = np.random.default_rng(0)
    a_N, b_M = rng.integers(0, 9, 50), rng.integers(2, 12, 40)
    by_pairs = (a_N[:, None] < b_M).mean() + (a_N[:, None] == b_M).mean() / 2
    assert share_shorter(a_N, b_M) == pytest.approx(by_pairs, abs=1e-12)


def test_table_csv_and_figure_of_two_small_files(files, tmp_path, capsys):
    assert main([str(files[0]), str(files[1]), "--to", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out")
    # Every word here is one token of CLIP; so are a comma and "--"; "8k" is two.
    expected = [("novices.txt", 0, 2, 2), ("novices.txt", 1, 2, 2), ("novices.txt", 3, 5, 5)]
    expected += [("training.csv", 0, 11, 9), ("training.csv", 1, 8, 5)]
    assert [(row["file"], int(row["row"]), int(row["clip_tokens"]), int(row["words"])) for row in rows] == expected
    said = capsys.readouterr().out
    assert "novices.txt: 1 of 4 rows left out; the first, row 2: no words" in said
    assert "A is shorter (novices.txt than training.csv): 100.0% in CLIP tokens" in said
    assert said.count("training.csv") >= 3 and "9.5" in said  # the mean of 11 and 8 tokens
    assert Image.open(tmp_path / "out" / "prompt_lengths.png").size == (1200, 480)
    assert not list(tmp_path.rglob(".partial-*"))


def test_tokens_are_those_of_open_clip_without_the_marks(files, tmp_path):
    import open_clip

    main([str(files[1]), str(files[0]), "--to", str(tmp_path)])
    ids_BS = open_clip.get_tokenizer("ViT-H-14")(TRAINING)
    assert [int(row["clip_tokens"]) for row in rows_of(tmp_path)[:2]] == [int(ids.argmax()) - 1 for ids in ids_BS]


def test_a_column_for_each_file_names_and_a_limit(tmp_path):
    table = tmp_path / "cfp.json"
    table.write_text(json.dumps([{"short": "a cat", "long": "a cat in oil"}, {"short": "a", "long": "b"}]))
    columns = ["--column", "short", "--column", "long", "--names", "coarse", "fine $x$", "--limit", "1"]
    assert main([str(table), str(table), *columns, "--to", str(tmp_path)]) == 0
    assert [(row["file"], row["words"]) for row in rows_of(tmp_path)] == [("coarse", "2"), ("fine $x$", "4")]


def test_the_same_files_give_the_same_figure_byte_for_byte(files, tmp_path):
    pictures = []
    for name in ("one", "two"):
        main([str(files[0]), str(files[1]), "--to", str(tmp_path / name)])
        pictures.append((tmp_path / name / "prompt_lengths.png").read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere.txt", "{b}"], "nowhere.txt: there is no such file"),
        (["{a}", "{b}", "--column", "id", "--column", "x"], "--column id: novices.txt is read as plain text"),
        (["{b}", "{b}", "--column", "absent", "--names", "one", "two"], "--column absent: training.csv has no such column"),
        (["{b}", "{b}"], "both files would be called"),
        (["{a}", "{b}", "--limit", "0"], "argument --limit: '0' is no whole number of at least 1"),
        (["{a}", "{b}", "--to", "{a}"], "is a file: give a folder"),
        (["{a}", "{empty}"], "empty.txt: there is no prompt in it"),
        (["{a}"], "FILE_B"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(files, tmp_path, capsys, arguments, message):
    (tmp_path / "empty.txt").write_text("\n")
    places = {"a": files[0], "b": files[1], "empty": tmp_path / "empty.txt"}
    argv = [argument.format(**places) for argument in arguments]
    code = main(argv)
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.startswith("error: ") and error.count("\n") == 1
    assert "--prompts" not in error and not (tmp_path / "prompt_lengths").exists()


def test_help_comes_within_a_second_and_loads_nothing_heavy():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "ablations.prompt_lengths", "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the processor, so that what else the machine does is not counted.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
    assert "FILE_A" in done.stdout and "examples:" in done.stdout
    code = "import sys, ablations.prompt_lengths; print([m for m in ('torch', 'numpy', 'matplotlib', 'rich') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_novices_prompts_are_shorter_than_training_prompts_in_real_data(tmp_path, capsys):
    data = Path(os.environ.get("UF_FGTG_TEST_DATA", "/nowhere"))
    novices, training = data / "prompts" / "imagereward_refl_data.json", data / "cfp" / "eval_images.csv"
    if not (novices.is_file() and training.is_file()):
        pytest.skip("UF_FGTG_TEST_DATA does not name a folder with prompts/imagereward_refl_data.json and cfp/eval_images.csv")
    assert main([str(novices), str(training), "--to", str(tmp_path)]) == 0
    tokens = {name: [] for name in (novices.name, training.name)}
    for row in rows_of(tmp_path):
        tokens[row["file"]].append(int(row["clip_tokens"]))
    assert [len(counts) for counts in tokens.values()] == [10_000, 8_192]
    assert [np.median(counts) for counts in tokens.values()] == [25, 55]
    assert CLIP_TOKENS == 75
