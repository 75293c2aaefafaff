"""The folders of a cell: where each file lies, who may write there, and run.json with its states.

OUTPUT_DIR/ARM/seed-0/                               run.json  prompts.jsonl  scores.parquet  images/  ...
OUTPUT_DIR/trainings/TRAIN_ID/seed-0/checkpoints/    shared by every arm with the same train keys
OUTPUT_DIR/cache/                                    shared by all, see `cache_folder`
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablations.config import KEYS, Config, arm_name, show, to_flat_dict, train_id
from ablations.results.left_files import digests_of
from ablations.results.locks import FolderLock
from ablations.results.looking import RUN, shaped_run
from ablations.results.prompts_and_scores import PROMPTS, SCORES
from ablations.results.provenance import code_digests, code_revision, library_versions
from ablations.runtime.errors import RunFolderError, UserError, one_line
from ablations.runtime.files import set_aside, write_sealed
from ablations.runtime.foreign import Unreadable
from ablations.runtime.plugins import load_plugins
from datamodules.files import clear_all

METRICS_CSV = "metrics.csv"
# The files of a finished cell of which run.json has the digests.
_LEFT = (PROMPTS, SCORES, METRICS_CSV)
logger = logging.getLogger(__name__)


def read_run(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The content of FOLDER/run.json, or None where there is none or, with a warning in the log, where it is torn or not a run.json."""
    try:
        return shaped_run(folder).content
    except FileNotFoundError:
        return None
    except Unreadable as error:
        logger.warning("%s is unreadable (%s): the cell counts as not finished", Path(folder) / RUN, one_line(error))
        return None


class CellBusy(UserError):
    """Another process runs the cell."""


class RunFolder:
    """The folders of one cell. Creates nothing until it is locked or written to.

    Only one process may write: the main one, inside `lock()` (and `training_lock()` for the training's folder).
    """

    def __init__(self, config: Config):
        self.config = config
        self.arm, self.train_id, self.seed = arm_name(config), train_id(config), config.seed
        self.path = Path(config.output_dir) / self.arm / f"seed-{self.seed}"
        self.training_path = Path(config.output_dir) / "trainings" / self.train_id / f"seed-{self.seed}"
        self.checkpoints = self.training_path / "checkpoints"
        self.run_json = self.path / RUN
        self.prompts = self.path / PROMPTS
        self.scores = self.path / SCORES
        self.images = self.path / "images"
        self.diversity_grid = self.path / "diversity_grid.png"
        self.grids = self.training_path / "grids"
        self.metrics_csv = self.path / METRICS_CSV
        self.wandb = self.path / "wandb"
        self._lock = FolderLock(self.path)
        self._training_lock = FolderLock(self.training_path)

    def __str__(self) -> str:
        return f"{self.arm}/seed-{self.seed}"

    def read(self) -> dict[str, Any] | None:
        """The content of run.json; None where there is none that can be read.

        Raises RunFolderError where the folder holds another config, which its 8 digits make unlikely but not impossible.
        """
        run = read_run(self.path)
        mine = to_flat_dict(self.config)
        for name, theirs in (run["config"] if run else {}).items():
            if name in mine and KEYS[name].option.kind != "run" and mine[name] != theirs:
                raise RunFolderError(
                    f"{self.path} holds the results of another config ({name}={show(theirs)} there, {show(mine[name])} here): move it away"
                )
        return run

    def status(self) -> str:
        """One of STATUSES, "absent" (no readable run.json), or "interrupted" (it says running, but the process that wrote it is gone)."""
        run = self.read()
        if run is None:
            return "absent"
        return "interrupted" if run["status"] == "running" and not self._lock.is_held() else run["status"]

    def is_finished(self) -> bool:
        return self.status() == "finished"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the cell for this process. Raises CellBusy at once if another one (or this one, elsewhere) holds it."""
        for attempts_left in (2, 1, 0):  # `status()` of another process holds the lock for some microseconds
            if self._lock.acquire(wait=False):
                break
            if not attempts_left:
                raise CellBusy(
                    f"cell {self} is being run by another process ({self._lock.holder()}): wait until it ends, or stop it, in {self.path}"
                )
            time.sleep(0.02)
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def training_lock(self, say: Callable[[str], object] = logger.warning) -> Iterator[None]:
        """Holds the training that arms with the same train keys share; while another process holds it, says so once and waits."""
        if not self._training_lock.acquire(wait=False):
            holder = self._training_lock.holder()
            say(f"waiting for training {self.train_id}/seed-{self.seed}, which another process is running ({holder})")
            self._training_lock.acquire(wait=True)
        try:
            clear_all(self.training_path)
            yield
        finally:
            self._training_lock.release()

    def start(self, digests: Mapping[str, str] | None = None, threads: int | None = None) -> None:
        """Marks the cell as running. digests: of "data" and "weights", where known already; threads: of torch, as they are.

        Clears away what a killed process left half-written. Raises RunFolderError rather than overwrite another config's results.
        """
        if self.read() is None and self.run_json.exists():
            logger.warning("%s is damaged: it is set aside as %s, and the cell runs again", self.run_json, set_aside(self.run_json).name)
        clear_all(self.path)
        revision, reason = code_revision()
        run = {
            "status": "running",
            "arm": self.arm,
            "seed": self.seed,
            "train_id": self.train_id,
            "config": to_flat_dict(self.config),
            "digests": {"data": None, "weights": None, **(digests or {})},
            "code_revision": revision,
            "code_digests": code_digests(),
            **({"plugins": plugins} if (plugins := load_plugins(self.config.plugins)) else {}),
            **({"code_revision_reason": reason} if reason else {}),
            "metrics": {},
            "timings": {},
            "versions": library_versions(),
            "threads": self.config.trainer.threads if threads is None else threads,
            "started": _now(),
            "finished": None,
        }
        write_sealed(self.run_json, run)

    def record(self, **changes: Any) -> None:
        """Changes fields of run.json; a mapping (digests, metrics, timings) is merged into the one that is there."""
        run = self.read()
        if run is None:
            raise RunFolderError(f"{self.run_json} is gone or torn, though this cell is running; run the cell again")
        for name, value in changes.items():
            run[name] = {**run[name], **value} if isinstance(value, Mapping) and isinstance(run.get(name), dict) else value
        write_sealed(self.run_json, run)

    def finish(self, metrics: Mapping[str, Any], timings: Mapping[str, float], **changes: Any) -> None:
        """Marks the cell as finished. metrics: {refined: {...}, coarse: {...}, ...}; timings in seconds. Write it last.

        It gets the digests of the files that it leaves, which are compared when they are read.
        """
        left = digests_of(self.path, _LEFT)
        self.record(status="finished", metrics=metrics, timings=timings, finished=_now(), **({"files": left} if left else {}), **changes)

    def fail(self, reason: object) -> None:
        """Marks the cell as failed, for a reason of one line."""
        self.record(status="failed", reason=one_line(reason), finished=_now())

    def preempted(self, where: str) -> None:
        """Marks the cell as stopped from outside, to be continued. where: what it was doing, as in "training, step 120"."""
        self.record(status="preempted", where=one_line(where), finished=_now())


def cache_folder(config: Config) -> Path:
    """Where the config's frozen features, pictures and scores are kept for other cells; deleting it costs time and nothing else."""
    return Path(config.data.cache_dir or f"{config.output_dir}/cache")


def is_finished(config: Config) -> bool:
    """Whether the config's cell has finished."""
    return RunFolder(config).is_finished()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
