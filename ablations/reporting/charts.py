"""Plots with intervals as SVG: drawn by hand, so that they need no network, take their colours from the page and stay small.

A panel is WIDTH units wide, about the width of a phone, so that its text stays legible there; wider pages put panels side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ablations.reporting.columns import Column
from ablations.reporting.formats import figure
from ablations.reporting.rows import Entry, Row
from ablations.reporting.tables import ReportTable
from ablations.reporting.verdicts import in_words
from ablations.runtime.escaping import html

WIDTH = 340
_LEFT, _RIGHT, _ROW, _MARGIN = 14, 326, 36, 10
# Also written into files of their own, where no page gives the colours.
STYLE = """
.chart{--back:#f6f7fa;--ink:#1d2430;--soft:#667085;--rule:#d5dae3;--better:#0b7a53;--worse:#b3261e;--accent:#2456c7}
@media (prefers-color-scheme:dark){
.chart{--back:#1d232d;--ink:#e8ebf1;--soft:#9aa4b5;--rule:#3a4353;--better:#4cc38a;--worse:#ff8a80;--accent:#8ab0ff}
}
.chart .back{fill:var(--back)}
.chart text{font:12px system-ui,sans-serif;fill:var(--ink);stroke:var(--back);stroke-width:4px;paint-order:stroke}
.chart .title{font-weight:600;font-size:13px}
.chart .soft{fill:var(--soft)}
.chart .rule{stroke:var(--rule)}
.chart .zero{stroke:var(--soft);stroke-dasharray:3 3}
.chart .open{stroke:var(--soft);fill:none;stroke-width:2}
.chart .better{stroke:var(--better);fill:var(--better);stroke-width:2}
.chart .worse{stroke:var(--worse);fill:var(--worse);stroke-width:2}
.chart .seed{fill:var(--soft);opacity:.5}
.chart .line{stroke:var(--accent);fill:none;stroke-width:2}
.chart .mean{stroke:var(--accent);fill:var(--accent);stroke-width:2}
"""


def forest(table: ReportTable, column: Column) -> tuple[str, int] | None:
    """Every row's difference from the reference with its interval: (SVG elements, height). None where there is no difference."""
    rows = [(row, row.entries[column.key]) for row in table.rows if column.key in row.entries]
    rows = [(row, entry) for row, entry in rows if entry.difference_mean is not None]
    if not rows:
        return None
    ends = [end for _, entry in rows for end in (*_ends(entry), *entry.differences_by_seed)]
    ticks = _ticks(min(ends, default=0.0), max(ends, default=0.0), must_have=0.0)
    x = _scale(ticks, _LEFT, _RIGHT)
    top, bottom = 46, 46 + _ROW * len(rows)
    parts = [
        _text(_LEFT, 16, column.heading, "title"),
        _text(_LEFT, 32, f"difference from {table.reference}{_which_is_better(column)}", "soft"),
        *_axis(ticks, x, top, bottom, column.digits),
        f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{top}" y2="{bottom}"/>',
    ]
    for i, (row, entry) in enumerate(rows):
        parts += _forest_row(row, entry, column, x, top + _ROW * i)
    return "".join(parts), bottom + 22


def _forest_row(row: Row, entry: Entry, column: Column, x, y: float) -> list[str]:
    middle = y + 25
    kind = "open"
    if entry.is_significant and column.better:
        kind = "better" if (entry.difference_mean > 0) == (column.better == "higher") else "worse"
    hint = html(f"{row.label}: {in_words(entry, column)}; N = {row.size}")
    parts = [f"<g><title>{hint}</title>", _text(_LEFT, y + 14, row.label)]
    if entry.difference:
        low, high = x(entry.difference.low), x(entry.difference.high)
        parts.append(f'<line class="{kind}" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>')
    parts += [f'<circle class="seed" cx="{x(value):.1f}" cy="{middle + 7}" r="1.8"/>' for value in entry.differences_by_seed]
    centre = x(entry.difference_mean)
    if entry.difference:
        parts.append(f'<circle class="{kind}" cx="{centre:.1f}" cy="{middle}" r="4"/>')
    else:  # a diamond: there is no interval
        parts.append(f'<path class="{kind}" d="M{centre - 5:.1f} {middle}l5 -5 5 5 -5 5z"/>')
    return [*parts, "</g>"]


def curve(table: ReportTable, column: Column) -> tuple[str, int] | None:
    """Means over numeric rows (lengths) with their intervals: (SVG elements, height). None for fewer than two rows."""
    points = [(float(row.key), row, row.entries[column.key]) for row in table.rows if column.key in row.entries]
    if len(points) < 2:
        return None
    ends = [end for *_, entry in points for end in (*(entry.interval or (entry.mean, entry.mean)), *entry.by_seed)]
    ticks = _ticks(min(ends), max(ends))
    lengths = [length for length, *_ in points]
    top, bottom, left = 46, 190, 50
    y = _scale(ticks, bottom, top)
    x = _scale((min(lengths), max(lengths)), left + 12, _RIGHT - 6)
    parts = [_text(_LEFT, 16, column.heading, "title"), _text(_LEFT, 32, "mean, its 95% interval and single seeds, by prompt_len", "soft")]
    for tick in ticks:
        parts.append(f'<line class="rule" x1="{left}" x2="{_RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(_text(left - 6, y(tick) + 4, figure(tick, _tick_digits(ticks)), "soft", "end"))
    parts.append('<path class="line" d="M' + "L".join(f"{x(length):.1f} {y(entry.mean):.1f}" for length, _, entry in points) + '"/>')
    for length, row, entry in points:
        parts += [f'<circle class="seed" cx="{x(length) + 5:.1f}" cy="{y(value):.1f}" r="1.8"/>' for value in entry.by_seed]
        words = f"{row.label}: {figure(entry.mean, column.digits)}"
        if entry.interval:
            low, high = entry.interval
            words += f" [{figure(low, column.digits)}, {figure(high, column.digits)}]"
            parts.append(f'<line class="mean" x1="{x(length):.1f}" x2="{x(length):.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}"/>')
        hint = html(f"{words}; N = {row.size}")
        parts.append(f'<circle class="mean" cx="{x(length):.1f}" cy="{y(entry.mean):.1f}" r="4"><title>{hint}</title></circle>')
        parts.append(_text(x(length), bottom + 18, f"{length:g}", "soft", "middle"))
    return "".join(parts), bottom + 30


def svg(panel: tuple[str, int], label: str) -> str:
    """A panel as an SVG element for the page, with a name for those who cannot see it."""
    elements, height = panel
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html(label)}">{elements}</svg>'


def svg_file(panels: Sequence[tuple[str, int]], across: int = 2) -> str:
    """Panels side by side as an SVG file of its own, with its own colours."""
    rows = [panels[start : start + across] for start in range(0, len(panels), across)]
    heights = [max(height for _, height in row) for row in rows]
    parts = []
    for i, row in enumerate(rows):
        top = _MARGIN + sum(heights[:i]) + 16 * i
        parts += [f'<g transform="translate({_MARGIN + (WIDTH + 20) * j} {top})">{elements}</g>' for j, (elements, _) in enumerate(row)]
    width = 2 * _MARGIN + (WIDTH + 20) * min(across, len(panels)) - 20
    height = 2 * _MARGIN + sum(heights) + 16 * (len(rows) - 1)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    back = '<rect class="back" width="100%" height="100%" rx="8"/>'
    return f"{head}<style>{STYLE}</style>{back}{''.join(parts)}</svg>\n"


def panels_of(table: ReportTable) -> list[tuple[str, tuple[str, int]]]:
    """Every plot of a table as (name, panel): curves for lengths, and the differences from the reference."""
    found = []
    for column in table.plotted:
        if table.layout == "prompt_length":
            found.append((f"{column.heading} by prompt length", curve(table, column)))
        found.append((f"{column.heading}: differences from {table.reference}", forest(table, column)))
    return [(name, panel) for name, panel in found if panel is not None]


def _ends(entry: Entry) -> list[float]:
    return [entry.difference.low, entry.difference.high] if entry.difference else [entry.difference_mean]


def _which_is_better(column: Column) -> str:
    return {"higher": " (right is better)", "lower": " (left is better)"}.get(column.better, "")


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "") -> str:
    attributes = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{html(text)}</text>'


def _axis(ticks: Sequence[float], x, top: float, bottom: float, digits: int) -> list[str]:
    parts = []
    for tick in ticks:
        parts.append(f'<line class="rule" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" y2="{bottom}"/>')
        anchor = "start" if tick == ticks[0] else "end" if tick == ticks[-1] else "middle"
        parts.append(_text(x(tick), bottom + 16, figure(tick, _tick_digits(ticks), signed=True), "soft", anchor))
    return parts


def _ticks(low: float, high: float, must_have: float | None = None) -> list[float]:
    """Three to six round numbers that span [low, high], and `must_have`."""
    if must_have is not None:
        low, high = min(low, must_have), max(high, must_have)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _tick_digits(ticks: Sequence[float]) -> int:
    return max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))


def _scale(domain: Sequence[float], start: float, end: float):
    low, high = domain[0], domain[-1]
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)
