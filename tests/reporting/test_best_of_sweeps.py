"""The best arm of every sweep: by its own metric and goal, over seeds, from folders that others made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablations import report as command
from ablations.reporting.best_of_sweeps import best_of_sweeps
from ablations.results.run_folder import RunFolder
from ablations.runtime.errors import UserError
from helpers.synthetic_runs import write_cell

# Score of every seed, by arm.
VALUES = {2: (0.5, 0.7), 6: (0.9, 0.1), 12: (0.3, 0.2)}


def give_metric(folder: RunFolder, value: float | None) -> None:
    run = json.loads(folder.run_json.read_bytes())
    run = {name: kept for name, kept in run.items() if name != "sha256"}
    run["metrics"]["refined"] = {} if value is None else {"fidelity": value}
    folder.run_json.write_text(json.dumps(run))


@pytest.fixture
def outputs(tmp_path) -> Path:
    for length, values in VALUES.items():
        for seed, value in enumerate(values):
            give_metric(write_cell(tmp_path, {"prompt_len": length}, seed, num_prompts=2, pictures=False), value)
    return tmp_path


def arms(outputs: Path) -> dict[int, str]:
    return {length: next(path.name for path in outputs.iterdir() if f"len{length}-" in path.name) for length in VALUES}


def write_sweep(outputs: Path, name: str = "lengths-0123abcd", **changes) -> Path:
    cells = [{"arm": arm, "seed": seed, "swept": {"prompt_len": n, "seed": seed}} for n, arm in arms(outputs).items() for seed in (0, 1, 2)]
    path = outputs / "sweeps" / name / "sweep.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"name": "lengths", "metric": "refined/fidelity", "goal": "maximize", "cells": cells} | changes))
    return path


def test_the_best_mean_over_the_finished_seeds_wins_on_the_side_of_the_goal(outputs):
    write_sweep(outputs, "a")
    write_sweep(outputs, "b", goal="minimize")
    (most, least), without = best_of_sweeps(outputs)
    assert without == []
    assert (most.arm, most.label, most.of_arms) == (arms(outputs)[2], "prompt_len=2", 3) and most.mean == pytest.approx(0.6)
    assert (least.arm, least.label) == (arms(outputs)[12], "prompt_len=12") and least.mean == pytest.approx(0.25)
    assert most.line == ("a", "refined/fidelity", "maximize", arms(outputs)[2], "prompt_len=2", most.mean, 2, 3)
    assert sorted(most.files()) == ["seed-0/run.json", "seed-1/run.json"]


def test_an_arm_without_the_metric_is_not_compared_and_a_sweep_without_any_says_so(outputs):
    for folder in (outputs / arms(outputs)[2]).iterdir():
        run = json.loads((folder / "run.json").read_bytes())
        run["metrics"].pop("refined")
        (folder / "run.json").write_text(json.dumps(run))
    write_sweep(outputs, "a")
    write_sweep(outputs, "b", metric="refined/nothing")
    (best,), (line,) = best_of_sweeps(outputs)
    assert (best.arm, best.of_arms) == (arms(outputs)[6], 2)
    assert "sweep b has no finished cell with its metric" in line


@pytest.mark.parametrize(
    "changes",
    [
        {"cells": [{"arm": "../elsewhere", "seed": 0}]},
        {"cells": [{"arm": "/etc", "seed": 0}]},
        {"cells": [{"arm": "a", "seed": "../../b"}]},
        {"cells": [{"arm": "a", "seed": -1}]},
        {"cells": ["a"]},
        {"cells": {"arm": "a"}},
        {"goal": "most"},
        {"metric": ["refined/fidelity"]},
    ],
    ids=str,
)
def test_a_sweep_of_foreign_shape_leads_nowhere_and_is_named(outputs, changes):
    path = write_sweep(outputs, **changes)
    found, (line,) = best_of_sweeps(outputs)
    assert found == [] and str(path) in line and "cannot be read" in line


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"metric": '])
def test_a_damaged_sweep_is_named(outputs, content):
    write_sweep(outputs).write_bytes(content)
    found, (line,) = best_of_sweeps(outputs)
    assert found == [] and "cannot be read" in line


def test_weights_that_are_not_there_are_a_mistake_in_one_line(outputs, capsys):
    write_sweep(outputs)
    (best,), _ = best_of_sweeps(outputs)
    with pytest.raises(UserError, match="trained weights"):
        best.files(with_weights=True)
    assert command.main([str(outputs), "--to", str(outputs / "report"), "--with-weights"]) == 2
    assert "--with-weights is for --wandb" in capsys.readouterr().err
