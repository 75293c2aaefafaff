"""What a sweep will cost: timings of this machine, kept and put together."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Set
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ablations.runtime.command_line import announce_libraries
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import Unreadable, read_json

if TYPE_CHECKING:
    from ablations.config import Config
    from ablations.sweeping.cells import Grid, Search
    from ablations.sweeping.forecast import CellForecast, EvaluationCosts, TrainingCosts

T = TypeVar("T")


# Timings are kept for the next plan if this process got so much of its processors: others say more of its neighbours than of the config.
UNDISTURBED = 0.5


def forecast_sweep(
    cells: Grid | Search, jobs: int, say: Callable[[str], None], began: float, finished: Set[int]
) -> tuple[dict[str, CellForecast], dict[str, Any]]:
    """What each cell will take, and the whole sweep. `finished` are the numbers of the cells that have."""
    from ablations.sweeping import forecast
    from ablations.sweeping.workers import num_processors

    num_unknown = max(0, cells.total - len(cells.cells))
    configs = [cell.config for cell in cells.distinct if cell.number not in finished] + [cells.example] * (num_unknown > 0)
    probes = Probes(max(1, num_processors() // jobs) if jobs > 1 else None, say, began)
    # What many cells have in common is asked for once.
    of_training, of_evaluation = {}, {}
    for config in configs:
        of_training.setdefault(forecast.training_kind(config), config)
        if config.eval.num_prompts:
            of_evaluation.setdefault(forecast.evaluation_kind(config), config)
    training = {kind: probes.training(config) for kind, config in of_training.items()}
    evaluation = {kind: probes.evaluation(config) for kind, config in of_evaluation.items()}
    found, together = forecast.forecast_cells(cells.distinct, cells.example, num_unknown, training, evaluation, finished)
    parts = {part: seconds / jobs for part, seconds in together.seconds.items()}
    features = [forecast.features_to_encode(config, training[kind]) for kind, config in of_training.items()]
    # The longest is all there is: the features of arms that read fewer are among those of arms that read more.
    parts["features"], feature_bytes = max(features, default=(0.0, 0.0))
    parts["start"] = probes.start_seconds if configs else 0.0
    totals = {
        "machine": forecast.machine(probes.threads),
        "jobs": jobs,
        "seconds": sum(parts.values()),
        "parts": parts,
        "processor_share": probes.processor_share,
        "bytes": together.bytes + feature_bytes,
        "memory_bytes": max((costs.memory_bytes for costs in (*training.values(), *evaluation.values())), default=0.0),
        "new_pictures": together.new_pictures,
        "pictures": together.pictures,
    }
    return found, totals


class Probes:
    """Costs of trainings and evaluations, timed where they are not known from an earlier plan on this machine."""

    def __init__(self, threads: int | None, say: Callable[[str], None], began: float):
        self.threads, self._say, self._began = threads, say, began
        self._known: dict[str, Any] = {}
        self._shared: Any = None
        self.start_seconds, self.processor_share = 0.0, 1.0

    def training(self, config: Config) -> TrainingCosts:
        from ablations.sweeping.forecast import TrainingCosts, training_kind

        return self._costs(config, training_kind(config), TrainingCosts, "training steps")

    def evaluation(self, config: Config) -> EvaluationCosts:
        from ablations.sweeping.forecast import EvaluationCosts, evaluation_kind

        return self._costs(config, evaluation_kind(config), EvaluationCosts, "refining, pictures and scores")

    def _costs(self, config: Config, kind: str, costs: type[T], what: str) -> T:
        if kind not in self._known:
            from ablations.runtime.files import write_json

            path = self._path(config, kind)
            found = _kept(path, costs)
            if found is None:
                measured, share = self._measure(config, what)
                found = {"costs": asdict(measured), "start_seconds": self._load_seconds, "processor_share": share}
                if share >= UNDISTURBED:
                    write_json(path, found)
            self.start_seconds = max(self.start_seconds, found["start_seconds"] + found["costs"].get("read_seconds", 0.0))
            self.processor_share = min(self.processor_share, found["processor_share"])
            self._known[kind] = costs(**found["costs"])
        return self._known[kind]

    def _path(self, config: Config, kind: str) -> Path:
        from ablations.results.made_by import digest_of_code
        from ablations.results.run_folder import cache_folder
        from ablations.sweeping.forecast import digest, machine

        root = Path(__file__).parents[2]
        code = digest_of_code(*(root / part for part in ("ablations/cell", "ablations/sweeping", "lightning_modules", "datamodules")))
        name = digest([kind, machine(self.threads), config.trainer.threads, code])
        return cache_folder(config) / "probes" / f"{name}.json"

    def _measure(self, config: Config, what: str) -> tuple[TrainingCosts | EvaluationCosts, float]:
        """Times a config in a folder that goes away again; returns the share of the processors that it got, too."""
        if self._shared is None:
            if self.threads is not None:
                os.environ.setdefault("OMP_NUM_THREADS", str(self.threads))
            announce_libraries(self._say)
            from ablations.cell.shared import Shared

            self._shared = Shared()
            self._load_seconds = time.monotonic() - self._began
        from ablations.config import arm_name, train_id
        from ablations.sweeping import probe

        is_training = what == "training steps"
        self._say(f"timing {what} of {train_id(config) if is_training else arm_name(config)}")
        with tempfile.TemporaryDirectory(prefix="ablations-plan-") as scratch, probe.processor_share() as share:
            measure = probe.probe_training if is_training else probe.probe_evaluation
            try:
                return measure(config, self._shared, Path(scratch)), share()
            except (ValueError, FileNotFoundError) as error:
                raise UserError(str(error)) from error


def _kept(path: Path, costs: type) -> dict[str, Any] | None:
    """What an earlier plan timed; None where there is none, or none of this version: it is measured again."""
    try:
        found = read_json(path, dict)
        costs(**found["costs"])
        numbers = (found["start_seconds"], found["processor_share"], *found["costs"].values())
    except (FileNotFoundError, Unreadable, KeyError, TypeError, AttributeError):
        return None
    return found if all(isinstance(number, int | float | dict) for number in numbers) else None
