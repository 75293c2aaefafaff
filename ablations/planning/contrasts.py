"""The contrasts that claims are judged by: every row, condition and endpoint of each, with its margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ablations.config.parsing import Scalar
from ablations.reporting.layouts import LAYOUTS
from ablations.reporting.tables import CONDITIONS_ID
from ablations.reporting.verdicts import Claim, load_claims
from ablations.results.conditions import REFINED


class RowKey(NamedTuple):
    """The row of a table that an arm is ("" where it does not stand in the table), and whether the others are compared with it."""

    row: str
    is_reference: bool


@dataclass(frozen=True)
class Contrast:
    """One row of a claim's table against the reference, in one condition, at one endpoint.

    `endpoint` is as claims.yaml has it, `metric` or `metric@condition`. `margin` is None where none is declared. `is_primary`: in the
    condition that decides the claim.
    """

    claim: str
    table: str
    row: str
    condition: str
    endpoint: str
    margin: float | None
    is_primary: bool

    @property
    def metric(self) -> str:
        return self.endpoint.partition("@")[0]

    @property
    def read_in(self) -> str:
        """The condition that the row's endpoint is read in."""
        return self.endpoint.partition("@")[2] or (self.row if self.is_of_conditions else self.condition)

    @property
    def reference_in(self) -> str:
        """The condition that the reference's endpoint is read in."""
        return self.endpoint.partition("@")[2] or self.condition

    @property
    def is_of_conditions(self) -> bool:
        """Whether conditions of one arm are compared, rather than arms."""
        return self.table == CONDITIONS_ID

    @property
    def row_id(self) -> str:
        return f"{self.table}: {self.row}"


def row_keys(table: str, settings: Mapping[str, Scalar]) -> RowKey:
    """The row of a table that an arm with these train and eval keys is."""
    layout = next((layout for layout in LAYOUTS if layout.id == table), None)
    if layout is None or not layout.fits(settings):
        return RowKey("", False)
    key = layout.key(settings)
    return RowKey(key, key == layout.reference)


def contrasts_of(arms: Sequence[Mapping[str, Scalar]], profile: str) -> list[Contrast]:
    """The contrasts that a sweep with arms of these settings can make, in the order of the claims."""
    found: list[Contrast] = []
    for claim in load_claims():
        for row in _rows(claim, arms):
            for condition in conditions_of_claim(claim):
                is_primary = condition == conditions_of_claim(claim)[0]
                for name in claim.endpoints.get(profile, ()):
                    found.append(Contrast(claim.id, claim.table, row, condition, name, margin_of(name), is_primary))
    return found


def _rows(claim: Claim, arms: Sequence[Mapping[str, Scalar]]) -> list[str]:
    if claim.table == CONDITIONS_ID:
        return list(claim.rows or ())
    keys = [row_keys(claim.table, settings) for settings in arms]
    if not any(key.is_reference for key in keys):
        return []
    there = list(dict.fromkeys(key.row for key in keys if key.row and not key.is_reference))
    return there if claim.rows is None else [row for row in claim.rows if row in there]


def conditions_of_claim(claim: Claim) -> tuple[str, ...]:
    """The conditions that a claim is judged in, the one that decides first."""
    return getattr(claim, "conditions", (REFINED,))


def margin_of(endpoint: str) -> float | None:
    """The margin that is declared for an endpoint."""
    return None
