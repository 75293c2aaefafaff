"""What all commands share: how arguments are read, what a mistake looks like, and how a command ends. Imports no heavy library."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from ablations.runtime import early_signals
from ablations.runtime.errors import OneLineError, UserError, one_line, shortened
from ablations.runtime.launchers import require_numbers
from ablations.runtime.leaving import leave, leave_within
from ablations.runtime.quiet_libraries import quiet_libraries
from ablations.runtime.stopping import Preempted, StopRequest
from ablations.runtime.streams import forgiving_streams
from datamodules.files import WANT_OF_ROOM_OR_RIGHTS

LOADING = "loading libraries (some seconds)"
_HELP = ("--help", "-h")
# What libraries do when Python ends (W&B waits for its server) gets so long.
_LEAVE_SECONDS = 4.0


def started_as(command: str) -> str:
    """A command as people type it: "python -m ablations.run"."""
    return f"python -m ablations.{command}"


def hint(command: str) -> str:
    """How a mistake in the arguments ends: where the help is."""
    return f"({started_as(command)} --help)"


class OneLineParser(argparse.ArgumentParser):
    """The arguments of a command: argparse, but a mistake is a UserError of one line that ends in where the help is.

    `command` is the command's name, without "python -m ablations."; `about` and `examples` stand above and below the list of arguments
    that argparse makes of the help. `usage`, if given, is the whole help, or makes it of the arguments. With `words` it is this that reads
    the arguments, in place of argparse: key=value by the config's own reader, for instance. With `takes_keys` argparse reads what has no
    "=", and `arguments.keys` has the others, in order. `help` alone is --help, unless `help_word=False`.
    """

    def __init__(
        self,
        command: str,
        about: str = "",
        examples: str = "",
        *,
        usage: str | Callable[[list[str]], str] | None = None,
        words: Callable[[list[str]], Any] | None = None,
        takes_keys: bool = False,
        help_word: bool = True,
    ):
        super().__init__(
            prog=started_as(command),
            description=about,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._asked_with: list[str] = []
        self._hint, self._usage, self._words, self._takes_keys, self._help_word = hint(command), usage, words, takes_keys, help_word

    def read(self, argv: list[str]) -> Any:
        """The arguments, or None where help was asked for, which is then printed. Raises UserError for a mistake."""
        options = argv[: argv.index("--")] if "--" in argv else argv
        if any(word in _HELP for word in options) or (self._help_word and argv == ["help"]):
            self._asked_with = argv
            self.print_help()
            return None
        if self._words is not None:
            return self._words(argv)
        keys = [word for word in argv if self._is_key(word)] if self._takes_keys else []
        # Where a list of any length stands before the options, what comes after them belongs to it, too.
        has_list = any(action.nargs in ("?", "*", "+") for action in self._get_positional_actions())
        parse = self.parse_intermixed_args if has_list else self.parse_args
        arguments = parse([word for word in argv if word not in keys])
        if self._takes_keys:
            arguments.keys = keys
        return arguments

    def format_help(self) -> str:
        if self._usage is None:
            return super().format_help()
        return self._usage if isinstance(self._usage, str) else self._usage(self._asked_with)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{one_line(message)} {self._hint}")

    def _is_key(self, word: str) -> bool:
        name, equals, _ = word.partition("=")
        return bool(equals) and name not in self._option_string_actions


def run_command(
    parser: OneLineParser,
    work: Callable[[Any, StopRequest], int | None],
    argv: list[str] | None = None,
    then: str = "goes on from there",
    stoppable: bool = True,
) -> int:
    """Read the arguments (those of the process by default), do the work, and end as every command ends; returns the exit code.

    0: done, or help was shown; 2: a mistake of the user's; 1: anything else that is said in one line; 143: stopped by a signal,
    where `then` says what the same command does next time. `work(arguments, stop)` may return an exit code of its own. With
    `stoppable=False` it handles signals itself.
    """
    try:
        with forgiving_streams():
            code = _ended(parser, work, argv, then, stoppable)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        raise
    except BaseException:
        code = 1
        raise
    finally:
        if argv is None:  # the process is this command's
            leave_within(_LEAVE_SECONDS, code)
    if argv is None and code == Preempted.exit_code:
        leave(code)
    return code


def _ended(
    parser: OneLineParser, work: Callable[[Any, StopRequest], int | None], argv: list[str] | None, then: str, stoppable: bool
) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    stop = StopRequest()
    try:
        if stoppable:
            stop.install()
        else:
            early_signals.give_back()
        arguments = parser.read(sys.argv[1:] if argv is None else list(argv))
        if arguments is None:
            return 0
        require_numbers()
        return work(arguments, stop) or 0
    except (OneLineError, FloatingPointError) as error:
        say_error(error)
        return getattr(error, "exit_code", OneLineError.exit_code)
    except OSError as error:
        # Whatever wrote it: a full disk and a folder that is not ours are no faults of the program.
        if error.errno not in WANT_OF_ROOM_OR_RIGHTS:
            raise
        where = f" {error.filename}" if error.filename is not None else ""
        say_error(f"cannot read or write{where}: {error.strerror} (free space or permissions)")
        return OneLineError.exit_code
    except Preempted as preempted:
        print(f"stopped by a signal ({preempted}); the same command {then}", file=sys.stderr)
        return preempted.exit_code
    finally:
        stop.restore()


def say_error(error: object) -> None:
    """How every error is said: in one line, whose long values are shortened."""
    print(f"error: {shortened(error)}", file=sys.stderr, flush=True)


def announce_libraries(say: Callable[[str], object] | None = None) -> None:
    """Call before heavy imports: says that they take some seconds, and keeps libraries from talking about themselves."""
    if say is None:
        print(LOADING, flush=True)
    else:
        say(LOADING)
    quiet_libraries()


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argparse type: an integer of at least `least` and at most `most`."""
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number {bounds}")
        return int(text)

    return read


def number(least: float | None = None, above: float | None = None) -> Callable[[str], float]:
    """An argparse type: a finite number of at least `least` or above `above`."""
    bounds = f"of at least {least:g}" if least is not None else f"above {above:g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        is_within = math.isfinite(value) and (least is None or value >= least) and (above is None or value > above)
        if not is_within:
            raise argparse.ArgumentTypeError(f"{text!r} is no number {bounds}")
        return value

    return read


def shares(text: str) -> tuple[float, ...]:
    """An argparse type: numbers above 0 and at most 1 with commas between them, each once, in order."""
    try:
        found = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: write numbers with commas between them, as in 0.5,0.8,1") from error
    if not all(0 < value <= 1 for value in found):
        raise argparse.ArgumentTypeError(f"{text!r}: each must be above 0 and at most 1")
    return found


def whole_numbers(what: str, example: str, most: int) -> Callable[[str], tuple[int, ...]]:
    """An argparse type: integers from 0 to `most` with commas between them, each once, in order."""

    def read(text: str) -> tuple[int, ...]:
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isdecimal() and int(part) <= most for part in parts):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of {what}: write {example}")
        return tuple(sorted({int(part) for part in parts}))

    return read
