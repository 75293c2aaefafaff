"""`python -m ablations.prompt_lengths FILE_A FILE_B`: how long the prompts of two files are, novices' and training prompts for instance.

The motive of prompt refinement: a text-to-image model was trained on longer prompts than novices write. Lengths are counted in tokens of
OpenAI's CLIP vocabulary, which OpenCLIP and Stable Diffusion share, start and end mark not counted, and in words.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.command_line import OneLineParser
from ablations.errors import RunFolderError, UserError, one_line

if TYPE_CHECKING:
    import numpy as np

    from ablations.cfp_building.prompts import Prompt
    from ablations.console import Console
    from datamodules.records import BadRecord

# What CLIP's text tower reads: 77 positions, less the start and the end mark.
CLIP_TOKENS = 75
MEASURES = {"clip_tokens": "CLIP tokens", "words": "words"}
# The bars' share of a panel's height; the legend has the rest.
_BARS = 0.82
_COLOURS = ("#0a607a", "#c2571a")
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


@dataclass(frozen=True)
class Lengths:
    """The lengths of one file's prompts: `counts` by measure, int64 (N,); `rows` their places in the file, from 0."""

    name: str
    rows: np.ndarray
    counts: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.rows)


def count_words(text: str) -> int:
    """How many parts between blanks hold a letter or a digit: "a close-up , 8k" has 3."""
    return sum(any(character.isalnum() for character in part) for part in text.split())


def measure(name: str, prompts: Sequence[Prompt], console: Console) -> Lengths:
    """The lengths of prompts in CLIP tokens, start and end mark not counted and nothing cut, and in words."""
    import numpy as np
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    texts = [prompt.text for prompt in prompts]
    counted = [(len(tokenizer.encode(text)), count_words(text)) for text in console.track(texts, len(texts), f"counting {name}")]
    tokens_N, words_N = np.array(counted, dtype=np.int64).T
    return Lengths(name, np.array([prompt.id for prompt in prompts]), {"clip_tokens": tokens_N, "words": words_N})


def share_shorter(a_N: np.ndarray, b_M: np.ndarray) -> float:
    """The chance that one drawn from `a_N` is below one drawn from `b_M`, ties counted as half: 0.5 for equal distributions.

    The common-language effect size (McGraw & Wong 1992), which is Mann and Whitney's U over N M.
    """
    import numpy as np

    ordered_M = np.sort(b_M)
    above = len(b_M) - np.searchsorted(ordered_M, a_N, side="right")
    equal = len(b_M) - np.searchsorted(ordered_M, a_N, side="left") - above
    return float((above + equal / 2).mean() / len(b_M))


def table_of(a: Lengths, b: Lengths):
    """The table that is printed: N, mean, quartiles, 95th percentile, maximum and, of tokens, the share that CLIP cuts."""
    import numpy as np
    from rich.table import Table

    table = Table("prompts", "in", "N", "mean", "25%", "median", "75%", "95%", "longest", f"over {CLIP_TOKENS}", title="Prompt lengths")
    table.title_justify = "left"
    for measured, heading in MEASURES.items():
        for lengths in (a, b):
            counts_N = lengths.counts[measured]
            quantiles = [f"{value:.0f}" for value in np.percentile(counts_N, [25, 50, 75, 95])]
            cut = f"{(counts_N > CLIP_TOKENS).mean():.1%}" if measured == "clip_tokens" else ""
            row = [lengths.name, heading, str(len(lengths)), f"{counts_N.mean():.1f}", *quantiles, str(counts_N.max()), cut]
            table.add_row(*row, end_section=lengths is b)
    return table


def write_csv(path: Path, both: Sequence[Lengths]) -> None:
    """A row per prompt: file, row, clip_tokens, words."""
    from ablations.run_folder import write_atomically

    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["file", "row", *MEASURES])
    for lengths in both:
        columns = (lengths.counts[measured].tolist() for measured in MEASURES)
        writer.writerows([lengths.name, row, *counts] for row, *counts in zip(lengths.rows.tolist(), *columns, strict=True))
    write_atomically(path, stream.getvalue())


def draw(path: Path, a: Lengths, b: Lengths) -> None:
    """The histograms, a panel for each measure, both files in bins of equal width as shares of their own prompts."""
    import matplotlib
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    from ablations.run_folder import whole_file

    style = {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.edgecolor": "#b9b5ab",
        "text.color": "#1c1e24",
        "axes.labelcolor": "#5c606a",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(10, 4), dpi=120, facecolor="#faf9f6", layout="constrained")
        canvas = FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        for place, (measured, heading) in enumerate(MEASURES.items(), start=1):
            axes = figure.add_subplot(1, 2, place)
            counts = [lengths.counts[measured] for lengths in (a, b)]
            end = max(np.percentile(counts_N, 99) for counts_N in counts)
            width = max(1, round(end / 40))
            edges = np.arange(0, end + 2 * width, width) - 0.5
            for lengths, counts_N, colour in zip((a, b), counts, _COLOURS, strict=True):
                label = f"{lengths.name}: median {np.median(counts_N):.0f}, N = {len(counts_N):,}"
                weights_N = np.full(len(counts_N), 1 / len(counts_N))
                axes.hist(counts_N, edges, weights=weights_N, color=colour, alpha=0.35, label=label)
                axes.hist(counts_N, edges, weights=weights_N, color=colour, histtype="step", linewidth=1.2)
                axes.axvline(float(np.median(counts_N)), ymax=_BARS, color=colour, linewidth=1.4, linestyle="--")
            axes.set_ylim(0, axes.get_ylim()[1] / _BARS)
            if measured == "clip_tokens" and edges[-1] > CLIP_TOKENS:
                axes.axvline(CLIP_TOKENS + 0.5, ymax=_BARS, color="#5c606a", linewidth=1.0, linestyle=":")
                axes.annotate(
                    f"CLIP reads\n{CLIP_TOKENS} tokens",
                    (CLIP_TOKENS + 0.5, 0.55),
                    xycoords=("data", "axes fraction"),
                    xytext=(4, 0),
                    textcoords="offset points",
                    fontsize=8,
                    color="#5c606a",
                )
            axes.set_title(f"Length in {heading}", loc="left", fontsize=11, fontweight="bold")
            axes.set_xlabel(f"{heading} in a prompt")
            axes.set_ylabel(f"share of prompts ({width} to a bar)" if width > 1 else "share of prompts")
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
            axes.set_xlim(0, edges[-1])
            axes.set_facecolor("#ffffff")
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(colors="#5c606a", length=3)
            legend = axes.legend(loc="upper right", fontsize=9, frameon=False)
            for text in legend.get_texts():
                text.set_parse_math(False)
        with whole_file(path) as aside:
            # Without the software entry, the bytes do not name matplotlib's version.
            canvas.print_png(str(aside), metadata={"Software": None})


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
    from ablations.cfp_building.prompts import read_prompts

    try:
        return read_prompts(file, column, limit)
    except UserError as error:
        # Another command reads its prompts by this option; here they are the arguments themselves.
        raise UserError(str(error).removeprefix("--prompts ")) from error


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write; returns the exit code."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    from ablations.console import Console

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
