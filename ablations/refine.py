"""`python -m ablations.refine "a green tree"`: refine prompts, with a person at a terminal or line by line in a pipe. `--help` explains."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.config import KEYS, show
from ablations.config.parsing import Key, Option, Scalar, convert
from ablations.refiner import exported_refiner
from ablations.refiner.session import RefiningSettings
from ablations.results.trained_run import find_trained_run
from ablations.runtime.errors import RunFolderError, UserError, one_line

if TYPE_CHECKING:
    from ablations.refiner.prompt_refiner import PromptRefiner

INTERRUPTED, PIPE_CLOSED = 130, 141  # 128 + the signal's number, as shells count
_EXPLAINED = {
    "prompt_len": "how many tokens a candidate adds to the prompt (mode=extend)",
    "mode": "extend: the prompt as it is, and more (strategy 1); rewrite: the whole prompt written anew (strategy 2)",
    "max_new_tokens": "the longest prompt that mode=rewrite writes, in tokens; the paper takes 20 and 50",
    "num_candidates": "candidates of each prompt",
    "seed": "equal seeds give equal candidates, here, in Python and on the page",
}
_BORROWED = {
    "mode": "eval.mode",
    "prompt_len": "prompt_len",
    "max_new_tokens": "eval.max_new_tokens",
    "num_candidates": "eval.num_candidates",
    "seed": "seed",
}
# What decides about candidates is declared with the config's keys; the defaults are those of PromptRefiner.refine.
SETTINGS: dict[str, Key] = {
    name: dataclasses.replace(KEYS[source], name=name, default=getattr(RefiningSettings, name)) for name, source in _BORROWED.items()
}


def _file(name: str, text: str, default: str | None = None) -> Key:
    return Key(name, str, default is None, default, Option("run", text, path=True))


OWN_KEYS: dict[str, Key] = {
    "run": _file("run", "the run whose refiner is used, OUTPUT_DIR/ARM/seed-SEED; null: the embedded tiny refiner"),
    "from": _file("from", "a folder that python -m ablations.export wrote, in its place"),
    **SETTINGS,
    "images": Key("images", bool, False, False, Option("run", "draw every candidate, and the prompt before it")),
    "grid": _file("grid", "with images=true: the PNG to write; in a pipe every 12 prompts make a page: FILE, FILE-2, ...", "refined.png"),
    "input": _file("input", "a file of prompts, one a line"),
    "output": _file("output", "where records go, in place of standard output; on a terminal: the session's history, as JSON"),
}

_USAGE = """\
usage: python -m ablations.refine [PROMPT] [key=value ...]

Makes short prompts into fuller ones. Without run= and from= it uses the embedded tiny refiner, which was trained on the tiny world
and claims nothing about Stable Diffusion 2.1.

On a terminal it shows three candidates: pick one and it goes on from there. Type r to redraw, b to go back, a text to edit, Enter
to finish, ? for all commands. Elsewhere (a pipe, input=FILE) it reads prompts, one a line, and writes one JSON record a line, in order,
each as soon as it is done:
  {"line": 1, "status": "ok", "reason": null, "coarse": "a green tree", "seed": 0, ..., "candidates": [{"refined": ...}, ...]}
status is ok, cleaned (control characters were taken out), shortened (more tokens than the decoder takes) or skipped (empty, not
UTF-8); reason says what happened.

examples:
  python -m ablations.refine "a green tree"
  python -m ablations.refine "a green tree" mode=rewrite max_new_tokens=20
  python -m ablations.refine "a green tree" images=true run=outputs/ARM/seed-0
  python -m ablations.refine input=prompts.txt output=refined.jsonl num_candidates=1
  cat prompts.txt | python -m ablations.refine | jq -r '.candidates[].refined'

