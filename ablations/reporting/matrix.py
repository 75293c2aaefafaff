"""One table over everything that was judged: which claims hold in which condition, and in how many readings of the method."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.reporting.assembly import SectionReport
from ablations.reporting.claim_lines import said_of, where

_FIRST = ("refined", "plug_in")
_READINGS = "over readings"


@dataclass(frozen=True)
class Matrix:
    """`headings` of the columns, and rows of (claim, a verdict for each column; "" where a claim is not judged there)."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, section: SectionReport) -> Matrix:
        """Of a section: refined prompts and plug-in pictures first, then further conditions, then the readings where several were tried."""
        judged = [verdict.condition for verdict in section.verdicts]
        conditions = [*(name for name in _FIRST if name in judged), *(name for name in dict.fromkeys(judged) if name not in _FIRST)]
        rows = []
        for said in section.said:
            by_condition: dict[str, list[str]] = {}
            for verdict in said.verdicts:
                by_condition.setdefault(verdict.condition, []).append(said_of(verdict))
            cells = ["; ".join(dict.fromkeys(by_condition.get(name, []))) for name in conditions]
            tried = [f"{where(one.condition)}: {one.count}" for one in section.readings if one.title == said.title]
            rows.append((said.title, (*cells, *(["; ".join(tried)] if section.readings else []))))
        headings = [where(name) for name in conditions] + ([_READINGS] if section.readings else [])
        return cls(tuple(headings), tuple(rows))
