"""A cell's scores as means by condition and metric: what run.json, W&B and the screen show."""

from __future__ import annotations

import pandas as pd

from ablations.metrics.register import labels
from ablations.results.scores import SEVERAL, WHOLE_SET


def summary_of(table: pd.DataFrame, num_prompts: int, num_candidates: int) -> dict:
    """{condition: {metric: mean}}, with the sets' diversity under "diversity" and the sample size under "n".

    Where only the diversity grid's prompts have several candidates, the diversity of these few is no mean of the cell, and is left out.
    """
    table = table[~table.metric.isin(labels())]
    table = table[~_of_few_prompts(table)]
    per_prompt = table.groupby(["condition", "metric", "prompt_id"])["value"].mean()
    is_set = table.groupby(["condition", "metric"])["candidate"].max() == SEVERAL
    means = per_prompt.groupby(["condition", "metric"]).mean()
    summary: dict = {"n": {"prompts": num_prompts, "candidates": num_candidates}, "diversity": {}}
    for (condition, metric), value in means.items():
        target = summary["diversity"] if is_set[condition, metric] else summary
        target.setdefault(condition, {})[metric] = float(value)
    return summary


def _of_few_prompts(table: pd.DataFrame) -> pd.Series:
    """Which rows are scores of sets that less than half of the condition's prompts with pictures have."""
    is_set = (table.candidate == SEVERAL) & (table.prompt_id != WHOLE_SET)
    have_sets = table[is_set].groupby(["condition", "metric"]).prompt_id.nunique()
    drawn = table[table.image != ""].groupby("condition").prompt_id.nunique()
    few = {place: count < 0.5 * drawn.get(place[0], 0) for place, count in have_sets.items()}
    places = zip(table.condition, table.metric, strict=True)
    return is_set & pd.Series([few.get(place, False) for place in places], index=table.index, dtype=bool)
