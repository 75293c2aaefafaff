"""Evidence of studies whose truth is known: every claim's arms with declared effects, checks that pass and controls that are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ablations.reporting.evidence import Arm, Comparison, Endpoint, Evidence, Plan, Scores

FULL = "mse+text+clip"
CHECKS = {
    "mse_gap_closed": 0.8,
    "clip_accuracy": 0.6,
    "text_loss": 1.0,
    "afe_cosine_to_pooled": 0.7,
    "afe_entropy_share": 0.5,
    "afe_cosine_to_mean_weights": 0.9,
    "afe_retrieval_coarse": 0.66,
    "pooled_retrieval_coarse": 0.68,
}
WITHOUT = {"text+clip": {"mse_gap_closed": 0.2}, "mse+text": {"clip_accuracy": 0.1}, "mse+clip": {"text_loss": 3.0}}
PICTURES, TEXTS = ("style_fits", "qualities_fit"), ("style_fit_probability", "added_words_fit")
LENGTHS = ("2", "4", "6", "8")
# What must be there whatever the claims say: fine prompts are better than coarse ones, and a refiner needs L_text.
CONDITIONS = {"coarse": -0.3, "control_step0": -0.3, "control_t5_direct": -0.3, "control_shuffled": -0.3, "control_known_words": -0.3}
CONDITIONS |= {"refined": 0.0, "fine": 0.3, "fitting_styles": 0.5}


def drawn(
    effects: Mapping[tuple[str, str, str], float] | None = None,
    seeds: Sequence[int] = range(5),
    num_prompts: int = 24,
    plan: Plan | None = None,
    noise: float = 0.08,
    rng: int = 0,
) -> Evidence:
    """A study. `effects` by (table, row, metric) are added to that row's scores in every condition: row minus reference."""
    random, given = np.random.default_rng(rng), effects or {}

    def arm(table: str, row: str, metrics: Sequence[str]) -> Arm:
        scores = {}
        for metric in metrics:
            level = 0.5 + given.get((table, row, metric), 0.0)
            scores[metric] = Scores(level + random.normal(0, noise, (len(seeds), num_prompts)), tuple(seeds), PROMPTS[:num_prompts])
        checks = CHECKS | WITHOUT.get(row, {})
        return Arm(row, row, scores, tuple(seeds), checks=dict.fromkeys(seeds, checks))

    def comparison(table: str, condition: str, reference: str, rows: Sequence[str], metrics: Sequence[str]) -> Comparison:
        arms = {row: arm(table, row, metrics) for row in (reference, *rows)}
        return Comparison(table, condition, reference, arms, slug=f"{table}-{condition}", poolable=table != "conditions")

    losses = ("text+clip", "mse+text", "mse+clip", "mse+text+clip+feature", "placebo")
    afe, every = ("without", "uniform", "frozen", "placebo"), (*PICTURES, *TEXTS, "fidelity", "words_f1", "st_lpips")
    every += ("fitting_styles_drawn", "distinct_fitting_styles")
    lengths = [row for row in LENGTHS if row != "6"]
    comparisons = [comparison("losses", condition, FULL, losses, every) for condition in ("plug_in", "refined", "rewrite")]
    comparisons += [comparison("afe", condition, "with", afe, every) for condition in ("refined_shared_noise", "refined", "plug_in")]
    comparisons.append(comparison("prompt_length", "refined", "6", lengths, ("words_f1_of_ceiling", "fidelity")))
    comparisons.append(comparison("prompt_length", "fine_prefix", "6", lengths, ("words_f1", "fidelity")))
    comparisons.append(comparison("conditions", "", "refined", [name for name in CONDITIONS if name != "refined"], every))
    endpoints = {metric: Endpoint(metric, metric) for metric in (*every, "words_f1_of_ceiling")}
    return Evidence("tiny", tuple(comparisons), endpoints, plan)


PROMPTS = tuple(f"prompt {i}" for i in range(300))


def sensitive() -> dict[tuple[str, str, str], float]:
    """Effects with which every positive control is found."""
    found = {}
    for metric in (*PICTURES, *TEXTS, "fidelity", "words_f1", "st_lpips", "fitting_styles_drawn", "distinct_fitting_styles"):
        found |= {("conditions", row, metric): level for row, level in CONDITIONS.items()}
        found["losses", "mse+clip", metric] = -0.3
        found["losses", "text+clip", metric] = -0.3
    found |= {("prompt_length", "2", metric): -0.3 for metric in ("words_f1",)}
    return found


def with_arm(evidence: Evidence, table: str, row: str, **changes) -> Evidence:
    """The evidence with a row changed in every comparison of a table."""
    comparisons = tuple(
        replace(c, arms={**c.arms, row: replace(c.arms[row], **changes)}) if c.table == table and row in c.arms else c
        for c in evidence.comparisons
    )
    return replace(evidence, comparisons=comparisons)
