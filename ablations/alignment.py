"""`python -m ablations.alignment RUN_DIR`: did training bring E_T(T_C) closer to what the frozen encoder makes of T_F?

The refiner's premise is that a trained E_T reads a coarse prompt as if it were the fine one. Measured here as the cosine between E_T's
features of the coarse prompt and the original, frozen encoder's features of its fine prompt, at step 0 (where E_T *is* the frozen encoder)
and after training, paired by prompt and seed:

    pooled    cos of the pooled joint-space features, as L_clip and feature matching read them
    states    mean over the fine prompt's positions, start and end token included, of the cos of the text states that the UNet reads

A control stands beside each: the same against the fine prompt of *another* coarse prompt. What rises there too is a drift towards fine
prompts in general and says nothing of this prompt's meaning; `own - other` is what is specific.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.analysing.alignment import compare, content_of, draw, evaluated_pairs, find_runs, measure, table_of
from ablations.runtime.command_line import OneLineParser
from ablations.runtime.errors import RunFolderError, UserError, one_line

if TYPE_CHECKING:
    pass

_DESCRIPTION = """\
How near E_T's features of the coarse prompts are to the frozen text encoder's features of the fine ones, as cosines, before training
(step 0) and after it, over evaluation prompts. A control compares with another prompt's fine prompt: what rises there too is no merit.

RUN_DIR is OUTPUT_DIR/ARM/seed-SEED; several seeds of one arm, or the arm's folder, are pooled. One run gives an interval over prompts
only, and says so; two give none; three or more give one that holds for new seeds and prompts.

Writes to DIR: alignment.json (means, differences, intervals, a row per prompt and seed) and alignment.png.
"""
_EXAMPLES = """\
examples:
  python -m ablations.alignment outputs/ARM/seed-0                        over the prompts that the run was evaluated on
  python -m ablations.alignment outputs/ARM --num-prompts 200 --to figures    every seed of the arm, over more held-out prompts
"""


# -- the command ------------------------------------------------------------------------------------------------------


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line. Exits with code 2 for a mistake."""
    parser = OneLineParser(
        prog="python -m ablations.alignment",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dirs", nargs="+", metavar="RUN_DIR", type=Path, help="trained runs of one arm, or the arm's folder")
    parser.add_argument(
        "--num-prompts", type=int, metavar="N", help="the first N held-out prompts (default: those that the run was evaluated on)"
    )
    parser.add_argument("--to", type=Path, metavar="DIR", help="where the two files go (default: the first RUN_DIR)")
    arguments = parser.parse_args(argv)
    if arguments.num_prompts is not None and arguments.num_prompts < 1:
        parser.error(f"--num-prompts must be at least 1, not {arguments.num_prompts}")
    arguments.to = arguments.to or arguments.run_dirs[0]
    if arguments.to.exists() and not arguments.to.is_dir():
        parser.error(f"--to {arguments.to} is a file: give a folder")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write; returns the exit code."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        runs = find_runs(arguments.run_dirs)
        if arguments.num_prompts is None:
            evaluated_pairs(runs[0])  # a missing file is said before the libraries are loaded
        print("loading libraries (some seconds)", flush=True)
        from ablations.runtime.quiet_libraries import quiet_libraries

        quiet_libraries()
        from ablations.runtime.console import Console
        from ablations.runtime.files import write_json

        console = Console()
        pairs, step0, trained = measure(runs, arguments.num_prompts, console)
        comparisons = compare(step0, trained, [pair.coarse for pair in pairs])
        size = f"N = {len(runs)} seed{'s' if len(runs) > 1 else ''} x {comparisons[0].num_prompts} distinct coarse prompts"
        title = f"{runs[0].run['arm']}" + (", tiny world" if runs[0].config.profile == "tiny" else "") + f", {size}"
        write_json(arguments.to / "alignment.json", content_of(runs, pairs, step0, trained, comparisons))
        draw(arguments.to / "alignment.png", title, step0, trained, comparisons)
    except (UserError, RunFolderError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    console.table(table_of(title, comparisons))
    notes = dict.fromkeys(comparison.note for comparison in comparisons if comparison.note)
    console.say("; ".join([*notes, "* the interval excludes 0"] if any(c.low is not None for c in comparisons) else notes))
    console.say(f"figure: {arguments.to / 'alignment.png'}, figures in numbers: {arguments.to / 'alignment.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
