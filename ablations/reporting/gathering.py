"""Evidence from finished cells: every comparison that a claim or a control needs, in the conditions that it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from ablations.metrics.register import all_metrics
from ablations.reporting.claims import load_claims
from ablations.reporting.collect import FinishedCell, LeftOut, Section
from ablations.reporting.columns import known_columns
from ablations.reporting.evidence import Arm, Comparison, Endpoint, Evidence, Plan, Scores
from ablations.reporting.layouts import LAYOUTS, Family, Layout, families
from ablations.reporting.tables import CONDITIONS_ID, compared_arms, slug_of
from ablations.results.conditions import all_conditions
from ablations.results.registration import Registration

Cells = Mapping[int, FinishedCell]
# What each row of a comparison is: its label, its cells by seed and the condition that they are read in.
Sources = Mapping[str, tuple[str, Cells, str]]


def evidence_of(section: Section, plan: Plan | None = None) -> Evidence:
    """The evidence of a section's cells. `plan` is what was registered for them, None where nothing was."""
    comparisons: list[Comparison] = []
    references: list[Cells] = []
    names = _metrics(section.profile)
    for layout in LAYOUTS:
        for number, family in enumerate(families(layout, section.cells, section.unfinished)):
            references += [family.rows[layout.reference]] if layout.reference in family.rows else []
            for condition in _conditions(layout.id):
                comparisons += _of_arms(section, family, condition, number, names, plan)
    for number, cells in enumerate(compared_arms(section, references)):
        first = next(iter(cells.values()))
        present = {condition for cell in cells.values() for condition in cell.conditions}
        titles = {name: condition.title for name, condition in all_conditions().items()}
        sources = {name: (titles.get(name, name), cells, name) for name in titles if name in present}
        arms = _arms(sources, names, section.unfinished)
        slug = slug_of(section, CONDITIONS_ID, "", number)
        is_planned = plan is None or plan.has(first.arm)
        comparisons.append(Comparison(CONDITIONS_ID, "", "refined", arms, f"arm {first.arm}", slug, False, is_planned))
    return Evidence(section.profile, tuple(comparisons), _endpoints(section), plan)


def plan_of(registration: Registration | None, section: Section) -> Plan | None:
    """What was registered for a section: None where nothing was, or its data or weights are others than the registered ones."""
    if registration is None:
        return None
    is_own = (registration.data_digest, registration.weights_digest) == (section.data_digest, section.weights_digest)
    planned = registration.planned
    return Plan(planned.seeds, planned.num_prompts, frozenset(planned.arms.values())) if is_own else None


def _metrics(profile: str) -> tuple[str, ...]:
    """Every endpoint of a claim or a control."""
    settings = [setting for claim in load_claims() for setting in claim.settings]
    named = [setting.endpoints for setting in settings]
    named += [own for setting in settings if (own := setting.positive_control.endpoints)]
    return tuple(dict.fromkeys(name for endpoints in named for name in endpoints.get(profile, ())))


def _conditions(table: str) -> tuple[str, ...]:
    """The conditions in which a claim or a control reads a table."""
    found = [condition for claim in load_claims() if claim.table == table for condition in claim.conditions]
    for claim in load_claims():
        for setting in claim.settings:
            if setting.positive_control.table == table:
                found.append(setting.positive_control.condition or setting.condition)
    return tuple(dict.fromkeys(found))


def _of_arms(section: Section, family: Family, condition: str, number: int, names: Iterable[str], plan: Plan | None) -> list[Comparison]:
    """A family's comparison in a condition; empty where no cell of it was drawn there."""
    layout: Layout = family.layout
    if not any(condition in cell.conditions for cells in family.rows.values() for cell in cells.values()):
        return []
    sources = {key: (layout.label(key), family.rows[key], condition) for key in family.ordered_keys() if key in family.rows}
    arms = _arms(sources, names, section.unfinished)
    shown = condition if condition in layout.conditions else layout.conditions[0]
    slug = slug_of(section, layout.id, shown, number)
    references = family.rows.get(layout.reference, {}).values()
    is_planned = plan is None or any(plan.has(cell.arm) for cell in references)
    return [Comparison(layout.id, condition, layout.reference, arms, family.name, slug, is_planned=is_planned)]


def _arms(sources: Sources, names: Iterable[str], unfinished: Iterable[LeftOut]) -> dict[str, Arm]:
    scores: dict[str, dict[str, Scores]] = {key: {} for key in sources}
    for name in names:
        fewest = _fewest_candidates(sources, name)
        for key, (_, cells, condition) in sources.items():
            if fewest and (own := _scores(cells, name, condition, fewest)) is not None:
                scores[key][name] = own
    failed: dict[str, set[int]] = {}
    for item in unfinished:
        if item.status == "failed":
            failed.setdefault(item.arm, set()).add(int(item.name.rpartition("-")[2]))
    arms = {}
    for key, (label, cells, _) in sources.items():
        of_arm = {seed for cell in cells.values() for seed in failed.get(cell.arm, ())} - set(cells)
        checks = {seed: cell.checks for seed, cell in cells.items()}
        arms[key] = Arm(key, label, scores[key], tuple(sorted(cells)), tuple(sorted(of_arm)), checks)
    return arms


def _fewest_candidates(sources: Sources, metric: str) -> int:
    """How many candidates of a prompt every row that has a metric's values has; 0 where none has."""
    counts = [cell.num_candidates(condition, metric) for _, cells, condition in sources.values() for cell in cells.values()]
    scored = any(cell.values(metric, condition) is not None for _, cells, condition in sources.values() for cell in cells.values())
    return min((count for count in counts if count), default=0) if scored else 0


def _scores(cells: Cells, metric: str, condition: str, candidates: int) -> Scores | None:
    """Over the seeds that have a metric and the prompts that all of these have; None where there are none."""
    by_seed = {seed: cells[seed].values(metric, condition, candidates) for seed in sorted(cells)}
    table = pd.DataFrame({seed: values for seed, values in by_seed.items() if values is not None}).T.dropna(axis="columns")
    if not table.size:
        return None
    drawn = min(candidates, max(cell.num_candidates(condition, metric) for cell in cells.values()))
    return Scores(table.to_numpy(dtype=float), tuple(table.index), tuple(table.columns), max(drawn, 1))


def _endpoints(section: Section) -> dict[str, Endpoint]:
    """What the register of metrics says of each: heading, direction, decimals, and the least and greatest possible value."""
    found = {}
    for column in known_columns(section.is_tiny):
        metric = all_metrics().get(column.metric)
        if not column.condition and metric is not None:
            floor, ceiling = (bound if abs(bound) != float("inf") else None for bound in metric.range)
            found[metric.name] = Endpoint(metric.name, column.heading, column.better != "lower", column.digits, floor, ceiling)
    return found
