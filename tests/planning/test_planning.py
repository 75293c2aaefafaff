"""Planning by the command: what it shows, what it keeps, what it refuses; and the registration that a sweep is held to."""

from __future__ import annotations

import csv
import json

import pandas as pd
import pytest

from ablations import plan, report, sweep
from ablations.planning.measured import SHIPPED, read_components
from ablations.results.registration import read_registration
from helpers.small_sweeps import SWEEPS, small
from helpers.synthetic_runs import LOSS_ARMS, forget_digests, known_effect, write_arms, write_cell

LOSSES, LENGTHS, WEIGHTS = (str(SWEEPS / f"{name}.yaml") for name in ("losses", "prompt_length", "loss_weights"))
SEEDS = (1000, 1001)
ARMS = LOSS_ARMS[:4]


def write_pilot(folder) -> None:
    write_arms(folder, ARMS, SEEDS, known_effect, num_prompts=12, pictures=False)


@pytest.fixture(scope="module")
def pilot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pilot")
    write_pilot(folder)
    return folder


def power(capsys, *arguments) -> str:
    assert plan.main([LOSSES, "seed=0,1,2,3,4", "--power", "--no-probe", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_what_is_shown_of_a_pilot_does_not_depend_on_who_wins(pilot, tmp_path, capsys):
    """Any constant may be added to an arm's scores: not a character of the screen, of the CSV or of the kept file changes."""
    other = tmp_path / pilot.name
    write_pilot(other)
    for number, path in enumerate(sorted(other.glob("*/seed-*/scores.parquet"))):
        scores = pd.read_parquet(path)
        chosen = scores.condition.isin(["refined", "refined_shared_noise", "rewrite"]) & ~scores.metric.isin(["style_seen"])
        scores.loc[chosen, "value"] += 0.1 * (number // len(SEEDS))
        scores.to_parquet(path, index=False)
    forget_digests(other)
    shown = []
    for folder in (pilot, other):
        files = [tmp_path / "kept.yaml", tmp_path / "all.csv"]
        out = power(capsys, "--from", folder, "--keep", files[0], "--csv", files[1])
        shown.append([out, *(file.read_text() for file in files)])
        shown[-1] = [text.partition("made: ")[0] + text.partition("costs:")[2] for text in shown[-1]]
    assert shown[0] == shown[1]
    assert "0.0" in shown[0][0] and "L_mse" not in shown[0][0]


def test_kept_variances_plan_as_their_folder_does(pilot, tmp_path, capsys):
    kept = tmp_path / "kept.yaml"
    from_folder = power(capsys, "--from", pilot, "--keep", kept)
    from_file = power(capsys, "--from", kept)
    tables = [[line for line in out.splitlines() if line.startswith("│")] for out in (from_folder, from_file)]
    assert tables[0] == tables[1] and len(tables[0]) > 30
    text = kept.read_text()
    assert str(pilot.parent) not in text and "mean:" not in text and "difference:" not in text
    found = read_components(kept)
    assert found.origin.seeds == SEEDS and found.origin.num_prompts == 12 and len(found.origin.arms) == 4


def test_a_report_plans_as_the_folder_that_it_was_made_from(tmp_path, capsys):
    """Of 3 seeds, which are measured as the report measures them."""
    write_arms(tmp_path / "runs", ARMS, (0, 1, 2), known_effect, num_prompts=12, pictures=False)
    assert report.main([str(tmp_path / "runs"), "--to", str(tmp_path / "report")]) == 0
    kept = {name: tmp_path / f"{name}.yaml" for name in ("runs", "report")}
    for name, path in kept.items():
        power(capsys, "eval.num_prompts=12", "--from", tmp_path / name, "--keep", path)
    runs, reported = (read_components(path) for path in kept.values())
    assert len(runs.measured) > 10 and any(m.pooled_arms for m in runs.measured) and any(not m.pooled_arms for m in runs.measured)
    for ours, theirs in zip(runs.measured, reported.measured, strict=True):
        assert (ours.condition, ours.endpoint, ours.of, ours.pooled_arms) == (
            theirs.condition,
            theirs.endpoint,
            theirs.of,
            theirs.pooled_arms,
        )
        for name in ("seed", "prompt", "rest", "candidate"):
            # A report's scores are in single precision.
            assert getattr(ours.components, name) == pytest.approx(getattr(theirs.components, name), rel=2e-3, abs=1e-8)
    assert reported.costs == read_components(SHIPPED).costs


def test_several_reports_plan_by_the_seeds_of_all_of_them(tmp_path, capsys):
    for name, seeds in (("all", range(6)), ("first", range(3)), ("second", range(3, 6))):
        write_arms(tmp_path / f"runs-{name}", ARMS, tuple(seeds), known_effect, num_prompts=12, pictures=False)
        assert report.main([str(tmp_path / f"runs-{name}"), "--to", str(tmp_path / name)]) == 0
    capsys.readouterr()
    together, one = (tmp_path / f"{name}.yaml" for name in ("together", "one"))
    power(capsys, "eval.num_prompts=12", "--from", tmp_path / "first", "--from", tmp_path / "second", "--keep", together)
    power(capsys, "eval.num_prompts=12", "--from", tmp_path / "all", "--keep", one)
    found, expected = read_components(together), read_components(one)
    assert found.origin.seeds == expected.origin.seeds == (0, 1, 2, 3, 4, 5) and found.origin.where == "first, second"
    assert found.measured == expected.measured and any(m.num_seeds == 6 for m in found.measured)
    said = refused(capsys, plan, LOSSES, "--power", "--from", tmp_path / "first", "--from", tmp_path / "runs-second")
    assert "runs-second: several are read together only where each is the folder of a report" in said
    listed = pd.read_csv(tmp_path / "second" / "cells.csv")
    listed["data_digest"] = "a" * 64
    listed.to_csv(tmp_path / "second" / "cells.csv", index=False)
    said = refused(capsys, plan, LOSSES, "eval.num_prompts=12", "--power", "--from", tmp_path / "first", "--from", tmp_path / "second")
    assert f"{tmp_path / 'first'} and {tmp_path / 'second'} are reports on other data or other weights" in said


def test_the_csv_has_every_contrast_in_every_design(pilot, tmp_path, capsys):
    power(capsys, "--from", pilot, "--csv", tmp_path / "all.csv")
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    designs = {(row["seeds"], row["prompts"], row["candidates"]) for row in rows}
    assert len(designs) >= 24 and len(rows) % len(designs) == 0
    of_coarse = [row for row in rows if row["claim"] == "refiner" and row["row"] == "coarse" and row["prompts"] == "64"]
    halves = {(int(row["seeds"]), int(row["candidates"])): float(row["half_width"]) for row in of_coarse}
    minutes = {(int(row["seeds"]), int(row["candidates"])): float(row["minutes"]) for row in of_coarse}
    assert halves[3, 1] > halves[5, 1] > halves[8, 1] > halves[10, 1]
    assert minutes[10, 1] == pytest.approx(2 * minutes[5, 1], rel=1e-3)


def test_the_package_ships_variances_and_costs_for_planning_at_once(capsys):
    out = power(capsys)
    assert "the sweep's own design" in out and "a claim counts as decided at a chance of 80%" in out
    shipped = read_components()
    assert shipped.origin.profile == "tiny" and shipped.costs["picture_seconds"] > 0
    assert all(min(m.components.seed, m.components.prompt, m.components.rest, m.components.candidate) >= 0 for m in shipped.measured)
    assert "mean" not in SHIPPED.read_text().replace("no mean", "")


def refused(capsys, command, *arguments) -> str:
    assert command.main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    return error


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([WEIGHTS, "--count", "3", "--power"], "--power is for method grid"),
        ([WEIGHTS, "--count", "3", "--register", "r.json"], "--register is for method grid"),
        ([LOSSES, "--keep", "x.yaml"], "are for --power"),
        ([LOSSES, "--power", "--keep", "x.yaml"], "say which folder"),
        ([LOSSES, "--power", "--from", "nowhere.yaml"], "there are no components in 'nowhere.yaml'"),
        ([LOSSES, "--power", "--from", "nowhere"], "there is no folder 'nowhere'"),
        ([LOSSES, "--power", "--from", LENGTHS], "holds no variance components"),
        ([LOSSES, "--power", "--no-probe", "profile=paper"], "variances are known of profile=tiny"),
        ([LENGTHS, "--power", "eval.num_prompts=0"], "there is nothing to judge"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, reason, capsys):
    assert reason in refused(capsys, plan, *arguments)


def test_a_text_that_adds_no_word_costs_its_prompt_and_no_candidate(tmp_path, capsys):
    """Scores of words are missing where nothing was added: the components of the other prompts are shown all the same."""
    write_arms(tmp_path, ARMS, SEEDS, num_prompts=12, pictures=False)
    for path in tmp_path.glob("*/seed-*/scores.parquet"):
        scores = pd.read_parquet(path)
        is_lost = (scores.prompt_id == 3) & (scores.candidate == 0) & (scores.condition == "refined")
        scores[~is_lost].to_parquet(path, index=False)
    forget_digests(tmp_path)
    assert "2 x 11 x 3" in power(capsys, "--from", tmp_path)


def test_one_seed_has_no_variance_between_seeds(tmp_path, capsys):
    write_arms(tmp_path, ARMS[:2], SEEDS[:1], num_prompts=4, pictures=False)
    assert "2 arms that have 1 seeds in common" in refused(capsys, plan, LOSSES, "--power", "--from", tmp_path)


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """(registration of a small sweep that has not begun, arguments of the sweep)."""
    folder = tmp_path_factory.mktemp("registered")
    arguments = [LOSSES, *small("seed=0,1,2", f"output_dir={folder / 'out'}")]
    assert plan.main([*arguments, "--no-probe", "--register", str(folder / "r.json")]) == 0
    return folder / "r.json", arguments


def test_a_registration_holds_what_was_fixed(registered):
    path, _ = registered
    found = read_registration(path)
    assert len(found.planned.cells) == 12 and found.planned.seeds == (0, 1, 2) and len(found.planned.arms) == 4
    assert (found.planned.sweep, found.planned.num_prompts) == ("losses", 2)
    assert {"l_mse", "l_clip"} <= {prediction.claim for prediction in found.predictions}
    assert all(prediction.measured_in for prediction in found.predictions)
    measured = {prediction.claim for prediction in found.predictions if prediction.half_width is not None}
    assert {expected.claim for expected in found.expected_undecided} <= measured, "what was not measured is not expected to be undecided"
    assert set(found.code_digests) == {"training", "refining", "drawing", "scoring", "judging"}
    assert len(found.data_digest) > 8 and len(found.weights_digest) > 8
    assert str(path.parent) not in path.read_text()


def test_what_has_begun_cannot_be_registered(registered, tmp_path, capsys):
    path, arguments = registered
    assert "exists already" in refused(capsys, plan, *arguments, "--register", path)
    write_cell(tmp_path, {"use_mse": False}, 1, pictures=False)
    late = [LOSSES, "seed=0,1,2", "eval.num_prompts=8", f"output_dir={tmp_path}", "--register", tmp_path / "late.json"]
    assert "1 cells of the sweep have begun" in refused(capsys, plan, *late)
    pilots = [LOSSES, "seed=0,1000", f"output_dir={tmp_path / 'new'}", "--no-probe", "--register", tmp_path / "late.json"]
    assert "seed 1000 is a pilot's" in refused(capsys, plan, *pilots)
    assert not (tmp_path / "late.json").exists()


def test_a_sweep_of_other_seeds_or_keys_is_refused_before_its_first_cell(registered, tmp_path, capsys):
    path, arguments = registered
    for change, reason in (
        ("seed=0,1", "plans seeds 0, 1, 2, the sweep has 0, 1"),
        ("eval.num_prompts=3", "lacks an arm that the registration"),
    ):
        changed = [LOSSES, *small("seed=0,1,2", f"output_dir={tmp_path}", change)]
        assert reason in refused(capsys, sweep, *changed, "--registration", path)
    assert list(tmp_path.iterdir()) == []
    torn = tmp_path / "torn.json"
    torn.write_text(json.dumps({"planned": 1}))
    assert "is no registration" in refused(capsys, sweep, *arguments, "--registration", torn)
