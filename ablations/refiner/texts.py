"""What people and programs hand in as a prompt, made fit to be refined, with a word on everything that was done to it.

The text itself stays as it was written; only what no prompt can have is taken out: control characters, and what is too long.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablations.refiner.candidates import MAX_PROMPT_TOKENS
from ablations.refiner.prompt_syntax import ReadPrompt, read_prompt
from ablations.runtime.errors import UserError

if TYPE_CHECKING:
    from ablations.refiner.prompt_refiner import PromptRefiner
    from ablations.refiner.session import RefiningSettings

OK, CLEANED, SHORTENED, SKIPPED = "ok", "cleaned", "shortened", "skipped"
# What terminals take as a command: colours, cursor movements, window titles. Without these the rest of the command would stay as text.
_TERMINAL_COMMAND = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")


@dataclass(frozen=True)
class PreparedText:
    """A prompt ready to be refined. `status` is ok, cleaned, shortened or skipped; `text` is None where it was skipped.

    `reason` says what was done, or what to know about a prompt that is ok; "" where there is nothing to say.
    """

    text: str | None
    status: str = OK
    reason: str = ""


def decode(line: bytes) -> str:
    """A line's text without its line break. Raises UserError for bytes that are no UTF-8."""
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"it is not valid UTF-8 at byte {error.start}: save the file as UTF-8") from None


def without_control_characters(text: str) -> tuple[str, int]:
    """The text and how many characters were taken out; of those that are white space, a blank stays."""
    kept = _TERMINAL_COMMAND.sub("", text)
    clean = "".join((" " if c.isspace() else "") if unicodedata.category(c) == "Cc" else c for c in kept)
    removed = len(text) - len(kept) + sum(unicodedata.category(c) == "Cc" for c in kept)
    return clean, removed


def prepare(text: str, refiner: PromptRefiner, settings: RefiningSettings) -> PreparedText:
    """Make a text fit to be refined with these settings."""
    text, removed = without_control_characters(text)
    if not text.strip():
        return PreparedText(None, SKIPPED, "it is empty" + (" but for control characters" if removed else ""))
    if any("\ud800" <= character <= "\udfff" for character in text):
        return PreparedText(None, SKIPPED, "it is not valid UTF-8")  # how Python hands on bytes that it cannot read
    status, reasons = OK, []
    if removed:
        status = CLEANED
        reasons.append(f"{removed} control character{'s were' if removed > 1 else ' was'} taken out")
    # Only what is extended needs room for more, but the limit of what is rewritten is as well one of time and of the record's size.
    limit = MAX_PROMPT_TOKENS - (settings.prompt_len if settings.mode == "extend" else 0)
    prompt = _as_read(text, settings)
    if not prompt.reading.strip():
        return PreparedText(None, SKIPPED, "it has no words, but syntax alone")
    tokens = _tokens(prompt.reading, refiner)
    if len(tokens) > limit:
        head, before = _first_tokens(prompt, refiner, limit), len(tokens)
        if not head:
            return PreparedText(None, SKIPPED, f"a single character of it has more than the {limit} tokens that can be refined")
        text = head + prompt.tail
        status, tokens = SHORTENED, _tokens(_as_read(text, settings).reading, refiner)
        reasons.append(f"of its {before} tokens the first {len(tokens)} were refined: at most {limit} can be")
    unknown = tokens.count(refiner.backbones.decoder.tokenizer.unk_token_id)
    if unknown:
        reasons.append(f"{unknown} of its {len(tokens)} tokens are not in the decoder's vocabulary: they stay, but are not understood")
    return PreparedText(text, status, "; ".join(reasons))


def _as_read(text: str, settings: RefiningSettings) -> ReadPrompt:
    """The prompt, taken apart; of one that is rewritten the first chunk is read."""
    prompt = read_prompt(text)
    return prompt.first_chunk() if settings.mode == "rewrite" else prompt


def _tokens(text: str, refiner: PromptRefiner) -> list[int]:
    """The decoder's tokens, without the end token."""
    return refiner.backbones.tokenize_t5([text])[0][:-1]


def _first_tokens(prompt: ReadPrompt, refiner: PromptRefiner, limit: int) -> str:
    """The longest beginning of the head of at most `limit` tokens that ends with a word, or within one where the first word is too long.

    It never ends within a piece of syntax.
    """
    text = prompt.head
    within = {at for element in prompt.within() for at in range(element.start + 1, element.end)}
    for ends in ([match.end() for match in re.finditer(r"\S+", text)], range(1, len(text) + 1)):
        ends = [end for end in ends if end not in within]
        low, high = 0, len(ends)
        while low < high:  # invariant: the first `low` pieces fit, more than `high` do not
            middle = (low + high + 1) // 2
            if len(_tokens(read_prompt(text[: ends[middle - 1]]).reading, refiner)) <= limit:
                low = middle
            else:
                high = middle - 1
        if low:
            return text[: ends[low - 1]]
    return ""
