"""A cell's scores as means by condition and metric: what run.json, W&B and the screen show."""

from __future__ import annotations

import pandas as pd

from ablations.metrics.register import labels
from ablations.results.scores import SEVERAL


def summary_of(table: pd.DataFrame, num_prompts: int, num_candidates: int) -> dict:
    """{condition: {metric: mean}}, with the sets' diversity under "diversity" and the sample size under "n"."""
    table = table[~table.metric.isin(labels())]
    per_prompt = table.groupby(["condition", "metric", "prompt_id"])["value"].mean()
    is_set = table.groupby(["condition", "metric"])["candidate"].max() == SEVERAL
    means = per_prompt.groupby(["condition", "metric"]).mean()
    summary: dict = {"n": {"prompts": num_prompts, "candidates": num_candidates}, "diversity": {}}
    for (condition, metric), value in means.items():
        target = summary["diversity"] if is_set[condition, metric] else summary
        target.setdefault(condition, {})[metric] = float(value)
    return summary
