"""A comparison from beginning to end: read, carried out, written and shown."""

from __future__ import annotations

import argparse
import logging

from ablations.cell.processes.place import refuse_launcher
from ablations.comparing.arguments import read_comparison
from ablations.runtime.command_line import announce_libraries
from ablations.runtime.plugins import load_plugins
from ablations.runtime.quiet_libraries import quiet_libraries
from ablations.runtime.stopping import StopRequest


def make_comparison(arguments: argparse.Namespace, stop: StopRequest) -> None:
    """Carry a comparison out, write it, and show its table.

    Raises UserError for a mistake in the arguments or a method that cannot be had, FloatingPointError for a training that diverges, and
    Preempted at a signal.
    """
    refuse_launcher()
    load_plugins(arguments.plugins)
    comparison = read_comparison(arguments)
    if arguments.progress != "none":
        announce_libraries()
    quiet_libraries()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    from ablations.comparing.carrying_out import carry_out
    from ablations.comparing.tables import duels, main_table
    from ablations.comparing.writing import shown_lines, shown_table, write
    from ablations.runtime.console import Console

    console = Console(arguments.progress)
    seeds = ", ".join(map(str, comparison.seeds))
    console.say(f"{comparison.arm}, seeds {seeds}: {len(comparison.methods)} methods, {comparison.num_prompts} prompts")
    results = carry_out(comparison, console, stop)
    table = main_table(results)
    against = duels(table, results)
    written = write(results, table, against)
    console.table(shown_table(results, table))
    console.say("* differs from our refiner (p < 0.05, Holm-corrected); intervals are in comparison.md")
    for line in shown_lines(against):
        console.say(line)
    for note in table.notes:
        console.say(note)
    console.say(f"written: {written[0]} and {len(written) - 1} other files, prompts, scores and images beside it")
