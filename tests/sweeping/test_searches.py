"""Searches: what they are steered by is known before anything runs, a cell without it does not end them, repeats count as repeats."""

from __future__ import annotations

import time

import pytest

from ablations import plan, sweep
from ablations.config import parse
from ablations.reporting.checks import CHECKS, IDENTICAL, IDENTICAL_REWRITTEN
from ablations.results.logged import may_be_logged, values_of
from ablations.results.run_folder import RunFolder
from ablations.runtime.files import write_atomically
from ablations.sweeping.cells import cells_of
from ablations.sweeping.search import next_values
from ablations.sweeping.sweep_file import read_sweep_file

COMMAND = 'command: ["${env}", "${interpreter}", -m, ablations.run, "${args_no_hyphens}"]\n'


@pytest.fixture
def write(tmp_path):
    def written(text: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(f"program: ablations/run.py\n{text}{COMMAND}")
        return str(path)

    return written


@pytest.fixture
def cells_that_end_at_once(monkeypatch):
    """Every cell finishes at once: with the diversity that it can have, and a loss that falls with the learning rate."""

    def run_cell(config, stop, shared, console):
        folder = RunFolder(config)
        with folder.lock():
            folder.start(threads=1)
            metrics = {"refined": {"fidelity": config.prompt_len / 10}, "training": {"steps": 4}}
            if config.eval.num_candidates > 1 and (config.eval.draw == "all" or config.prompt_len == 6):
                metrics["diversity"] = {"refined": {"vendi": 1.5}}
            write_atomically(folder.metrics_csv, f"step,train/loss,val/loss\n2,9.5,8.0\n4,{1 / config.train.learning_rate},\n")
            folder.finish(metrics, {"training": 1.0})
        return metrics

    monkeypatch.setattr("ablations.cell.cell.run_cell", run_cell)


def sweep_of(capsys, file: str, folder, *arguments: str) -> tuple[int, str]:
    code = sweep.main([file, f"output_dir={folder}", *arguments])
    return code, capsys.readouterr().out


def test_a_cell_without_the_metric_is_a_failed_trial_and_the_search_goes_on(write, cells_that_end_at_once, tmp_path, capsys):
    file = write(
        "method: bayes\nrun_cap: 8\nmetric: {name: diversity/refined/vendi, goal: maximize}\n"
        "parameters:\n  eval.num_candidates: {values: [1, 3]}\n  prompt_len: {values: [2, 3, 4, 5, 6, 7]}\n  eval.draw: {value: all}\n"
    )
    code, out = sweep_of(capsys, file, tmp_path / "out")
    assert code == 0 and "has no diversity/refined/vendi: to the search it is a trial that failed" in out
    cells = cells_of(read_sweep_file(file, [f"output_dir={tmp_path / 'out'}"]))
    lacking = [cell for cell in cells.distinct if cell.config.eval.num_candidates == 1]
    assert 0 < len(lacking) < len(cells.distinct) and len(cells.cells) == 8
    assert f"{len(lacking)} finished without diversity/refined/vendi" in out and "best diversity/refined/vendi: 1.5 with" in out
    again, said = sweep_of(capsys, file, tmp_path / "out")
    assert again == 0 and f"{len(cells.distinct)} of {len(cells.distinct)} cells finished" in said


@pytest.mark.parametrize(("draw", "is_told"), [("read", True), ("all", False)])
def test_arms_of_which_no_table_reads_the_metric_are_told_how_to_draw_it(draw, is_told, write, cells_that_end_at_once, tmp_path, capsys):
    file = write(
        "method: random\nrun_cap: 4\nmetric: {name: diversity/refined/vendi, goal: maximize}\n"
        f"parameters:\n  prompt_len: {{values: [2, 4]}}\n  eval.draw: {{value: {draw}}}\n"
    )
    code, out = sweep_of(capsys, file, tmp_path / "out")
    hint = "has no diversity/refined/vendi (eval.draw=all draws all candidates of every arm): to the search"
    assert code == 0 and (hint in out) == is_told and ("best diversity/refined/vendi" in out) != is_told


def test_a_search_may_be_steered_by_what_the_training_logs(write, cells_that_end_at_once, tmp_path, capsys):
    file = write(
        "method: bayes\nrun_cap: 4\nmetric: {name: train/loss, goal: minimize}\nparameters:\n"
        "  train.learning_rate: {distribution: log_uniform_values, min: 1.0e-5, max: 1.0e-3}\n  eval.num_prompts: {value: 0}\n"
    )
    code, out = sweep_of(capsys, file, tmp_path / "out")
    cells = cells_of(read_sweep_file(file, [f"output_dir={tmp_path / 'out'}"])).cells
    best = max(cell.config.train.learning_rate for cell in cells)
    assert code == 0 and f"best train/loss: {float(f'{1 / best:.4g}')} with" in out
    # The last value of each column, as W&B's summary has it; a column may end earlier than another.
    values = values_of(cells[0].folder.path, cells[0].folder.read())
    assert values["val/loss"] == 8.0 and values["train/loss"] == pytest.approx(1 / cells[0].config.train.learning_rate)


@pytest.mark.parametrize(
    ("metric", "further", "said"),
    [
        ("refined/fidelty", "", "the nearest is 'refined/fidelity'"),
        ("train/los", "", "the nearest is 'train/loss'"),
        ("train/l_mse", "  use_mse: {value: false}\n", "cells have no metric 'train/l_mse'"),
        ("val/loss", "  train.validate_every: {value: 0}\n", "cells have no metric 'val/loss'"),
        ("diversity/refined/vendi", "  eval.num_candidates: {value: 1}\n", "cells have no metric 'diversity/refined/vendi'"),
        ("refined/fidelity", "  eval.num_prompts: {value: 0}\n", "eval.num_prompts=0 leaves those of the training"),
        ("refined/nima", "", "cells have no metric 'refined/nima'"),
        ("train/records_per_second", "", "says how fast a machine is"),
    ],
)
def test_a_metric_that_no_cell_will_have_is_refused_before_anything_runs(metric, further, said, write, tmp_path, capsys):
    file = write(f"method: bayes\nrun_cap: 3\nmetric: {{name: {metric}}}\nparameters:\n  prompt_len: {{values: [2, 4]}}\n{further}")
    for command in (sweep, plan):
        assert command.main([file, f"output_dir={tmp_path / 'out'}", *(["--no-probe"] if command is plan else [])]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and metric in error and said in error
    assert not (tmp_path / "out").exists()


def test_a_metric_that_one_cell_of_many_can_have_is_taken(write, tmp_path):
    file = write(
        "method: bayes\nrun_cap: 3\nmetric: {name: diversity/refined/vendi}\nparameters:\n"
        "  eval.num_candidates: {values: [1, 3]}\n  eval.draw: {value: all}\n"
    )
    assert cells_of(read_sweep_file(file, [f"output_dir={tmp_path}"])).total == 3


def test_draws_of_the_same_cell_are_counted_as_repeats(write, cells_that_end_at_once, tmp_path, capsys):
    file = write(
        "method: random\nrun_cap: 6\nmetric: {name: refined/fidelity, goal: maximize}\nparameters:\n  prompt_len: {values: [2, 6]}\n"
    )
    code, out = sweep_of(capsys, file, tmp_path / "out")
    assert code == 0 and "2 different cells of 6 draws\n2 of 2 cells finished (2 now)" in out and "other processes" not in out
    code, out = sweep_of(capsys, file, tmp_path / "out")
    assert code == 0 and "2 of 2 cells finished (2 before)" in out
    assert plan.main([file, f"output_dir={tmp_path / 'out'}", "--no-probe"]) == 0
    assert "2 different cells of 6 draws" in capsys.readouterr().out


def test_the_plan_of_a_search_counts_the_trainings_that_it_may_have(write, tmp_path, capsys):
    file = write("method: random\nrun_cap: 6\nparameters:\n  prompt_len: {values: [2, 6]}\n")
    assert plan.main([file, f"output_dir={tmp_path}", "--no-probe"]) == 0
    assert "at most 6 trainings: 0 finished, at most 6 to do" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "[1]", '{"a": 1}', '[{"prompt_len": NaN}]', "\x00"])
