"""What the report says of each claim: verdicts of a section, in words, and the published figures beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ablations.reporting.claims import Claim, load_claims, margins
from ablations.reporting.collect import Section
from ablations.reporting.columns import Column
from ablations.reporting.evidence import Plan
from ablations.reporting.formats import figure, p_text
from ablations.reporting.gathering import evidence_of
from ablations.reporting.judging import TINY_SCOPE, VERDICTS, Verdict, judge
from ablations.reporting.rows import Entry, Row
from ablations.reporting.tables import ReportTable

__all__ = ["TINY_SCOPE", "VERDICTS", "Claim", "Verdict", "in_words", "load_claims", "load_published", "margins", "published", "summary"]
NOT_PUBLISHED = "not published"
_FOLDER = Path(__file__).parent


@lru_cache(maxsize=1)
def load_published() -> dict[str, Any]:
    """published.yaml: source, note, figures, and tables by layout and row key."""
    return yaml.safe_load((_FOLDER / "published.yaml").read_text(encoding="utf-8"))


def published(table: ReportTable, row: Row) -> str:
    """The paper's figures for a row, or "not published"."""
    values = load_published()["tables"].get(table.layout, {}).get(row.key) or {}
    return ", ".join(f"{metric} {value}" for metric, value in values.items()) or NOT_PUBLISHED


def verdicts_of(section: Section, plan: Plan | None = None, is_aside: Callable[[str, str], bool] | None = None) -> list[Verdict]:
    """A verdict for every claim and setting, and for every family where a claim's table has several; `plan` is what was registered,
    `is_aside` as `judge` has it."""
    return judge(evidence_of(section, plan), is_aside=is_aside)


def in_words(entry: Entry, column: Column) -> str:
    """The difference with its interval and corrected p, as in "-0.034 [-0.056, -0.012], Holm p = 0.004"."""
    difference = figure(entry.difference_mean, column.digits, signed=True)
    if entry.difference is None:
        return difference
    interval = f"[{figure(entry.difference.low, column.digits, True)}, {figure(entry.difference.high, column.digits, True)}]"
    return f"{difference} {interval}, Holm {p_text(entry.p_holm)}"


def summary(verdicts: Sequence[Verdict]) -> list[str]:
    """A line per verdict, for a terminal: "reproduced: L_mse matters, in plug_in (...)"."""
    return [f"{verdict.verdict}: {verdict.claim.title}, in {verdict.condition} ({verdict.line})" for verdict in verdicts]
