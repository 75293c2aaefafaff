"""The best arm of every sweep in an output folder, by the metric that its sweep file names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.results.logged import flatten
from ablations.results.looking import Run, is_plain_name, look_at_run
from ablations.results.run_folder import METRICS_CSV
from ablations.results.trained_run import find_trained_run
from ablations.runtime.errors import one_line
from ablations.runtime.foreign import Unreadable, is_file, read_json

COLUMNS = ("sweep", "metric", "goal", "arm", "label", "mean", "seeds", "of_arms")
_SHOWN = ("run.json", "diversity_grid.png", METRICS_CSV)


@dataclass(frozen=True)
class BestArm:
    """The arm of a sweep with the best mean over its finished seeds. `label` is what the sweep varied in it, `cells` are its run folders;
    `of_arms` were compared. The best of many looks better than it is."""

    sweep: str
    metric: str
    goal: str
    arm: str
    label: str
    mean: float
    cells: tuple[Path, ...]
    of_arms: int

    @property
    def line(self) -> tuple:
        """As COLUMNS."""
        return (self.sweep, self.metric, self.goal, self.arm, self.label, self.mean, len(self.cells), self.of_arms)

    def files(self, with_weights: bool = False) -> dict[str, Path]:
        """What there is to see of it, by name within an artifact; with the trained weights of its first seed where they are wanted.

        Raises UserError where these are wanted and not there.
        """
        found = {f"{cell.name}/{name}": cell / name for cell in self.cells for name in _SHOWN if is_file(cell / name)}
        if with_weights:
            run = find_trained_run(self.cells[0])
            found[f"{self.cells[0].name}/{run.checkpoint.name}"] = run.checkpoint
        return found


def best_of_sweeps(output_dir: Path) -> tuple[list[BestArm], list[str]]:
    """The best arms, and a line for each sweep that has none: no metric, no finished cell with it, or a sweep.json that cannot be read."""
    found, without = [], []
    for path in sorted(output_dir.glob("sweeps/*/sweep.json")):
        try:
            best = _best_of(path, output_dir)
        except FileNotFoundError:
            continue
        except Unreadable as error:
            without.append(f"{path} cannot be read ({one_line(error)}): its best arm is left out")
            continue
        if best is not None:
            found.append(best)
        else:
            without.append(f"sweep {path.parent.name} has no finished cell with its metric: it has no best arm")
    return found, without


def _best_of(path: Path, output_dir: Path) -> BestArm | None:
    sweep = read_json(path, dict)
    metric, goal, cells = sweep.get("metric"), sweep.get("goal"), sweep.get("cells")
    if not metric:
        return None
    if not isinstance(metric, str) or goal not in ("maximize", "minimize") or not isinstance(cells, list):
        raise Unreadable("it names no metric, goal and cells")
    arms: dict[str, dict[Path, float]] = {}
    labels: dict[str, str] = {}
    for arm, seed, label in map(_cell, cells):
        folder = output_dir / arm / f"seed-{seed}"
        run = look_at_run(folder)
        value = flatten(run.metrics).get(metric) if isinstance(run, Run) and run.status == "finished" else None
        if isinstance(value, int | float) and math.isfinite(value):
            arms.setdefault(arm, {})[folder] = float(value)
            labels[arm] = label
    if not arms:
        return None
    means = {arm: _mean(list(values.values())) for arm, values in arms.items()}
    arm = (max if goal == "maximize" else min)(sorted(means), key=lambda name: means[name])
    return BestArm(path.parent.name, metric, goal, arm, labels[arm], means[arm], tuple(sorted(arms[arm])), len(arms))


def _cell(content: Any) -> tuple[str, int, str]:
    """(arm, seed, what was varied); names of a foreign folder lead nowhere else."""
    if not isinstance(content, dict) or not isinstance(content.get("arm"), str) or type(content.get("seed")) is not int:
        raise Unreadable("a cell of it has no arm and seed")
    if not is_plain_name(content["arm"]) or content["seed"] < 0:
        raise Unreadable(f"{content['arm']!r:.80}, seed {content['seed']}, is no cell")
    swept = content.get("swept") if isinstance(content.get("swept"), dict) else {}
    return content["arm"], content["seed"], " ".join(f"{key}={value}" for key, value in swept.items() if key != "seed")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
