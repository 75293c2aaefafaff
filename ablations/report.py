"""`python -m ablations.report OUTPUT_DIR --to DIR`: tables, intervals and verdicts from the run folders of an output folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.runtime.command_line import OneLineParser, run_command
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest

_DESCRIPTION = """\
Reads the finished cells in OUTPUT_DIR (run.json, scores.parquet, prompts.jsonl, images) and writes to DIR:

  report.html      one page, without network: every claim in one picture, verdicts in plain words, manipulation checks, the arms' pictures
                   side by side, sortable tables, plots with intervals and single seeds, what kept to the registration
  report.md        the same as Markdown, without the pictures
  report.tex       a document that compiles by itself; tables/*.tex are its tables (booktabs), to \\input in a paper
  tables/*.csv     a tidy file per table; verdicts.csv, cells.csv
  tables/scores.parquet   every score behind the tables: arm, seed, prompt, candidate, condition, metric, value

Tables: loss terms, AFE with its twins, prompt length, and coarse / refined / fine prompts with the controls. Arms are told apart by the
config in their run.json; each table holds everything fixed but the keys that it is about. Cells of other profiles, data or weights get
a section of their own, and rehearsals (backbones.init=random) enter no table. Neither W&B nor a GPU is needed.

Differences are paired by seed and prompt, with 95% intervals for new seeds and new prompts; 3 seeds are needed, 5 recommended.
The claims and what decides them are fixed in ablations/reporting/claims.yaml.
"""
_EXAMPLES = """\
examples:
  python -m ablations.report outputs --to report
  python -m ablations.report outputs --to report --wandb          also sent to W&B, where you are logged in
"""


def parser() -> OneLineParser:
    """The command line's arguments."""
    made = OneLineParser("report", _DESCRIPTION, _EXAMPLES)
    made.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="the output_dir of the runs")
    made.add_argument("--to", metavar="DIR", type=Path, required=True, help="the folder to write to; made where it is missing")
    made.add_argument(
        "--registration",
        metavar="FILE",
        type=Path,
        default=None,
        help="what ablations.plan --register wrote, to hold the runs against (default: OUTPUT_DIR/registration.json, if it is there)",
    )
    made.add_argument("--wandb", action="store_true", help="log tables and page to W&B as well, where that is online")
    made.add_argument("--with-weights", action="store_true", help="with --wandb: also the weights that each sweep's best arm trained")
    made.add_argument("--project", default="uf-fgtg-ablations", help="W&B's project (default: %(default)s)")
    made.add_argument("--entity", default=None, help="W&B's user or team (default: yours)")
    return made


def main(argv: list[str] | None = None) -> int:
    """Write the report; returns the exit code."""
    return run_command(parser(), _report, argv, then="begins anew")


def _report(arguments: argparse.Namespace, stop: StopRequest) -> int:
    from ablations.config.wandb_names import check_name

    for option in ("project", "entity"):
        check_name(f"--{option}", getattr(arguments, option))
    # Heavy imports (pandas, SciPy) only now: --help and mistakes in the arguments come at once.
    from ablations.reporting.making import Destination, make_report

    if arguments.with_weights and not arguments.wandb:
        raise UserError("--with-weights is for --wandb: add it")
    destination = Destination(arguments.project, arguments.entity, arguments.with_weights) if arguments.wandb else None
    return make_report(arguments.output_dir, arguments.to, destination, arguments.registration)


if __name__ == "__main__":
    sys.exit(main())
