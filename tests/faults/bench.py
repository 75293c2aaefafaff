"""The fault bench: kinds of faults, and how many of those that were tried held.

    uv run pytest tests/faults                                  # a few of each kind
    uv run pytest tests/faults --faults 600 -k damage -n 0      # 600 of one kind

A kind is a file in `kinds/` with a generator `try_KIND(seed, count, folder) -> Tried` and a line `KIND = Kind(...)`: it finds itself.
Everything that a generator does follows from its seeds, seed, seed + 1, ..., so that each try can be had again alone: `--faults 1
--faults-from SEED`.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

_SHOWN = 10


@dataclass
class Tried:
    """How many faults of a kind were tried, and what did not hold: a line each, which begins with "seed N"."""

    kind: str
    tried: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def held(self) -> int:
        return self.tried - len(self.problems)

    def __str__(self) -> str:
        return f"{self.kind}: {self.tried} | {self.held}"


@dataclass(frozen=True)
class Kind:
    """A kind of faults: its generator, how many are tried without `--faults`, and what they are, in a few words.

    All kinds together take about a minute, by two processes less: give a new one as many tries as fit into some seconds.
    """

    name: str
    generator: Callable[[int, int, Path], Tried]
    short: int
    about: str


def each(kind: str, seed: int, count: int, attempt: Callable[[np.random.Generator, int], str | None]) -> Tried:
    """Try seed, seed + 1, ...: `attempt(rng, seed)` gives None where it held, else what was wrong. An exception is wrong, too."""
    done = Tried(kind)
    for number in range(seed, seed + count):
        try:
            problem = attempt(np.random.default_rng([number, sum(kind.encode())]), number)
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__}: {error} ({Path(at.filename).name}:{at.lineno})"
        done.tried += 1
        if problem is not None:
            done.problems.append(f"seed {number}: {problem}")
    return done


def kinds() -> dict[str, Kind]:
    """Every kind by its name: of each file in `kinds/`, its `KIND`."""
    names = sorted(file.stem for file in (Path(__file__).parent / "kinds").glob("*.py"))
    found = [importlib.import_module(f"faults.kinds.{name}").KIND for name in names]
    return {kind.name: kind for kind in found}


def explained(done: Tried) -> str:
    """What is said where some did not hold: the first of them."""
    left = len(done.problems) - _SHOWN
    return "\n".join([str(done), *done.problems[:_SHOWN], *([f"... and {left} more"] if left > 0 else [])])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", type=int, metavar="N", help="fault bench: try N of each kind (default: a few)")
    parser.addoption("--faults-from", type=int, default=0, metavar="SEED", help="fault bench: the seed of the first try (default: 0)")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print "kind: tried | held" of each kind: in the process that people see, whichever one tried."""
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, [])]
    lines = [value for report in reports for name, value in getattr(report, "user_properties", []) if name == "faults"]
    if lines:
        terminalreporter.section("faults: tried | held")
        for line in sorted(lines):
            terminalreporter.line(line)
