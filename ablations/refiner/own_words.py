"""A person's own words: those that a rewriting must keep, those that are never written, and the syntax of other tools.

Imports no heavy library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ablations.refiner.prompt_syntax import ALTERNATION, EMPHASIS, Element, ReadPrompt, read_prompt
from ablations.runtime.errors import UserError
from datamodules.words import word_key, words_of

MOST_KEPT, MOST_BANNED = 64, 10_000
_LONGEST = 200  # characters of one word or phrase
_SHOWN = 8


def phrases(name: str, given: str | Iterable[str], most: int) -> tuple[str, ...]:
    """The words and phrases of a list, or of a text with commas between them; each once, whatever its case.

    Raises UserError, naming the key, for what is no text, is empty, has control characters, is too long or too many.
    """
    if not isinstance(given, str | Iterable):
        raise UserError(f"{name} must be words with commas between them, or a list of words, not {type(given).__name__}")
    asked = given.split(",") if isinstance(given, str) else list(given)
    found: dict[str, str] = {}
    for phrase in asked:
        if not isinstance(phrase, str):
            raise UserError(f"{name} must be words, and {phrase!r:.60} is none")
        phrase = " ".join(phrase.split())
        if not phrase.isprintable() or len(phrase) > _LONGEST:
            raise UserError(f"{name}: {phrase[:40]!r} is no word or phrase: at most {_LONGEST} characters that can be printed")
        if phrase:
            found.setdefault(phrase.casefold(), phrase)
        elif not isinstance(given, str):
            raise UserError(f"{name} has an empty word: leave it out")
    if len(found) > most:
        raise UserError(f"{name} has {len(found)} words and phrases: at most {most}")
    return tuple(found.values())


def banned_words(text: str) -> tuple[str, ...]:
    """Those of ban=: words with commas between them, or @FILE, one word or phrase a line. Raises UserError."""
    if not text.startswith("@"):
        return phrases("ban", text, MOST_BANNED)
    path = Path(text[1:]).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"ban: {str(path)!r} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"ban: {str(path)!r} is not valid UTF-8 at byte {error.start}: save it as UTF-8") from None
    return phrases("ban", [line for line in lines if line.strip()], MOST_BANNED)


def check_own_words(keep: Sequence[str], ban: Sequence[str]) -> None:
    """Raises UserError where a phrase is to be kept that has a banned word in it."""
    for phrase in keep:
        for word in ban:
            if word.casefold() in phrase.casefold():
                raise UserError(f"keep has {phrase!r} and ban has {word!r}: it cannot be both")


def find_phrase(text: str, phrase: str, start: int = 0) -> tuple[int, int] | None:
    """Where a phrase stands in a text first, from `start` on: word by word, whatever case and punctuation; None: it does not.

    A phrase without a word ("&") is looked for as it is.
    """
    wanted = [word.key for word in words_of(phrase)]
    if not wanted:
        at = text.find(phrase, start)
        return (at, at + len(phrase)) if at >= 0 else None
    words = [word for word in words_of(text) if word.start >= start]
    for i in range(len(words) - len(wanted) + 1):
        if [word.key for word in words[i : i + len(wanted)]] == wanted:
            return words[i].start, words[i + len(wanted) - 1].end
    return None


def with_kept(text: str, keep: Sequence[str], shorten: Callable[[str, str], str]) -> tuple[str, tuple[str, ...]]:
    """A rewritten prompt with all that must be kept, and what had to be put back for that: it comes first, where words weigh most.

    `shorten(front, text)` gives the beginning of the text for which there is room behind what is put in front.
    """
    missing = tuple(phrase for phrase in keep if find_phrase(text, phrase) is None)
    if not missing:
        return text, ()
    front = ", ".join(missing)
    rest = shorten(f"{front},", text).strip(" ,")
    lost = [phrase for phrase in keep if phrase not in missing and find_phrase(rest, phrase) is None]
    if lost:  # what the room was taken from
        return with_kept("", keep, shorten)
    return (f"{front}, {rest}" if rest else front), missing


def with_syntax(text: str, prompt: ReadPrompt) -> str:
    """A rewritten prompt with the syntax of the one that was read: weights around their words, the rest behind, the tail as it stands.

    A weight whose words were not written comes in front, and alternatives come behind a comma.
    """
    replaced: list[tuple[int, int, str]] = []
    front, behind = [], ""
    for element in prompt.within():
        if element.kind == EMPHASIS:
            place = _free_place(text, element, [(start, end) for start, end, _ in replaced])
            if place is not None:
                replaced.append((*place, element.text))
            else:
                front.append(element.text)
        else:
            behind += f"{',' if element.kind == ALTERNATION else ''} {element.text}"
    for start, end, source in sorted(replaced, reverse=True):
        text = text[:start] + source + text[end:]
    text = text.rstrip(" ,") if behind else text
    text = ", ".join([*front, *([text] if text else [])]) + behind
    return text + ("" if not prompt.tail or prompt.tail[0].isspace() else " ") + prompt.tail


def _free_place(text: str, element: Element, taken: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Where the words of a weight stand in a text, none of which bears a weight already."""
    place = find_phrase(text, element.reading) if element.reading else None
    while place is not None and any(place[0] < end and start < place[1] for start, end in taken):
        place = find_phrase(text, element.reading, place[0] + 1)
    return place


def extended(head: str, reading: str, written: str) -> str:
    """What is added to a prompt's head, of the text that goes on from its reading: without a second space between."""
    new = written[len(reading) :]
    return new if head[-1:].strip() and head else new.lstrip(" ")


def pieces_with_syntax(coarse: str, refined: str) -> list[tuple[str, bool]] | None:
    """The refined prompt as [(text, is_new), ...] where it is the coarse one with something before its tail; None where it is not."""
    prompt = read_prompt(coarse)
    if not prompt.tail or not (refined.startswith(prompt.head) and refined.endswith(prompt.tail)):
        return None
    if len(refined) < len(coarse):
        return None
    middle = refined[len(prompt.head) : len(refined) - len(prompt.tail)]
    return [piece for piece in ((prompt.head, False), (middle, True), (prompt.tail, False)) if piece[0]]


def said_of_unknown(unknown: Sequence[str]) -> str:
    """A line about words that the refiner never saw; long lists are cut."""
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    return f"not seen in training: {', '.join(unknown[:_SHOWN])}{more}"


def marked(prompt: str, unknown: Sequence[str]) -> list[tuple[str, bool]]:
    """The prompt as [(text, is_unknown), ...]; what other tools' syntax passes through is no word."""
    passed = [element for element in read_prompt(prompt).elements if not element.reading]
    keys, pieces, at = {word_key(word) for word in unknown}, [], 0
    for word in words_of(prompt):
        if word.key in keys and not any(element.start <= word.start < element.end for element in passed):
            pieces += [(prompt[at : word.start], False), (word.text, True)]
            at = word.end
    return [piece for piece in (*pieces, (prompt[at:], False)) if piece[0]]
