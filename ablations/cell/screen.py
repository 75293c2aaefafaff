"""A cell's result on the screen: its metrics as a small table, and where the pictures are."""

from __future__ import annotations

from rich.table import Table

from ablations.cell.refining.refine import CONTROLS
from ablations.config import Config
from ablations.config.scope import TINY_WORLD_NOTE
from ablations.metrics.base import NOT_AVAILABLE
from ablations.metrics.register import all_metrics, metric_named
from ablations.results.run_folder import RunFolder
from ablations.runtime.console import Console

# The rows of the table that a cell ends with, best known first.
SHOWN_METRICS = (
    "fidelity",
    "words_drawn",
    "style_drawn",
    "subject_kept",
    "subject_in_text",
    "clip_score",
    "clip_score_coarse",
    "sentence_similarity",
    "content_words_kept",
    "piqe",
    "entropy",
)


SHOWN_DIVERSITY = ("st_lpips", "clip_distance", "vendi", "distinct_2")


def show_result(console: Console, folder: RunFolder, metrics: dict, config: Config) -> None:
    """The cell's result as a small table, and where the pictures are."""
    if "refined" in metrics:
        n = metrics["n"]
        title = f"{folder}: means over {n['prompts']} prompts x {n['candidates']} candidates"
        if config.profile == "tiny":
            title += f"\n{TINY_WORLD_NOTE}"
        conditions = [name for name in ("coarse", "plug_in", "refined", "rewrite", *CONTROLS, "fine") if name in metrics]
        # On two lines: side by side, the controls' names leave no room for the metrics'.
        headings = [name.replace("control_", "control_\n") for name in conditions]
        table = Table("metric", *headings, title=title, title_justify="left")
        diversity = metrics["diversity"]
        asked = (config.eval.metrics or "").split(",")
        for name in dict.fromkeys((*SHOWN_METRICS, *asked)):
            if name in metrics.get("unavailable", {}):
                table.add_row(name, *[NOT_AVAILABLE] * len(conditions))
            elif name in metrics["refined"]:
                table.add_row(_label(name, config.data.image_size), *(f"{metrics[c][name]:.3f}" for c in conditions))
            elif name in diversity.get("refined", {}):
                table.add_row(name, *(f"{diversity[c][name]:.3f}" if c in diversity else "" for c in conditions))
        for name in SHOWN_DIVERSITY:
            if name in diversity.get("refined", {}):
                cells = [f"{diversity[c][name]:.3f}" if c in diversity else "" for c in conditions]
                table.add_row(f"{name} (diversity)", *cells, end_section=name == SHOWN_DIVERSITY[-1])
        console.table(table)
        if any(_is_no_quality_measure(name, config.data.image_size) for name in ("piqe", "entropy", *asked)):
            console.say(f"† not a quality measure at {config.data.image_size} px")
        console.say("one seed: compare arms over several, see README")
    if folder.diversity_grid.exists():
        console.say(f"diversity grid: {folder.diversity_grid}")
    console.say(f"everything else: {folder.path}")


def _label(name: str, image_size: int) -> str:
    return f"{name} †" if _is_no_quality_measure(name, image_size) else name


def _is_no_quality_measure(name: str, image_size: int) -> bool:
    return name in all_metrics() and "not a quality measure" in metric_named(name).note_at(image_size)
