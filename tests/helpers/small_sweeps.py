"""What tests of sweeps share: cells of a second each, on random networks, and what may not differ between two runs of a sweep."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
SWEEPS = ROOT / "sweeps"
SMALL = (
    *("backbones.init=random", "data.num_train=24", "data.num_validation=8", "train.max_steps=2", "train.batch_size=8", "loss.clip_bank=8"),
    *("eval.num_prompts=2", "eval.num_candidates=2", "eval.steps=1", "eval.max_new_tokens=4", "eval.grid_prompts=1", "eval.batch_size=4"),
    *("eval.text_prompts=3", "wandb.mode=disabled", "trainer.threads=1", "train.check_records=0"),
)
# What a run.json says of when and how it came about rather than of results.
_CIRCUMSTANCES = ("timings", "started", "finished", "reused", "sha256")


def small(*arguments: str) -> list[str]:
    """The keys of a small sweep, with these in place of its own."""
    return [f"{name}={text}" for name, text in dict(word.split("=", 1) for word in (*SMALL, *arguments)).items()]


def results_in(output_dir: Path) -> dict[str, list[str]]:
    """Every finished cell's results, by arm and seed: run.json without circumstances and digests of all that it left behind."""
    found = {}
    for path in sorted(output_dir.glob("*/seed-*/run.json")):
        run = json.loads(path.read_text())
        config = {name: value for name, value in run["config"].items() if name not in ("output_dir", "eval.reuse")}
        said = json.dumps({**{k: v for k, v in run.items() if k not in _CIRCUMSTANCES}, "config": config}, sort_keys=True)
        files = ("scores.parquet", "prompts.jsonl", "metrics.csv", "diversity_grid.png", "loss_curves.png", "manifest.json")
        pictures = sorted((path.parent / "images").iterdir())
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (*(path.parent / name for name in files), *pictures)]
        found[str(path.parent.relative_to(output_dir))] = [said, *digests]
    return found


def statuses_in(output_dir: Path) -> dict[str, str]:
    """{ARM/seed-N: status} of every cell that was begun."""
    runs = {path.parent: json.loads(path.read_text()) for path in sorted(output_dir.glob("*/seed-*/run.json"))}
    return {str(folder.relative_to(output_dir)): run["status"] for folder, run in runs.items()}


def sessions_in(output_dir: Path) -> list[dict]:
    """What each process of the sweep did, in the order in which they began."""
    return [json.loads(path.read_text()) for path in sorted(output_dir.glob("sweeps/*/session-*.json"))]


def start(*arguments: str, module: str = "ablations.sweep") -> subprocess.Popen:
    """A command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(happened: Callable[[], object], process: subprocess.Popen, seconds: float = 300) -> None:
    """Returns when something is so; fails where the process ends, or the time is up, before."""
    until = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, f"it ended before, with code {process.returncode}: {process.communicate()[0]}"
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)
