"""The metrics as columns of the report's tables: heading, direction, decimals and order. Knows no table and no run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ablations.metrics import oracles
from ablations.metrics.base import DIVERSITY, QUALITY, Metric
from ablations.metrics.register import all_metrics
from ablations.results.conditions import SHARED_NOISE

__all__ = ["DIVERSITY", "QUALITY", "SHARED_NOISE", "STYLE_ENTROPY", "STYLE_SEEN", "Column", "columns_of", "heading_of", "known_columns"]

TINY_IMAGE_SIZE = 64
# Read off the classes that the style oracle saw over all prompts and candidates of a seed: one value per seed.
STYLE_SEEN, STYLE_ENTROPY = oracles.STYLE_SEEN.name, oracles.STYLE_ENTROPY.name
_SHARED_NOTE = "; all candidates of a prompt drawn from one image noise, so that what differs comes from the text"


@dataclass(frozen=True)
class Column:
    """A metric of a table.

    `condition` is "" for the row's own, or the one that the value is always read in. `better` is "higher", "lower" or "" where
    neither is better (such a metric enters no verdict). `digits` are decimals. `block` is the half of a table that it stands in.
    """

    metric: str
    heading: str
    better: str = "higher"
    block: str = QUALITY
    digits: int = 3
    condition: str = ""
    note: str = ""

    @property
    def key(self) -> str:
        """`metric`, or `metric@condition` where the condition is fixed; so that claims can name it."""
        return f"{self.metric}@{self.condition}" if self.condition else self.metric


def known_columns(is_tiny: bool = False) -> list[Column]:
    """The columns of every registered metric that tables show: those of quality first, then by place and name."""
    shown = [metric for metric in all_metrics().values() if metric.in_tables and not metric.is_label]
    shown = sorted(shown, key=lambda metric: (metric.block == DIVERSITY, metric.order, metric.per == "pictures", metric.name))
    return [column for metric in shown for column in _columns(metric, is_tiny)]


def heading_of(key: str) -> str:
    """The heading of a column by its key, `metric` or `metric@condition`; the key itself where nobody registered the metric."""
    return next((column.heading for column in known_columns() if column.key == key), key)


def columns_of(per_image: Iterable[str], per_set: Iterable[str], is_tiny: bool, own_condition: str) -> list[Column]:
    """The columns for the metrics that were scored: registered ones first, then others by name.

    per_image, per_set: names of metrics with a value per image, and per set of candidates. Columns at shared noise belong to
    the refined prompts: `own_condition` says which condition the rows are.
    """
    per_image, per_set = set(per_image), set(per_set)
    registered = all_metrics()
    present = {name for name in per_image | per_set if not (is_tiny and name in registered and _says_nothing(registered[name]))}
    found = [c for c in known_columns(is_tiny) if c.metric in present and (not c.condition or own_condition == "refined")]
    quality, diversity = ([column for column in found if column.block == block] for block in (QUALITY, DIVERSITY))
    quality += [_unknown(name, QUALITY) for name in sorted(per_image - set(registered))]
    return quality + diversity + [_unknown(name, DIVERSITY) for name in sorted(per_set - per_image - set(registered))]


def _says_nothing(metric: Metric) -> bool:
    """Whether a metric that nobody need ask for is no quality measure on pictures as small as the tiny world's."""
    return metric.always and metric.small_below > TINY_IMAGE_SIZE


def _columns(metric: Metric, is_tiny: bool) -> list[Column]:
    """The metric's column, and where it has one, that at shared noise."""
    size = TINY_IMAGE_SIZE if is_tiny else metric.small_below
    better = {True: "higher", False: "lower", None: ""}[metric.higher_is_better_at(size)]
    note = metric.table_note_at(size)
    own = Column(metric.name, metric.heading, better, metric.block, metric.digits, note=note)
    if not metric.at_shared_noise:
        return [own]
    shared = f"{metric.heading}, shared noise"
    return [own, Column(metric.name, shared, better, metric.block, metric.digits, SHARED_NOISE, note + _SHARED_NOTE)]


def _unknown(name: str, block: str) -> Column:
    """The column of a metric that nobody registered: it keeps its name and has no direction."""
    return Column(name, name, better="", block=block, note="direction not declared: in no verdict" if block == QUALITY else "")
