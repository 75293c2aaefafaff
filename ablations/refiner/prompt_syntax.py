"""What image tools read in a prompt that is no word of it: it is passed through as it stands, and never read as words.

| written | by whom | what the refiner reads of it |
|---|---|---|
| `(word:1.2)` | weights of Stable Diffusion's web pages | the words within |
| `[a|b]`, `[a:b:0.5]`, `{a|b}` | alternation, editing, wildcards: which one is drawn is not known here | nothing |
| `<lora:name:0.8>`, and other `<kind:name>` | networks to load | nothing |
| `BREAK` | a new chunk of 75 tokens | nothing |
| `--ar 16:9`, `--no text, frame` | Midjourney's parameters | nothing |
| `Negative prompt: ...` | what shall not be drawn, to the end | nothing |

What stands at the end of a prompt and is not read, but for BREAK, is its tail: what is written comes before it. Imports no heavy library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

EMPHASIS, ALTERNATION, NETWORK, BREAK, PARAMETER, NEGATIVE = "emphasis", "alternation", "network", "break", "parameter", "negative"
_WEIGHT = re.compile(r":\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*$")
_LONGEST_WEIGHT = 32  # characters
_NETWORK = re.compile(r"<[A-Za-z]\w*:[^<>\n]+>")
_BREAK = re.compile(r"(?<!\w)BREAK(?!\w)")
# A parameter's value is one word that has a digit or is an address; of two parameters any word is, and --no has all up to the next.
_PARAMETER = re.compile(
    r"(?<!\S)--(?:no\s+(?:(?!\s--[A-Za-z])(?!\s*\bNegative prompt:).)+|(?:style|sref|cref|profile|p)(?:\s+|=)(?!--)\S+"
    r"|[A-Za-z][\w-]*(?:(?:\s+|=)(?=\S*\d|https?:)(?!--)[^\s,]+)?)",
    re.IGNORECASE | re.DOTALL,
)
_NEGATIVE = re.compile(r"(?<!\w)Negative prompt:", re.IGNORECASE)
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_DEEPEST = 20  # nobody nests weights deeper; what is within is text like any other


@dataclass(frozen=True)
class Element:
    """A piece of syntax: characters `start` to `end` of the prompt, as `text`; `reading` is what the refiner reads in its place."""

    kind: str
    start: int
    end: int
    text: str
    reading: str = ""


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt, taken apart: `head` and `tail` joined are its text, `reading` is what the refiner reads of the head.

    `elements` are the pieces of syntax, in order, those of the tail included, and of nested ones the outer. Without syntax `reading` and
    `head` are the text itself.
    """

    text: str
    head: str
    tail: str
    reading: str
    elements: tuple[Element, ...]

    @property
    def passed_through(self) -> tuple[str, ...]:
        """The syntax as it was typed."""
        return tuple(element.text.strip() for element in self.elements)

    def within(self) -> list[Element]:
        """The elements of the head."""
        return [element for element in self.elements if element.end <= len(self.head)]

    def first_chunk(self) -> ReadPrompt:
        """The prompt with everything from the first BREAK that has words before it as its tail."""
        for element in self.within():
            before = self.text[: element.start].rstrip()
            if element.kind == BREAK and (reading := _reading(before, [e for e in self.elements if e.end <= len(before)])).strip():
                return ReadPrompt(self.text, before, self.text[len(before) :], reading, self.elements)
        return self


@lru_cache(maxsize=256)
def read_prompt(text: str) -> ReadPrompt:
    """Take a prompt apart. Brackets that belong to no syntax, or have a backslash before them, are text like any other."""
    negative = _NEGATIVE.search(text)
    end = len(text[: negative.start()].rstrip()) if negative else len(text)
    elements = _elements(text[:end])
    start_of_tail = end
    for element in reversed(elements):
        if element.kind not in (NETWORK, PARAMETER) or text[element.end : start_of_tail].strip(" \t,"):
            break
        start_of_tail = element.start
    head = text[:start_of_tail]
    if start_of_tail < len(text):
        head = head.rstrip() or head
    found = [*elements, *([Element(NEGATIVE, end, len(text), text[end:])] if negative else [])]
    return ReadPrompt(text, head, text[len(head) :], _reading(head, [e for e in elements if e.end <= len(head)]), tuple(found))


def _reading(head: str, elements: list[Element]) -> str:
    """The head with what is read in the place of each element; spaces and commas that lose their neighbour go, too.

    It ends with a space where the head does, so that the same goes on from either.
    """
    if not elements:
        return head
    parts, at = [], 0
    for element in elements:
        parts += [head[at : element.start], element.reading or " "]
        at = element.end
    text = re.sub(r"\s+", " ", "".join([*parts, head[at:]]))
    text = re.sub(r" (?=,)", "", re.sub(r"(?: ?,)+(?= ?,)", "", text)).lstrip(" ,").rstrip(" ")
    return f"{text} " if text and head[-1].isspace() else text


def _elements(text: str, depth: int = 0) -> list[Element]:
    elements: list[Element] = []
    ends = _closed(text) if depth < _DEEPEST else {}
    at = 0
    while at < len(text):
        element = _bracketed(text, at, ends[at], depth) if at in ends else _word_like(text, at)
        if element is not None:
            elements.append(element)
        at = element.end if element is not None else at + (2 if text[at] == "\\" else 1)
    return elements


def _word_like(text: str, at: int) -> Element | None:
    character = text[at]
    for first, kind, pattern in (("<", NETWORK, _NETWORK), ("B", BREAK, _BREAK), ("-", PARAMETER, _PARAMETER)):
        if character == first and (match := pattern.match(text, at)):
            return Element(kind, at, at + len(match[0].rstrip(" \t,")), match[0].rstrip(" \t,"))
    return None


def _bracketed(text: str, start: int, end: int, depth: int) -> Element | None:
    """An emphasis with its weight, or alternatives; None where the brackets are neither."""
    weight = _WEIGHT.search(text, max(start + 1, end - _LONGEST_WEIGHT), end - 1)
    if text[start] == "(":
        words = text[start + 1 : weight.start()] if weight is not None else ""
        is_one = bool(words.strip())
        return Element(EMPHASIS, start, end, text[start:end], _reading(words, _elements(words, depth + 1)).strip()) if is_one else None
    is_one = text.find("|", start, end) >= 0 or (text[start] == "[" and weight is not None)
    return Element(ALTERNATION, start, end, text[start:end]) if is_one else None


def _closed(text: str) -> dict[int, int]:
    """{where a bracket opens: behind where it closes}; those within which another one closes are not among them."""
    ends: dict[int, int] = {}
    open_: list[int] = []
    at = 0
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 1
        elif character in _CLOSING:
            open_.append(at)
        elif open_ and character in ")]}":
            if _CLOSING[text[open_[-1]]] == character:
                ends[open_.pop()] = at + 1
            else:
                open_ = []
        at += 1
    return ends
