"""Cells of a sweep against the same cells alone: what sharing trainings, pictures, networks and one start of the libraries saves.

Each is a process of its own, as a user would start it, with little to train and to draw: the ratio is of small cells.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ablations.runtime.errors import UserError, one_line

# Two trainings, one of them shared by three lengths: about the proportion of sweeps/ablation_tables.yaml.
_ARMS = ("full", "without_mse", "length_4", "length_8")
_SMALL = (
    *("train.max_steps=40", "data.num_train=200", "train.check_records=32"),
    *("eval.num_prompts=4", "eval.text_prompts=16", "wandb.mode=disabled"),
)
_SWEEP = """\
program: ablations/run.py
name: benchmark
method: grid
parameters:
  ablation: {values: [%s]}
command: ["${env}", "${interpreter}", "-m", "ablations.run", "${args_no_hyphens}"]
"""


@dataclass(frozen=True)
class Matrix:
    """Seconds of the sweep in one process, and of its cells one by one in folders of their own."""

    together: float
    alone: tuple[float, ...]

    @property
    def share(self) -> float:
        """What the sweep takes of its cells' time."""
        return self.together / sum(self.alone)


def compare_matrix(check: Callable[[], None]) -> Matrix:
    """Run both, one after the other, beginning with the sweep. Raises UserError where a cell fails."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder) / "benchmark.yaml"
        sweep.write_text(_SWEEP % ", ".join(_ARMS))
        check()
        together = _seconds(["ablations.sweep", str(sweep), f"output_dir={folder}/together", "--jobs", "1", *_SMALL])
        alone = []
        for arm in _ARMS:
            check()
            alone.append(_seconds(["ablations.run", f"ablation={arm}", f"output_dir={folder}/{arm}", *_SMALL]))
    return Matrix(together, tuple(alone))


def _seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    process = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, env=os.environ)
    if process.returncode:
        raise UserError(f"{arguments[0]} failed while it was timed: {one_line(process.stderr)[-200:]}")
    return time.perf_counter() - started
