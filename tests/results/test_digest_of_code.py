"""The code that made pictures and scores: a digest of all of it, in sub-folders too, so that none made by other code is taken for new."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ablations.cell import shared
from ablations.results.made_by import digest_of_code
from helpers.imports import ROOT, graph, modules, reachable

# What drawing and scoring import though it decides about no pixel and no score, or only through what is written down beside the code.
DECIDES_NOTHING = {
    "ablations.cell.processes": "which process makes what: prompts are shared out whole, with all that is drawn and scored for them",
    "ablations.cell.work": "what was asked for, where it goes and who hears of it",
    "ablations.config": "settings that decide stand in `made_by` by value",
    "ablations.figures": "shows what was drawn",
    "ablations.results": "writes and reads what was made; `made_by` itself is covered",
    "ablations.runtime": "files, errors and lines on the screen",
    "datamodules.files": "files that appear whole",
    "datamodules.records": "texts stand in the keys of pictures and scores",
    "datamodules.sharing": "which process trains on which records",
    "datamodules.words": "which words were seen in training; texts stand in the keys of pictures and scores",
    "datamodules.stored_images": "reads the pictures of records, which are not drawn",
}
# Drawing reaches these through the names of metrics in the config and the type of a record's scene.
DECIDES_SCORES_ONLY = {"ablations.metrics", "datamodules.tiny_world"}


@pytest.fixture
def package(tmp_path) -> Path:
    """A copy of a package of three levels."""
    return Path(shutil.copytree(ROOT / "ablations" / "cell", tmp_path / "a" / "cell", ignore=shutil.ignore_patterns("__pycache__"))).parent


def test_a_change_two_levels_down_changes_the_digest_and_only_a_change_does(package):
    before = digest_of_code(package)
    assert digest_of_code(package) == before
    file = package / "cell" / "drawing" / "draw.py"
    code = file.read_bytes()
    file.write_bytes(code + b"\n")
    assert digest_of_code(package) != before
    file.write_bytes(code)
    assert digest_of_code(package) == before


@pytest.mark.parametrize("place", ["cell/drawing/sketch.py", "cell/scoring/draw.py", "draw.py", "cell/drawing/further/draw.py"])
def test_a_file_that_is_renamed_or_moves_to_another_folder_changes_the_digest(package, place):
    before = digest_of_code(package)
    (package / place).parent.mkdir(exist_ok=True)
    (package / "cell" / "drawing" / "draw.py").rename(package / place)
    assert digest_of_code(package) != before


def test_a_file_that_moves_from_one_given_folder_to_the_next_changes_the_digest(tmp_path):
    for folder, name in (("one", "a.py"), ("one", "b.py"), ("two", "c.py")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(f"{name} = 1\n")
    before = digest_of_code(tmp_path / "one", tmp_path / "two")
    (tmp_path / "one" / "b.py").rename(tmp_path / "two" / "b.py")
    assert digest_of_code(tmp_path / "one", tmp_path / "two") != before


def test_the_digest_is_the_same_wherever_the_packages_lie_and_other_files_do_not_count(package, tmp_path):
    elsewhere = Path(shutil.copytree(package, tmp_path / "elsewhere" / "a"))
    (elsewhere / "cell" / "notes.txt").write_text("nothing that runs")
    assert digest_of_code(package) == digest_of_code(elsewhere)
    assert digest_of_code(package / "cell" / "cell.py") == digest_of_code(elsewhere / "cell" / "cell.py")


def uncovered(stages: tuple[str, ...], code: tuple[Path, ...], others: set[str]) -> list[str]:
    """The modules that these stages run, whatever imports them, that lie neither in `code` nor in a module or package of `others`."""
    start = [module for module in modules() if any(module.startswith(f"ablations.cell.{stage}") for stage in stages)]
    run = reachable(graph(), start) | set(start)
    outside = [module for module in run if not any(path in (modules()[module], *modules()[module].parents) for path in code)]
    return sorted(module for module in outside if not any(module == other or module.startswith(f"{other}.") for other in others))


def test_all_code_that_decides_about_pixels_is_in_the_digest_of_pictures():
    assert all(path.exists() for path in shared._DRAWING_CODE) and modules()["ablations.results.made_by"] in shared._DRAWING_CODE
    assert uncovered(("refining", "drawing"), shared._DRAWING_CODE, set(DECIDES_NOTHING) | DECIDES_SCORES_ONLY) == []


def test_all_code_that_decides_about_scores_is_in_the_digest_of_scores():
    assert all(path.exists() for path in shared._SCORING_CODE)
    assert set(shared._DRAWING_CODE) <= set(shared._SCORING_CODE)
    assert uncovered(("refining", "drawing", "scoring"), shared._SCORING_CODE, set(DECIDES_NOTHING)) == []


def test_what_is_said_to_decide_nothing_is_there():
    assert set(DECIDES_NOTHING) | DECIDES_SCORES_ONLY <= set(modules())
