"""Refining as the command line says: with a person at a terminal, or line by line in a pipe."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ablations.refiner import exported_refiner
from ablations.refiner.arguments import SETTINGS, RefineArguments
from ablations.refiner.hub_refiner import fetch, is_on_hub
from ablations.runtime.stopping import StopRequest

if TYPE_CHECKING:
    from ablations.refiner.prompt_refiner import PromptRefiner

INTERRUPTED, PIPE_CLOSED = 130, 141  # 128 + the signal's number, as shells count


def refine_prompts(arguments: RefineArguments, stop: StopRequest) -> int:
    """Refine what there is to refine; returns 0, INTERRUPTED or PIPE_CLOSED.

    Raises UserError for a refiner that cannot be loaded or a file that cannot be read, RunFolderError where one cannot be written.
    """
    try:
        say_what_has_no_effect(arguments)
        if arguments.input is None and sys.stdin.isatty() and sys.stdout.isatty():
            run_on_terminal(arguments)
            return 0
        return run_in_pipe(arguments)
    except KeyboardInterrupt:
        say("\ninterrupted")
        return INTERRUPTED


def load_refiner(arguments: RefineArguments) -> PromptRefiner:
    """Load libraries and refiner, and draw once, so that the first candidates come as quickly as later ones."""
    from ablations.runtime.quiet_libraries import quiet_libraries

    quiet_libraries()
    source = arguments.source
    if is_on_hub(source):
        _, source = fetch(str(source))  # before libraries are loaded, which takes longer than to find that it is not there
        say(f"refiner {source}")
    from ablations.refiner.prompt_refiner import PromptRefiner

    load = PromptRefiner.from_run if arguments.run is not None else PromptRefiner.from_pretrained
    refiner = load(source)
    once = dataclasses.replace(arguments.settings, prompt_len=1, max_new_tokens=1, keep=(), distinct=False)
    refiner.refine("a", **once.arguments())
    return refiner


def say_what_is_not_known(refiner: PromptRefiner) -> None:
    """A refiner from before it was written down cannot tell words that it never saw."""
    if refiner.seen is None:
        say("note: what this refiner read in training is not known, so no word is told as unknown: export it again from its run")


def say(text: object) -> None:
    """A remark for the one who waits; on standard error, since standard output belongs to records."""
    print(text, file=sys.stderr, flush=True)


def say_what_has_no_effect(arguments: RefineArguments) -> None:
    """Settings that were typed although the mode does not read them."""
    unread = "prompt_len" if arguments.settings.mode == "rewrite" else "max_new_tokens"
    if unread in arguments.given:
        say(f"note: {unread} has no effect with mode={arguments.settings.mode}")
    if arguments.settings.keep and arguments.settings.mode == "extend":
        say("note: keep has no effect with mode=extend, which keeps all of the prompt")


def run_on_terminal(arguments: RefineArguments) -> None:
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
    say_what_is_not_known(refiner)
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


def run_in_pipe(arguments: RefineArguments) -> int:
    """Refine every line; returns the exit code."""
    if arguments.prompt is None and arguments.input is None and sys.stdin.isatty():
        say("reading prompts from the terminal, one a line; Ctrl-D ends")
    say("loading the refiner (some seconds)")
    refiner = load_refiner(arguments)
    say_what_is_not_known(refiner)
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
