"""The contrasts that claims are judged by: every row, condition and endpoint of each, with its margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ablations.config.parsing import Scalar
from ablations.reporting.claims import Claim, load_claims, margins
from ablations.reporting.findings import NOT_OTHERS
from ablations.reporting.layouts import LAYOUTS
from ablations.reporting.tables import CONDITIONS_ID


class RowKey(NamedTuple):
    """The row of a table that an arm is ("" where it does not stand in the table), and whether the others are compared with it."""

    row: str
    is_reference: bool


@dataclass(frozen=True)
class Contrast:
    """One row of a claim's table against the reference, in one condition, at one endpoint.

    `setting` is the number of the claim's setting that it belongs to, 0 the one that decides. `endpoint` is as claims.yaml has it, `metric`
    or `metric@condition`. `margin` is None where none is declared.
    """

    claim: str
    setting: int
    table: str
    row: str
    condition: str
    endpoint: str
    margin: float | None

    @property
    def is_primary(self) -> bool:
        return self.setting == 0

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
    limits = margins(profile)
    found: list[Contrast] = []
    for claim in load_claims():
        for number, setting in enumerate(claim.settings):
            for row in _rows(claim, arms):
                for name in setting.endpoints.get(profile, ()):
                    found.append(Contrast(claim.id, number, claim.table, row, setting.condition, name, limits.get(name)))
    return found


def _rows(claim: Claim, arms: Sequence[Mapping[str, Scalar]]) -> list[str]:
    if claim.table == CONDITIONS_ID:
        return list(claim.rows or ())
    keys = [row_keys(claim.table, settings) for settings in arms]
    if not any(key.is_reference for key in keys):
        return []
    there = list(dict.fromkeys(key.row for key in keys if key.row and not key.is_reference))
    return [row for row in there if row not in NOT_OTHERS] if claim.rows is None else [row for row in claim.rows if row in there]
