"""Verdicts: what the tables say about each claim of the paper. The rules stand in claims.yaml, which also fixes the endpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ablations.reporting.collect import Section
from ablations.reporting.columns import STYLE_ENTROPY, Column, heading_of
from ablations.reporting.formats import figure, p_text, sample_size
from ablations.reporting.rows import Entry, Row
from ablations.reporting.statistics import MIN_SEEDS, holm
from ablations.reporting.tables import CONDITIONS_ID, ReportTable

REPRODUCED, CONTRADICTED, UNDECIDED, NOT_MEASURED = VERDICTS = ("reproduced", "contradicted", "undecided", "not measured")
TINY_SCOPE = "about the tiny world and claims nothing about Stable Diffusion 2.1"
NOT_PUBLISHED = "not published"
_FOLDER = Path(__file__).parent
_ALPHA = 0.05
# What a row says about a claim, and how it is put for several rows at once.
STATES = {
    "supports": "as claimed",
    "opposes": "the other way",
    "open": "not separated",
    "few seeds": "too few seeds",
    "not measured": "not measured",
}


@dataclass(frozen=True)
class Claim:
    """A claim of the paper as claims.yaml fixes it; `rows` is None for every row but the reference."""

    id: str
    title: str
    paper: str
    table: str
    rows: tuple[str, ...] | None
    row_is: str
    endpoints: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Finding:
    """One row and endpoint of a claim: its state (see `STATES`), the figures in words, the sample size, and p (1 where there is none)."""

    row: str
    state: str
    figures: str
    size: str = ""
    p_value: float = 1.0

    @property
    def text(self) -> str:
        return f"{self.row}: {self.figures}{self.size and f' (N = {self.size})'}"


@dataclass(frozen=True)
class Verdict:
    """What one table says about a claim. `line` is the verdict with the figures that decide it, `scope` what it is about."""

    claim: Claim
    verdict: str
    line: str
    scope: str
    table: str
    findings: tuple[Finding, ...]


@lru_cache(maxsize=1)
def load_claims() -> tuple[Claim, ...]:
    """The claims, in the order of the file."""
    claims = []
    for raw in yaml.safe_load((_FOLDER / "claims.yaml").read_text(encoding="utf-8")):
        assert raw["row_is"] in ("worse", "better"), raw
        rows = None if raw["rows"] == "others" else tuple(raw["rows"])
        endpoints = {profile: tuple(names) for profile, names in raw["endpoints"].items()}
        claims.append(Claim(raw["id"], raw["title"], raw["paper"], raw["table"], rows, raw["row_is"], endpoints))
    return tuple(claims)


@lru_cache(maxsize=1)
def load_published() -> dict[str, Any]:
    """published.yaml: source, note, figures, and tables by layout and row key."""
    return yaml.safe_load((_FOLDER / "published.yaml").read_text(encoding="utf-8"))


def published(table: ReportTable, row: Row) -> str:
    """The paper's figures for a row, or "not published"."""
    values = load_published()["tables"].get(table.layout, {}).get(row.key) or {}
    return ", ".join(f"{metric} {value}" for metric, value in values.items()) or NOT_PUBLISHED


def verdicts_of(section: Section, tables: Iterable[ReportTable]) -> list[Verdict]:
    """A verdict for every claim, and for every family where a claim's table has several."""
    found = []
    for claim in load_claims():
        own = [t for t in tables if t.layout == claim.table and (t.layout == CONDITIONS_ID or t.condition == "refined")]
        found += [_judge(claim, table, section) for table in own] or [_not_measured(claim, section)]
    return found


def _scope(section: Section) -> str:
    return TINY_SCOPE if section.is_tiny else f"about profile={section.profile}"


def _not_measured(claim: Claim, section: Section) -> Verdict:
    needed = {"losses": "with other loss terms", "afe": "with and without AFE", "prompt_length": "of other lengths"}
    line = f"no finished arms {needed.get(claim.table, 'with refined prompts')} and all else equal"
    return Verdict(claim, NOT_MEASURED, line, _scope(section), "", ())


