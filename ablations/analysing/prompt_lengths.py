"""How long prompts are: in words, comma parts, CLIP tokens and T5 tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.figures.plot_style import ACCENT, CONTRAST, SOFT_INK, house_style, new_figure, panel, save_png
from ablations.runtime.errors import UserError
from ablations.runtime.escaping import csv_text
from ablations.runtime.files import whole_file, write_atomically

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

    from ablations.building_cfp.prompts import Prompt
    from ablations.runtime.console import Console
    from datamodules.records import BadRecord

# What CLIP's text tower reads: 77 positions, less the start and the end mark.
CLIP_TOKENS = 75


MEASURES = {"clip_tokens": "CLIP tokens", "words": "words"}


# The bars' share of a panel's height; the legend has the rest.
_BARS = 0.82


_COLOURS = (ACCENT, CONTRAST)


@dataclass(frozen=True)
class PromptFile:
    """A file of prompts, what it is called in table and figure, and its column of prompts, None for the usual ones."""

    path: Path
    name: str
    column: str | None = None


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


def measure_lengths(name: str, prompts: Sequence[Prompt], console: Console) -> Lengths:
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
    rows: list[tuple] = []
    for lengths in both:
        columns = (lengths.counts[measured].tolist() for measured in MEASURES)
        rows += [(lengths.name, *row) for row in zip(lengths.rows.tolist(), *columns, strict=True)]
    write_atomically(path, csv_text(["file", "row", *MEASURES], rows))


def draw_lengths(path: Path, a: Lengths, b: Lengths) -> None:
    """The histograms, a panel for each measure, both files in bins of equal width as shares of their own prompts."""
    with house_style():
        figure = new_figure(10, 4, dpi=120)
        for place, measured in enumerate(MEASURES, start=1):
            _draw_panel(figure.add_subplot(1, 2, place), measured, (a, b))
        with whole_file(path) as aside:
            save_png(figure, aside)


def _draw_panel(axes: Axes, measured: str, both: Sequence[Lengths]) -> None:
    import numpy as np
    from matplotlib.ticker import PercentFormatter

    counts = [lengths.counts[measured] for lengths in both]
    end = max(np.percentile(counts_N, 99) for counts_N in counts)
    width = max(1, round(end / 40))
    edges = np.arange(0, end + 2 * width, width) - 0.5
    for lengths, counts_N, colour in zip(both, counts, _COLOURS, strict=True):
        label = f"{lengths.name}: median {np.median(counts_N):.0f}, N = {len(counts_N):,}"
        weights_N = np.full(len(counts_N), 1 / len(counts_N))
        axes.hist(counts_N, edges, weights=weights_N, color=colour, alpha=0.35, label=label)
        axes.hist(counts_N, edges, weights=weights_N, color=colour, histtype="step", linewidth=1.2)
        axes.axvline(float(np.median(counts_N)), ymax=_BARS, color=colour, linewidth=1.4, linestyle="--")
    axes.set_ylim(0, axes.get_ylim()[1] / _BARS)
    if measured == "clip_tokens" and edges[-1] > CLIP_TOKENS:
        _mark_what_clip_reads(axes)
    axes.set_title(f"Length in {MEASURES[measured]}", loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(f"{MEASURES[measured]} in a prompt")
    axes.set_ylabel(f"share of prompts ({width} to a bar)" if width > 1 else "share of prompts")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_xlim(0, edges[-1])
    panel(axes, grid=False)
    legend = axes.legend(loc="upper right", fontsize=9, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _mark_what_clip_reads(axes: Axes) -> None:
    axes.axvline(CLIP_TOKENS + 0.5, ymax=_BARS, color=SOFT_INK, linewidth=1.0, linestyle=":")
    axes.annotate(
        f"CLIP reads\n{CLIP_TOKENS} tokens",
        (CLIP_TOKENS + 0.5, 0.55),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=8,
        color=SOFT_INK,
    )


def study_prompt_lengths(a: PromptFile, b: PromptFile, limit: int | None, to: Path) -> None:
    """Measure two files, print the table, and write prompt_lengths.csv and .png to `to`; `limit`: only the first rows of each.

    Raises UserError for a file without prompts, and RunFolderError where a file cannot be written.
    """
    from ablations.runtime.console import Console

    console = Console()
    # Both are read before the first is counted: a mistake in the second costs no time.
    found = [(file.name, *_read(file, limit)) for file in (a, b)]
    for name, prompts, bad in found:
        if bad:
            total = len(prompts) + len(bad)
            console.say(f"{name}: {len(bad)} of {total} rows left out; the first, row {bad[0].id}: {bad[0].detail}")
    first, second = (measure_lengths(name, prompts, console) for name, prompts, _ in found)
    png, csv_path = to / "prompt_lengths.png", to / "prompt_lengths.csv"
    write_csv(csv_path, (first, second))
    draw_lengths(png, first, second)
    console.table(table_of(first, second))
    shares = {heading: share_shorter(first.counts[measured], second.counts[measured]) for measured, heading in MEASURES.items()}
    shorter = ", ".join(f"{share:.1%} in {heading}" for heading, share in shares.items())
    console.say(f"A is shorter ({a.name} than {b.name}): {shorter}; 50% = no difference")
    console.say(f"figure: {png}, lengths: {csv_path}")


def _read(file: PromptFile, limit: int | None) -> tuple[list[Prompt], list[BadRecord]]:
    from ablations.building_cfp.prompts import read_prompts

    try:
        return read_prompts(file.path, file.column, limit)
    except UserError as error:
        # Another command reads its prompts by this option; here they are the arguments themselves.
        raise UserError(str(error).removeprefix("--prompts ")) from error
