"""Quality against diversity over top-p: what the points are, what is left behind, and what is refused."""

from __future__ import annotations

import csv

import pytest
from PIL import Image

from ablations import frontier
from ablations.analysing.frontier import _point, _references
from datamodules.records import EvalPrompt
from datamodules.tiny_world.grammar import SceneDescription
from datamodules.tiny_world.worlds import world
from helpers.trained_runs import make_run

HEAD = "a castle in a city at noon"
PROMPTS = [
    EvalPrompt(i, HEAD, f"{HEAD}, pixel art, 8k", SceneDescription("castle", "city", "noon", "pixel art", ("8k",), i)) for i in (0, 1)
]


def test_a_point_is_the_mean_over_prompts_of_fit_and_of_different_fitting_styles():
    candidates = [
        [f"{HEAD}, pixel art, 8k", f"{HEAD}, pixel art, 8k"],
        [f"{HEAD}, comic book, 8k", f"{HEAD}, watercolor, 8k"],
    ]
    point = _point(PROMPTS, candidates, world(2), 0.9)
    assert (point.fit, point.styles) == ((1 + 0.75) / 2, (2 + 1) / 2)
    assert point.styles_half_width == pytest.approx(1.96 * 0.7071 / 2**0.5, abs=1e-3)


def test_the_fine_prompts_point_and_the_guess_stand_beside_it():
    fine, guess = _references(PROMPTS, world(2), 3)
    assert (fine.name, fine.fit, fine.styles) == ("fine prompts", 1.0, pytest.approx(1.7669, abs=1e-4))
    assert (guess.name, guess.fit, guess.styles) == ("uniform guess", 0.5, pytest.approx(1.0532, abs=1e-4))


def test_the_command_leaves_a_table_and_a_picture(tmp_path, small_backbones, capsys):
    run = make_run(tmp_path, small_backbones, "seed=1000")
    assert frontier.main([str(run), "--prompts", "4", "--candidates", "2", "--top-p", "1,0.5"]) == 0
    rows = list(csv.DictReader((run / "frontier.csv").open()))
    assert [row["name"] for row in rows] == ["refined", "refined", "fine prompts", "uniform guess"]
    assert [row["top_p"] for row in rows] == ["0.5", "1.0", "", ""] and rows[0]["prompts"] == "4"
    assert Image.open(run / "frontier.png").size[0] > 500
    assert "fitting styles among 2 candidates" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--top-p", "0"], ["--top-p", "a"], ["--candidates", "1"]])
def test_a_mistake_is_one_line(tmp_path, arguments, capsys):
    assert frontier.main([str(tmp_path), *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert frontier.main([str(tmp_path)]) == 2
    assert "holds no run.json" in capsys.readouterr().err
