"""Sensitivity to what the paper leaves open: in how many readings of it a claim holds, as a grid of small cells and as a table.

The keys are those of the reconstruction; every combination of them is a family of its own, with verdicts of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablations.config import KEYS as DEFAULTS
from ablations.config.parsing import Scalar, show
from ablations.reporting.claim_lines import said_of, where
from ablations.reporting.claims_plot import STYLE, look_of
from ablations.reporting.collect import Section
from ablations.reporting.formats import figure
from ablations.reporting.judging import NOT_MEASURED, Verdict
from ablations.reporting.layouts import LAYOUTS, Family, families
from ablations.reporting.tables import CONDITIONS_ID
from ablations.runtime.escaping import html

READING, WEIGHT, SCALE = KEYS = ("afe.reading", "loss.clip_weight", "loss.clip_scale")
_SHORT = {"afe.reading": "reading", "loss.clip_weight": "clip weight", "loss.clip_scale": "clip scale"}
_CELL, _HIGH, _LABEL, _TOP = 78, 44, 170, 62
FEWEST = 2
# Keys that a reading may need set for itself.
_GO_WITH_A_READING = ("afe.forcing", "afe.hidden", "afe.temperature", "afe.grid", "loss.clip_bank")


@dataclass(frozen=True)
class ReadingCell:
    """A verdict under one reading. `bound` is how far the difference is on the claimed side for certain, in units of the margin (the end of
    the interval nearest 0; below 0: it may be the other way by as much); None without an interval."""

    settings: Mapping[str, Scalar]
    verdict: str
    bound: float | None
    mean: float | None
    line: str


@dataclass(frozen=True)
class Sensitivity:
    """One claim in one condition over the readings that were tried; `varies` are the keys that tell them apart."""

    title: str
    condition: str
    varies: tuple[str, ...]
    cells: tuple[ReadingCell, ...]

    @property
    def holds(self) -> int:
        return sum(cell.verdict == "reproduced" for cell in self.cells)

    @property
    def count(self) -> str:
        """As in "holds in 3 of 12 readings"."""
        return f"holds in {self.holds} of {len(self.cells)} readings"

    @property
    def standing(self) -> str:
        """How the others came out, as in "undecided: 5, not delivered: 4"."""
        others = [cell.verdict for cell in self.cells if cell.verdict != "reproduced"]
        return ", ".join(f"{verdict}: {others.count(verdict)}" for verdict in dict.fromkeys(others))

    def values(self, key: str) -> list[Scalar]:
        """The values of a key, numbers by size, others as they came."""
        found = list(dict.fromkeys(cell.settings.get(key) for cell in self.cells))
        numbers = all(isinstance(value, int | float) for value in found)
        return sorted(found) if numbers else found  # type: ignore[type-var]


@dataclass(frozen=True)
class Readings:
    """The families of tables that differ in the reconstruction's keys alone: what each holds fixed, by table and family, and which one of
    each table is shown in full."""

    settings: Mapping[tuple[str, str], Mapping[str, Scalar]]
    shown: Mapping[str, str]
    hidden_arms: frozenset[str] = frozenset()

    def hides(self, table: str, family: str) -> bool:
        """Whether a family stands among the readings alone; so does the comparison of conditions of an arm that is in no other."""
        if table == CONDITIONS_ID:
            return family.removeprefix("arm ") in self.hidden_arms
        return (table, family) in self.settings and self.shown[table] != family


def families_of_readings(section: Section) -> Readings:
    """Those of the tables with at least FEWEST families that KEYS alone tell apart. The one nearest the profile's defaults is shown."""
    settings: dict[tuple[str, str], Mapping[str, Scalar]] = {}
    shown: dict[str, str] = {}
    arms: dict[bool, set[str]] = {True: set(), False: set()}
    for layout in LAYOUTS:
        found = families(layout, section.cells, section.unfinished)
        apart = {key for family in found for key in family.fixed if family.fixed[key] != found[0].fixed.get(key)}
        if len(found) >= FEWEST and apart <= {*KEYS, *_GO_WITH_A_READING}:
            settings |= {(layout.id, family.name): family.fixed for family in found}
            shown[layout.id] = min(found, key=lambda family: (-len(family.rows), _changed(family))).name
            for family in found:
                arms[family.name == shown[layout.id]] |= {cell.arm for cells in family.rows.values() for cell in cells.values()}
    return Readings(settings, shown, frozenset(arms[False] - arms[True]))


def _changed(family: Family) -> int:
    """In how many keys a family differs from its profile's defaults."""
    profile = str(family.fixed["profile"])
    return sum(value != DEFAULTS[key].profile_default(profile) for key, value in family.fixed.items() if key in DEFAULTS)


