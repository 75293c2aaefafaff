"""What is a word of a prompt: one rule for the words that were seen in training, those that are unknown, kept or banned."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_ASCII_RUN = re.compile(r"[A-Za-z0-9]+")
_APOSTROPHES = ("'", "\u2019")
# Within a word an apostrophe has so few letters on one side: it's, o'clock, d'Art. Else it is a quotation mark without its space.
_SHORT_SIDE = 2


@dataclass(frozen=True)
class Word:
    """A word as it was typed, and where: `text` is characters `start` to `end` of the prompt."""

    text: str
    start: int
    end: int

    @property
    def key(self) -> str:
        """What the word is looked up by, see `word_key`."""
        return word_key(self.text)


def word_key(word: str) -> str:
    """A word without what makes no other word of it: case, the look of its characters (NFKC), and a possessive 's."""
    key = unicodedata.normalize("NFKC", word).casefold().replace("\u2019", "'")
    return key.removesuffix("'s") or key


def words_of(text: str) -> list[Word]:
    """The words of a text, in order: letters, marks and digits that follow one another, with apostrophes within.

    A hyphen, an underscore or a full stop ends a word ("art-nouveau" has two, "8k" is one); emoji and other symbols are none.
    """
    words: list[tuple[int, int]] = []
    last = 0  # the length of the run before
    for start, end in _runs(text):
        length = end - start
        joins = words and words[-1][1] == start - 1 and text[start - 1] in _APOSTROPHES and min(last, length) <= _SHORT_SIDE
        if joins:
            start = words.pop()[0]
        words.append((start, end))
        last = length
    return [Word(text[start:end], start, end) for start, end in words]


def _runs(text: str) -> Iterator[tuple[int, int]]:
    """Where letters, marks and digits follow one another."""
    if text.isascii():
        yield from (match.span() for match in _ASCII_RUN.finditer(text))
        return
    start = None
    for i, character in enumerate([*text, " "]):
        if unicodedata.category(character)[0] in "LMN":
            start = i if start is None else start
        elif start is not None:
            yield start, i
            start = None
