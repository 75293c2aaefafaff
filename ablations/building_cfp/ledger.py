"""Which prompts of a stage are done: one append-only JSONL file per shard, a line per prompt, that survives being killed.

A line that was torn by a kill is no line: whoever reads ignores it, whoever goes on writing cuts it off first. Shards may be cut
differently from one run to the next, since a stage reads the files of all of them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ablations.runtime.errors import RunFolderError, UserError

_NAME = re.compile(r"-(\d+)-of-(\d+)\.jsonl$")


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `count`: the prompts whose id leaves this remainder."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def owns(self, prompt_id: int) -> bool:
        return prompt_id % self.count == self.index


class Ledger:
    """The lines that one shard of a stage writes. Use it as a context: it holds the shard's lock, so that no two processes do its work.

    Raises UserError if another process holds it, RunFolderError where nothing can be written.
    """

    def __init__(self, folder: Path, stage: str, shard: Shard):
        self._path = folder / f"{stage}-{shard.index}-of-{shard.count}.jsonl"
        self._lock = FileLock(self._path.with_suffix(".lock"))
        self._stage, self._shard = stage, shard

    def __enter__(self) -> Ledger:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            where = self._path.parent.parent
            raise UserError(
                f"shard {self._shard} of stage {self._stage} in {where} is being run by another process: wait, or stop it"
            ) from None
        except OSError as error:
            raise RunFolderError(f"cannot write in {self._path.parent}: {error.strerror or error}") from error
        try:
            self._file = open(self._path, "a+b")
            self._file.truncate(_end_of_last_line(self._path))
        except OSError as error:
            self._lock.release()
            raise RunFolderError(f"cannot write {self._path}: {error.strerror or error}") from error
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._lock.release()

    def append(self, entries: Iterable[dict]) -> None:
        """Add a line per entry, and wait until they are on the disk."""
        try:
            self._file.write("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries).encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunFolderError(f"cannot write {self._path}: {error.strerror or error} (what was done before is kept)") from error


def _end_of_last_line(path: Path) -> int:
    """The number of bytes up to and with the last line break."""
    content = path.read_bytes()
    return content.rfind(b"\n") + 1


def read_entries(folder: Path, stage: str) -> dict[int, dict]:
    """Every finished prompt of a stage by id, from the files of all shards; of two lines on one prompt the later one counts."""
    entries: dict[int, dict] = {}
    for path in _files(folder, stage):
        for line in path.read_bytes().split(b"\n")[:-1]:
            try:
                entry = json.loads(line)
                entries[entry["id"]] = entry
            except (ValueError, KeyError, TypeError, RecursionError):  # torn: that prompt is not done
                continue
    return entries


def shard_count(folder: Path, stage: str) -> int:
    """Into how many shards the stage was cut, by its files: the most that any of them says; 0 where there are none."""
    return max((int(_NAME.search(path.name).group(2)) for path in _files(folder, stage)), default=0)  # type: ignore[union-attr]


def _files(folder: Path, stage: str) -> list[Path]:
    files = [path for path in folder.glob(f"{stage}-*-of-*.jsonl") if _NAME.search(path.name)]
    # A prompt that was made anew is written by whoever ran last.
    return sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name))
