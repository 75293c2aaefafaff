"""A baseline from a plug-in module: a method of the comparison by its name, from the command line."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from ablations import compare
from ablations.baselines.base import Asked, Written
from ablations.baselines.register import all_methods, describe_methods
from helpers.plugins import EXAMPLES, loaded, open_tables
from helpers.trained_runs import make_run


def test_the_method_is_compared_drawn_scored_and_tabulated(tmp_path, small_backbones, capsys):
    run = make_run(tmp_path / "outputs", small_backbones, "prompt_len=4", "eval.num_candidates=1")
    to = tmp_path / "comparison"
    arguments = [str(run.parent), "--methods", "coarse,capitals", "--plugins", "plugin_baseline", "--prompts", "2", "--to", str(to)]
    with open_tables(EXAMPLES):
        assert compare.main([*arguments, "--progress", "plain"]) == 0
    lines = [json.loads(line) for line in (to / "prompts.jsonl").read_text().splitlines()]
    own = [line for line in lines if line["method"] == "capitals"]
    assert [line["method"] for line in lines] == ["coarse"] * 2 + ["capitals"] * 2 + ["refiner"] * 2
    assert all(line["written"] == line["coarse"].upper() and line["num_new_tokens"] > 0 for line in own)
    assert all((to / line["image"]).is_file() for line in own)
    table = pd.read_csv(to / "comparison.csv")
    assert list(dict.fromkeys(table.row)) == ["coarse", "capitals", "refiner"]
    assert "our refiner against capitals:" in capsys.readouterr().out
    assert "the coarse prompt in capitals" in (to / "comparison.md").read_text()


def test_it_is_known_by_name_described_in_help_and_gone_without_the_plug_in(tmp_path, capsys):
    with loaded(tmp_path, "plugin_baseline"):
        assert "  capitals *         the coarse prompt in capitals\n" in describe_methods()
        assert list(all_methods()).index("capitals") == list(all_methods()).index("refiner") - 1
    assert "capitals" not in all_methods()
    assert compare.main(["--methods", "capitals"]) == 2
    assert "unknown method 'capitals'" in capsys.readouterr().err


def test_a_prompt_without_small_letters_is_a_failure_of_it(tmp_path):
    with loaded(tmp_path, "plugin_baseline"):
        from types import SimpleNamespace

        method = all_methods()["capitals"].build(SimpleNamespace(count_tokens=lambda text: len(text.split())))
        assert method.write(0, [Asked(0, 0, "A CAT", "", 1), Asked(1, 0, "a cat", "", 1)]) == [
            Written.failed("there is no small letter"),
            Written("A CAT", 2),
        ]


@pytest.mark.parametrize("text", ["import nothing_of_this_name", "raise ValueError('broken\\nin two lines')"])
def test_a_plug_in_that_cannot_be_imported_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, text):
    (tmp_path / "broken_plugin.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert compare.main(["--plugins", "broken_plugin"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "broken_plugin" in error and error.count("\n") == 1
