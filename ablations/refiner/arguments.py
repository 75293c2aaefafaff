"""The command line of `refine`: a prompt, and key=value words about what is made of it. Imports no heavy library."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.config import KEYS
from ablations.config.parsing import Key, Option, Scalar, convert, read_command_line
from ablations.refiner import exported_refiner
from ablations.refiner.hub_refiner import check_exported
from ablations.refiner.own_words import MOST_KEPT, banned_words, check_own_words, phrases
from ablations.refiner.session import RefiningSettings
from ablations.results.trained_run import find_trained_run
from ablations.runtime.command_line import started_as
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import is_file, is_folder

_HINT = f"({started_as('refine')} --help; write -- before a prompt with = in it)"
_BORROWED = {
    "mode": "eval.mode",
    "prompt_len": "prompt_len",
    "max_new_tokens": "eval.max_new_tokens",
    "num_candidates": "eval.num_candidates",
    "seed": "seed",
    "any_piece": "eval.any_piece",
}
# What decides about candidates is declared with the config's keys; the defaults are those of PromptRefiner.refine.
SETTINGS: dict[str, Key] = {
    name: dataclasses.replace(KEYS[source], name=name, default=getattr(RefiningSettings, name)) for name, source in _BORROWED.items()
} | {
    "distinct": Key("distinct", bool, False, True, Option("run", "draw a candidate that equals an earlier one again, at most 8 times")),
    "keep": Key("keep", str, True, None, Option("run", "words and phrases, with commas between them, that mode=rewrite must keep")),
    "ban": Key("ban", str, True, None, Option("run", "words and phrases that are never written, or @FILE with one a line")),
}


def _file(name: str, text: str, default: str | None = None) -> Key:
    return Key(name, str, default is None, default, Option("run", text, path=True))


OWN_KEYS: dict[str, Key] = {
    "run": _file("run", "the run whose refiner is used, OUTPUT_DIR/ARM/seed-SEED; null: the embedded tiny refiner"),
    "from": _file("from", "in its place: a folder that python -m ablations.export wrote, or OWNER/NAME[@REVISION] on a hub"),
    **SETTINGS,
    "images": Key("images", bool, False, False, Option("run", "draw every candidate, and the prompt before it")),
    "grid": _file("grid", "with images=true: the PNG to write; in a pipe every 12 prompts make a page: FILE, FILE-2, ...", "refined.png"),
    "input": _file("input", "a file of prompts, one a line"),
    "output": _file("output", "where records go, in place of standard output; on a terminal: the session's history, as JSON"),
}


@dataclass(frozen=True)
class RefineArguments:
    """The command line, checked. `prompt` is None where prompts are read; `given` are the keys that were typed."""

    prompt: str | None
    run: Path | None
    exported: str | None
    settings: RefiningSettings
    images: bool
    grid: Path
    input: Path | None
    output: Path | None
    given: frozenset[str]

    @property
    def source(self) -> Path | str:
        """The folder that the refiner comes from, or its name on a hub."""
        return self.run or self.exported or exported_refiner.EMBEDDED


def parse_arguments(argv: Iterable[str]) -> RefineArguments:
    """The command line. Raises UserError for an unknown or repeated key, an impossible value, and a file that is not there."""
    words, pairs = _words_and_pairs(list(argv))
    typed = {name: convert(OWN_KEYS[name], text) for name, text in read_command_line(pairs, OWN_KEYS, _HINT).items()}
    values: dict[str, Any] = {name: typed.get(name, key.default) for name, key in OWN_KEYS.items()}
    arguments = RefineArguments(
        prompt=" ".join(words) if words else None,
        run=_path(values["run"]),
        exported=values["from"],
        settings=RefiningSettings(**{name: setting_value(name, values[name]) for name in SETTINGS}),
        images=values["images"],
        grid=Path(values["grid"]),
        input=_path(values["input"]),
        output=_path(values["output"]),
        given=frozenset(typed),
    )
    _check(arguments)
    check_own_words(arguments.settings.keep, arguments.settings.ban)
    check_source(arguments)
    return arguments


def setting_value(name: str, value: Scalar) -> Any:
    """The value of a setting as `RefiningSettings` has it: lists of words are taken apart. Raises UserError for words that cannot be."""
    if name == "keep":
        return phrases("keep", str(value or ""), MOST_KEPT)
    return banned_words(str(value or "")) if name == "ban" else value


def _words_and_pairs(argv: list[str]) -> tuple[list[str], list[str]]:
    """The words of the prompt, and the settings; after -- every word is the prompt's."""
    end = argv.index("--") if "--" in argv else len(argv)
    words, pairs = [], []
    for argument in argv[:end]:
        is_pair = argument.startswith("--") or re.match(r"[\w.-]+=", argument)
        (pairs if is_pair else words).append(argument)
    return [*words, *argv[end + 1 :]], pairs


def _path(value: Scalar) -> Path | None:
    return None if value is None else Path(str(value))


def _check(arguments: RefineArguments) -> None:
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
    if a.input is not None and not is_file(a.input):
        raise UserError(f"input: there is no file {str(a.input)!r}")
    for name, path in (("output", a.output), ("grid", a.grid if a.images else None)):
        if path is not None and is_folder(path):
            raise UserError(f"{name}: {str(path)!r} is a folder; name a file")
    if a.images and a.grid.suffix.lower() != ".png":
        raise UserError(f"grid: {str(a.grid)!r} must end in .png")
    if a.output is not None and a.input is not None and os.path.realpath(a.output) == os.path.realpath(a.input):
        raise UserError(f"output: {str(a.output)!r} is the input itself; name another file")
    if "grid" in a.given and not a.images:
        raise UserError("grid= has no effect without images=true: add it, or leave grid out")


def check_source(arguments: RefineArguments) -> None:
    """Raises UserError where the refiner's folder is none, before libraries are loaded."""
    if arguments.run is not None:
        find_trained_run(arguments.run)
    elif arguments.exported is not None:
        check_exported(arguments.exported)
