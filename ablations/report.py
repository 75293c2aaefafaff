"""`python -m ablations.report OUTPUT_DIR --to DIR`: tables, intervals and verdicts from the run folders of an output folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ablations.runtime.command_line import OneLineParser
from ablations.runtime.errors import RunFolderError, UserError, one_line

_DESCRIPTION = """\
Reads the finished cells in OUTPUT_DIR (run.json, scores.parquet, prompts.jsonl, images) and writes to DIR:

  report.html      one page, without network: verdicts, sortable tables, plots with intervals, the arms' pictures side by side
  report.md        the same as Markdown, without the pictures
  report.tex       a document that compiles by itself; tables/*.tex are its tables (booktabs), to \\input in a paper
  tables/*.csv     a tidy file per table; verdicts.csv, cells.csv

Tables: loss terms, AFE, prompt length, and coarse / refined / fine prompts with the controls. Arms are told apart by the config in
their run.json; each table holds everything fixed but the keys that it is about. Cells of other profiles, data or weights get a section of
their own, and rehearsals (backbones.init=random) enter no table. Neither W&B nor a GPU is needed.

Differences are paired by seed and prompt, with 95% intervals for new seeds and new prompts; 3 seeds are needed, 5 recommended.
The claims and what decides them are fixed in ablations/reporting/claims.yaml.
"""
_EXAMPLES = """\
examples:
  python -m ablations.report outputs --to report
  python -m ablations.report outputs --to report --wandb          also sent to W&B, where you are logged in
"""


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    made = OneLineParser(
        prog="python -m ablations.report", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="the output_dir of the runs")
    made.add_argument("--to", metavar="DIR", type=Path, required=True, help="the folder to write to; made where it is missing")
    made.add_argument("--wandb", action="store_true", help="log tables and page to W&B as well, where that is online")
    made.add_argument("--project", default="uf-fgtg-ablations", help="W&B's project (default: %(default)s)")
    made.add_argument("--entity", default=None, help="W&B's user or team (default: yours)")
    return made


def main(argv: list[str] | None = None) -> int:
    """Write the report; returns the exit code."""
    arguments = parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        # Heavy imports (pandas, SciPy) only now: --help and mistakes in the arguments come at once.
        from ablations.reporting.assembly import assemble
        from ablations.reporting.verdicts import summary
        from ablations.reporting.writing import write

        report = assemble(arguments.output_dir)
        written = write(report, arguments.to)
    except (UserError, RunFolderError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    for warning in report.collection.warnings:
        print(f"note: {warning}")
    for section in report.sections:
        print(f"\n{section.title}: {section.contents}\n{section.scope}")
        for line in summary(section.verdicts):
            print(f"  {line}")
    if report.collection.left_out:
        print(f"\n{len(report.collection.left_out)} of the cells found enter no table: see {arguments.to / 'cells.csv'}")
    print(f"\nreport: {written.page} and {len(written.files) - 1} other files")
    if arguments.wandb:
        from ablations.reporting.send import send

        return 0 if send(report, written, project=arguments.project, entity=arguments.entity) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
