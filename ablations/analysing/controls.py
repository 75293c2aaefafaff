"""The refiner against the coarse prompts and the controls, over the seeds of one arm."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ablations.results.prompts_and_scores import read_scores

METRICS = ("fidelity", "words_drawn", "style_drawn", "subject_kept", "subject_in_text", "clip_score_coarse")


CONDITIONS = ("refined", "rewrite", "plug_in")


def compare_conditions(scores, metric: str, condition: str, against: str):
    """(mean of one condition, mean of the other, their paired Difference) on a metric, over the prompts that every seed has.

    None where one of them was not scored, or where there are fewer than two pairs.
    """
    from ablations.reporting.statistics import paired_difference

    chosen = scores[(scores.metric == metric) & (scores.candidate >= 0)]
    tables = [
        chosen[chosen.condition == name].pivot_table(index="seed", columns="coarse", values="value", aggfunc="mean").dropna(axis="columns")
        for name in (condition, against)
    ]
    shared = tables[0].columns.intersection(tables[1].columns)
    if tables[0].shape[0] != tables[1].shape[0] or tables[0].shape[0] * len(shared) < 2:
        return None
    one, other = (table[shared].to_numpy() for table in tables)
    return one.mean(), other.mean(), paired_difference(one, other)


def comparisons(scores) -> Iterator[tuple[str, str, str]]:
    """What is compared: (metric, condition, what it is compared with), of the conditions that were scored."""
    names = set(scores.condition)
    controls = sorted(name for name in names if name.startswith("control_"))
    for metric in METRICS:
        for condition in (name for name in CONDITIONS if name in names):
            for against in ("coarse", *controls) if condition == "refined" else ("coarse",):
                yield metric, condition, against


def show_controls(folder: Path) -> None:
    """Print the comparisons of an arm's folder as a table. Raises UserError where it holds no scores."""
    scores = read_scores(folder)
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "comparison", "means", "difference", "95% interval", title=folder.name, title_justify="left")
    notes, sizes = set(), set()
    for metric, condition, against in comparisons(scores):
        found = compare_conditions(scores, metric, condition, against)
        if found is None:
            continue
        mean, other, difference = found
        interval = f"[{difference.low:+.3f}, {difference.high:+.3f}]" + (" *" if difference.excludes_zero else "")
        table.add_row(metric, f"{condition} - {against}", f"{mean:.3f} {other:.3f}", f"{difference.mean:+.3f}", interval)
        sizes.add(f"N = {difference.num_seeds} seeds x {difference.num_prompts} distinct prompts")
        notes |= {difference.note} - {""}
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(table)
    print("; ".join([*sorted(sizes), "* the interval excludes 0", *sorted(notes)]))
