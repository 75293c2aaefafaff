"""Looking at the run folder of somebody else, or at a damaged one: what is in it is checked, and nothing of it leads out of it.

Everybody who reads a run.json that this process did not write looks at it here; `picture_within` is the way to a picture of a run folder.
A run.json is looked at in two steps: that it is what was written and its shape, and the names and digests that files are called after.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ablations.runtime.errors import UserError, one_line
from ablations.runtime.files import read_sealed
from ablations.runtime.foreign import Unreadable, is_file, readable

RUN = "run.json"
STATUSES = ("running", "finished", "failed", "preempted")
_MOST_SECONDS = 1e12
_DIGEST = re.compile(r"[0-9a-f]{1,128}")
# Of git, or of a release: as in 0123abcd+dirty, uf-fgtg-0.2.0.
_REVISION = re.compile(r"[\w.+! ()-]{1,120}", re.ASCII)


@dataclass(frozen=True)
class Run:
    """A run.json that was looked at: `content` as it is, and what is read of it. "" and empty mappings stand for what is not known.

    `config` are flat values as they were written, not checked against the keys of this version. `seconds` is the time from start to end,
    None where it is not known; numbers are finite.
    """

    folder: Path
    content: dict[str, Any]

    @property
    def status(self) -> str:
        return self.content["status"]

    @property
    def config(self) -> dict[str, Any]:
        return self.content["config"]

    @property
    def data_digest(self) -> str:
        return self._digest("data")

    @property
    def weights_digest(self) -> str:
        return self._digest("weights")

    @property
    def code_revision(self) -> str:
        return str(self.content.get("code_revision"))

    @property
    def timings(self) -> dict[str, float]:
        return {name: float(seconds) for name, seconds in (self.content.get("timings") or {}).items()}

    @property
    def metrics(self) -> dict[str, Any]:
        return self.content.get("metrics") or {}

    @property
    def unavailable(self) -> dict[str, str]:
        return self.metrics.get("unavailable") or {}

    @property
    def reused(self) -> dict[str, Any]:
        return self.content.get("reused") or {}

    @property
    def checks(self) -> dict[str, float]:
        """The manipulation checks; one without a number counts as not made."""
        items = (self.content.get("checks") or {}).items()
        return {name: float(value) for name, value in items if _is_number(value)}

    @property
    def is_rehearsal(self) -> bool:
        return bool(self.content.get("rehearsal") or self.config.get("rehearsal"))

    @property
    def reason(self) -> str:
        return self.content.get("reason") or ""

    @property
    def where(self) -> str:
        return self.content.get("where") or ""

    @property
    def started(self) -> str:
        return self.content.get("started") or ""

    @property
    def seconds(self) -> float | None:
        begun, ended = (_time(self.content.get(name)) for name in ("started", "finished"))
        return (ended - begun).total_seconds() if begun and ended else None

    def _digest(self, of: str) -> str:
        return (self.content.get("digests") or {}).get(of) or ""


@dataclass(frozen=True)
class Damaged:
    """A run.json that is none, or not one that a run writes: why, in one short line."""

    reason: str


def look_at_run(folder: str | os.PathLike[str]) -> Run | Damaged | None:
    """What FOLDER/run.json says, or what is wrong with it; None where there is no such file."""
    try:
        run = shaped_run(folder)
        _check_names(run.content)
    except FileNotFoundError:
        return None
    except Unreadable as error:
        return Damaged(one_line(error))
    return run


def shaped_run(folder: str | os.PathLike[str]) -> Run:
    """FOLDER/run.json, whose fields have the types that a run gives them; names and digests are not looked at: for a cell of one's own.

    Raises Unreadable, and FileNotFoundError where there is no such file.
    """
    content = read_sealed(os.path.join(folder, RUN))
    _check_shape(content)
    return Run(Path(folder), content)


def _check_shape(run: dict[str, Any]) -> None:
    if run.get("status") not in STATUSES or not isinstance(run.get("config"), dict):
        raise Unreadable("status or config is missing")
    for name, value in run["config"].items():
        if isinstance(value, dict | list):
            raise Unreadable(f"config: {name!r:.60} is no plain value")
    for name in ("digests", "timings", "metrics", "checks", "reused", "versions", "code_digests", "plugins", "files"):
        if not isinstance(run.get(name), dict | None):
            raise Unreadable(f"{name} is no JSON object")
    for name, seconds in (run.get("timings") or {}).items():
        if not _is_number(seconds) or not 0 <= seconds < _MOST_SECONDS:
            raise Unreadable(f"timings: {name!r:.60} has no seconds")
    for name in ("reason", "where", "started", "finished", "train_id", "code_revision_reason"):
        if not isinstance(run.get(name), str | None):
            raise Unreadable(f"{name} is no text")
    seed = run.get("seed", 0)
    if type(seed) is not int or seed < 0:
        raise Unreadable("seed is no whole number from 0")
    _check_metrics(run)


def _check_names(run: dict[str, Any]) -> None:
    """What becomes a part of file names, and what is read of a finished cell."""
    for name, digest in (run.get("digests") or {}).items():
        if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
            raise Unreadable(f"digests: that of {name!r:.60} is not hexadecimal")
    revision = run.get("code_revision")
    if revision is not None and not (isinstance(revision, str) and _REVISION.fullmatch(revision)):
        raise Unreadable("code_revision is no name of one")
    if run.get("arm") is not None and not is_plain_name(run["arm"]):
        raise Unreadable("arm is no name of a folder")
    if run["status"] == "finished" and not isinstance(run.get("metrics"), dict):
        raise Unreadable("finished, but without metrics")


def _check_metrics(run: dict[str, Any]) -> None:
    metrics, reused = run.get("metrics") or {}, run.get("reused") or {}
    for name, value in metrics.items():
        is_well = isinstance(value, dict) or value is None or _is_number(value)
        if not is_well:
            raise Unreadable(f"metrics: {name!r:.60} is no number")
    training = metrics.get("training")
    if isinstance(training, dict) and not _is_number(training.get("steps", 0)):
        raise Unreadable("metrics: the steps of training are no number")
    unavailable = metrics.get("unavailable") or {}
    if not isinstance(unavailable, dict) or not all(isinstance(why, str) for why in unavailable.values()):
        raise Unreadable("metrics: what is unavailable has no reasons")
    if not all(_is_number(reused.get(name, 0)) for name in ("pictures", "scores")):
        raise Unreadable("reused: pictures and scores are no numbers")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _time(stamp: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(stamp) if isinstance(stamp, str) else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo is not None else None


def is_plain_name(name: object) -> bool:
    """Whether something is the name of one folder or file: not a path, nothing that leads elsewhere, nothing that cannot be shown."""
    return isinstance(name, str) and 0 < len(name) <= 255 and name.isprintable() and not set(name) & set('/\\:*?"<>|') and name[0] != "."


class MissingPicture(UserError):
    """A picture that a run folder names and does not have, or that cannot be shown; the message says why, with the name in it."""


def picture_within(folder: Path, name: str) -> Path:
    """The file of a picture that a run folder names, which lies within it, also after links.

    Raises MissingPicture for a name that leads out of the folder, and where there is no such file.
    """
    shown = f"{readable(name)!r:.100}"
    if not isinstance(name, str) or not name or "\0" in name or os.path.isabs(name):
        raise MissingPicture(f"{shown} is no picture of the run folder")
    root, path = os.path.realpath(folder), os.path.realpath(os.path.join(folder, name))
    if os.path.commonpath([root, path]) != root:
        raise MissingPicture(f"{shown} lies outside the run folder")
    if not is_file(path):
        raise MissingPicture(f"{shown} is missing")
    return Path(path)
