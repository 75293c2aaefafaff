"""What verdicts are judged from: scores by arm, seed and prompt, what was planned, what failed, and the manipulation checks.

It knows no run folder: `gathering.py` makes it from finished cells, `pipeline_check.py` from drawn numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Scores of one endpoint: `values` (num_seeds, num_prompts), candidates averaged, with the seeds in ascending order and the distinct
    texts of the prompts that they belong to. `candidates` is the number that was averaged."""

    values: np.ndarray
    seeds: tuple[int, ...]
    prompts: tuple[str, ...]
    candidates: int = 1

    def __post_init__(self) -> None:
        assert self.values.shape == (len(self.seeds), len(self.prompts)), (self.values.shape, len(self.seeds), len(self.prompts))

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    def at(self, seeds: tuple[int, ...], prompts: tuple[str, ...]) -> np.ndarray:
        """Values (len(seeds), len(prompts)) in that order. Raises KeyError for one that there is not."""
        if (seeds, prompts) == (self.seeds, self.prompts):
            return self.values
        rows, columns = ({name: i for i, name in enumerate(names)} for names in (self.seeds, self.prompts))
        return self.values[np.ix_([rows[seed] for seed in seeds], [columns[prompt] for prompt in prompts])]


@dataclass(frozen=True)
class Arm:
    """One row of a comparison: an arm, or a condition of an arm.

    `scores` by the metric's name; `seeds` are those that finished, `failed` those that were begun and did not finish. `checks` are its
    manipulation checks (`ablations/cell/checking`) by seed and name.
    """

    key: str
    label: str
    scores: Mapping[str, Scores]
    seeds: tuple[int, ...]
    failed: tuple[int, ...] = ()
    checks: Mapping[int, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Arms that may be compared in one condition; `arms` by row key.

    `table` is the id of the layout ("conditions": one arm's conditions, `condition` is then ""). `family` says what sets it apart from its
    likes, `slug` names the table that shows it. `poolable`: the arms were made in one way, so that their spread may be pooled.
    `is_planned`: what was registered, if anything was, is about these arms.
    """

    table: str
    condition: str
    reference: str
    arms: Mapping[str, Arm]
    family: str = ""
    slug: str = ""
    poolable: bool = True
    is_planned: bool = True


@dataclass(frozen=True)
class Endpoint:
    """What there is to know of a metric: its heading and decimals, which direction is better, and the least and greatest value that an
    arm can have on purpose (None where that is not known)."""

    name: str
    heading: str
    higher_is_better: bool = True
    digits: int = 3
    floor: float | None = None
    ceiling: float | None = None


@dataclass(frozen=True)
class Plan:
    """What was registered before the first cell: the seeds that are judged, how many prompts, and the folder names of the arms (none: of
    all that there are)."""

    seeds: tuple[int, ...]
    prompts: int | None = None
    arms: frozenset[str] = frozenset()

    def has(self, arm: str) -> bool:
        return not self.arms or arm in self.arms


@dataclass(frozen=True)
class Evidence:
    """Everything that `verdicts.judge` reads. `endpoints` by the metric's name; `plan` is None where nothing was registered."""

    profile: str
    comparisons: tuple[Comparison, ...]
    endpoints: Mapping[str, Endpoint]
    plan: Plan | None = None

    def plan_of(self, comparison: Comparison) -> Plan | None:
        """What was registered for a comparison; None where nothing was."""
        return self.plan if comparison.is_planned else None

    def of(self, table: str, condition: str, family: str | None = None) -> list[Comparison]:
        """The comparisons of a table in a condition, of one family where it is given."""
        own = [c for c in self.comparisons if c.table == table and c.condition == ("" if table == "conditions" else condition)]
        return [c for c in own if family is None or c.family == family]