def test_a_damaged_list_of_trials_is_one_line_with_the_remedy(content, write, tmp_path, capsys):
    file = write("method: random\nrun_cap: 2\nparameters:\n  prompt_len: {values: [2, 6]}\n")
    folder = cells_of(read_sweep_file(file, [f"output_dir={tmp_path}"])).folder
    folder.mkdir(parents=True)
    (folder / "trials.json").write_text(content)
    assert sweep.main([file, f"output_dir={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert "delete it to begin the search again" in error and error.count("\n") == 1


def test_a_sweep_without_a_command_runs_as_wandbs_agent_would_by_the_programs_path(tmp_path):
    path = tmp_path / "default.yaml"
    path.write_text("program: ablations/run.py\nmethod: grid\nparameters:\n  prompt_len: {values: [3, 5]}\n")
    assert [cell.config.prompt_len for cell in cells_of(read_sweep_file(path, [f"output_dir={tmp_path}"])).cells] == [3, 5]


def test_thousands_of_cells_are_planned_in_a_moment(write, tmp_path, capsys):
    file = write(
        "method: grid\nparameters:\n  seed: {min: 0, max: 49}\n  prompt_len: {values: [2, 4, 6, 8, 10]}\n"
        "  train.learning_rate: {values: [1.0e-5, 2.0e-5, 3.0e-5, 4.0e-5]}\n  eval.top_p: {values: [0.5, 0.9]}\n"
    )
    started = time.process_time()
    assert plan.main([file, f"output_dir={tmp_path}", "--no-probe", "trainer.progress=plain"]) == 0
    out = capsys.readouterr().out
    assert time.process_time() - started < 8  # 0.7 s where nothing else runs; 86 s when each cell read all that they have in common
    assert "2000 cells: 0 finished, 2000 to do" in out and "200 trainings: 0 finished, 200 to do" in out
    assert len(out.splitlines()) < 400


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("  seed: {min: 0, max: 4000000000}\n", "4,000,000,001 values are more than a grid of at most 100,000 cells"),
        ("  seed: {min: 0, max: 9999}\n  prompt_len: {min: 1, max: 20}\n", "a grid of 200,000 cells; at most 100,000 can be run"),
    ],
)
def test_a_grid_that_nobody_can_run_is_refused_at_once(parameters, said, write, capsys):
    assert plan.main([write(f"method: grid\nparameters:\n{parameters}"), "--no-probe"]) == 2
    assert said in capsys.readouterr().err


