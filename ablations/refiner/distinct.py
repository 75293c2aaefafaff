"""Candidates of a prompt that are different texts: one that equals an earlier one is drawn again, by a key of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

# How often a candidate is drawn again at most: what is still equal then has nearly all of the chance.
MOST_REDRAWS = 8
_REDRAW_TAG = 0x5D
# A RefinedPrompt, which is made with the help of this file.
Candidate = TypeVar("Candidate", bound=Any)


def redraw_key(prompt_seed: int, redraw: int) -> tuple[int, ...]:
    """The key of a candidate's further draw, which is counted from 1; of its first draw, 0, it is that of a run's evaluation."""
    return (prompt_seed, _REDRAW_TAG, redraw) if redraw else (prompt_seed,)


def made_distinct(candidates: Sequence[Candidate], draw: Callable[[int, int], Candidate]) -> list[Candidate]:
    """Candidates of some prompts, those redrawn that equal an earlier one of their prompt; `draw(place, redraw)` makes one anew.

    Each prompt's stand together. What a candidate becomes depends on those before it alone, so that asking for more changes none. One that
    is equal still after the last draw stays so.
    """
    found: list[Candidate] = []
    texts: set[str] = set()
    for place, candidate in enumerate(candidates):
        texts = set() if candidate.candidate == 0 else texts
        redraws = 0
        while candidate.refined in texts and redraws < MOST_REDRAWS:
            redraws += 1
            candidate = dataclasses.replace(draw(place, redraws), redraws=redraws)
        texts.add(candidate.refined)
        found.append(candidate)
    return found


def num_redrawn(records: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Of the records of a prompt's candidates: how many were drawn again, and how many of these equal another one all the same."""
    texts = [record["refined"] for record in records]
    again = [record["refined"] for record in records if record["redraws"]]
    return len(again), sum(texts.count(text) > 1 for text in again)


def said_of_redraws(redrawn: int, still_equal: int) -> str:
    """The two numbers in words; "" where nothing was drawn again."""
    if not redrawn:
        return ""
    rest = f", {still_equal} of them in vain" if still_equal else ""
    return f"{redrawn} candidate{'s were' if redrawn > 1 else ' was'} drawn again, being equal to another{rest}"
