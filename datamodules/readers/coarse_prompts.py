"""Three coarse prompts of a fine one by truncation, for data without summaries.

UF-FGTG's coarse prompts are summaries of 1-5, 6-10 and 11-15 tokens. Where no summariser is to be had, a coarse prompt is
the beginning of the fine one, cut within the same token range and, where possible, where a phrase ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable

TOKEN_RANGES = ((1, 5), (6, 10), (11, 15))
_TRAILING = " \t\r\n,.;:|-\u2013\u2014/&+([{"
_STRONG_END = re.compile(r"[,.;:!?|)\]]$")
# A phrase may end before these words ...
_OPENERS = {"in", "on", "at", "by", "with", "of", "from", "under", "over", "near", "and", "or", "as", "for", "to", "against", "behind"}
_OPENERS |= {"through", "while", "wearing", "holding"}
# ... and never after these.
_UNFINISHED = _OPENERS | {"a", "an", "the", "this", "that", "his", "her", "its", "their", "my", "your", "is", "are", "very"}


class CoarsePromptCutter:
    """Cuts fine prompts into coarse ones; `count_tokens` maps a text to its number of tokens, start and end not counted.

    Counting is by word, each distinct word once, as the tokenizers of CLIP and T5 never join words; the cuts are then counted
    whole, and where that disagrees, every prefix is.
    """

    def __init__(self, count_tokens: Callable[[str], int]):
        self._count_tokens = count_tokens
        self._word_tokens: dict[str, int] = {}

    def __call__(self, fine_prompt: str) -> tuple[str, str, str]:
        """The short, middle and long coarse prompt: verbatim prefixes of `fine_prompt` but for space and punctuation at the cut.

        None has more tokens than its range allows; one has fewer only where the prompt, or the word at the cut, leaves no choice.
        Raises ValueError for an empty prompt.
        """
        words = list(re.finditer(r"\S+", fine_prompt))
        if not words:
            raise ValueError("an empty fine prompt has no coarse prompts")
        cuts = self._cuts(words, self._counts_by_word(words))
        if any(self._count_tokens(cut) > high for cut, (_, high) in zip(cuts, TOKEN_RANGES, strict=True)):
            cuts = self._cuts(words, self._counts_exactly(words))
        return cuts

    def _counts_by_word(self, words: list[re.Match]) -> list[int]:
        """Tokens of the prefix that ends with each word, as far as the longest range reaches."""
        counts, total = [], 0
        for word in words:
            if word.group() not in self._word_tokens:
                self._word_tokens[word.group()] = self._count_tokens(word.group())
            total += self._word_tokens[word.group()]
            if total > TOKEN_RANGES[-1][1] + 1:  # one more: the cut may drop the comma that is the last token
                break
            counts.append(total)
        return counts

    def _counts_exactly(self, words: list[re.Match]) -> list[int]:
        counts = []
        for word in words:
            counts.append(self._count_tokens(_prefix(words, word.end())))
            if counts[-1] > TOKEN_RANGES[-1][1]:
                break
        return counts

    def _cuts(self, words: list[re.Match], counts: list[int]) -> tuple[str, str, str]:
        candidates = []  # (text, tokens, how well a phrase ends there), shortest first
        for i, count in enumerate(counts):
            prefix = _prefix(words, words[i].end())
            text = prefix.rstrip(_TRAILING)
            if text:
                following = words[i + 1].group().lower().strip(_TRAILING) if i + 1 < len(words) else ""
                exact = count if text == prefix else self._count_tokens(text)
                candidates.append((text, exact, _phrase_end(words[i].group(), following)))
        return tuple(self._best(candidates, low, high) or self._cut_inside_word(words[0].group(), high) for low, high in TOKEN_RANGES)

    @staticmethod
    def _best(candidates: list[tuple[str, int, int]], low: int, high: int) -> str | None:
        """The longest of the best-ending cuts in the range; below it where none is in it."""
        fitting = [(count >= low, phrase_end, i) for i, (_, count, phrase_end) in enumerate(candidates) if count <= high]
        return candidates[max(fitting)[2]][0] if fitting else None

    def _cut_inside_word(self, word: str, high: int) -> str:
        """The longest beginning of a word that is too long as a whole, such as an address or a hashtag."""
        for end in range(min(len(word), 8 * high), 1, -1):
            if self._count_tokens(word[:end]) <= high:
                return word[:end]
        return word[:1]


def _prefix(words: list[re.Match], end: int) -> str:
    return words[0].string[words[0].start() : end]


def _phrase_end(word: str, following: str) -> int:
    """How well a phrase ends with `word`: 3 at punctuation or the prompt's end, 2 before a preposition, 1 elsewhere, 0 never."""
    if word.lower().strip(_TRAILING) in _UNFINISHED:
        return 0
    if not following or _STRONG_END.search(word):
        return 3
    return 2 if following in _OPENERS else 1
