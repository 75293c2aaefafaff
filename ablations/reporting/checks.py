"""Manipulation checks as tables: whether what an arm is said to do was done, beside the arms that could not have done it.

The checks are measured in each cell (`ablations/cell/checking`); how many texts are those of the reference arm is counted here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablations.reporting.collect import FinishedCell, Section
from ablations.reporting.layouts import AFE, LOSSES, Family, families
from lightning_modules.terms import all_terms

IDENTICAL, IDENTICAL_REWRITTEN = "text_identical_to_reference", "rewritten_identical_to_reference"


@dataclass(frozen=True)
class Check:
    """One check: its name in run.json, its heading, what it says, and its decimals. `about` is the term or switch whose doing it shows."""

    name: str
    heading: str
    note: str
    about: str
    digits: int = 3


_IDENTICAL = (
    Check(IDENTICAL, "Same texts", "share of refined texts that are those of the reference arm, at equal seed, prompt and candidate", ""),
    Check(IDENTICAL_REWRITTEN, "Same texts, rewritten", "the same of rewritten texts", ""),
)
CHECKS = (
    Check("afe_cosine_to_pooled", "Cosine to no AFE", "of its representation to the pooled feature that an arm without AFE reads", "afe"),
    Check("afe_entropy_share", "Entropy of weights", "as a share of its most; 0: one vector alone, 1: all alike", "afe"),
    Check("afe_cosine_to_mean_weights", "Cosine to mean weights", "of its representation to the one that mean weights give", "afe"),
    Check("afe_retrieval_coarse", "Retrieval, own weights", "picture found by its coarse prompt, first of all held-out ones", "afe"),
    Check("afe_retrieval_coarse_mean_weights", "... mean weights", "the same with the mean of all pictures' weights", "afe"),
    Check("afe_retrieval_coarse_other_weights", "... another's weights", "the same with another picture's weights", "afe"),
    Check("pooled_retrieval_coarse", "... no AFE", "the same with the pooled feature", "clip"),
    Check("afe_retrieval_fine", "Retrieval, fine prompt", "picture found by its fine prompt, own weights", "afe"),
    Check(
        "mse_gap_closed", "Gap closed", "share of the UNet's error gap between coarse and fine prompt that the trained E_T closes", "mse"
    ),
    Check("clip_accuracy", "L_clip, accuracy", "share of held-out pairs told apart within a batch", "clip"),
    Check("text_loss", "L_text, held out", "nats per token of held-out fine prompts; less is better", "text"),
    *_IDENTICAL,
)
_SHOWN = {LOSSES.id: ("mse", "clip", "text", ""), AFE.id: ("afe", "clip", "")}


@dataclass(frozen=True)
class Limits:
    """What a check must be for the treatment to count as delivered; None where it is not bounded on that side."""

    least: float | None = None
    most: float | None = None

    def hold(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def text(self) -> str:
        """As in "0.2 to 0.9", "at most 0.95"."""
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        return f"at least {self.least:g}" if self.most is None else f"at most {self.most:g}"


@dataclass(frozen=True)
class Checked:
    """A check over the seeds of an arm: their values, and how many of them keep to its limits (None where it has none)."""

    values: tuple[float, ...]
    passed: int | None = None

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def range(self) -> tuple[float, float]:
        return min(self.values), max(self.values)


@dataclass(frozen=True)
class CheckRow:
    """An arm: its checks by name, and in how many of its seeds every limit is kept to (None where nothing is to be delivered)."""

    label: str
    seeds: int
    checked: Mapping[str, Checked]
    is_reference: bool = False
    delivered: int | None = None

    @property
    def verdict(self) -> str:
        """As in "yes (5 of 5)"; "" where there is nothing to deliver."""
        if self.delivered is None:
            return ""
        return f"{'yes' if self.delivered == self.seeds else 'no'} ({self.delivered} of {self.seeds})"


@dataclass(frozen=True)
class CheckTable:
    """The checks of a family's arms. `limits` by check."""

    slug: str
    title: str
    family: str
    columns: tuple[Check, ...]
    limits: Mapping[str, Limits]
    rows: tuple[CheckRow, ...]

    @property
    def has_verdicts(self) -> bool:
        return any(row.delivered is not None for row in self.rows)


def check_tables(section: Section, limits: Mapping[str, Limits]) -> list[CheckTable]:
    """The tables of a section's largest families of loss terms and of AFE; none where no cell was checked and no texts can be compared."""
    found = []
    for layout in (AFE, LOSSES):
        for family in families(layout, section.cells, section.unfinished)[:1]:
            table = _table(section, family, limits)
            found += [table] if table.columns else []
    return found


def _table(section: Section, family: Family, limits: Mapping[str, Limits]) -> CheckTable:
    layout = family.layout
    reference = family.rows.get(layout.reference, {})
    rows = [_row(family, key, reference, limits) for key in family.ordered_keys() if key in family.rows]
    shown = [check for check in CHECKS if check.about in _SHOWN[layout.id] and any(check.name in row.checked for row in rows)]
    only_texts = all(check in _IDENTICAL for check in shown)
    # Without any check of a cell, the share of equal texts says nothing unless some texts are there.
    columns = tuple(shown) if not only_texts or len(rows) > 1 else ()
    own = {check.name: limits[check.name] for check in columns if check.name in limits}
    slug = f"{section.slug}-checks-{layout.id}"
    return CheckTable(slug, f"Manipulation checks: {layout.title}", family.name, columns, own, tuple(rows))


def _row(family: Family, key: str, reference: Mapping[int, FinishedCell], limits: Mapping[str, Limits]) -> CheckRow:
    cells = [family.rows[key][seed] for seed in sorted(family.rows[key])]
    is_reference = key == family.layout.reference
    found: dict[str, Checked] = {}
    for check in CHECKS:
        if check in _IDENTICAL:
            values = [] if is_reference else _identical(cells, reference, "refined" if check.name == IDENTICAL else "rewrite")
        else:
            values = [cell.checks[check.name] for cell in cells if check.name in cell.checks]
        if values:
            bounds = limits.get(check.name)
            found[check.name] = Checked(tuple(values), None if bounds is None else sum(map(bounds.hold, values)))
    return CheckRow(family.layout.label(key), len(cells), found, is_reference, _delivered(family, cells, limits))


def _identical(cells: Sequence[FinishedCell], reference: Mapping[int, FinishedCell], condition: str) -> list[float]:
    """By seed: the share of texts that are letter by letter the reference's, over the prompts and candidates that both wrote."""
    shares = []
    for cell in cells:
        theirs = reference[cell.seed].texts if cell.seed in reference else {}
        both = [key for key in cell.texts if key[0] == condition and key in theirs]
        shares += [sum(cell.texts[key] == theirs[key] for key in both) / len(both)] if both else []
    return shares


def _delivered(family: Family, cells: Sequence[FinishedCell], limits: Mapping[str, Limits]) -> int | None:
    """In how many seeds every limit about what the table varies is kept to, where an arm has what they are about."""
    about = {"afe"} if family.layout is AFE else {term.name for term in all_terms()}
    bounds = {c.name: limits[c.name] for c in CHECKS if c.name in limits and c.about in about}
    own = {name: bound for name, bound in bounds.items() if any(name in cell.checks for cell in cells)}
    if not own or not cells:
        return None
    return sum(all(name in cell.checks and bound.hold(cell.checks[name]) for name, bound in own.items()) for cell in cells)