def test_what_a_cell_may_log_follows_from_its_config():
    known = may_be_logged(parse([]))
    of_reports = {f"checks/{check.name}" for check in CHECKS} - {f"checks/{name}" for name in (IDENTICAL, IDENTICAL_REWRITTEN)}
    assert of_reports | {"checks/records"} == {name for name in known if name.startswith("checks/")}
    assert not any(name.startswith("checks/afe_") for name in may_be_logged(parse(["use_afe=false"])))
    assert not any(name.startswith("checks/") for name in may_be_logged(parse(["train.check_records=0"])))
    assert {"refined/fidelity", "diversity/refined/st_lpips", "train/loss", "train/l_clip", "train/clip_accuracy"} <= known
    assert not {"train/records_per_second", "refined/style_seen", "refined/nima-aesthetic", "diversity/fine/vendi"} & known
    assert "refined/nima-aesthetic" in may_be_logged(parse(["eval.metrics=nima-aesthetic", "eval.missing_metrics=skip"]))
    assert not any(name.startswith("diversity/refined_shared_noise") for name in may_be_logged(parse(["eval.num_candidates=1"])))


def test_the_sampler_hears_of_a_cell_without_the_metric_as_a_trial_that_failed(
    write, cells_that_end_at_once, tmp_path, capsys, monkeypatch
):
    file = write(
        "method: bayes\nrun_cap: 3\nmetric: {name: train/loss, goal: minimize}\nparameters:\n"
        "  train.learning_rate: {distribution: log_uniform_values, min: 1.0e-5, max: 1.0e-3}\n"
    )
    assert sweep_of(capsys, file, tmp_path)[0] == 0
    read = read_sweep_file(file, [f"output_dir={tmp_path}"])
    cells = cells_of(read).cells
    cells[1].folder.metrics_csv.unlink()
    told = []
    monkeypatch.setattr("optuna.study.Study.add_trial", lambda study, trial: told.append(trial.state.name))
    next_values(read, cells, 0)
    assert told == ["COMPLETE", "FAIL", "COMPLETE"]
