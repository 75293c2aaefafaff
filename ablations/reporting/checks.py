"""Manipulation checks as tables: whether what an arm is said to do was done, beside the arms that could not have done it.

The checks are measured in each cell (`ablations/cell/checking`); how many texts are those of the reference arm is counted here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablations.reporting.assay import FAILED, NOT_CHECKED, PASSED, Outcome
from ablations.reporting.collect import FinishedCell, Section
from ablations.reporting.formats import figure
from ablations.reporting.judging import Verdict
from ablations.reporting.layouts import AFE, LOSSES, Family, families

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
    Check("afe_retrieval_coarse_mean_weights", "Retrieval, mean weights", "the same with the mean of all pictures' weights", "afe"),
    Check("afe_retrieval_coarse_other_weights", "Retrieval, another's weights", "the same with another picture's weights", "afe"),
    Check("pooled_retrieval_coarse", "Retrieval, no AFE", "the same with the pooled feature", "clip"),
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
class Checked:
    """A check over the seeds of an arm, in their order."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    def span(self, check: Check) -> str:
        """The range of the seeds, as in "[0.88, 0.93]"; "" for one seed."""
        return f"[{figure(min(self.values), check.digits)}, {figure(max(self.values), check.digits)}]" if len(self.values) > 1 else ""

    def text(self, check: Check) -> str:
        """The mean with the range of the seeds, as in "0.91 [0.88, 0.93]"."""
        return f"{figure(self.mean, check.digits)} {self.span(check)}".strip()


@dataclass(frozen=True)
class CheckRow:
    """An arm and its checks by name."""

    label: str
    seeds: int
    checked: Mapping[str, Checked]
    is_reference: bool = False


@dataclass(frozen=True)
class CheckTable:
    """The checks of a family's arms, and whether the treatments that claims are about were delivered, a sentence each."""

    slug: str
    title: str
    family: str
    columns: tuple[Check, ...]
    rows: tuple[CheckRow, ...]
    delivered: tuple[str, ...] = ()


def check_tables(section: Section, verdicts: Sequence[Verdict] = ()) -> list[CheckTable]:
    """The tables of a section's largest families of loss terms and of AFE; none where no cell was checked and no texts can be compared."""
    found = []
    for layout in (AFE, LOSSES):
        for family in families(layout, section.cells, section.unfinished)[:1]:
            table = _table(section, family, [v for v in verdicts if v.claim.table == layout.id and v.family == family.name])
            found += [table] if table.columns else []
    return found


def _table(section: Section, family: Family, verdicts: Sequence[Verdict]) -> CheckTable:
    layout = family.layout
    reference = family.rows.get(layout.reference, {})
    rows = [_row(family, key, reference) for key in family.ordered_keys() if key in family.rows]
    shown = [check for check in CHECKS if check.about in _SHOWN[layout.id] and any(check.name in row.checked for row in rows)]
    outcomes = {v.claim.title: v.check for v in verdicts if v.claim.checks and v.check is not None}
    any_made = any(check not in _IDENTICAL for check in shown)
    said = tuple(_delivered(title, outcome) for title, outcome in outcomes.items()) if any_made else ()
    slug = f"{section.slug}-checks-{layout.id}"
    return CheckTable(slug, f"Manipulation checks: {layout.title}", family.name, tuple(shown), tuple(rows), said)


def _delivered(title: str, outcome: Outcome) -> str:
    """Whether a claim's treatment was delivered, with the headings of the table in place of the names in run.json."""
    text = outcome.text
    for check in sorted(CHECKS, key=lambda check: -len(check.name)):
        text = text.replace(check.name, f'"{check.heading}"')
    return f"{title}: {_SAID[outcome.state]}{text and f': {text}'}."


_SAID = {PASSED: "delivered", FAILED: "NOT delivered", NOT_CHECKED: "not checked"}


def _row(family: Family, key: str, reference: Mapping[int, FinishedCell]) -> CheckRow:
    cells = [family.rows[key][seed] for seed in sorted(family.rows[key])]
    is_reference = key == family.layout.reference
    found: dict[str, Checked] = {}
    for check in CHECKS:
        if check in _IDENTICAL:
            values = [] if is_reference else _identical(cells, reference, "refined" if check.name == IDENTICAL else "rewrite")
        else:
            values = [cell.checks[check.name] for cell in cells if check.name in cell.checks]
        if values:
            found[check.name] = Checked(tuple(values))
    return CheckRow(family.layout.label(key), len(cells), found, is_reference)


def _identical(cells: Sequence[FinishedCell], reference: Mapping[int, FinishedCell], condition: str) -> list[float]:
    """By seed: the share of texts that are letter by letter the reference's, over the prompts and candidates that both wrote."""
    shares = []
    for cell in cells:
        theirs = reference[cell.seed].texts if cell.seed in reference else {}
        both = [key for key in cell.texts if key[0] == condition and key in theirs]
        shares += [sum(cell.texts[key] == theirs[key] for key in both) / len(both)] if both else []
    return shares
