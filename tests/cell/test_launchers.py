"""Launchers: one process is one process, whatever started it, and variables that cannot be read are told in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment

from ablations.cell.processes import group
from ablations.cell.processes.place import Place, find_place
from ablations.cell.training.fit import make_trainer
from ablations.config import parse
from ablations.runtime import early_signals
from ablations.runtime.errors import UserError
from ablations.runtime.launchers import require_numbers
from ablations.runtime.stopping import signals_wait
from helpers.commands import run

SLURM = {"SLURM_JOB_ID": "77", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "node[3-4]"}
LAUNCHERS = {
    "nothing": {},
    "slurm, 4 tasks": SLURM | {"SLURM_JOB_NAME": "j", "SLURM_NTASKS": "4"},
    "slurm, 1 task": SLURM | {"SLURM_JOB_NAME": "j", "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"},
    "a task of many": SLURM | {"SLURM_JOB_NAME": "j", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"},
    "a shell on a node": SLURM | {"SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"},
    "torchrun": {"TORCHELASTIC_RUN_ID": "a", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "GROUP_RANK": "0"},
    "lsf": {
        "LSB_JOBID": "9",
        "LSB_DJOB_RANKFILE": "gone",
        "JSM_NAMESPACE_LOCAL_RANK": "1",
        "JSM_NAMESPACE_SIZE": "2",
        "JSM_NAMESPACE_RANK": "1",
    },
    "stale exports": {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "gone", "MASTER_PORT": "1"},
}


class _One(pl.LightningModule):
    """A weight that is trained, and what the trainer was while it was."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, batch_index):
        connector = self.trainer._signal_connector
        assert all(handler.__self__ is not connector for handler in _handlers(signal.SIGUSR1))
        return (self.weight * batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def _handlers(number: int) -> list:
    """The bound methods that a signal calls, Lightning's compositions taken apart."""
    handler = signal.getsignal(number)
    return [one for one in getattr(handler, "signal_handlers", [handler]) if hasattr(one, "__self__")]


@pytest.fixture
def environment(monkeypatch, request):
    for name in [name for name in os.environ if name.split("_")[0] in ("SLURM", "JSM", "LSB", "MASTER", "TORCHELASTIC")]:
        monkeypatch.delenv(name)
    for name, value in LAUNCHERS[request.param].items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("environment", LAUNCHERS, indirect=True)
def test_one_process_trains_alone_with_its_own_signals_and_no_checkpoint_of_others(environment, tmp_path, monkeypatch):
    config = parse(["trainer.accelerator=cpu", f"output_dir={tmp_path}", "train.grad_clip=0"])
    assert find_place(config) == Place()
    torch.save({"state_dict": {"weight": torch.full((1,), 99.0)}, "global_step": 1}, tmp_path / "hpc_ckpt_1.ckpt")
    monkeypatch.chdir(tmp_path)
    trainer, module = make_trainer(config, 2, []), _One()
    assert isinstance(trainer._accelerator_connector.cluster_environment, LightningEnvironment)
    trainer.fit(module, torch.utils.data.DataLoader(torch.ones(2, 1), batch_size=1))
    assert (trainer.world_size, trainer.global_rank, trainer.is_global_zero, trainer.global_step) == (1, 0, True, 2)
    assert module.weight.item() == 0.0
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    trainer.strategy.checkpoint_io.teardown()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hpc_ckpt_1.ckpt", "mine.ckpt", "mine.ckpt.sha256"]


@pytest.mark.parametrize(
    ("keys", "variables", "said"),
    [
        ([], {"TORCHELASTIC_RUN_ID": "a", "RANK": "0"}, "WORLD_SIZE is not set, though torchrun seems"),
        ([], {"TORCHELASTIC_RUN_ID": "a", "RANK": "x", "WORLD_SIZE": "1"}, "RANK='x' is no number, and torchrun sets one"),
        (
            [],
            {"TORCHELASTIC_RUN_ID": "a", "RANK": "4", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "GROUP_RANK": "0"},
            "torchrun's variables contradict each other (RANK=4, WORLD_SIZE=1, LOCAL_RANK=0, GROUP_RANK=0)",
        ),
        (["trainer.devices=2"], {"SLURM_STEP_NUM_TASKS": "2(x2)"}, "SLURM_STEP_NUM_TASKS='2(x2)' is no number"),
        (["trainer.devices=2"], {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}, "SLURM_LOCALID is not set, though srun"),
    ],
)
def test_variables_that_are_missing_or_no_numbers_are_told_in_one_line(keys, variables, said):
    with pytest.raises(UserError) as told:
        find_place(parse(keys), variables)
    assert said in str(told.value) and len(str(told.value)) < 300


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"])
@pytest.mark.parametrize("value", ["", "one", "-1", "1.5", "٣", "7" * 500])
def test_what_libraries_read_at_import_is_refused_before_they_do(name, value):
    with pytest.raises(UserError, match=f"{name}=.* is no number") as told:
        require_numbers({name: value})
    assert len(str(told.value)) < 300


def test_a_command_says_a_bad_variable_in_a_line_and_ends_with_2(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "first")
    code, _, error, _ = run("wandb.mode=disabled", module="ablations.run")
    assert code == 2 and error.startswith("error: SLURM_PROCID='first' is no number") and error.count("\n") == 1


def test_tasks_of_srun_meet_at_the_first_node_of_their_step(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "SLURM_STEP_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "123456")
    monkeypatch.setenv("SLURM_NODELIST", "node[3-4]")
    assert group._meeting_point_of_srun() == ("node3", 18456)
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node4")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert group._meeting_point_of_srun() == ("node4", 29500)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_in_the_first_moments_leaves_no_traceback(number):
    command = [sys.executable, "-X", "importtime", "-m", "ablations.run", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = []
    for line in process.stderr:
        said.append(line)
        if line.rstrip().endswith(" ablations"):
            process.send_signal(number)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=30) == 143
    assert "Traceback" not in rest and "stopped by a signal" in rest


def test_a_process_that_is_being_started_hears_of_signals_once_it_has_taken_them():
    code = """
import os, signal
from ablations.runtime.stopping import Preempted, StopRequest
os.kill(os.getpid(), signal.SIGINT)  # waits, while this process imports
try:
    StopRequest().install()
except Preempted:
    print("stopped")
"""
    with signals_wait():
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.communicate(timeout=60) == ("stopped\n", "")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(early_signals.SIGNALS) == set()
