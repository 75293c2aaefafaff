"""`python -m ablations.prompt_lengths FILE_A FILE_B`: how long the prompts of two files are, novices' and training prompts for instance.

The motive of prompt refinement: a text-to-image model was trained on longer prompts than novices write. Lengths are counted in tokens of
OpenAI's CLIP vocabulary, which OpenCLIP and Stable Diffusion share, start and end mark not counted, and in words.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.analysing.prompt_lengths import MEASURES, draw, measure, share_shorter, table_of, write_csv
from ablations.runtime.command_line import OneLineParser
from ablations.runtime.errors import RunFolderError, UserError, one_line

if TYPE_CHECKING:
    from ablations.building_cfp.prompts import Prompt
    from datamodules.records import BadRecord

_DESCRIPTION = """\
Compares how long the prompts of two files are, in CLIP tokens and in words: prompts of novices (FILE_A) and those that an image model was
trained on (FILE_B), say. Prints a table and writes to DIR:

  prompt_lengths.png    two histograms, each file as its share of prompts; the longest hundredth is off the figure, not out of the table
  prompt_lengths.csv    a row per prompt: file, row in the file, clip_tokens, words

A file is plain text with a prompt a line, or CSV, JSON, JSONL or parquet; the prompts are in the column prompt, text,
"fine-grained prompt", fine or caption, or in the one that --column names. Rows without a readable prompt are counted, said, and left out.

CLIP tokens: OpenAI's vocabulary, without start and end mark; a text tower reads 75, so what is longer is cut. Words: parts between
blanks that hold a letter or a digit. "A is shorter": the chance that a prompt drawn from FILE_A is shorter than one drawn from FILE_B,
ties counted as half.
"""
_EXAMPLES = """\
examples:
  python -m ablations.prompt_lengths novices.txt training.csv
  python -m ablations.prompt_lengths users.json cfp.csv --names novices training --to figures
  python -m ablations.prompt_lengths cfp.csv cfp.csv --column coarse --column fine --names coarse fine
"""


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line, with `files`, `columns` and `names` as pairs. Exits with code 2 for a mistake."""
    parser = OneLineParser(
        prog="python -m ablations.prompt_lengths",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file_a", metavar="FILE_A", type=Path, help="prompts, of novices for instance")
    parser.add_argument("file_b", metavar="FILE_B", type=Path, help="the prompts that they are compared with, such as training prompts")
    parser.add_argument("--to", type=Path, default=Path("prompt_lengths"), metavar="DIR", help="where the files go (default: %(default)s)")
    parser.add_argument(
        "--column", action="append", metavar="NAME", help="the prompts' column: given once for both files, or twice, for A and then for B"
    )
    parser.add_argument("--names", nargs=2, metavar=("A", "B"), help="what to call the two in table and figure (default: the files' names)")
    parser.add_argument("--limit", type=int, metavar="N", help="read only the first N rows of each file")
    arguments = parser.parse_args(argv)
    arguments.files = [arguments.file_a, arguments.file_b]
    columns = arguments.column or [None]
    if len(columns) > 2:
        parser.error(f"--column was given {len(columns)} times: give it once for both files, or twice")
    arguments.columns = columns * 2 if len(columns) == 1 else columns
    arguments.names = arguments.names or _file_names(*arguments.files)
    if arguments.names[0] == arguments.names[1]:
        parser.error(f"both files would be called {arguments.names[0]!r}: tell them apart with --names A B")
    if arguments.limit is not None and arguments.limit < 1:
        parser.error(f"--limit must be at least 1, not {arguments.limit}")
    if arguments.to.exists() and not arguments.to.is_dir():
        parser.error(f"--to {arguments.to} is a file: give a folder")
    for file in arguments.files:
        if not file.is_file():
            parser.error(f"{file}: there is no such file")
    return arguments


def _file_names(a: Path, b: Path) -> list[str]:
    return [a.name, b.name] if a.name != b.name else [str(a), str(b)]


def _read(file: Path, column: str | None, limit: int | None) -> tuple[list[Prompt], list[BadRecord]]:
    from ablations.building_cfp.prompts import read_prompts

    try:
        return read_prompts(file, column, limit)
    except UserError as error:
        # Another command reads its prompts by this option; here they are the arguments themselves.
        raise UserError(str(error).removeprefix("--prompts ")) from error


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write; returns the exit code."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    from ablations.runtime.console import Console

    console = Console()
    try:
        # Both are read before the first is counted: a mistake in the second costs no time.
        found = [_read(file, column, arguments.limit) for file, column in zip(arguments.files, arguments.columns, strict=True)]
        for name, (prompts, bad) in zip(arguments.names, found, strict=True):
            if bad:
                total = len(prompts) + len(bad)
                console.say(f"{name}: {len(bad)} of {total} rows left out; the first, row {bad[0].id}: {bad[0].detail}")
        a, b = (measure(name, prompts, console) for name, (prompts, _) in zip(arguments.names, found, strict=True))
        png, table = arguments.to / "prompt_lengths.png", arguments.to / "prompt_lengths.csv"
        write_csv(table, (a, b))
        draw(png, a, b)
    except (UserError, RunFolderError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    console.table(table_of(a, b))
    shorter = [f"{share_shorter(a.counts[measured], b.counts[measured]):.1%} in {heading}" for measured, heading in MEASURES.items()]
    console.say(f"A is shorter ({a.name} than {b.name}): {', '.join(shorter)}; 50% = no difference")
    console.say(f"figure: {png}, lengths: {table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
