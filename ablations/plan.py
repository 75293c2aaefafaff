"""`python -m ablations.plan FILE [key=value ...]`: what a sweep would run, what is there already, and how long it will take.

Exit codes: 0, 2 a mistake in the file or the arguments or a forecast above budget_hours, 143 stopped by a signal.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ablations.errors import RunFolderError, UserError, one_line
from ablations.sweep import read_arguments

if TYPE_CHECKING:
    from ablations.config import Config
    from ablations.console import Console
    from ablations.sweeping.cells import Cell, Grid, Search
    from ablations.sweeping.forecast import CellForecast, EvaluationCosts, TrainingCosts

T = TypeVar("T")
# Timings are kept for the next plan if this process got so much of its processors: others say more of its neighbours than of the config.
_UNDISTURBED = 0.5

HELP = """\
usage: python -m ablations.plan FILE [key=value ...] [--jobs N] [--count N] [--no-probe] [budget_hours=H]

Says which cells a sweep has, which of them are finished, what they share, and how much time and disk the rest will take. For that it
times a few training steps, pictures and scores on this machine; the timings are kept in OUTPUT_DIR/cache/probes and used again.

examples:
  python -m ablations.plan sweeps/ablation_tables.yaml
  python -m ablations.plan sweeps/ablation_tables.yaml --jobs 2
  python -m ablations.plan sweeps/losses.yaml seed=0,1,2 budget_hours=2 && python -m ablations.sweep sweeps/losses.yaml seed=0,1,2
  python -m ablations.plan sweeps/prompt_length.yaml --no-probe            the cells alone, at once

  key=value       as for ablations.sweep, and to be given to both alike
  --jobs N        forecast for so many processes (default 1)
  --count N       cells of a random or bayes search, in place of run_cap in the file
  --no-probe      no timing and no forecast
  budget_hours=H  exit code 2 if the forecast is above H hours

The forecast is kept in OUTPUT_DIR/sweeps/NAME/forecast.json, beside what the cells then really take.

