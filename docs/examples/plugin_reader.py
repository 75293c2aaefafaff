"""A reader of one's own: a file of JSON lines, {"prompt": ..., "picture": ...}. It is used for every data.source that it fits.

python -m ablations.run plugins=plugin_reader data.source=prompts.jsonl
"""

from __future__ import annotations

import json
from pathlib import Path

from datamodules.readers.collecting import Collector
from datamodules.readers.record_parser import Columns, ReadTable
from datamodules.readers.register import Reader, Source, register
from datamodules.records import BadRecord


def fits(path: Path) -> bool:
    """Whether this reader is the one for what lies at `path`. Readers of plug-ins are asked before those of the package."""
    return path.is_file() and path.suffix == ".jsonl"


def read(source: Source) -> ReadTable:
    """The records of the file; a line that is damaged is left out with a reason, and costs no other line."""
    collected = Collector(source)
    # Which field holds the fine prompt, the coarse one (None: it is cut from the fine one) and the picture's path.
    columns = Columns(fine="prompt", coarse=None, image="picture")
    parser = collected.parser(columns, collected.finder(source.path).find)
    for number, line in enumerate(source.path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            cells = json.loads(line)
            cells = {"prompt": cells["prompt"], "picture": cells.get("picture")}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            collected.add(BadRecord(collected.total, number, "malformed", f"line {number}: {error!r}"))
            continue
        collected.add(parser.parse(collected.total, number, cells))
    return collected.table("JSON lines", columns)


register(Reader("JSON lines", fits, read, file="JSON lines"))
