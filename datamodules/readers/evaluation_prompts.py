"""Lists of prompts that others evaluate with: PartiPrompts (TSV), DrawBench (CSV), GenEval and GenEval 2 (JSON lines), and their like.

Such a prompt is what a user types. There is no fine prompt and no picture of it: it can be refined, drawn and scored, but not trained on,
and nothing can be compared with what it should have become. The other columns are kept as metadata.

Layouts: google-research/parti, PartiPrompts.tsv (Prompt, Category, Challenge, Note); DrawBench as it is passed round (Prompts, Category);
facebookresearch/GenEval2, geneval2_data.jsonl (prompt, atom_count, vqa_list, skills).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datamodules.readers.delimited import is_json_lines, read_delimited, read_lines
from datamodules.readers.record_parser import ReadTable
from datamodules.records import BadRecord, CFPRecord

PROMPT_COLUMNS = ("prompt", "prompts")
# What a table has that can be trained on.
_OF_PAIRS = frozenset({"image", "image_path", "file_name", "fine", "fine-grained prompt", "coarse-grained prompt", "coarse"})
_HEAD_BYTES = 1 << 16
Cells = dict[str, Any]


def is_list_of_prompts(path: Path) -> bool:
    """Whether a file's header, or its first JSON object, has a prompt and nothing of a coarse-fine pair."""
    if not path.is_file() or path.suffix.lower() == ".parquet":
        return False
    with path.open("rb") as file:
        lines = io.StringIO(file.read(_HEAD_BYTES).decode("utf-8-sig", "replace"), newline="").readlines()
    first = next((line for line in lines if line.strip()), "")
    if is_json_lines(path, lines):
        try:
            there = json.loads(first)
        except (ValueError, RecursionError):
            return False
        headers = [list(there)] if isinstance(there, dict) else []
    else:
        try:
            headers = [next(csv.reader([first], delimiter=delimiter), []) for delimiter in ",;\t|"]
        except csv.Error:
            return False
    names = [{" ".join(str(name).split()).lower() for name in header} for header in headers]
    return any(not found.isdisjoint(PROMPT_COLUMNS) and found.isdisjoint(_OF_PAIRS) for found in names)


def read_evaluation_prompts(path: Path, clean: Callable[[str], str] | None = None) -> ReadTable:
    """The prompts of a list, each as a record without a fine prompt; rows without words, or of JSON that is none, are left out.

    Texts are kept verbatim unless `clean` is given. A prompt that is there twice counts once. They come in the order of a hash of their
    text, the same for every seed: lists are sorted by category, and the first of them would be those of one.
    """
    is_json = is_json_lines(path, read_lines(path))
    records: dict[str, CFPRecord] = {}
    bad: list[BadRecord] = []
    total = 0
    for line, cells in _json_rows(path) if is_json else _delimited_rows(path):
        parsed = _record(total, line, cells, clean or (lambda text: text))
        if isinstance(parsed, BadRecord):
            bad.append(parsed)
        else:
            records.setdefault(parsed.coarse_prompts[0], parsed)
        total += 1
    ordered = [records[text] for text in sorted(records, key=lambda text: hashlib.sha256(text.encode()).digest())]
    return ReadTable("evaluation prompts", ordered, bad, total, any_image=False)


def listed_prompts(
    path: Path | None, instead: Path | None, clean: Callable[[str], str] | None, say: Callable[[str], object]
) -> ReadTable | None:
    """The list at `path` (eval.prompts) or, without one, at `instead` (data.test_source) where that is a list; None where there is none.

    Raises FileNotFoundError for a file that is not there, ValueError for one that is no list or has no prompt.
    """
    chosen = path if path is not None else instead if instead is not None and is_list_of_prompts(instead) else None
    if chosen is None:
        return None
    if not chosen.is_file():
        raise FileNotFoundError(f"eval.prompts={chosen} is no file; name a list of prompts")
    if not is_list_of_prompts(chosen):
        raise ValueError(f"eval.prompts={chosen} is no list of prompts: it has no column prompt, or has fine prompts or pictures")
    listed = read_evaluation_prompts(chosen, clean)
    if not listed.records:
        raise ValueError(f"{chosen} has no prompt")
    left_out = f"; {len(listed.bad)} rows are left out, the first for {listed.bad[0].detail}" if listed.bad else ""
    say(f"data: {len(listed.records)} distinct evaluation prompts of {chosen.name}, without fine prompts or pictures{left_out}")
    return listed


def _record(number: int, line: int, cells: Cells | str, clean: Callable[[str], str]) -> CFPRecord | BadRecord:
    """`cells` is what is wrong with the row where it is a text."""
    if isinstance(cells, str):
        return BadRecord(number, line, "malformed", cells)
    column = next((name for name in cells if " ".join(name.split()).lower() in PROMPT_COLUMNS), None)
    text = cells.get(column) if column else None
    if not isinstance(text, str):
        return BadRecord(number, line, "not_text", f"line {line} has no prompt that is a text")
    prompt = clean(text).strip()
    if not prompt:
        return BadRecord(number, line, "empty_prompt", f"the column {column!r} holds no words")
    others = {name: cell if isinstance(cell, str) else json.dumps(cell) for name, cell in cells.items() if name != column}
    return CFPRecord(number, "", (prompt,), metadata=others)


def _json_rows(path: Path) -> Iterator[tuple[int, Cells | str]]:
    for line, text in enumerate(read_lines(path), start=1):
        if text.strip():
            try:
                cells = json.loads(text)
            except (ValueError, RecursionError) as error:
                yield line, f"line {line}: {error}"
                continue
            yield line, cells if isinstance(cells, dict) else f"line {line} is no JSON object"


def _delimited_rows(path: Path) -> Iterator[tuple[int, Cells | str]]:
    text = read_delimited(path, PROMPT_COLUMNS)
    for row in text.rows():
        if row.problem or len(row.fields) < len(text.header):
            # A note at the end may be left out.
            fields = row.fields + [""] * (len(text.header) - len(row.fields))
            yield row.line, f"line {row.line}: {row.problem}" if row.problem else dict(zip(text.header, fields, strict=True))
        else:
            yield row.line, dict(zip(text.header, row.fields, strict=False))
