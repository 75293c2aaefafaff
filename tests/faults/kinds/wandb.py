"""W&B's variables, keys and servers, odd ones: a run costs a line or two at most, and ends as it would have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from ablations.config import parse
from ablations.runtime.errors import UserError
from faults.bench import Kind, Tried, each
from helpers.odd_servers import ANSWERS, KEY, TRACKED_CELL, odd_server

ROOT = Path(__file__).resolve().parents[3]
_NAMED = (
    *("PROJECT", "ENTITY", "RUN_ID", "RESUME", "MODE", "SILENT", "CONSOLE", "TAGS", "BASE_URL", "IDENTITY_TOKEN_FILE", "API_KEY", "NAME"),
    *("RUN_GROUP", "NOTES", "DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR", "START_METHOD", "REINIT", "SWEEP_ID", "SERVICE"),
    *("RESUME_FROM", "FORK_FROM", "JOB_TYPE", "DISABLE_GIT", "DISABLE_CODE", "SAVE_CODE", "QUIET", "HTTP_TIMEOUT", "INIT_TIMEOUT", "HOST"),
    *("IGNORE_GLOBS", "PROGRAM", "SWEEP_PARAM_PATH", "SETTINGS_SYSTEM", "ERROR_REPORTING", "CORE_DEBUG", "DEBUG", "ANONYMOUS", "LAUNCH"),
)
_TEXTS = (
    *("", " ", "a/b", "a b", "true", "false", "None", "null", "0", "-1", "1e99", "nan", "maybe", "[1", "{", "x" * 300, "ä/é", "%s"),
    *("a\nb", "offline", "Offline", "shared", "must", "auto", "gone/gone", "/dev/null/gone", "http://127.0.0.1:1", "ftp://x", "a:b"),
)
_SECONDS = 60


def _environment(rng, home: Path) -> dict[str, str]:
    names = rng.choice(_NAMED, rng.integers(0, 4), replace=False).tolist()
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    own |= {"HOME": str(home), "NETRC": str(home / "netrc"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    own |= {"WANDB_CONFIG_DIR": str(home / "config"), "WANDB_CACHE_DIR": str(home / "cache")}
    return own | {f"WANDB_{name}": str(rng.choice(_TEXTS)) for name in names}


def _keys(rng) -> list[str]:
    names = rng.choice(["project", "entity", "group", "name"], rng.integers(0, 3), replace=False)
    return [f"wandb.{name}={rng.choice(_TEXTS)}" for name in names] + [f"wandb.mode={rng.choice(['auto', 'online', 'offline'])}"]


def try_wandb(seed: int, count: int, folder: Path) -> Tried:
    def attempt(rng, number) -> str | None:
        home = folder / str(number)
        home.mkdir()
        try:
            asked = parse(_keys(rng)).wandb
        except UserError as error:
            return None if len(str(error)) < 300 else f"a long line: {error}"
        environment = _environment(rng, home)
        if rng.random() < 0.3:
            (home / "wandb").mkdir()
            (home / "wandb" / "settings").write_text(f"[default]\nmode = {rng.choice(_TEXTS)}\n", encoding="utf-8")
        with odd_server(str(rng.choice(list(ANSWERS)))) as server:
            if rng.random() < 0.6:
                environment |= {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url}
            places = {name: getattr(asked, name) for name in ("project", "entity", "mode")}
            fields = json.dumps({"name": asked.name or "n", "group": asked.group, **places})
            command = [sys.executable, "-c", TRACKED_CELL, str(home / "run"), fields]
            began = time.monotonic()
            done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=4 * _SECONDS)
        lines = done.stderr.splitlines()
        shown = {name: value for name, value in environment.items() if name.startswith("WANDB_")}
        if done.returncode or done.stdout != "the cell is done\n":
            return f"code {done.returncode}, {done.stdout[:200]!r} {done.stderr[-300:]!r}, with {shown}"
        if len(lines) > 2 or not all(line.startswith("W&B: ") and len(line) < 300 for line in lines):
            return f"it said {done.stderr[:400]!r} ... {done.stderr[-200:]!r}, with {shown}"
        return None if time.monotonic() - began < _SECONDS else f"it took {time.monotonic() - began:.0f} s, with {shown}"

    return each("wandb", seed, count, attempt)


KIND = Kind("wandb", try_wandb, short=3, about="WANDB_ variables, wandb.* keys, settings files and servers, odd ones")
