"""The prompt-length curves as PDF, for LaTeX, which cannot read the page's SVG."""

from __future__ import annotations

from pathlib import Path

from ablations.reporting.tables import ReportTable


def draw(table: ReportTable, path: Path) -> None:
    """Means over the lengths with their 95% intervals, a panel per plotted metric. The same table gives the same bytes."""
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure

    columns = table.plotted
    across = min(len(columns), 4)
    down = -(-len(columns) // across)
    figure = Figure(figsize=(2.9 * across, 2.3 * down), layout="constrained")
    FigureCanvasPdf(figure)
    for i, column in enumerate(columns):
        axes = figure.add_subplot(down, across, i + 1)
        points = [(float(row.key), row.entries[column.key]) for row in table.rows if column.key in row.entries]
        lengths = [length for length, _ in points]
        axes.plot(lengths, [entry.mean for _, entry in points], "o-", markersize=3, linewidth=1)
        for length, entry in points:
            if entry.interval:
                axes.plot([length, length], entry.interval, color="C0", linewidth=1)
        axes.set_xticks(lengths)
        axes.set_xlabel("prompt_len (tokens)", fontsize=8)
        axes.set_title(column.heading, fontsize=9)
        axes.tick_params(labelsize=7)
    figure.savefig(path, format="pdf", metadata={"CreationDate": None})


def has_curve(table: ReportTable) -> bool:
    """Whether there is a length curve to draw."""
    return table.layout == "prompt_length" and bool(table.plotted) and sum(bool(row.arm) for row in table.rows) > 1
