"""Who runs which cell, where several processes share a folder: decided by what lies in the run folders alone."""

from __future__ import annotations

import pytest

from ablations.results.checkpoints import FINAL
from ablations.results.run_folder import RunFolder
from ablations.runtime.files import read_sealed, write_sealed
from ablations.sweeping.cells import Grid, cells_of
from ablations.sweeping.dispatcher import Dispatcher, Outcome
from ablations.sweeping.sweep_file import read_sweep_file
from helpers.small_sweeps import SWEEPS


@pytest.fixture
def grid(tmp_path):
    def made(file: str, *arguments: str) -> Grid:
        return cells_of(read_sweep_file(SWEEPS / f"{file}.yaml", [f"output_dir={tmp_path}", *arguments]))

    return made


def finish(cell, status: str = "finished") -> None:
    """What a process that ran the cell leaves behind."""
    folder = RunFolder(cell.config)
    with folder.lock():
        folder.start()
        if status == "failed":
            folder.fail("no memory")
        else:
            train(cell)
            folder.finish({}, {})


def train(cell) -> None:
    cell.folder.checkpoints.mkdir(parents=True, exist_ok=True)
    (cell.folder.checkpoints / FINAL).touch()


def test_every_cell_is_handed_out_once_in_the_files_order(grid):
    cells = grid("losses")
    dispatcher = Dispatcher(cells)
    handed_out = []
    while (cell := dispatcher.next()) is not None:
        handed_out.append(cell.number)
        finish(cell)
        dispatcher.ended(cell, Outcome("finished"))
    assert handed_out == [0, 1, 2, 3] and dispatcher.is_done
    assert dispatcher.count("finished", "here") == 4


def test_finished_cells_are_not_handed_out(grid):
    cells = grid("losses")
    finish(cells.cells[0])
    dispatcher = Dispatcher(cells)
    assert (dispatcher.count("finished", "before"), dispatcher.next().number) == (1, 1)


def test_cells_that_share_a_training_wait_until_it_is_made_and_others_go_first(grid):
    cells = grid("ablation_tables", "ablation=full,length_2,without_mse", "seed=0")
    dispatcher = Dispatcher(cells)
    assert [dispatcher.next().swept["ablation"] for _ in range(2)] == ["full", "without_mse"]
    assert dispatcher.next() is None and not dispatcher.is_done
    train(cells.cells[0])
    assert dispatcher.next().swept["ablation"] == "length_2"


def test_cells_of_other_seeds_go_first_because_cells_of_one_seed_share_pictures(grid):
    dispatcher = Dispatcher(grid("losses", "use_mse=true", "seed=0,1"))
    assert [dispatcher.next().label for _ in range(3)] == ["use_clip=true seed=0", "use_clip=true seed=1", "use_clip=false seed=0"]


def test_a_cell_that_another_process_runs_is_left_to_it_and_taken_up_when_it_was_abandoned(grid):
    cells = grid("losses", "use_mse=true")
    other = RunFolder(cells.cells[0].config)
    with other.lock():
        other.start()
        dispatcher = Dispatcher(cells)
        assert dispatcher.next().number == 1
        assert dispatcher.next() is None
        assert dispatcher.count("elsewhere") == 1
    dispatcher.ended(cells.cells[1], Outcome("finished"))
    assert dispatcher.next().number == 0  # run.json still says running, but its process is gone


def test_what_another_process_finishes_is_finished(grid):
    cells = grid("losses", "use_mse=true")
    dispatcher = Dispatcher(cells)
    finish(cells.cells[0])
    assert dispatcher.next().number == 1
    dispatcher.ended(cells.cells[1], Outcome("finished"))
    assert dispatcher.is_done and dispatcher.count("finished", "elsewhere") == 1


def test_a_cell_that_another_process_took_first_is_looked_at_again(grid):
    cells = grid("losses", "use_mse=true", "use_clip=true")
    dispatcher = Dispatcher(cells)
    cell = dispatcher.next()
    dispatcher.ended(cell, Outcome("busy"))
    assert not dispatcher.is_done
    finish(cell)
    assert dispatcher.next() is None and dispatcher.is_done


def test_a_cell_that_failed_before_is_tried_again_once_and_one_that_fails_meanwhile_is_not(grid):
    cells = grid("losses", "use_mse=true")
    finish(cells.cells[0], "failed")
    dispatcher = Dispatcher(cells)
    cell = dispatcher.next()
    assert cell.number == 0
    finish(cell, "failed")
    dispatcher.ended(cell, Outcome("failed", "no memory"))
    finish(cells.cells[1], "failed")
    assert dispatcher.next() is None and dispatcher.is_done
    assert [(cell.number, reason) for cell, reason in dispatcher.failures()] == [(0, "no memory"), (1, "no memory")]
    assert (dispatcher.count("failed", "here"), dispatcher.count("failed", "elsewhere")) == (1, 1)


def test_a_folder_with_another_configs_results_is_a_failure_of_that_cell_alone(grid):
    cells = grid("losses", "use_mse=true")
    path = cells.cells[0].folder.run_json
    finish(cells.cells[0])
    other = read_sealed(path)
    other["config"]["prompt_len"] = 7
    write_sealed(path, other)
    dispatcher = Dispatcher(cells)
    assert dispatcher.next().number == 1
    assert "holds the results of another config" in dispatcher.failures()[0][1]
