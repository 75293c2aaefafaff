"""A registration says what was fixed before the first cell, cannot be changed unseen, and is held against what was run."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ablations.results import kept_to as keeping
from ablations.results.kept_to import kept_to, note_look, read_looks
from ablations.results.provenance import code_digests, judging_files, library_versions
from ablations.results.registration import (
    CLAIMS_FILE,
    REGISTRATION,
    ExpectedUndecided,
    Planned,
    Prediction,
    Registration,
    claims_content,
    read_registration,
    register_folder,
    registration_of,
    write_registration,
)
from ablations.results.run_folder import RunFolder
from ablations.runtime.errors import UserError
from helpers.imports import graph
from helpers.synthetic_runs import write_cell

ARMS = ({}, {"use_mse": False})
SEEDS = (0, 1, 2)
EARLY, LATE = "2020-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"


def folders(tmp_path, seeds=SEEDS) -> list[RunFolder]:
    return [write_cell(tmp_path, arm, seed, num_prompts=2, num_candidates=1, pictures=False) for arm in ARMS for seed in seeds]


@pytest.fixture
def registration(tmp_path) -> Registration:
    """Of two arms at three seeds, with the digests that the synthetic cells have."""
    arms = {
        f"use_mse={not arm}": write_cell(tmp_path / "names", arm, 0, num_prompts=2, num_candidates=1, pictures=False).arm for arm in ARMS
    }
    return Registration(
        made=EARLY,
        planned=Planned("losses", "f" * 16, "c" * 8, arms, SEEDS, num_prompts=2, num_text_prompts=256, num_candidates=1),
        claims=claims_content(),
        predictions=(
            Prediction("l_mse", "text+clip", "plug_in", "fidelity", 0.03, 0.021, 0.82, 0.66, {"seed": 0.0, "candidate": 0.01}, "pilot"),
        ),
        expected_undecided=(ExpectedUndecided("afe", "refined", ("st_lpips",), "10 seeds x 192 prompts x 3 candidates"),),
        code_digests=code_digests(),
        code_revision="a" * 40,
        data_digest="d" * 64,
        weights_digest="e" * 16,
        versions=library_versions(),
    )


def test_what_is_written_is_what_is_read(registration, tmp_path):
    path = tmp_path / "registrations" / "losses.json"
    write_registration(path, registration)
    assert read_registration(path) == registration
    assert registration.predicted("l_mse", "plug_in", "fidelity").half_width == 0.021
    assert str(tmp_path) not in path.read_text(), "it is to be committed, and names no folder of the machine"


def test_it_is_made_once(registration, tmp_path):
    write_registration(tmp_path / "r.json", registration)
    with pytest.raises(UserError, match="exists already"):
        write_registration(tmp_path / "r.json", registration)


def test_a_change_by_hand_is_seen(registration, tmp_path):
    path = tmp_path / "r.json"
    write_registration(path, registration)
    path.write_text(path.read_text().replace("0.021", "0.025"))
    with pytest.raises(UserError, match="changed after it was made"):
        read_registration(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cannot be read as a registration"),
        ("[1, 2]", "is no registration"),
        ('{"status": "finished"}', "is no registration"),
        ('{"format": 99, "planned": {}, "claims": []}', "another version"),
        ('{"format": 1, "planned": {}, "claims": []}', "damaged registration"),
    ],
)
def test_damaged_and_foreign_files_are_refused_in_one_line(text, reason, tmp_path):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UserError, match=reason) as error:
        read_registration(tmp_path / "r.json")
    assert "\n" not in str(error.value)


def test_a_folder_is_registered_for_the_planned_cells_and_no_others(registration, tmp_path):
    cells = registration.planned.cells
    out = tmp_path / "out"
    for others, reason in (
        ([name for name in cells if not name.endswith("seed-2")], "plans seeds 0, 1, 2, the sweep has 0, 1"),
        ([*cells, "tiny-other-12345678/seed-0"], "an arm that the registration does not plan, tiny-other-12345678"),
        ([name for name in cells if "mse" in name], "lacks an arm that the registration plans, use_mse=False"),
        (cells[:-1] if len(cells) > 4 else (), "every arm at every seed"),
    ):
        with pytest.raises(UserError, match=reason):
            register_folder(out, registration, others)
        assert registration_of(out) is None
    register_folder(out, registration, cells)
    register_folder(out, registration, cells)  # as when a killed sweep is started again
    assert registration_of(out) == registration
    with pytest.raises(UserError, match="has another registration"):
        register_folder(out, dataclasses.replace(registration, code_revision="b" * 40), cells)


def test_cells_that_were_begun_before_cannot_be_registered_afterwards(registration, tmp_path):
    folders(tmp_path)
    with pytest.raises(UserError, match="begun before the registration was made"):
        register_folder(tmp_path, dataclasses.replace(registration, made=LATE), registration.planned.cells)


def unkept(registration, tmp_path, **changes) -> dict[str, str]:
    """What does not keep to a registration with these changes, by what it is."""
    found = kept_to(dataclasses.replace(registration, **changes), tmp_path)
    return {each.what: each.line for each in found if not each.is_kept}


def test_cells_as_planned_keep_to_everything(registration, tmp_path):
    folders(tmp_path)
    assert unkept(registration, tmp_path) == {}
    lines = {each.what: each.line for each in kept_to(registration, tmp_path)}
    assert lines["N"] == "6 of 6 planned cells have finished (3 seeds x 2 prompts x 1 candidates, 2 arms)"
    assert set(lines) >= {"order", "claims, endpoints and margins", "code that is for training", "code that is for judging", "looks"}


def test_each_departure_is_named_in_one_line(registration, tmp_path):
    folders(tmp_path, seeds=(0, 1, 3))
    claims = {"changed": claims_content()}
    code = {**registration.code_digests, "training": "0" * 16, "judging": "1" * 16}
    versions = {**registration.versions, "torch": "1.0"}
    found = unkept(registration, tmp_path, made=LATE, claims=claims, code_digests=code, data_digest="a" * 64, versions=versions)
    assert "4 of 6 planned cells" in found["N"] and "beyond the plan: seed 3" in found["N"]
    assert found["order"].endswith("BEFORE it")
    assert found["data"] == "data: registered aaaaaaaa, found dddddddd"
    assert "registered 00000000" in found["code that is for training"]
    assert "registered 11111111" in found["code that is for judging"]
    assert "instead of 1.0" in found["libraries"]
    assert "claims, endpoints and margins" in found and "weights" not in found


def test_a_report_before_the_end_is_a_look_and_one_after_it_is_none(registration, tmp_path):
    folders(tmp_path, seeds=(0,))
    assert [(look.finished, look.planned) for look in note_look(tmp_path, registration)] == [(2, 6)]
    note_look(tmp_path, registration)  # at the same cells: nothing new was seen
    folders(tmp_path, seeds=(1,))
    note_look(tmp_path, registration)
    folders(tmp_path, seeds=(2,))
    assert [look.finished for look in note_look(tmp_path, registration)] == [2, 4]
    (line,) = [each.line for each in kept_to(registration, tmp_path) if each.what == "looks"]
    assert line == "looks beyond the plan: 2, at 2, 4 of 6 cells"


def test_torn_looks_are_an_error_and_not_none(tmp_path):
    (tmp_path / keeping.LOOKS).write_text("{")
    with pytest.raises(UserError, match="looks"):
        read_looks(tmp_path)


def test_cells_say_by_which_code_they_were_made(tmp_path):
    folder = write_cell(tmp_path, {}, 0, num_prompts=2, num_candidates=1, pictures=False)
    assert json.loads(folder.run_json.read_text())["code_digests"] == code_digests()


def test_the_code_that_judges_is_all_that_verdicts_stand_on_and_not_how_they_look():
    names = {path.name for path in judging_files()}
    assert {"verdicts.py", "tables.py", "layouts.py", "statistics.py", "collect.py", "claims.yaml"} <= names
    assert not names & {"page.py", "charts.py", "markdown.py", "latex.py", "writing.py"}
    reached, new = set(), {"ablations.reporting.assembly"}
    while new:
        reached |= new
        new = {other for module in new for other in graph()[module] if other.startswith("ablations.reporting.")} - reached
    assert {module.rpartition(".")[2] + ".py" for module in reached} <= names


def test_what_is_registered_are_the_claims_that_are_judged():
    assert CLAIMS_FILE in judging_files()


def test_a_folder_without_a_registration_has_none(tmp_path):
    assert registration_of(tmp_path) is None
    (tmp_path / REGISTRATION).write_text("{}")
    with pytest.raises(UserError, match="is no registration"):
        registration_of(tmp_path)
