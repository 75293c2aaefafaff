"""Signals at random moments of a run, with a W&B server that never answers: the process is gone within 10 s, and can go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from faults.bench import Kind, Tried, each
from helpers.odd_servers import KEY, odd_server
from helpers.small_sweeps import small

ROOT = Path(__file__).resolve().parents[3]
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
# How a line begins after which the signal comes, and for how many seconds at most it is waited then.
_MOMENTS = {"loading": 6.0, "training": 3.0} | dict.fromkeys(("cell", "data", "feature cache", "refining", "drawing", "scoring"), 1.0)
_KEYS = small("train.max_steps=60", "train.log_every=1", "eval.num_prompts=6", "eval.steps=8", "eval.controls=false")
_SECONDS = 10.0


def try_signals(seed: int, count: int, folder: Path) -> Tried:
    def attempt(rng, number) -> str | None:
        home = folder / str(number)
        home.mkdir()
        moment = str(rng.choice(list(_MOMENTS)))
        number_sent, delay = signal.Signals(int(rng.choice(_SIGNALS))), float(rng.uniform(0, _MOMENTS[moment]))
        arguments = [word for word in _KEYS if not word.startswith("wandb.mode")] + [f"output_dir={home / 'out'}", "trainer.progress=plain"]
        own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        own |= {"HOME": str(home), "WANDB_API_KEY": KEY, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with odd_server("silent") as server, (home / "errors").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "ablations.run", *arguments],
                cwd=home,
                env=own | {"WANDB_BASE_URL": server.url},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            try:
                any(line.startswith(moment) for line in process.stdout)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(delay)
                has_ended = process.poll() is not None
                process.send_signal(number_sent)
                sent = time.monotonic()
                process.communicate(timeout=10 * _SECONDS)
                seconds = time.monotonic() - sent
            finally:
                process.kill()
                process.wait()
        said = (home / "errors").read_text()
        where = f"{number_sent.name}, {delay:.1f} s after {moment!r}"
        if process.returncode != (0 if has_ended else 143) or "Traceback" in said:
            return f"code {process.returncode} {said[-300:]!r}, {where}"
        if not has_ended and seconds > _SECONDS:
            return f"it was gone after {seconds:.1f} s, {where}"
        statuses = [json.loads(path.read_text())["status"] for path in (home / "out").glob("*/seed-0/run.json")]
        return None if set(statuses) <= {"preempted", "finished"} else f"run.json says {statuses}, {where}"

    return each("signals", seed, count, attempt)


KIND = Kind("signals", try_signals, short=1, about="signals at random moments of a run, while W&B's server is silent")
