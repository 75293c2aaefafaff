"""Sweeps run here: every file's cells, what they share, failures, searches, and processes that are killed or come in pairs."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest

from ablations import sweep
from ablations.config import from_flat_dict
from ablations.results.comparisons import what_is_read
from ablations.results.logged import may_be_logged, values_of
from ablations.sweeping.cells import cells_of
from ablations.sweeping.sweep_file import read_sweep_file
from helpers.small_sweeps import SMALL, SWEEPS, results_in, sessions_in, small, start, statuses_in, wait_until

FILES = sorted(SWEEPS.glob("*.yaml"))
LOSSES, LENGTHS, WEIGHTS = SWEEPS / "losses.yaml", SWEEPS / "prompt_length.yaml", SWEEPS / "loss_weights.yaml"
# Long enough to be caught in every stage, with a checkpoint after every step.
CATCHABLE = ("train.max_steps=12", "train.checkpoint_every=1", "eval.steps=3")


def run(file, output_dir, *arguments: str) -> int:
    keys = [word for word in arguments if "=" in word]
    options = [word for word in arguments if "=" not in word]
    return sweep.main([str(file), f"output_dir={output_dir}", *small(*keys), *options])


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_first_cell_of_every_file_runs(path, tmp_path):
    is_search = read_sweep_file(path).method != "grid"
    cells = cells_of(read_sweep_file(path, [f"output_dir={tmp_path}", *SMALL]), 1 if is_search else None)
    first = cells.ask() if is_search else cells.cells[0]
    arguments = ["--count", "1"] if is_search else [f"{name}={str(value).lower()}" for name, value in first.swept.items()]
    assert run(path, tmp_path, *arguments) == 0
    written = json.loads(first.folder.run_json.read_text())
    assert written["status"] == "finished"
    assert {name: written["config"][name] for name in first.swept} == dict(first.swept)
    if written["config"]["eval.num_prompts"]:
        assert set(what_is_read(first.config)) <= {*written["metrics"], *written["metrics"]["diversity"]} >= {"coarse", "refined", "fine"}


@pytest.fixture(scope="module")
def lengths(tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("lengths")
    assert run(LENGTHS, output_dir, "prompt_len=2,4,6") == 0
    return output_dir


@pytest.mark.slow
def test_cells_that_differ_in_eval_keys_train_once_and_share_pictures_and_scores(lengths):
    runs = {path.parent.parent.name: json.loads(path.read_text()) for path in lengths.glob("*/seed-0/run.json")}
    assert [statuses_in(lengths)[f"{arm}/seed-0"] for arm in runs] == ["finished"] * 3
    assert len(list(lengths.glob("trainings/*/seed-0"))) == 1
    assert sorted(found["reused"]["training"] for found in runs.values()) == [False, True, True]
    # Of 2 prompts: the coarse and the plug-in pictures are those of the first length.
    assert sorted(found["reused"]["pictures"] for found in runs.values())[1] >= 2 * 2
    assert all(found["metrics"]["training"] == {"steps": 2} for found in runs.values())


@pytest.mark.slow
def test_all_that_a_cell_logs_is_known_beforehand(lengths):
    for path in lengths.glob("*/seed-0/run.json"):
        run = json.loads(path.read_text())
        values, known = values_of(path.parent, run), may_be_logged(from_flat_dict(run["config"]))
        assert len(values) > 50 and set(values) - known == set()
        # Two prompts of four tokens have no value of everything that can be had, but of most.
        assert len(known - set(values)) < 0.3 * len(known)


@pytest.mark.slow
def test_results_do_not_depend_on_what_was_shared_nor_on_the_order(lengths, tmp_path):
    assert run(LENGTHS, tmp_path, "prompt_len=6,4,2", "eval.reuse=false") == 0
    assert results_in(tmp_path) == results_in(lengths) and len(results_in(tmp_path)) == 3
    assert not (tmp_path / "cache" / "pictures").exists()


@pytest.mark.slow
def test_started_again_it_runs_only_what_is_missing(lengths, tmp_path, capsys):
    output_dir = tmp_path / "copy"
    shutil.copytree(lengths, output_dir)
    before = results_in(output_dir)
    missing = next(output_dir.glob("tiny-len4-*/seed-0"))
    shutil.rmtree(missing)
    assert run(LENGTHS, output_dir, "prompt_len=2,4,6") == 0
    assert list(sessions_in(output_dir)[-1]["cells"]) == [f"{missing.parent.name}/seed-0"]
    out = capsys.readouterr().out
    assert "3 cells, 2 of them finished already" in out and "3 of 3 cells finished (2 before, 1 now)" in out
    assert results_in(output_dir) == before


@pytest.mark.slow
def test_a_cell_that_failed_is_named_with_its_reason_and_does_not_stop_the_others(tmp_path, capsys):
    arguments = ("use_clip=false", "use_mse=true", "train.learning_rate=1e30,1e-4", "train.warmup_steps=0")
    assert run(LOSSES, tmp_path, *arguments) == 1
    out = capsys.readouterr().out
    assert sorted(statuses_in(tmp_path).values()) == ["failed", "finished"]
    assert "[1/2] FAILED: tiny-len6-mse-text-" in out and "1 of 2 cells finished (1 now)" in out
    (failed,) = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert "(train.learning_rate=1e+30): loss term" in failed and "training stops before the update" in failed


@pytest.mark.slow
def test_a_search_learns_from_its_cells_and_is_the_same_search_after_a_kill(tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(WEIGHTS, whole, "--count", "3") == 0
    assert "best refined/fidelity: " in capsys.readouterr().out
    # As if it had been killed in its second cell.
    assert run(WEIGHTS, parts, "--count", "2") == 0
    shutil.rmtree(next(path for path in parts.glob("*/seed-0") if json.loads((path / "run.json").read_text())["reused"]["pictures"]))
    assert run(WEIGHTS, parts, "--count", "3") == 0
    assert next(whole.glob("sweeps/*/trials.json")).read_bytes() == next(parts.glob("sweeps/*/trials.json")).read_bytes()
    assert results_in(whole) == results_in(parts) and len(results_in(parts)) == 3
    with_name = tmp_path / "other.yaml"
    with_name.write_text(WEIGHTS.read_text().replace("refined/fidelity", "refined/fidelty"))
    assert run(with_name, tmp_path / "third", "--count", "2") == 2
    assert "no metric 'refined/fidelty'; the nearest is 'refined/fidelity'" in capsys.readouterr().err


def test_a_random_search_is_a_function_of_its_seed_and_keeps_to_its_ranges(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "method: random\nrun_cap: 30\nprogram: ablations/run.py\nparameters:\n"
        "  prompt_len: {distribution: q_uniform, min: 2, max: 9, q: 2}\n  seed: {min: 0, max: 3}\n"
        "  train.learning_rate: {distribution: log_uniform_values, min: 1.0e-5, max: 1.0e-3}\n"
        "  eval.mode: {values: [extend, rewrite], probabilities: [0.9, 0.1]}\n"
    )

    def drawn(search_seed: int, folder) -> list[dict]:
        search = cells_of(read_sweep_file(path, [f"output_dir={folder}"]), None, search_seed)
        while search.ask() is not None:
            pass
        return [dict(cell.swept) for cell in search.cells]

    one = drawn(0, tmp_path / "one")
    assert one == drawn(0, tmp_path / "one") == drawn(0, tmp_path / "two") != drawn(1, tmp_path / "two")
    assert len(one) == 30
    assert {values["prompt_len"] for values in one} == {2, 4, 6, 8} and {values["seed"] for values in one} == {0, 1, 2, 3}
    assert all(1e-5 <= values["train.learning_rate"] <= 1e-3 for values in one)
    assert sum(values["train.learning_rate"] < 1e-4 for values in one) in range(8, 23)  # half of a logarithmic range
    assert sum(values["eval.mode"] == "rewrite" for values in one) < 10


@pytest.mark.slow
def test_killed_at_three_moments_it_ends_with_the_same_results_bit_for_bit(tmp_path, capsys):
    arguments = ("use_mse=true,false", "use_clip=true", "seed=0,1", *CATCHABLE)
    assert run(LOSSES, tmp_path / "whole", *arguments) == 0
    output_dir = tmp_path / "killed"

    def in_training() -> bool:
        return any(output_dir.glob("trainings/*/*/checkpoints/last.ckpt"))

    def drawing() -> bool:
        return any(output_dir.glob("cache/pictures/*/*/*.png")) and "finished" not in statuses_in(output_dir).values()

    def in_the_third_cell() -> bool:
        return sorted(statuses_in(output_dir).values()) == ["finished", "finished", "running"]

    for moment in (in_training, drawing, in_the_third_cell):
        process = start(LOSSES, f"output_dir={output_dir}", *small(*arguments))
        wait_until(moment, process)
        process.kill()
        process.communicate()
        assert "running" in statuses_in(output_dir).values() and "failed" not in statuses_in(output_dir).values()
    capsys.readouterr()
    assert run(LOSSES, output_dir, *arguments) == 0
    assert "4 of 4 cells finished (2 before, 2 now)" in capsys.readouterr().out
    assert results_in(output_dir) == results_in(tmp_path / "whole") and len(results_in(output_dir)) == 4


@pytest.mark.slow
def test_two_sweeps_on_one_folder_never_run_a_cell_twice_and_finish_it_together(tmp_path):
    arguments = (LOSSES, *small("seed=0,1", f"output_dir={tmp_path}"))
    processes = [start(*arguments), start(*arguments, "--jobs", "2")]
    outs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs
    assert all("8 of 8 cells finished" in out for out in outs)
    one, other = (list(session["cells"]) for session in sessions_in(tmp_path))
    assert not set(one) & set(other) and sorted(one + other) == sorted(results_in(tmp_path)) and len(results_in(tmp_path)) == 8


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_sigterm_stops_every_process_within_seconds_and_the_rest_is_run_later(jobs, tmp_path):
    keys = small(*CATCHABLE, "train.max_steps=100000", "use_clip=true", f"output_dir={tmp_path}")
    process = start(LOSSES, *keys, "--jobs", jobs)
    wait_until(lambda: len(list(tmp_path.glob("trainings/*/*/checkpoints/last.ckpt"))) == jobs, process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and "the same command runs what is missing" in out
    assert list(statuses_in(tmp_path).values()) == ["preempted"] * jobs
    cells = cells_of(read_sweep_file(LOSSES, keys)).cells
    assert all(cell.folder.status() in ("preempted", "absent") for cell in cells)  # nobody holds a lock


@pytest.mark.slow
def test_a_process_that_dies_costs_its_cell_and_another_takes_its_place(tmp_path, capsys):
    arguments = (*CATCHABLE, "eval.steps=1", "use_clip=true", "use_mse=false", "seed=0,1,2")
    process = start(LOSSES, f"output_dir={tmp_path}", *small(*arguments), "--jobs", "2")
    wait_until(lambda: any(tmp_path.glob("trainings/*/*/checkpoints/last.ckpt")), process)
    trained = next(tmp_path.glob("trainings/*/*/checkpoints/last.ckpt")).parents[1]
    os.kill(int((trained / ".lock-holder").read_text().split()[1]), signal.SIGKILL)
    out, _ = process.communicate()
    assert process.returncode == 1 and "its process was ended by signal 9" in out
    assert sorted(statuses_in(tmp_path).values()) == ["failed", "finished", "finished"]
    assert run(LOSSES, tmp_path, *arguments) == 0
    assert "3 of 3 cells finished (2 before, 1 now)" in capsys.readouterr().out
