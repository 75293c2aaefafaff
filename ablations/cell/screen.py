"""A cell's result on the screen: its metrics as a small table, and where the pictures are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ablations.config import Config
from ablations.config.scope import TINY_WORLD_NOTE
from ablations.metrics.base import DIVERSITY, NOT_AVAILABLE
from ablations.metrics.register import all_metrics, metric_named, shown_metrics
from ablations.results.conditions import FINE, in_tables
from ablations.results.run_folder import RunFolder
from ablations.runtime.console import Console

if TYPE_CHECKING:
    from rich.table import Table


def show_result(console: Console, folder: RunFolder, metrics: dict, config: Config) -> None:
    """The cell's result as a small table, and where the pictures are."""
    if "refined" in metrics:
        n = metrics["n"]
        title = f"{folder}: means over {n['prompts']} prompts x {n['candidates']} candidates"
        if config.profile == "tiny":
            title += f"\n{TINY_WORLD_NOTE}"
        size = config.data.image_size
        asked = config.eval.metrics.split(",") if config.eval.metrics else []
        shown = {metric.name: metric.block for metric in shown_metrics()}
        names = [name for name in dict.fromkeys((*shown, *asked)) if shown.get(name) != DIVERSITY]
        console.table(result_table(title, metrics, names, size))
        if any(_is_no_quality_measure(name, size) for name in names):
            console.say(f"† not a quality measure at {size} px")
        console.say("one seed: compare arms over several, see README")
    if folder.diversity_grid.exists():
        console.say(f"diversity grid: {folder.diversity_grid}")
    console.say(f"everything else: {folder.path}")


def result_table(title: str, metrics: dict, names: Sequence[str], image_size: int) -> Table:
    """The means of run.json's `metrics` by condition: a row for each of `names`, then for the measures of diversity."""
    from rich.table import Table

    # What was written without pictures has few of the metrics. Of what could be reached the fine prompt is enough on a screen.
    written = [c.name for c in in_tables() if not c.shared_noise and (c.name == FINE or not c.is_bound)]
    conditions = [name for name in written if 2 * len(metrics.get(name, ())) > len(metrics["refined"])]
    table = Table(title=title, title_justify="left")
    table.add_column("metric", min_width=max((len(_label(name, image_size)) for name in names), default=0))
    for name in conditions:  # on several lines: side by side, the controls' names leave no room for the metrics'
        table.add_column(name.replace("_", "_\n") if name.startswith("control_") else name)
    diversity = metrics["diversity"]

    def of_sets(name: str) -> list[str]:
        return [f"{diversity[c][name]:.3f}" if name in diversity.get(c, {}) else "" for c in conditions]

    for name in names:
        if name in metrics.get("unavailable", {}):
            table.add_row(name, *[NOT_AVAILABLE] * len(conditions))
        elif name in metrics["refined"]:
            table.add_row(_label(name, image_size), *(f"{metrics[c][name]:.3f}" if name in metrics[c] else "" for c in conditions))
        elif name in diversity.get("refined", {}):
            table.add_row(name, *of_sets(name))
    for metric in shown_metrics():
        if metric.block == DIVERSITY and metric.name in diversity.get("refined", {}):
            table.add_row(f"{metric.name} (diversity)", *of_sets(metric.name))
    return table


def _label(name: str, image_size: int) -> str:
    return f"{name} †" if _is_no_quality_measure(name, image_size) else name


def _is_no_quality_measure(name: str, image_size: int) -> bool:
    return name in all_metrics() and "not a quality measure" in metric_named(name).note_at(image_size)