def sensitivities(verdicts: Sequence[Verdict], settings_of: Mapping[tuple[str, str], Mapping[str, Scalar]]) -> list[Sensitivity]:
    """Every claim and condition with verdicts in several readings. `settings_of` gives what a family holds fixed, by table and family."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        if (verdict.claim.table, verdict.family) in settings_of and verdict.verdict != NOT_MEASURED:
            groups.setdefault((verdict.claim.title, verdict.condition), []).append(verdict)
    found = []
    for (title, condition), own in groups.items():
        fixed = [settings_of[verdict.claim.table, verdict.family] for verdict in own]
        varies = tuple(key for key in KEYS if len({repr(settings.get(key)) for settings in fixed}) > 1)
        if varies and len(own) >= FEWEST:
            cells = [_cell(verdict, {key: settings.get(key) for key in KEYS}) for verdict, settings in zip(own, fixed, strict=True)]
            found.append(Sensitivity(title, condition, varies, tuple(cells)))
    return found


def _cell(verdict: Verdict, settings: Mapping[str, Scalar]) -> ReadingCell:
    """The bound and the mean are those of the endpoint and row that are least certain."""
    measured = [f for f in verdict.findings if f.margin and f.mean is not None and f.low is not None and f.high is not None]
    bounds = [(min(f.claimed * f.low, f.claimed * f.high) / f.margin, f.claimed * f.mean / f.margin) for f in measured]  # type: ignore[operator]
    bound, mean = min(bounds) if bounds else (None, None)
    return ReadingCell(settings, verdict.verdict, bound, mean, f"{said_of(verdict)}: {verdict.line}")


def grid(sensitivity: Sensitivity) -> tuple[str, int, int]:
    """(SVG elements, width, height): readings down, weights across, a block for each scale; the bound in every cell."""
    across = [key for key in (WEIGHT, SCALE) if key in sensitivity.varies] or [WEIGHT]
    columns = list(dict.fromkeys(tuple(cell.settings.get(key) for key in across) for cell in sensitivity.cells))
    columns.sort(key=lambda values: tuple(str(value).rjust(12) for value in values[::-1]))
    rows = sensitivity.values(READING)
    parts = [_text(10, 18, f"{sensitivity.title}: {where(sensitivity.condition)}", "claim"), _text(10, 36, sensitivity.count, "soft")]
    for number, values in enumerate(columns):
        words = ", ".join(f"{_SHORT[key]} {show(value)}" for key, value in zip(across, values, strict=True))
        for line, part in enumerate(words.split(", ")):
            parts.append(_text(_LABEL + _CELL * (number + 0.5), _TOP - 12 + 14 * line, part.removeprefix("clip "), "soft", "middle"))
    top = _TOP + 14 * (len(across) - 1) - 2
    for down, reading in enumerate(rows):
        y = top + _HIGH * down
        parts.append(_text(_LABEL - 10, y + _HIGH / 2 + 4, str(reading).replace("_", " "), "soft", "end"))
        for number, values in enumerate(columns):
            own = [c for c in sensitivity.cells if c.settings.get(READING) == reading and _at(c, across) == values]
            parts += [_square(own[0], _LABEL + _CELL * number, y)] if own else []
    width = max(_LABEL + _CELL * len(columns) + 16, 20 + 8 * len(f"{sensitivity.title}: {where(sensitivity.condition)}"))
    return "".join(parts), width, top + _HIGH * len(rows) + 14


def _at(cell: ReadingCell, keys: Sequence[str]) -> tuple[Scalar, ...]:
    return tuple(cell.settings.get(key) for key in keys)


def _square(cell: ReadingCell, x: float, y: float) -> str:
    colour, _ = look_of(cell.verdict)
    bound = "" if cell.bound is None else figure(cell.bound, 1, signed=True)
    words = {"no effect larger than the margin": "no effect", "not delivered": "undelivered"}.get(cell.verdict, cell.verdict)
    box = f'<rect class="cell {colour}" x="{x + 2:.1f}" y="{y + 2:.1f}" width="{_CELL - 4}" height="{_HIGH - 4}" rx="4"/>'
    middle = x + _CELL / 2
    text = _text(middle, y + 19, bound, "figures", "middle") + _text(middle, y + 34, words, f"small {colour}", "middle")
    return f"<g><title>{html(cell.line)}</title>{box}{text}</g>"


def svg(sensitivity: Sensitivity) -> str:
    """The grid as an SVG element for the page."""
    elements, width, height = grid(sensitivity)
    label = html(f"{sensitivity.title}, {where(sensitivity.condition)}: {sensitivity.count}")
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="forest grid-of-readings" {size} role="img" aria-label="{label}">{elements}</svg>'


def svg_file(sensitivities: Sequence[Sensitivity]) -> str:
    """All grids below one another, as a file of its own with its own colours."""
    parts, y, widest = [], 0, 0
    for one in sensitivities:
        elements, width, height = grid(one)
        parts.append(f'<g transform="translate(0 {y})">{elements}</g>')
        y, widest = y + height + 10, max(widest, width)
    size = f'viewBox="0 0 {widest} {y}" width="{widest}" height="{y}"'
    back = '<rect class="paper" width="100%" height="100%"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="forest" {size}><style>{STYLE}</style>'
    return f"{head}{back}{''.join(parts)}</svg>\n"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "") -> str:
    attributes = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{html(text)}</text>'
