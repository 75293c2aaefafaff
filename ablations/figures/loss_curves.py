"""The loss curves of a training: the total and each of its terms in a small panel of its own, raw and smoothed."""

from __future__ import annotations

import math
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

# "loss", "train/loss", "train/l_mse", "loss_text", "loss.clip", ...
_LOSS_NAME = re.compile(r"(^|[/._])(loss|l)([/._]|$)", re.IGNORECASE)
_TOTAL_NAME = re.compile(r"(^|[/._])(loss|total)$", re.IGNORECASE)


def loss_curves(csv_path: str | Path, path: str | Path, columns: Sequence[str] | None = None, title: str = "") -> Path:
    """Draws the loss columns of a metrics.csv as a PNG, one panel each, and returns its path.

    Args:
        csv_path: a CSV with a `step` column and blank cells where a row has no value, as Lightning's CSVLogger writes it.
        columns: which columns; by default those whose name has "loss" or "l" as a part ("train/loss", "train/l_mse"), the
            total first.

    The smoothed line is a centred mean over a fifteenth of the points. Raises ValueError where there is no
    `step`, no such column, or no value.
    """
    import matplotlib
    import pandas as pd
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

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

    across = min(len(order), 2) if len(order) <= 4 else 3
    down = math.ceil(len(order) / across)
    style = {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.edgecolor": "#b9b5ab",
        "text.color": "#1c1e24",
        "axes.labelcolor": "#5c606a",
    }
    with matplotlib.rc_context(style):
        figure = Figure(
            figsize=(4.6 * across + 0.4, 2.7 * down + (0.5 if title else 0.1)), dpi=110, facecolor="#faf9f6", layout="constrained"
        )
        canvas = FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1, wspace=0.02, hspace=0.02)
        if title:
            # Bold 14 pt takes at most an eighth of an inch a character.
            heading = textwrap.fill(title, int(figure.get_figwidth() * 8))
            figure.suptitle(heading, x=0.015, ha="left", fontsize=14, fontweight="bold", parse_math=False)
        for position, name in enumerate(order):
            axes = figure.add_subplot(down, across, position + 1)
            steps, values = curves[name]["step"].to_numpy(), curves[name][name]
            few = len(values) < 20
            axes.plot(steps, values, color="#0a607a", alpha=0.9 if few else 0.25, linewidth=1.0, marker="o" if few else None, markersize=3)
            if not few:
                axes.plot(
                    steps, values.rolling(max(3, len(values) // 15), center=True, min_periods=1).mean(), color="#0a607a", linewidth=1.9
                )
            last = float(values.tail(max(1, len(values) // 20)).mean())
            axes.set_title(textwrap.fill(name, 28), loc="left", fontsize=11, fontweight="bold", parse_math=False)
            axes.set_title(f"ends at {last:.4g}", loc="right", fontsize=9, color="#5c606a")
            axes.grid(axis="y", color="#e2dfd8", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.set_facecolor("#ffffff")
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(colors="#5c606a", length=3)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if position >= len(order) - across:
                axes.set_xlabel("training step")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            # Without the software entry, the bytes do not name matplotlib's version.
            canvas.print_png(str(aside), metadata={"Software": None})
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    return path
