"""SIGTERM and a scheduler's SIGUSR1, sent to a real process: it ends within seconds, says so, and what was done is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ablations.cell.training.checkpoints import read_checkpoint
from ablations.config import parse
from ablations.results.checkpoints import FINAL
from ablations.results.run_folder import RunFolder
from helpers.odd_servers import KEY, odd_server, without_wandb

ROOT = Path(__file__).resolve().parents[2]

SMALL = (
    *("data.num_train=48", "data.num_validation=8", "train.batch_size=8", "loss.clip_bank=8", "train.max_steps=30", "train.log_every=1"),
    *("eval.num_candidates=2", "eval.controls=false", "wandb.mode=disabled", "trainer.progress=plain", "trainer.threads=1"),
)
# A task of four that srun started, each of which runs a cell of its own.
SLURM_TASK = {
    **{"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "cells", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_STEP_NUM_TASKS": "4"},
    **{"SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_NODELIST": "node1"},
}


def stop_at(line_start: str, arguments: list[str], number: int = signal.SIGTERM, **variables: str) -> tuple[int, float]:
    """Run a cell, send a signal at the first line that starts so; returns the exit code and the seconds until it ended."""
    command = [sys.executable, "-m", "ablations.run", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert any(line.startswith(line_start) for line in process.stdout), f"the run ended without a line {line_start!r}"
        stopped = time.monotonic()
        process.send_signal(number)
        process.communicate(timeout=60)
        return process.returncode, time.monotonic() - stopped
    finally:
        process.kill()
        process.wait()


def run_to_the_end(arguments: list[str], **variables: str) -> RunFolder:
    command = [sys.executable, "-m", "ablations.run", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=300)
    return RunFolder(parse(arguments))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> RunFolder:
    return run_to_the_end([*SMALL, "eval.num_prompts=0", f"output_dir={tmp_path_factory.mktemp('whole')}"])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "variables"), [(signal.SIGTERM, {}), (signal.SIGUSR1, SLURM_TASK)], ids=["SIGTERM", "SIGUSR1-in-slurm"])
def test_a_signal_in_training_leaves_a_checkpoint_and_the_next_run_ends_as_an_undisturbed_one(number, variables, undisturbed, tmp_path):
    arguments = [*SMALL, "eval.num_prompts=0", f"output_dir={tmp_path}"]
    code, seconds = stop_at("training: step", arguments, number, **variables)
    assert code == 143
    assert seconds < 10
    folder = RunFolder(parse(arguments))
    assert folder.read()["status"] == "preempted"
    assert sorted(path.name for path in folder.training_path.rglob("*.ckpt")) == ["last.ckpt"]
    again = run_to_the_end(arguments, **variables)
    assert again.read()["status"] == "finished"
    assert again.metrics_csv.read_bytes() == undisturbed.metrics_csv.read_bytes()
    states = [read_checkpoint(run.checkpoints / FINAL)["state_dict"] for run in (again, undisturbed)]
    assert states[0].keys() == states[1].keys() and all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_a_silent_wandb_server_delays_neither_the_training_nor_the_end_after_a_signal(tmp_path, monkeypatch):
    without_wandb(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    arguments = [*SMALL, "train.max_steps=2000", "eval.num_prompts=0", f"output_dir={tmp_path / 'out'}", "wandb.mode=auto"]
    with odd_server("silent") as server:
        variables = {"PYTHONPATH": str(ROOT), "WANDB_BASE_URL": server.url}
        code, seconds = stop_at("training: step", [*dict((word.split("=")[0], word) for word in arguments).values()], **variables)
        assert server.knocks
    assert (code, seconds < 10) == (143, True)
    assert len(list((tmp_path / "out" / "trainings").rglob("last.ckpt"))) == 1


@pytest.mark.slow
def test_sigterm_in_the_evaluation_is_answered_within_seconds_and_keeps_the_training(tmp_path: Path):
    arguments = [*SMALL, "train.max_steps=2", "eval.num_prompts=8", "eval.steps=200", "eval.batch_size=4", f"output_dir={tmp_path}"]
    arguments.remove("train.max_steps=30")
    code, seconds = stop_at("refining", arguments)
    assert code == 143
    assert seconds < 10
    folder = RunFolder(parse(arguments))
    assert folder.read()["status"] == "preempted"
    assert (folder.checkpoints / "final.ckpt").exists()
