"""The refiner against the coarse prompts and the controls, over the seeds of one arm."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.metrics.register import shown_metrics
from ablations.results.conditions import COARSE, all_conditions, in_tables
from ablations.results.prompts_and_scores import PROMPTS, SCORES, read_prompts, read_scores
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import is_there, within

if TYPE_CHECKING:
    import pandas as pd


def compared_metrics() -> list[str]:
    """The metrics that are compared, in the order of the table."""
    return [metric.name for metric in shown_metrics() if metric.against_controls]


def compared_pairs(present: Iterable[str]) -> list[tuple[str, str]]:
    """(condition, what it is compared with) of the conditions that are there: each with the coarse prompts, the refined ones with every
    control too. Conditions that are drawn from prompts of their own come before those that are drawn by the trained encoder."""
    names = set(present)
    rows = [c for c in in_tables() if c.name in names - {COARSE} and not (c.is_control or c.is_bound or c.shared_noise)]
    known = all_conditions()
    # Results of a plug-in that is not loaded are told by the name.
    controls = sorted(name for name in names if (known[name].is_control if name in known else name.startswith("control_")))
    return [
        (condition.name, against)
        for condition in sorted(rows, key=lambda condition: condition.by_trained_encoder)
        for against in (COARSE, *controls)[: None if condition.name == "refined" else 1]
    ]


def scores_of_arm(arm: Path) -> pd.DataFrame:
    """The scores of an arm's finished seeds as one table, with the columns `seed` and `coarse` (the coarse prompt's text).

    Raises UserError where the folder holds no finished seed, where seeds were made from different data or weights, and for scores or
    prompts that cannot be read or are not finite.
    """
    import pandas as pd

    from ablations.results.looking import Run, look_at_run

    parts, origins = [], set()
    for folder in within(arm, "seed-*"):
        run = look_at_run(folder)
        if not isinstance(run, Run) or run.status != "finished" or not is_there(folder / SCORES):
            continue
        origins.add((run.data_digest, run.weights_digest))
        try:
            texts = {line["prompt_id"]: line["coarse"] for line in read_prompts(folder / PROMPTS, ("prompt_id", "coarse"))}
            scores = read_scores(folder / SCORES)
        except UserError as error:
            raise UserError(f"{error}: run the cell again with force=true") from error
        parts.append(scores.assign(seed=run.content.get("seed", run.config.get("seed")), coarse=scores.prompt_id.map(texts)))
    if not parts:
        raise UserError(f"{arm} holds no finished seed with scores: run cells first, then give OUTPUT_DIR/ARM")
    if len(origins) > 1:
        raise UserError(f"the seeds in {arm} were made from different data or weights: run them again with force=true")
    return pd.concat(parts, ignore_index=True)


def compare_conditions(scores: pd.DataFrame, metric: str, condition: str, against: str):
    """(mean of one condition, mean of the other, their paired Difference) on a metric, over the prompts that every seed has.

    Of each prompt those candidates count that both conditions have: they share their image noise.
    None where one of them was not scored, or where there are fewer than two pairs.
    """
    from ablations.reporting.statistics import paired_difference

    place = ["seed", "prompt_id", "coarse", "candidate"]
    chosen = scores[(scores.metric == metric) & (scores.candidate >= 0)]
    one, other = (chosen.loc[chosen.condition == name, [*place, "value"]] for name in (condition, against))
    pairs = one.merge(other, on=place, suffixes=("", "_other"))
    tables = [
        pairs.pivot_table(index="seed", columns="coarse", values=column, aggfunc="mean").dropna(axis="columns")
        for column in ("value", "value_other")
    ]
    shared = tables[0].columns.intersection(tables[1].columns)
    if tables[0].shape[0] != tables[1].shape[0] or tables[0].shape[0] * len(shared) < 2:
        return None
    one, other = (table[shared].to_numpy() for table in tables)
    return one.mean(), other.mean(), paired_difference(one, other)


def show_controls(folder: Path) -> None:
    """Print the comparisons of an arm's folder as a table. Raises UserError where it holds no scores."""
    scores = scores_of_arm(folder)
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "comparison", "means", "difference", "95% interval", title=folder.name, title_justify="left")
    notes, sizes = set(), set()
    pairs = compared_pairs(scores.condition)
    for metric, (condition, against) in itertools.product(compared_metrics(), pairs):
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