Exit codes: 0, 2 a mistake in the file or the arguments or a forecast above budget_hours, 143 stopped by a signal.
"""


def main(argv: list[str] | None = None) -> int:
    """Show the plan that the arguments describe; returns the exit code."""
    began = time.monotonic()
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    if not argv or any(word in ("--help", "-h", "help") for word in argv):
        print(HELP)
        return 0 if argv else 2
    from ablations.stopping import Preempted, StopRequest

    stop = StopRequest().install()
    try:
        budget, words = _budget(argv)
        return _plan(words, budget, began)
    except (UserError, RunFolderError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except Preempted as preempted:
        print("stopped by a signal", file=sys.stderr)
        return preempted.exit_code
    finally:
        stop.restore()


def _budget(argv: list[str]) -> tuple[float | None, list[str]]:
    texts = [word.partition("=")[2] for word in argv if word.startswith("budget_hours=")]
    if not texts:
        return None, argv
    try:
        budget = float(texts[-1])
    except ValueError:
        budget = math.nan
    if not (math.isfinite(budget) and budget > 0):
        raise UserError(f"budget_hours must be a number above 0, not {texts[-1]!r}")
    return budget, [word for word in argv if not word.startswith("budget_hours=")]


def _plan(argv: list[str], budget: float | None, began: float) -> int:
    arguments = read_arguments(argv, ("jobs", "count", "search-seed"), ("no-probe",), "ablations.plan")
    if budget is not None and arguments.options.get("no-probe"):
        raise UserError("budget_hours needs a forecast: leave --no-probe out")
    from ablations.sweeping.cells import cells_of
    from ablations.sweeping.sweep_file import read_sweep_file

    sweep = read_sweep_file(arguments.file, arguments.keys)
    cells = cells_of(sweep, arguments.options.get("count"), arguments.options.get("search-seed", 0))
    from ablations.console import Console

    console = Console(str(sweep.fixed.get("trainer.progress", "auto")))
    forecasts: dict[str, CellForecast] = {}
    totals: dict[str, Any] = {}
    if not arguments.options.get("no-probe"):
        forecasts, totals = _forecast(cells, int(arguments.options.get("jobs", 1)), console.say, began)
    _show(cells, forecasts, totals, console)
    if not totals:
        return 0
    from ablations.sweeping.forecast import keep_forecast

    keep_forecast(cells.folder, forecasts, totals)
    hours = totals["seconds"] / 3600
    if budget is not None and hours > budget:
        raise UserError(
            f"the forecast of {hours:.2f} h is above budget_hours={budget:g}: sweep fewer seeds or arms, lower train.max_steps or "
            "eval.num_prompts, or raise --jobs"
        )
    return 0


def _forecast(cells: Grid | Search, jobs: int, say: Callable[[str], None], began: float) -> tuple[dict[str, CellForecast], dict[str, Any]]:
    """What each cell will take, and the whole sweep."""
    from ablations.sweeping import forecast
    from ablations.sweeping.workers import num_processors

    num_unknown = max(0, cells.total - len(cells.cells))
    configs = [cell.config for cell in cells.cells if not cell.folder.is_finished()] + [cells.example] * (num_unknown > 0)
    probes = _Probes(max(1, num_processors() // jobs) if jobs > 1 else None, say, began)
    training = {forecast.training_kind(config): probes.training(config) for config in configs}
    evaluation = {forecast.evaluation_kind(config): probes.evaluation(config) for config in configs if config.eval.num_prompts}
    found, together = forecast.forecast_cells(cells.cells, cells.example, num_unknown, training, evaluation)
    parts = {part: seconds / jobs for part, seconds in together.seconds.items()}
    features = [forecast.features_to_encode(config, training[forecast.training_kind(config)]) for config in configs]
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
        "new_pictures": together.new_pictures,
        "pictures": together.pictures,
    }
    return found, totals


class _Probes:
    """Costs of trainings and evaluations, timed where they are not known from an earlier plan on this machine."""

    def __init__(self, threads: int | None, say: Callable[[str], None], began: float):
        self.threads, self._say, self._began = threads, say, began
        self._known: dict[str, Any] = {}
        self._workshop: Any = None
        self.start_seconds, self.processor_share = 0.0, 1.0

    def training(self, config: Config) -> TrainingCosts:
        from ablations.sweeping.forecast import TrainingCosts, training_kind

        return self._costs(config, training_kind(config), TrainingCosts, "training steps")

    def evaluation(self, config: Config) -> EvaluationCosts:
        from ablations.sweeping.forecast import EvaluationCosts, evaluation_kind

        return self._costs(config, evaluation_kind(config), EvaluationCosts, "refining, pictures and scores")

    def _costs(self, config: Config, kind: str, costs: type[T], what: str) -> T:
        if kind not in self._known:
            from ablations.run_folder import write_json

            path = self._path(config, kind)
            found = _read_json(path)
            if found is None:
                measured, share = self._measure(config, what)
                found = {"costs": asdict(measured), "start_seconds": self._load_seconds, "processor_share": share}
                if share >= _UNDISTURBED:
                    write_json(path, found)
            self.start_seconds = max(self.start_seconds, found["start_seconds"] + found["costs"].get("read_seconds", 0.0))
            self.processor_share = min(self.processor_share, found["processor_share"])
            self._known[kind] = costs(**found["costs"])
        return self._known[kind]

    def _path(self, config: Config, kind: str) -> Path:
        from ablations.reuse import digest_of_code
        from ablations.sweeping.forecast import digest, machine

        here = Path(__file__).parent
        code = digest_of_code(here, here / "sweeping", here.parent / "lightning_modules", here.parent / "datamodules")
        name = digest([kind, machine(self.threads), config.trainer.threads, code])
        return Path(config.data.cache_dir or f"{config.output_dir}/cache") / "probes" / f"{name}.json"

    def _measure(self, config: Config, what: str) -> tuple[TrainingCosts | EvaluationCosts, float]:
        """Times a config in a folder that goes away again; returns the share of the processors that it got, too."""
        if self._workshop is None:
            self._say("loading libraries (some seconds)")
            if self.threads is not None:
                os.environ.setdefault("OMP_NUM_THREADS", str(self.threads))
            from ablations.quiet import quiet_libraries

            quiet_libraries()
            from ablations.workshop import Workshop

            self._workshop = Workshop()
            self._load_seconds = time.monotonic() - self._began
        from ablations.config import arm_name, train_id
        from ablations.sweeping import probe

        is_training = what == "training steps"
        self._say(f"timing {what} of {train_id(config) if is_training else arm_name(config)}")
        with tempfile.TemporaryDirectory(prefix="ablations-plan-") as scratch, probe.processor_share() as share:
            measure = probe.probe_training if is_training else probe.probe_evaluation
            try:
                return measure(config, self._workshop, Path(scratch)), share()
            except (ValueError, FileNotFoundError) as error:
                raise UserError(str(error)) from error


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):  # torn: it is measured again
        return None


def _show(cells: Grid | Search, forecasts: Mapping[str, CellForecast], totals: Mapping[str, Any], console: Console) -> None:
    """The arms as a table, then what is to be done, then time and disk."""
    from rich.table import Table

    from ablations.config_parsing import show
    from ablations.sweeping.dispatcher import is_trained
    from ablations.sweeping.progress import duration

    arms: dict[str, list[Cell]] = {}
    for cell in cells.cells:
        arms.setdefault(cell.folder.arm, []).append(cell)
    titles = ["arm", "what it is", "seeds", "finished", "training", *(["time", "new pictures"] if totals else [])]
    table = Table(*titles, title=f"{cells.folder.name}: {cells.total} cells", title_justify="left")
    first_with: dict[Path, str] = {}
    for arm, members in arms.items():
        swept = " ".join(f"{name}={show(value)}" for name, value in members[0].swept.items() if name != "seed")
        owner = first_with.setdefault(members[0].folder.training_path.parent, arm)
        ready = sum(is_trained(cell) for cell in members)
        of_training = "there" if ready == len(members) else f"{ready} of {len(members)} there" if ready else "to do"
        of_training = of_training if owner == arm else "shared"
        row = [arm, swept, " ".join(str(cell.config.seed) for cell in members)]
        row += [str(sum(cell.folder.is_finished() for cell in members)), of_training]
        if totals:
            own = [forecasts[str(cell.folder)] for cell in members if str(cell.folder) in forecasts]
            seconds = sum(sum(each.seconds.values()) for each in own)
            row += [duration(seconds), str(sum(each.new_pictures for each in own))] if own else ["", ""]
        table.add_row(*row)
    console.table(table)
    num_finished = sum(cell.folder.is_finished() for cell in cells.cells)
    trainings = {cell.folder.training_path: is_trained(cell) for cell in cells.cells}
    unknown = f", {cells.total - len(cells.cells)} of them not drawn yet" if cells.total > len(cells.cells) else ""
    console.say(f"{cells.total} cells: {num_finished} finished, {cells.total - num_finished} to do{unknown}")
    console.say(f"{len(trainings)} trainings: {sum(trainings.values())} finished, {len(trainings) - sum(trainings.values())} to do")
    if not totals:
        return
    console.say(f"at most {totals['new_pictures']} pictures to draw and score, of {totals['pictures']} that the cells to do show")
    parts = ", ".join(f"{part} {duration(seconds)}" for part, seconds in totals["parts"].items() if seconds >= 0.5)
    jobs = f"{totals['jobs']} processes" if totals["jobs"] > 1 else "one process"
    console.say(f"forecast: {duration(totals['seconds'])} with {jobs} on this machine" + (f" ({parts})" if parts else ""))
    if totals["processor_share"] < _UNDISTURBED:
        share, idle = totals["processor_share"], duration(totals["seconds"] * totals["processor_share"])
        console.say(f"the machine is busy: while it was timed this process got {share:.0%} of its processors; idle, about {idle}")
    free = shutil.disk_usage(_existing(cells.folder)).free
    short = ": NOT ENOUGH, choose another output_dir" if totals["bytes"] > free else ""
    console.say(f"disk: {totals['bytes'] / 1e6:,.0f} MB, of {free / 1e6:,.0f} MB free{short}")


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.absolute().parent)


if __name__ == "__main__":
    sys.exit(main())
