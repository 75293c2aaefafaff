"""The command line of `sweep` and `plan`."""

from __future__ import annotations

from dataclasses import dataclass, field

from ablations.runtime.errors import UserError


@dataclass
class Arguments:
    """A command line of `sweep` or `plan`: the sweep file, `key=value` arguments and options."""

    file: str = ""
    keys: list[str] = field(default_factory=list)
    options: dict[str, int | float | bool] = field(default_factory=dict)


def read_arguments(argv: list[str], numbers: tuple[str, ...], flags: tuple[str, ...], module: str) -> Arguments:
    """The command line, options being --NAME N, --NAME=N for `numbers` and --NAME for `flags`. Raises UserError in one line."""
    read = Arguments()
    words = list(argv)
    hint = f"(python -m {module} --help)"
    while words:
        word = words.pop(0)
        name, equals, text = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in flags and not equals:
            read.options[name] = True
        elif word.startswith("--") and name in numbers:
            text = text if equals else words.pop(0) if words else ""
            if not text.isdecimal() or (int(text) < 1 and name != "search-seed"):
                raise UserError(f"--{name} must be an integer of at least {int(name != 'search-seed')}, not {text!r} {hint}")
            read.options[name] = int(text)
        elif word.startswith("-") and not equals:
            options = ", ".join(f"--{known}" for known in (*numbers, *flags))
            raise UserError(f"unknown option {word}; there are {options} {hint}")
        elif equals:
            read.keys.append(word)
        elif read.file:
            raise UserError(f"one sweep file at a time, got {read.file!r} and {word!r} {hint}")
        else:
            read.file = word
    if not read.file:
        raise UserError(f"name a sweep file, as in python -m {module} sweeps/losses.yaml {hint}")
    return read
