"""What was registered before the first cell, beside what came of it: what kept to it, and how precise the comparisons became."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.reporting.claim_lines import where
from ablations.reporting.judging import Verdict
from ablations.results.kept_to import Kept, Look, kept_to, note_look
from ablations.results.registration import Registration

WITHIN = 0.25


@dataclass(frozen=True)
class Reached:
    """The half-width of a 95% interval, predicted and reached, in the endpoint's units."""

    claim: str
    row: str
    condition: str
    endpoint: str
    digits: int
    predicted: float
    reached: float

    @property
    def ratio(self) -> float:
        return self.reached / self.predicted

    @property
    def is_within(self) -> bool:
        """Whether it is no more than WITHIN from what was predicted, to either side."""
        return abs(self.ratio - 1) <= WITHIN


@dataclass(frozen=True)
class Undecided:
    """A claim that is undecided, and what the registration said of it ("" where it did not expect that)."""

    claim: str
    condition: str
    expected: str


@dataclass(frozen=True)
class Registered:
    """Everything that the report says of a registration."""

    registration: Registration
    kept: tuple[Kept, ...]
    looks: tuple[Look, ...]
    reached: tuple[Reached, ...]
    undecided: tuple[Undecided, ...]

    @property
    def is_kept(self) -> bool:
        return all(kept.is_kept for kept in self.kept)

    @property
    def line(self) -> str:
        """In one sentence, as in "Registered 2026-11-28T21:00:00+00:00 (0123456789abcdef); everything kept to it."."""
        planned, broken = self.registration.planned, [kept.what for kept in self.kept if not kept.is_kept]
        size = f"{len(planned.seeds)} seeds, {planned.num_prompts} prompts with pictures, {planned.num_text_prompts} with texts"
        came = f"not kept: {', '.join(broken)}" if broken else "everything kept to it"
        return f"Registered {self.registration.made} ({self.registration.digest[:8]}) for {size}; {came}."

    @property
    def precision(self) -> str:
        """As in "41 of 44 half-widths within 25% of those predicted"; "" where none was predicted."""
        if not self.reached:
            return ""
        within = sum(reached.is_within for reached in self.reached)
        return f"{within} of {len(self.reached)} half-widths within {WITHIN:.0%} of those predicted"


def registered(registration: Registration, output_dir: Path, verdicts: Sequence[Verdict]) -> Registered:
    """What came of a registration in an output folder. A report before its planned cells have finished is noted as a look."""
    looks = note_look(output_dir, registration)
    expected = {(each.claim, each.condition): each.needs for each in registration.expected_undecided}
    undecided = [
        Undecided(verdict.claim.title, where(verdict.condition), expected.get((verdict.claim.id, verdict.condition), ""))
        for verdict in verdicts
        if verdict.verdict == "undecided"
    ]
    kept = kept_to(registration, output_dir)
    return Registered(registration, kept, looks, tuple(_reached(registration, verdicts)), tuple(undecided))


def _reached(registration: Registration, verdicts: Iterable[Verdict]) -> list[Reached]:
    found = []
    for verdict in verdicts:
        for finding in verdict.findings:
            prediction = registration.predicted(verdict.claim.id, verdict.condition, finding.endpoint.name, finding.row)
            if prediction and prediction.half_width and finding.low is not None and finding.high is not None:
                place = verdict.claim.title, finding.label, where(verdict.condition), finding.endpoint.heading
                half = (finding.high - finding.low) / 2
                found.append(Reached(*place, finding.endpoint.digits, prediction.half_width, half))
    return found
