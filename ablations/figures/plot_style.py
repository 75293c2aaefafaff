"""The look of everything that is drawn: its colours, and the style of matplotlib's plots. Imports no heavy library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1c1e24"
SOFT_INK = "#5c606a"
FAINT_INK = "#767a84"
ACCENT = "#0a607a"
# What is compared with the accent, and what only stands beside it.
CONTRAST = "#c2571a"
QUIET = "#8a8f9b"
PAPER = "#faf9f6"
CARD = "#ffffff"
RULE = "#e2dfd8"
EDGE = "#b9b5ab"

_STYLE = {"font.family": "DejaVu Sans", "font.size": 10, "axes.edgecolor": EDGE, "text.color": INK, "axes.labelcolor": SOFT_INK}


@contextmanager
def house_style() -> Iterator[None]:
    """Within the block, plots are made and saved in the suite's style, whatever style the machine has set."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float, dpi: int, h_pad: float = 0.1) -> Figure:
    """An empty figure of `width` x `height` inches on the suite's paper, with `h_pad` inches above and below its panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, facecolor=PAPER, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=h_pad)
    return figure


def panel(axes: Axes, grid: bool = True) -> None:
    """The frame of a panel: white, open at the top and the right, with quiet ticks and, if asked for, lines across it."""
    if grid:
        axes.grid(axis="y", color=RULE, linewidth=0.8)
        axes.set_axisbelow(True)
    axes.set_facecolor(CARD)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=SOFT_INK, length=3)


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG just where it is told; equal figures give equal bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # Without the software entry, the bytes do not name matplotlib's version.
    FigureCanvasAgg(figure).print_png(str(path), metadata={"Software": None})