A word with = in it is a setting; write -- before a prompt that has one. Exit codes: 0 done, 2 a mistake in the arguments,
130 interrupted, 141 the reader of the output went away, 1 anything else.
"""


@dataclass(frozen=True)
class Arguments:
    """The command line, checked. `prompt` is None where prompts are read; `given` are the keys that were typed."""

    prompt: str | None
    run: Path | None
    exported: Path | None
    settings: RefiningSettings
    images: bool
    grid: Path
    input: Path | None
    output: Path | None
    given: frozenset[str]

    @property
    def source(self) -> Path:
        """The folder that the refiner comes from."""
        return self.run or self.exported or exported_refiner.EMBEDDED


def help_text() -> str:
    """The text of --help."""
    column = max(len(f"{name}={show(key.default)}") for name, key in OWN_KEYS.items())
    lines = []
    for name, key in OWN_KEYS.items():
        allowed = "" if key.type in (str, bool) and not key.option.choices else f"; {key.allowed()}"
        lines.append(f"  {f'{name}={show(key.default)}':<{column}}  {_EXPLAINED.get(name, key.option.text)}{allowed}")
    return f"{_USAGE}\nkeys, as key=default:\n\n" + "\n".join(lines) + "\n"


def parse_arguments(argv: Iterable[str]) -> Arguments:
    """The command line. Raises UserError for an unknown or repeated key, an impossible value, and a file that is not there."""
    words, typed, only_words = [], {}, False
    for argument in argv:
        name, equals, text = argument.removeprefix("--").partition("=")
        if argument == "--" and not only_words:
            only_words = True
        elif only_words or not (argument.startswith("--") or (equals and re.fullmatch(r"[\w.-]+", name))):
            words.append(argument)
        elif name not in OWN_KEYS or not equals:
            raise UserError(_unknown(argument, name))
        elif name in typed:
            raise UserError(f"{name} is given twice on the command line; give it once")
        else:
            typed[name] = convert(OWN_KEYS[name], text)
    values: dict[str, Any] = {name: typed.get(name, key.default) for name, key in OWN_KEYS.items()}
    arguments = Arguments(
        prompt=" ".join(words) if words else None,
        run=_path(values["run"]),
        exported=_path(values["from"]),
        settings=RefiningSettings(**{name: values[name] for name in SETTINGS}),
        images=values["images"],
        grid=Path(values["grid"]),
        input=_path(values["input"]),
        output=_path(values["output"]),
        given=frozenset(typed),
    )
    _check(arguments)
    return arguments


def _path(value: Scalar) -> Path | None:
    return None if value is None else Path(str(value))


def _unknown(argument: str, name: str) -> str:
    near = difflib.get_close_matches(name.rpartition(".")[2].lower().replace("-", "_"), OWN_KEYS, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown key {name!r}{guess} (python -m ablations.refine --help lists all; before a prompt such as {argument!r} write --)"


def _check(arguments: Arguments) -> None:
    """What can be wrong with values that are possible one by one."""
    a = arguments
    if a.run is not None and a.exported is not None:
        raise UserError(f"run={a.run} and from={a.exported} both name a refiner: give one of them")
    if a.prompt is not None and not a.prompt.strip():
        raise UserError('the prompt is empty: write one, as in python -m ablations.refine "a green tree"')
    if a.prompt is not None and any("\ud800" <= character <= "\udfff" for character in a.prompt):
        raise UserError("the prompt is not valid UTF-8: check the terminal's encoding")
    if a.prompt is not None and a.input is not None:
        raise UserError(f"input={a.input} has no effect beside a prompt on the command line: give one of them")
    if a.input is not None and not a.input.is_file():
        raise UserError(f"input: there is no file {str(a.input)!r}")
    for name, path in (("output", a.output), ("grid", a.grid if a.images else None)):
        if path is not None and path.is_dir():
            raise UserError(f"{name}: {str(path)!r} is a folder; name a file")
    if a.images and a.grid.suffix.lower() != ".png":
        raise UserError(f"grid: {str(a.grid)!r} must end in .png")
    if a.output is not None and a.input is not None and os.path.realpath(a.output) == os.path.realpath(a.input):
        raise UserError(f"output: {str(a.output)!r} is the input itself; name another file")
    if "grid" in a.given and not a.images:
        raise UserError("grid= has no effect without images=true: add it, or leave grid out")


def check_source(arguments: Arguments) -> None:
    """Raises UserError where the refiner's folder is none, before libraries are loaded."""
    if arguments.run is not None:
        find_trained_run(arguments.run)
    else:
        exported_refiner.read(arguments.source)


