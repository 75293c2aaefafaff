"""Argument lists and YAML files that nobody meant: a result, or one line and the exit code of a mistake, and never a traceback."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ablations.__main__ import commands
from ablations.config import KEYS
from ablations.runtime.command_line import OneLineParser, say_error
from ablations.runtime.errors import OneLineError
from faults.bench import Kind, Tried, each
from faults.kinds.folders import any_of

MOST_CHARACTERS = 301
VALUES = (
    *(
        "",
        " ",
        "-",
        "--",
        "=",
        "-1",
        "0",
        "3",
        "1e999",
        "nan",
        "inf",
        "1e-400",
        "9" * 400,
        "0x10",
        "1_000",
        "\N{ARABIC-INDIC DIGIT THREE}",
        "²",
    ),
    *("true", "null", "None", "[]", "{}", "${x}", "???", "a=b", "a,b,,", ",", "0,1,2", "x" * 5000, "x/" * 2000, "a\0b", "\udcff", "\ud800"),
    *("../..", "/", "/dev/null", "/proc/self/mem", "~nobody/x", ".", "é漢", "a\nb", "\x1b[31m", "%s%n", "'", '"', "$(x)", "*", "?"),
)
# What YAML's own constructors trip over, and what is well and no sweep.
SCALARS = (
    *(
        "!!int abc",
        "!!float x",
        "!!timestamp 2024-13-45",
        "2024-13-45",
        "[2024-13-45]",
        "9" * 5000,
        ".inf",
        ".nan",
        "!!python/object:os.system x",
    ),
    *(
        "!!binary ???",
        "&a [*a]",
        "*b",
        "!!bool maybe",
        "{a: {b: {c: 1}}}",
        "[1, [2]]",
        "~",
        "''",
        '"\\ud800"',
        "!!set {a}",
        "!!omap x",
        "0o9",
        "1e400",
    ),
    *(
        "{values: [1, 2]}",
        "{value: 3}",
        "{min: 1, max: 2}",
        "{min: 0, max: .inf}",
        "{min: 1, max: 2, q: .inf}",
        "{values: []}",
        "{values: 3}",
    ),
    *(
        "{min: a, max: b}",
        "{distribution: x}",
        "{min: 1, max: 2, distribution: q_uniform, q: 0}",
        "{probabilities: [1], values: [.nan]}",
        "!x y",
    ),
    *("[" * 3000, "{a: " * 2000, "- - -", "|", "? a", "<<: 1", "{<<: [1]}", "true", "[true]", "{min: 1, max: 9e99}", "{min: -1, max: 0}"),
)
FIELDS = (
    "method",
    "program",
    "parameters",
    "metric",
    "run_cap",
    "command",
    "name",
    "project",
    "seed",
    "prompt_len",
    "early_terminate",
    "1",
    "~",
)


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """What is said meanwhile."""
    said = io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield said
    finally:
        logging.disable(logging.NOTSET)


def parser_of(command: str) -> OneLineParser:
    """The parser that a command's main makes."""
    module = importlib.import_module(f"ablations.{command}" if command != "metrics" else "ablations.metrics.__main__")
    made: list[OneLineParser] = []
    original = module.run_command
    module.run_command = lambda parser, *_, **__: made.append(parser) or 0
    try:
        module.main([])
    finally:
        module.run_command = original
    return made[0]


def a_word(rng: np.random.Generator, options: list[str]) -> str:
    value = any_of(rng, VALUES)
    match int(rng.integers(6)):
        case 0:
            return any_of(rng, options) if options else value
        case 1:
            return f"{any_of(rng, options) if options else '--x'}={value}"
        case 2:
            return f"{any_of(rng, list(KEYS))}={value}"
        case 3:
            return f"--{any_of(rng, list(KEYS))}"
        case 4:
            return f"{any_of(rng, ('run', 'from', 'runs', 'port', 'input', 'output', 'config', 'seed', 'num_candidates', 'x'))}={value}"
    return value


