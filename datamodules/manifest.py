"""The validated manifest of a data source: what was left out, why, and whether that is too much."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from datamodules.files import explained_errors, write_atomically
from datamodules.records import BadRecord

_REASONS_SHOWN = 3


@dataclass(frozen=True)
class Manifest:
    """Counts and bad records of one source. `total` counts every row, bad ones too.

    `done` counts, by kind, what was done to pictures and texts that are used, such as turning them upright.
    """

    source: str
    layout: str
    total: int
    bad: tuple[BadRecord, ...] = ()
    done: Mapping[str, int] = field(default_factory=dict)

    @property
    def bad_fraction(self) -> float:
        return len(self.bad) / self.total if self.total else 0.0

    @property
    def reasons(self) -> dict[str, int]:
        """Number of bad records by reason, most frequent first."""
        return dict(Counter(record.reason for record in self.bad).most_common())

    def summary(self) -> str:
        """One line: how many records are used and why the others are not."""
        line = f"data: {self.total - len(self.bad)} of {self.total} records of {self.source} ({self.layout})"
        return f"{line}; left out: {self._top_reasons()}" if self.bad else line

    def lines(self) -> list[str]:
        """The summary, and a line of what was done to how many of those that are used, if there is anything."""
        done = ", ".join(f"{kind} {count}" for kind, count in self.done.items())
        return [self.summary(), *([f"data: {done}"] if done else [])]

    def write(self, path: Path) -> None:
        """One JSON document, a line per bad record; appears whole or not at all. Raises ValueError where it cannot be written."""
        head = {
            "source": self.source,
            "layout": self.layout,
            "total": self.total,
            "kept": self.total - len(self.bad),
            "left_out": len(self.bad),
            "reasons": self.reasons,
            "done": dict(self.done),
        }
        lines = ",\n".join("  " + json.dumps(asdict(record), ensure_ascii=True) for record in self.bad)
        document = json.dumps(head, indent=1)[:-2] + f',\n "bad": [\n{lines}\n ]\n}}\n'
        with explained_errors(path, "choose another output_dir"):
            write_atomically(Path(path), document.encode())

    def enforce(self, max_bad_fraction: float, path: Path | None) -> None:
        """Raises ValueError if more than `max_bad_fraction` of the rows are bad."""
        if self.bad_fraction <= max_bad_fraction:
            return
        where = f"; every one is listed in {path}" if path is not None else ""
        first = self.bad[0]
        raise ValueError(
            f"{len(self.bad)} of {self.total} records of {self.source} are bad, more than data.max_bad_fraction={max_bad_fraction:g} "
            f"allows ({self._top_reasons()}; first: row {first.id}, {first.detail}){where}"
        )

    def _top_reasons(self) -> str:
        shown = list(self.reasons.items())[:_REASONS_SHOWN]
        rest = len(self.bad) - sum(count for _, count in shown)
        return ", ".join([f"{reason} {count}" for reason, count in shown] + ([f"others {rest}"] if rest else []))
