"""Reference lines of a table: where a metric's floor and ceiling are, what guesses and fine prompts reach, and the room that is left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ablations.metrics.register import all_metrics
from ablations.reporting.columns import Column
from ablations.reporting.formats import figure

CEILING, FLOOR, ROOM = "ceiling", "floor", "room left to the reference"


@dataclass(frozen=True)
class Line:
    """A reference line: its label and its values by column key; a column that has none has no such line."""

    label: str
    values: Mapping[str, float] = field(default_factory=dict)

    def text(self, column: Column) -> str:
        """The value with its column's decimals, "" where there is none."""
        value = self.values.get(column.key)
        return "" if value is None else figure(value, column.digits)


def lines_of(columns: Sequence[Column], reference: Mapping[str, float], fine: Mapping[str, float]) -> tuple[Line, ...]:
    """The lines below a table's rows. `reference` and `fine` are means by column key: of the reference row, and of the fine prompts."""
    bounds = {column.key: _bounds(column) for column in columns if column.better}
    ceilings = {key: ends[1] for key, ends in bounds.items() if math.isfinite(ends[1])}
    found = {
        FLOOR: {key: ends[0] for key, ends in bounds.items() if math.isfinite(ends[0])},
        "fine prompts": {key: value for key, value in fine.items() if key in bounds},
        CEILING: ceilings,
        ROOM: {key: abs(ceiling - reference[key]) for key, ceiling in ceilings.items() if key in reference},
    }
    return tuple(Line(label, values) for label, values in found.items() if values)


def _bounds(column: Column) -> tuple[float, float]:
    """The worst and the best value that a metric can have; infinite where it has none."""
    metric = all_metrics().get(column.metric)
    if metric is None:
        return -math.inf, math.inf
    least, most = metric.range
    return (least, most) if column.better == "higher" else (most, least)
