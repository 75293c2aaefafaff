"""What practised prompt writers add: the phrases between the commas of fine prompts, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def phrases_of(prompt: str) -> list[str]:
    """What stands between commas after the first one (before it stands what the picture shows), in order: lower case, single spaces."""
    parts = (" ".join(part.split()).casefold() for part in prompt.split(",")[1:])
    return [part for part in parts if part]


def count_phrases(fine_prompts: Iterable[str]) -> list[tuple[str, int]]:
    """Phrases with the number of distinct prompts that have them, most frequent first; equal counts in alphabetical order."""
    counts = Counter(phrase for prompt in dict.fromkeys(fine_prompts) for phrase in dict.fromkeys(phrases_of(prompt)))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
