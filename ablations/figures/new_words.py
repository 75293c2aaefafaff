"""Which words of a refined prompt are new."""

from __future__ import annotations

import re
from collections import Counter


def split_new_words(coarse_prompt: str, refined_prompt: str) -> list[tuple[str, bool]]:
    """The refined prompt in pieces (text, is_new); the pieces joined give the refined prompt back.

    A refined prompt that starts with the user's text is new from there on, in the middle of a word too. In a rewritten one
    a word is the user's as often as the user wrote it, regardless of case and punctuation.
    """
    if refined_prompt.startswith(coarse_prompt):
        pieces = [(coarse_prompt, False), (refined_prompt[len(coarse_prompt) :], True)]
        return [piece for piece in pieces if piece[0]]
    own = Counter(_bare(word) for word in coarse_prompt.split())
    pieces = []
    for part in re.findall(r"\s+|\S+", refined_prompt):
        bare = _bare(part)
        is_new = not part.isspace() and own[bare] == 0
        if not part.isspace():
            own[bare] -= 0 if is_new else 1
        pieces.append((part, is_new))
    return pieces


def _bare(word: str) -> str:
    return re.sub(r"\W", "", word).casefold() or word
