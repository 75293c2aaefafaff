"""What is a word of a prompt: one rule for the words that were seen in training, those that are unknown, kept or banned."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_ASCII_WORD = re.compile(r"[A-Za-z0-9]+(?:'[A-Za-z0-9]+)*")
_APOSTROPHES = "'\u2019"


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


def words_of(text: str) -> Iterator[Word]:
    """The words of a text, in order: letters, marks and digits that follow one another, with apostrophes between them.

    A hyphen, an underscore or a full stop ends a word ("art-nouveau" has two, "8k" is one); emoji and other symbols are none.
    """
    if text.isascii():
        for match in _ASCII_WORD.finditer(text):
            yield Word(match[0], match.start(), match.end())
        return
    start = None
    for i, character in enumerate([*text, " "]):
        if _is_in_word(character) or (start is not None and _joins(text, i)):
            start = i if start is None else start
        elif start is not None:
            yield Word(text[start:i], start, i)
            start = None


def _is_in_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def _joins(text: str, i: int) -> bool:
    """Whether the character at `i` is an apostrophe within a word; one stands before it."""
    return text[i : i + 1] in (*_APOSTROPHES,) and _is_in_word(text[i - 1]) and _is_in_word(text[i + 1 : i + 2] or " ")
