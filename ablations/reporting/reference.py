"""Reference lines of a table: where a metric's floor and ceiling are, what guesses and fine prompts reach, and the room that is left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ablations.metrics.references import reference_lines
from ablations.metrics.register import all_metrics
from ablations.reporting.columns import Column
from ablations.reporting.formats import figure
from datamodules.tiny_world.worlds import world

CEILING, FLOOR, ROOM = "ceiling", "floor", "room left to the reference"
FINE_DRAWN = "fine prompts, as drawn"


@dataclass(frozen=True)
class Line:
    """A reference line: its label and its values by column key; a column that has none has no such line."""

    label: str
    values: Mapping[str, float] = field(default_factory=dict)

    def text(self, column: Column) -> str:
        """The value with its column's decimals, "" where there is none."""
        value = self.values.get(column.key)
        return "" if value is None else figure(value, column.digits)


def lines_of(
    columns: Sequence[Column], reference: Mapping[str, float], fine: Mapping[str, float], world: int | None, candidates: int
) -> tuple[Line, ...]:
    """The lines below a table's rows. `reference` and `fine` are means by column key: of the reference row, and of the fine prompts.

    `world` is the number of the tiny world, None elsewhere: what is exactly known of it (`metrics/references.py`) are lines too, for sets
    of `candidates`.
    """
    bounds = {column.key: _bounds(column) for column in columns if column.better}
    ceilings = {key: ends[1] for key, ends in bounds.items() if math.isfinite(ends[1])}
    found: dict[str, dict[str, float]] = {
        FLOOR: {key: ends[0] for key, ends in bounds.items() if math.isfinite(ends[0])},
        **_exact(columns, world, candidates),
        FINE_DRAWN: {key: value for key, value in fine.items() if key in bounds},
        CEILING: ceilings,
        ROOM: {key: abs(ceiling - reference[key]) for key, ceiling in ceilings.items() if key in reference},
    }
    return tuple(Line(label, values) for label, values in found.items() if values)


def _exact(columns: Sequence[Column], number: int | None, candidates: int) -> dict[str, dict[str, float]]:
    """What is known of a world, by line and column key, in the order of the first column that has them."""
    found: dict[str, dict[str, float]] = {}
    for column in columns if number is not None else ():
        for label, value in reference_lines(column.metric, world(number), candidates).items():
            found.setdefault(label, {})[column.key] = value
    return found


def _bounds(column: Column) -> tuple[float, float]:
    """The worst and the best value that a metric can have; infinite where it has none."""
    metric = all_metrics().get(column.metric)
    if metric is None:
        return -math.inf, math.inf
    least, most = metric.range
    return (least, most) if column.better == "higher" else (most, least)
