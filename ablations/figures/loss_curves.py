"""The loss curves of a training: the total and each of its terms in a small panel of its own, raw and smoothed.

Where held-out records were watched (val/l_NAME), their curve stands in the panel of the term.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.figures.plot_style import ACCENT, SOFT_INK, house_style, new_figure, panel, save_png

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# "loss", "train/loss", "train/l_mse", "loss_text", "loss.clip", ...
_LOSS_NAME = re.compile(r"(^|[/._])(loss|l)([/._]|$)", re.IGNORECASE)
_TOTAL_NAME = re.compile(r"(^|[/._])(loss|total)$", re.IGNORECASE)


def loss_curves(csv_path: str | Path, path: str | Path, columns: Sequence[str] | None = None, title: str = "") -> Path:
    """Draws the loss columns of a metrics.csv as a PNG, one panel each, just where it is told, and returns its path.

    Args:
        csv_path: a CSV with a `step` column and blank cells where a row has no value, as Lightning's CSVLogger writes it.
        columns: which columns; by default those whose name has "loss" or "l" as a part ("train/loss", "train/l_mse"), the
            total first; val/NAME goes with train/NAME.

    The smoothed line is a centred mean over a fifteenth of the points. Raises ValueError where there is no
    `step`, no such column, or no value.
    """
    curves = _read(csv_path, columns)
    held_out = {name: curves.pop(_held_out_name(name)) for name in list(curves) if _held_out_name(name) in curves}
    across = min(len(curves), 2) if len(curves) <= 4 else 3
    down = math.ceil(len(curves) / across)
    with house_style():
        figure = new_figure(4.6 * across + 0.4, 2.7 * down + (0.5 if title else 0.1), dpi=110)
        figure.get_layout_engine().set(wspace=0.02, hspace=0.02)
        if title:
            _set_title(figure, title)
        for position, (name, curve) in enumerate(curves.items()):
            axes = figure.add_subplot(down, across, position + 1)
            _draw_curve(axes, name, curve)
            if name in held_out:
                _draw_held_out(axes, held_out[name])
            if position >= len(curves) - across:
                axes.set_xlabel("training step")
        save_png(figure, Path(path))
    return Path(path)


def _read(csv_path: str | Path, columns: Sequence[str] | None) -> Mapping[str, pd.DataFrame]:
    """The curves to draw, in order: for each column a table of its steps and values, without the rows that have none."""
    import pandas as pd

    table = pd.read_csv(csv_path)
    if "step" not in table.columns:
        raise ValueError(f"{csv_path} has no column 'step'; it has {', '.join(table.columns)}")
    names = list(columns) if columns is not None else [name for name in table.columns if _LOSS_NAME.search(name)]
    unknown = [name for name in names if name not in table.columns]
    if unknown:
        raise ValueError(f"{csv_path} has no column {unknown[0]!r}; it has {', '.join(table.columns)}")
    curves = {name: table[["step", name]].dropna().sort_values("step", kind="stable") for name in names}
    curves = {name: curve for name, curve in curves.items() if len(curve)}
    if not curves:
        raise ValueError(f"{csv_path} holds no loss values; its columns are {', '.join(table.columns)}")
    order = sorted(curves, key=lambda name: not _TOTAL_NAME.search(name)) if columns is None else list(curves)
    return {name: curves[name] for name in order}


def _held_out_name(name: str) -> str:
    return f"val/{name.removeprefix('train/')}" if name.startswith("train/") else ""


def _draw_held_out(axes: Axes, curve: pd.DataFrame) -> None:
    column = curve.columns[1]
    label = f"held-out records, ends at {curve[column].iloc[-1]:.4g}"
    axes.plot(curve["step"], curve[column], color=SOFT_INK, linestyle="--", linewidth=1.2, marker="o", markersize=2.5, label=label)
    axes.legend(fontsize=8, frameon=False, loc="best")


def _set_title(figure: Figure, title: str) -> None:
    # Bold 14 pt takes at most an eighth of an inch a character.
    heading = textwrap.fill(title, int(figure.get_figwidth() * 8))
    figure.suptitle(heading, x=0.015, ha="left", fontsize=14, fontweight="bold", parse_math=False)


def _draw_curve(axes: Axes, name: str, curve: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    steps, values = curve["step"].to_numpy(), curve[name]
    few = len(values) < 20
    axes.plot(steps, values, color=ACCENT, alpha=0.9 if few else 0.25, linewidth=1.0, marker="o" if few else None, markersize=3)
    if not few:
        smooth = values.rolling(max(3, len(values) // 15), center=True, min_periods=1).mean()
        axes.plot(steps, smooth, color=ACCENT, linewidth=1.9)
    last = float(values.tail(max(1, len(values) // 20)).mean())
    axes.set_title(textwrap.fill(name, 28), loc="left", fontsize=11, fontweight="bold", parse_math=False)
    axes.set_title(f"ends at {last:.4g}", loc="right", fontsize=9, color=SOFT_INK)
    panel(axes)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
