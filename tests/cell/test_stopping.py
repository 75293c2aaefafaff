"""SIGTERM, sent to a real process: it ends within seconds, says so, and what was done is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablations.config import parse
from ablations.results.run_folder import RunFolder

SMALL = (
    *("data.num_train=48", "data.num_validation=8", "train.batch_size=8", "loss.clip_bank=8", "train.max_steps=30", "train.log_every=1"),
    *("eval.num_candidates=2", "eval.controls=false", "wandb.mode=disabled", "trainer.progress=plain", "trainer.threads=1"),
)


def terminate_at(line_start: str, arguments: list[str]) -> tuple[int, float]:
    """Run a cell, send SIGTERM at the first line that starts so; returns the exit code and the seconds until it ended."""
    command = [sys.executable, "-m", "ablations.run", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        assert any(line.startswith(line_start) for line in process.stdout), f"the run ended without a line {line_start!r}"
        stopped = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        return process.returncode, time.monotonic() - stopped
    finally:
        process.kill()
        process.wait()


def run_to_the_end(arguments: list[str]) -> RunFolder:
    command = [sys.executable, "-m", "ablations.run", *arguments]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, timeout=300)
    return RunFolder(parse(arguments))


@pytest.mark.slow
def test_sigterm_in_training_leaves_a_checkpoint_and_the_next_run_ends_as_an_undisturbed_one(tmp_path: Path):
    arguments, whole = ([*SMALL, "eval.num_prompts=0", f"output_dir={tmp_path / name}"] for name in ("stopped", "whole"))
    code, seconds = terminate_at("training: step", arguments)
    assert code == 143
    assert seconds < 15
    folder = RunFolder(parse(arguments))
    assert folder.read()["status"] == "preempted"
    assert (folder.checkpoints / "last.ckpt").exists() and not (folder.checkpoints / "final.ckpt").exists()
    again, undisturbed = run_to_the_end(arguments), run_to_the_end(whole)
    assert again.read()["status"] == "finished"
    assert again.metrics_csv.read_bytes() == undisturbed.metrics_csv.read_bytes()


@pytest.mark.slow
def test_sigterm_in_the_evaluation_is_answered_within_seconds_and_keeps_the_training(tmp_path: Path):
    arguments = [*SMALL, "train.max_steps=2", "eval.num_prompts=8", "eval.steps=200", "eval.batch_size=4", f"output_dir={tmp_path}"]
    arguments.remove("train.max_steps=30")
    code, seconds = terminate_at("refining", arguments)
    assert code == 143
    assert seconds < 15
    folder = RunFolder(parse(arguments))
    assert folder.read()["status"] == "preempted"
    assert (folder.checkpoints / "final.ckpt").exists()
