"""Prompts as lines in, JSON lines out: one record per line, in order, each written as soon as it is done."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ablations.refiner.distinct import num_redrawn, said_of_redraws
from ablations.refiner.session import candidate_record, of_prompt
from ablations.refiner.texts import SKIPPED, PreparedText, decode, prepare
from ablations.runtime.errors import UserError
from datamodules.files import whole_file

if TYPE_CHECKING:
    from ablations.refiner.candidates import RefinedPrompt
    from ablations.refiner.pictures import GridPages
    from ablations.refiner.prompt_refiner import PromptRefiner
    from ablations.refiner.session import RefiningSettings

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# JSON allows these within a string, but readers that split text into lines by Unicode's rules would see two lines.
_LINE_BREAKS = {0x2028: "\\u2028", 0x2029: "\\u2029"}
_SECONDS_BETWEEN_NOTES = 10.0


def records(
    lines: Iterable[bytes], refiner: PromptRefiner, settings: RefiningSettings, pages: GridPages | None = None
) -> Iterator[dict[str, Any]]:
    """A record for every line, in order, lazily: line n is refined when record n is asked for.

    line: its number, from 1. status: ok, cleaned, shortened or skipped; reason: what was done, or null. coarse: what was refined;
    of a skipped line, null. unknown_words: its words that no training text has; passed_through: the syntax in it that is no word. refiner:
    which one, as ARM/seed-SEED, or OWNER/NAME@COMMIT of one from a hub. Then the settings, and candidates: refined, new_text, prompt_seed,
    image_seed, num_new_tokens, truncated, redraws, put_back of each, none for a skipped line. With `pages`, grid: the file that holds the
    pictures.
    """
    for number, line in enumerate(lines, start=1):
        prepared = _prepared(line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line, refiner, settings)
        candidates: list[RefinedPrompt] = []
        if prepared.text is not None:
            try:
                candidates = refiner.refine(prepared.text, **settings.arguments())
            except UserError as error:
                prepared = PreparedText(None, SKIPPED, str(error))
        record = {
            "line": number,
            "status": prepared.status,
            "reason": prepared.reason or None,
            "coarse": prepared.text,
            **of_prompt(candidates),
            "refiner": refiner.source,
            **settings.record(),
            "candidates": [candidate_record(candidate) for candidate in candidates],
        }
        if pages is not None:
            record["grid"] = str(pages.add(candidates)) if candidates else None
        yield record
    if pages is not None:
        pages.finish()


def _prepared(line: bytes, refiner: PromptRefiner, settings: RefiningSettings) -> PreparedText:
    try:
        return prepare(decode(line), refiner, settings)
    except UserError as error:
        return PreparedText(None, SKIPPED, str(error))


def to_json_line(record: dict[str, Any]) -> bytes:
    """A record as one line of UTF-8."""
    return (json.dumps(record, ensure_ascii=False, allow_nan=False).translate(_LINE_BREAKS) + "\n").encode()


class Tally:
    """What became of the lines, for the one who waits: a note now and then, and a summary."""

    def __init__(self, say: Callable[[str], object]):
        self._say = say
        self.counts: Counter[str] = Counter()
        self.redrawn = self.still_equal = 0
        self._started = self._spoken = time.monotonic()

    def add(self, record: dict[str, Any]) -> None:
        """Count a record that was written."""
        self.counts[record["status"]] += 1
        redrawn, still_equal = num_redrawn(record["candidates"])
        self.redrawn, self.still_equal = self.redrawn + redrawn, self.still_equal + still_equal
        now = time.monotonic()
        if now - self._spoken >= _SECONDS_BETWEEN_NOTES:
            self._spoken = now
            self._say(f"{self.counts.total()} prompts, {self.counts.total() / (now - self._started):.1f} a second")

    def __str__(self) -> str:
        parts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        lines = f"{self.counts.total()} lines in {time.monotonic() - self._started:.1f} s" + (f": {parts}" if parts else "")
        redrawn = said_of_redraws(self.redrawn, self.still_equal)
        return f"{lines}; {redrawn}" if redrawn else lines


def write_records(made: Iterable[dict[str, Any]], stream: BinaryIO, tally: Tally) -> None:
    """Write each record as it comes, so that whoever reads the stream has it at once."""
    for record in made:
        stream.write(to_json_line(record))
        stream.flush()
        tally.add(record)


def write_records_to_file(made: Iterable[dict[str, Any]], path: Path, tally: Tally) -> None:
    """Write the records to a file that appears when all are there; until then, and if stopped, they lie in `partial_path(path)`.

    Raises UserError for a file that cannot be written.
    """
    try:
        with whole_file(path, sync=False, aside=partial_path(path)) as aside, open(aside, "wb") as stream:
            write_records(made, stream, tally)
    except OSError as error:
        raise UserError(f"output: cannot write {error.filename or path}: {error.strerror or error}") from error


def partial_path(path: Path) -> Path:
    """Where the records of an unfinished file are."""
    return path.with_name(f"{path.name}.partial")
