"""`python -m ablations.prompt_lengths FILE_A FILE_B`: how long the prompts of two files are, novices' and training prompts for instance.

The motive of prompt refinement: a text-to-image model was trained on longer prompts than novices write. Lengths are counted in tokens of
OpenAI's CLIP vocabulary, which OpenCLIP and Stable Diffusion share, start and end mark not counted, and in words.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.analysing.prompt_lengths import PromptFile, study_prompt_lengths
from ablations.runtime.command_line import OneLineParser, run_command, whole_number
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import is_file, is_folder, is_there
from ablations.runtime.stopping import StopRequest

_DESCRIPTION = """\
Compares how long the prompts of two files are, in CLIP tokens and in words: prompts of novices (FILE_A) and those that an image model was
trained on (FILE_B), say. Prints a table and writes to DIR:

  prompt_lengths.png    two histograms, each file as its share of prompts; the longest hundredth is off the figure, not out of the table
  prompt_lengths.csv    a row per prompt: file, row in the file, clip_tokens, words

A file is plain text with a prompt a line, or CSV, TSV, JSON, JSONL or parquet; the prompts are in the column prompt, text,
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


def parser() -> OneLineParser:
    """The command line's arguments."""
    made = OneLineParser("prompt_lengths", _DESCRIPTION, _EXAMPLES)
    made.add_argument("file_a", metavar="FILE_A", type=Path, help="prompts, of novices for instance")
    made.add_argument("file_b", metavar="FILE_B", type=Path, help="the prompts that they are compared with, such as training prompts")
    made.add_argument("--to", type=Path, default=Path("prompt_lengths"), metavar="DIR", help="where the files go (default: %(default)s)")
    made.add_argument(
        "--column", action="append", metavar="NAME", help="the prompts' column: given once for both files, or twice, for A and then for B"
    )
    made.add_argument("--names", nargs=2, metavar=("A", "B"), help="what to call the two in table and figure (default: the files' names)")
    made.add_argument("--limit", type=whole_number(1), metavar="N", help="read only the first N rows of each file")
    return made


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write; returns the exit code."""
    return run_command(parser(), _study, argv, then="begins anew")


def _study(arguments: argparse.Namespace, stop: StopRequest) -> None:
    paths = (arguments.file_a, arguments.file_b)
    columns = arguments.column or [None]
    if len(columns) > 2:
        raise UserError(f"--column was given {len(columns)} times: give it once for both files, or twice")
    names = arguments.names or [path.name if paths[0].name != paths[1].name else str(path) for path in paths]
    if names[0] == names[1]:
        raise UserError(f"both files would be called {names[0]!r}: tell them apart with --names A B")
    if is_there(arguments.to) and not is_folder(arguments.to):
        raise UserError(f"--to {arguments.to} is a file: give a folder")
    for path in paths:
        if not is_file(path):
            raise UserError(f"{path}: there is no such file")
    a, b = (PromptFile(path, name, column) for path, name, column in zip(paths, names, (columns * 2)[:2], strict=True))
    study_prompt_lengths(a, b, arguments.limit, arguments.to)


if __name__ == "__main__":
    sys.exit(main())
