"""The refiner against the coarse prompts and the controls, over the seeds of one arm."""

from __future__ import annotations

METRICS = ("fidelity", "words_drawn", "style_drawn", "subject_kept", "subject_in_text", "clip_score_coarse")


CONDITIONS = ("refined", "rewrite", "plug_in")


def compare(scores, metric: str, condition: str, against: str):
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
