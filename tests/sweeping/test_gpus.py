"""Each process of a sweep has GPUs of its own, and no more processes are started than there are GPUs for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from ablations.cell.processes import group as process_group
from ablations.cell.processes.place import Place
from ablations.config import parse
from ablations.runtime.errors import UserError
from ablations.sweeping import gpus
from ablations.sweeping.gpus import VISIBLE, gpus_of, jobs_for, seeing, visible_gpus

FOUR = ("0", "1", "2", "3")


@pytest.fixture
def count(monkeypatch):
    """Sets how many GPUs torch sees."""

    def see(number: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)

    return see


@pytest.mark.parametrize(
    ("asked", "words", "here", "jobs"),
    [
        (None, [], (), 1),
        (7, [], (), 7),
        (None, [], FOUR, 4),
        (2, [], FOUR, 2),
        (None, ["trainer.devices=2"], FOUR, 2),
        (None, ["trainer.devices=2"], (*FOUR, "4"), 2),
        (None, ["trainer.accelerator=cpu"], FOUR, 1),
        (9, ["trainer.accelerator=cpu"], FOUR, 9),
    ],
)
def test_a_sweep_runs_in_as_many_processes_as_there_are_gpus_for(asked, words, here, jobs):
    assert jobs_for(asked, parse(words), here) == jobs


@pytest.mark.parametrize(
    ("asked", "words", "here", "line"),
    [
        (5, [], FOUR, "--jobs 5, but the 4 GPUs here hold 4 processes: leave --jobs out, or set trainer.accelerator=cpu"),
        (3, ["trainer.devices=2"], FOUR, "--jobs 3, but the 4 GPUs here hold 2 processes of trainer.devices=2: "),
        (2, [], ("0",), "--jobs 2, but the 1 GPU here hold 1 process: "),
        (None, ["trainer.devices=8"], FOUR, "trainer.devices=8, but torch sees 4 GPUs here: set trainer.devices"),
    ],
)
def test_more_than_fit_are_refused_in_one_line(asked, words, here, line):
    with pytest.raises(UserError) as error:
        jobs_for(asked, parse(words), here)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


def test_no_two_processes_share_a_gpu():
    assert [gpus_of(i, 1, FOUR) for i in range(4)] == [("0",), ("1",), ("2",), ("3",)]
    assert [gpus_of(i, 2, FOUR) for i in range(2)] == [("0", "1"), ("2", "3")]


@pytest.mark.parametrize(
    ("variable", "number", "seen"),
    [
        ("2, 3", 2, ("2", "3")),
        ("GPU-8a,MIG-GPU-1/2/0", 2, ("GPU-8a", "MIG-GPU-1/2/0")),
        ("", 0, ()),
        ("0,9,1", 1, ("0",)),  # CUDA stops at the first that is not there
    ],
)
def test_gpus_have_the_names_that_the_environment_gives_them(count, variable, number, seen):
    count(number)
    assert visible_gpus({VISIBLE: variable}) == seen


def test_without_a_driver_torch_is_not_asked(monkeypatch):
    monkeypatch.setattr(gpus.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: pytest.fail("asked"))
    assert visible_gpus({}) == ()
    monkeypatch.setattr(gpus.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus({}) == ("0", "1")


def test_a_process_that_is_started_sees_its_own_gpus_and_this_one_all(monkeypatch):
    monkeypatch.setenv(VISIBLE, "4,5")
    ask = [sys.executable, "-c", f"import os; print(os.environ['{VISIBLE}'])"]
    with seeing(("5",)):
        assert subprocess.check_output(ask, text=True).strip() == "5"
    assert os.environ[VISIBLE] == "4,5"
    monkeypatch.delenv(VISIBLE)
    with seeing(("1", "2")):
        assert os.environ[VISIBLE] == "1,2"
    assert VISIBLE not in os.environ


@pytest.mark.parametrize(
    ("number", "outside", "torchrun", "refused"),
    [(4, False, False, False), (1, True, False, False), (1, True, True, True), (1, False, False, True), (2, True, False, True)],
)
def test_a_task_of_srun_that_sees_one_gpu_sees_its_own(count, monkeypatch, number, outside, torchrun, refused):
    count(number)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    config, place = parse(["trainer.devices=4"]), Place(rank=3, world_size=4, local_rank=3, from_outside=outside)
    if refused:
        with pytest.raises(UserError, match=f"trainer.devices=4, but torch sees {number} CUDA device"):
            process_group.check_devices(config, place)
    else:
        process_group.check_devices(config, place)


def test_lightnings_strategy_takes_the_only_device_that_a_process_sees():
    strategy = process_group.JoinedDDP(Place(rank=3, world_size=4, local_rank=3, from_outside=True))
    strategy.parallel_devices = [torch.device("cuda", 0)]
    assert strategy.root_device == torch.device("cuda", 0)
    strategy.parallel_devices = [torch.device("cuda", i) for i in range(4)]
    assert strategy.root_device == torch.device("cuda", 3)
    strategy.set_world_ranks()
    assert (strategy.global_rank, strategy.world_size) == (3, 4)
