"""Verdicts as a person would say them: one sentence for each claim, over all conditions that it is judged in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablations.reporting.claim_lines import said_of, where
from ablations.reporting.judging import UNDECIDED, Verdict

_SAID = {
    "reproduced": "holds",
    "contradicted": "is contradicted",
    UNDECIDED: "is undecided",
    "not measured": "was not measured",
    "not delivered": "cannot be judged, as the treatment was not delivered,",
    "no room": "cannot be judged, as the scores have no room for it,",
}


@dataclass(frozen=True)
class Said:
    """A claim, the sentence about it, and the verdicts behind that, the primary one first."""

    title: str
    sentence: str
    verdicts: tuple[Verdict, ...]


def in_plain_words(verdicts: Sequence[Verdict]) -> list[Said]:
    """A sentence for every claim, in the order of the claims."""
    claims = list(dict.fromkeys(verdict.claim.id for verdict in verdicts))
    by_claim = {name: tuple(verdict for verdict in verdicts if verdict.claim.id == name) for name in claims}
    return [Said(own[0].claim.title, _sentence(own), own) for own in by_claim.values()]


def _sentence(verdicts: Sequence[Verdict]) -> str:
    """Equal verdicts together: "holds (drawn with the trained E_T); has no effect larger than 0.05 (refined prompts)"."""
    together: dict[str, list[str]] = {}
    for verdict in verdicts:
        places = together.setdefault(_words(verdict), [])
        places += [place for place in [where(verdict.condition)] if place not in places]
    return "; ".join(f"{words} ({', '.join(places)})".replace(", (", " (") for words, places in together.items()) + "."


def _words(verdict: Verdict) -> str:
    said = said_of(verdict)
    if verdict.verdict == UNDECIDED and verdict.reason:
        reason, _, _ = verdict.reason.partition(" (")
        return f"is undecided, {reason},"
    return f"has {said}" if said.startswith("no effect") else _SAID.get(verdict.verdict, said)