def a_yaml(rng: np.random.Generator) -> str:
    lines = [] if rng.random() < 0.5 else ["program: ablations/run.py", "method: random", "run_cap: 2"]
    for _ in range(int(rng.integers(1, 4))):
        lines.append(f"{any_of(rng, FIELDS)}: {any_of(rng, SCALARS)}")
    if rng.random() < 0.6:
        lines.append("parameters:")
        lines += [f"  {any_of(rng, (*list(KEYS)[:20], *FIELDS))}: {any_of(rng, SCALARS)}" for _ in range(int(rng.integers(1, 3)))]
    return "\n".join(lines) + "\n"


def problem_of_line(line: str) -> str | None:
    if "\n" in line.strip():
        return f"several lines: {line[:200]!r}"
    return None if len(line) < MOST_CHARACTERS else f"{len(line)} characters: {line[:200]!r}"


def problem_of_words(parser: OneLineParser, words: list[str]) -> str | None:
    with quiet() as said:
        try:
            parser.read(words)
            return None
        except OneLineError as error:
            say_error(error)
        except SystemExit as ended:
            return f"it ended with {ended.code}" if ended.code else None  # argparse's own way to show the help
    return problem_of_line(said.getvalue().splitlines()[-1] if said.getvalue().count("error: ") == 1 else said.getvalue())


def problem_of_command(command: str, words: list[str]) -> str | None:
    """Of a command that is given something that is not there: it must end at once, with one line."""
    module = importlib.import_module(f"ablations.{command}")
    with quiet() as said:
        code = module.main(words)
    if code not in (0, 1, 2):
        return f"exit code {code}"
    lines = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    return problem_of_line(lines[-1]) if lines else None


def a_path(rng: np.random.Generator, folder: Path) -> str:
    return any_of(
        rng, ("x" * 5000, "a\0b", "\udcff", "x/" * 3000, "", "/dev/null", "nowhere", str(folder / "nowhere" / ("y" * 300)), "/proc/1/mem")
    )


# Commands that begin with something to be read: it is not there.
READ_FIRST = {
    **{"report": ["PATH"], "controls": ["PATH"], "checks": ["PATH"], "export": ["PATH", "--to", "PATH"], "frontier": ["PATH"]},
    **{
        "plan": ["PATH", "--no-probe"],
        "sweep": ["PATH"],
        "run": ["config=PATH"],
        "prompt_lengths": ["PATH", "PATH"],
        "alignment": ["PATH"],
        "significance": ["PATH"],
    },
}


def try_arguments(seed: int, count: int, folder: Path) -> Tried:
    """Hand random words to the parsers of all commands, paths that are not there to commands, and odd YAML to the reader of sweeps."""
    parsers = {command: parser_of(command) for command in commands()}
    options = {command: [o for action in parser._actions for o in action.option_strings] for command, parser in parsers.items()}

    def attempt(rng: np.random.Generator, number: int) -> str | None:
        kind = rng.random()
        if kind < 0.1:
            command = any_of(rng, list(READ_FIRST))
            words = [word.replace("PATH", a_path(rng, folder)) for word in READ_FIRST[command]]
            words += [f"output_dir={folder / 'out'}"] if command in ("plan", "sweep", "run") else []
            problem = problem_of_command(command, words)
        elif kind < 0.25:
            file = folder / "odd.yaml"
            file.write_text(a_yaml(rng), encoding="utf-8")
            command = any_of(rng, ("plan", "plan", "run"))
            words = [f"config={file}", "--x"] if command == "run" else [str(file), "--no-probe", f"output_dir={folder / 'out'}"]
            problem = problem_of_command(command, words)
            problem = problem and f"{problem} ({file.read_text()!r:.300})"
        else:
            command = any_of(rng, list(parsers))
            words = [a_word(rng, options[command]) for _ in range(int(rng.integers(1, 6)))]
            problem = problem_of_words(parsers[command], words)
        return problem and f"{command} {[word[:60] for word in words]}: {problem}"

    return each("arguments", seed, count, attempt)


KIND = Kind("arguments", try_arguments, short=300, about="bad argument lists, paths that nothing has, and odd YAML")