def load_refiner(arguments: Arguments) -> PromptRefiner:
    """Load libraries and refiner, and draw once, so that the first candidates come as quickly as later ones."""
    from ablations.runtime.quiet_libraries import quiet_libraries

    quiet_libraries()
    from ablations.refiner.prompt_refiner import PromptRefiner

    load = PromptRefiner.from_run if arguments.run is not None else PromptRefiner.from_pretrained
    refiner = load(arguments.source)
    refiner.refine("a", **dataclasses.asdict(dataclasses.replace(arguments.settings, prompt_len=1, max_new_tokens=1)))
    return refiner


def say(text: object) -> None:
    """A remark for the one who waits; on standard error, since standard output belongs to records."""
    print(text, file=sys.stderr, flush=True)


def say_what_has_no_effect(arguments: Arguments) -> None:
    """Settings that were typed although the mode does not read them."""
    unread = "prompt_len" if arguments.settings.mode == "rewrite" else "max_new_tokens"
    if unread in arguments.given:
        say(f"note: {unread} has no effect with mode={arguments.settings.mode}")


def run_on_terminal(arguments: Arguments) -> None:
    """Talk with the person at the terminal until they finish."""
    prompt = arguments.prompt
    while prompt is None or not prompt.strip():
        try:
            prompt = input("prompt: ")
        except EOFError:
            print()
            return
    print("loading the refiner (some seconds)", flush=True)
    refiner = load_refiner(arguments)
    from rich.console import Console

    from ablations.config.scope import TINY_WORLD_NOTE
    from ablations.refiner.terminal import TerminalSession

    console = Console(highlight=False)
    note = f" ({TINY_WORLD_NOTE})" if refiner.config.profile == "tiny" else ""
    name = "the embedded tiny refiner" if arguments.source == exported_refiner.EMBEDDED else str(arguments.source)
    console.print(f"{name}{note}; type ? for help", markup=False, style="dim")
    grid = arguments.grid if arguments.images else None
    session = TerminalSession(refiner, arguments.settings, keys=SETTINGS, console=console, history=arguments.output, grid=grid)
    result = session.run(prompt)
    if result is not None:
        print(f"\n{result}", flush=True)


def run_in_pipe(arguments: Arguments) -> int:
    """Refine every line; returns the exit code."""
    if arguments.prompt is None and arguments.input is None and sys.stdin.isatty():
        say("reading prompts from the terminal, one a line; Ctrl-D ends")
    say("loading the refiner (some seconds)")
    refiner = load_refiner(arguments)
    from ablations.refiner.pictures import GridPages
    from ablations.refiner.pipe import Tally, partial_path, records, write_records, write_records_to_file

    pages = GridPages(refiner, arguments.grid, "refined prompts") if arguments.images else None
    tally = Tally(say)
    with contextlib.ExitStack() as files:
        if arguments.prompt is not None:
            lines: Iterable[bytes] = [arguments.prompt.encode()]
        elif arguments.input is not None:
            lines = files.enter_context(open(arguments.input, "rb"))
        else:
            lines = sys.stdin.buffer
        made = records(lines, refiner, arguments.settings, pages)
        try:
            if arguments.output is None:
                write_records(made, sys.stdout.buffer, tally)
            else:
                write_records_to_file(made, arguments.output, tally)
        except BrokenPipeError:
            # What is left in the buffer has no reader; without this Python complains about it on its way out.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return PIPE_CLOSED
        except KeyboardInterrupt:
            where = "" if arguments.output is None else f"; the records are in {partial_path(arguments.output)}"
            say(f"interrupted after {tally}{where}")
            return INTERRUPTED
    say(tally)
    for page in pages.written if pages is not None else ():
        say(f"pictures: {page}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Refine as the arguments say; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if "--help" in argv or "-h" in argv:
        print(help_text(), end="")
        return 0
    try:
        arguments = parse_arguments(argv)
        check_source(arguments)
        say_what_has_no_effect(arguments)
        if arguments.input is None and sys.stdin.isatty() and sys.stdout.isatty():
            run_on_terminal(arguments)
            return 0
        return run_in_pipe(arguments)
    except (UserError, RunFolderError) as error:
        say(f"error: {one_line(error)}")
        return error.exit_code
    except KeyboardInterrupt:
        say("\ninterrupted")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