def _judge(claim: Claim, table: ReportTable, section: Section) -> Verdict:
    rows = claim.rows or tuple(row.key for row in table.rows if not row.is_reference and row.arm)
    columns = {column.key: column for column in table.columns}
    endpoints = claim.endpoints.get(section.profile, ())
    several = len(rows) > 1 or claim.rows is None
    found = [_finding(claim, table.row(key), key, columns.get(name), name) for key in rows for name in endpoints]
    findings = _corrected(found)
    states = {finding.state for finding in findings}
    if states <= {"not measured"}:
        verdict = NOT_MEASURED
    elif "opposes" in states and (several or "supports" not in states):
        verdict = CONTRADICTED
    elif states == {"supports"}:
        verdict = REPRODUCED
    else:
        verdict = UNDECIDED
    line = _line(findings, verdict)
    if table.family and claim.table != CONDITIONS_ID:
        line = f"{line} [{table.family}]"
    return Verdict(claim, verdict, line, _scope(section), table.slug, tuple(findings))


def _line(findings: Sequence[Finding], verdict: str) -> str:
    """The figures of one or two findings; of more, how they stand and the figures of the one that decides."""
    if not findings:
        return "no row to compare"
    if len({finding.row for finding in findings}) == 1:
        sizes = " or ".join(dict.fromkeys(finding.size for finding in findings if finding.size))
        return f"{findings[0].row}: {'; '.join(finding.figures for finding in findings)}{sizes and f' (N = {sizes})'}"
    standing = []
    for state, words in STATES.items():
        members = [finding.row for finding in findings if finding.state == state]
        standing += [f"{words}: {', '.join(members)}"] if members else []
    opposing = [finding for finding in findings if finding.state == "opposes"]
    if verdict == CONTRADICTED:
        decisive = min(opposing, key=lambda finding: finding.p_value)
    else:
        # What stands in the way: the first that could not be judged, else the least certain.
        decisive = max(findings, key=lambda finding: (list(STATES).index(finding.state), finding.p_value))
    return f"{'; '.join(standing)}. {'Decisive' if decisive.state in ('supports', 'opposes', 'open') else 'First'}: {decisive.text}"


def _finding(claim: Claim, row: Row | None, key: str, column: Column | None, name: str) -> Finding:
    label = row.label if row else key
    if row is None or not row.arm:
        return Finding(label, "not measured", "not run")
    entry = row.entries.get(name)
    if column is None or entry is None or entry.difference_mean is None:
        heading = heading_of(name)
        older = " (scores from before styles were kept: run the cells again with force=true)" if name == STYLE_ENTROPY else ""
        return Finding(label, "not measured", f"{heading} not measured{older}")
    words, size = f"{column.heading} {in_words(entry, column)}", _size(entry, row)
    if entry.difference is None:
        return Finding(label, "few seeds", f"{words}, no interval below {MIN_SEEDS} seeds", size)
    claimed = (-1 if claim.row_is == "worse" else 1) * (-1 if column.better == "lower" else 1)
    if not entry.difference.excludes_zero:
        return Finding(label, "open", words, size, entry.difference.p_value)
    if not entry.is_significant:
        words += " (not after correction for all rows of the table)"
    state = "supports" if entry.difference.mean * claimed > 0 else "opposes"
    return Finding(label, state, words, size, entry.difference.p_value)


def _corrected(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, those against the claim being held open unless they remain after correction for the claim's own comparisons.

    One comparison among many that goes the other way by chance must not contradict a claim; to be reproduced it needs all of them, which
    needs no correction.
    """
    tested = [i for i, finding in enumerate(findings) if finding.state in ("supports", "opposes", "open")]
    corrected = dict(zip(tested, holm([findings[i].p_value for i in tested]), strict=True)) if tested else {}
    return [
        dataclasses.replace(finding, state="open") if finding.state == "opposes" and corrected[i] >= _ALPHA else finding
        for i, finding in enumerate(findings)
    ]


def in_words(entry: Entry, column: Column) -> str:
    """The difference with its interval and corrected p, as in "-0.034 [-0.056, -0.012], Holm p = 0.004"."""
    difference = figure(entry.difference_mean, column.digits, signed=True)
    if entry.difference is None:
        return difference
    interval = f"[{figure(entry.difference.low, column.digits, True)}, {figure(entry.difference.high, column.digits, True)}]"
    return f"{difference} {interval}, Holm {p_text(entry.p_holm)}"


def _size(entry: Entry, row: Row) -> str:
    prompts = entry.difference.num_prompts if entry.difference else entry.num_prompts
    return sample_size(entry.shared_seeds, row.num_prompts if prompts == 1 else prompts, row.num_candidates)


def summary(verdicts: Sequence[Verdict]) -> list[str]:
    """A line per verdict, for a terminal: "reproduced: L_mse matters (...)"."""
    return [f"{verdict.verdict}: {verdict.claim.title} ({verdict.line})" for verdict in verdicts]
