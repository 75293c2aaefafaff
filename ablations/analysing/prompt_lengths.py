"""How long prompts are: in words, comma parts, CLIP tokens and T5 tokens."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ablations.building_cfp.prompts import Prompt
    from ablations.runtime.console import Console

# What CLIP's text tower reads: 77 positions, less the start and the end mark.
CLIP_TOKENS = 75


MEASURES = {"clip_tokens": "CLIP tokens", "words": "words"}


# The bars' share of a panel's height; the legend has the rest.
_BARS = 0.82


_COLOURS = ("#0a607a", "#c2571a")


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
    from ablations.runtime.files import write_atomically

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

    from ablations.runtime.files import whole_file

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
