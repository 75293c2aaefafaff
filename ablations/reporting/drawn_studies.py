"""Evidence of studies whose truth is known: every claim's arms with declared effects, checks that pass and controls that are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ablations.reporting.claims import load_claims
from ablations.reporting.evidence import Arm, Comparison, Endpoint, Evidence, Plan, Scores
from ablations.reporting.pooling import Components

# (table, row, metric): row minus reference, in every condition.
Effects = Mapping[tuple[str, str, str], float]
FULL = "mse+text+clip"
PICTURES, TEXTS = ("style_fits", "qualities_fit"), ("style_fit_probability", "added_words_fit")
# Endpoints read of texts alone, on all held-out prompts.
OF_TEXTS = (*TEXTS, "words_f1", "words_f1_of_ceiling", "distinct_fitting_styles")
CHECKS = {
    **{"mse_gap_closed": 0.8, "clip_accuracy": 0.6, "text_loss": 1.0, "afe_cosine_to_pooled": 0.7, "afe_entropy_share": 0.5},
    **{"afe_cosine_to_mean_weights": 0.9, "afe_retrieval_coarse": 0.66, "pooled_retrieval_coarse": 0.68},
}
_WITHOUT = {"text+clip": {"mse_gap_closed": 0.2}, "mse+text": {"clip_accuracy": 0.1}, "mse+clip": {"text_loss": 3.0}}
_ROWS = {
    "losses": (FULL, "text+clip", "mse+text", "mse+clip", "mse+text+clip+feature", "text", "placebo"),
    "afe": ("with", "without", "uniform", "frozen", "placebo"),
    "prompt_length": ("6", "2", "4", "8", "10", "12", "16", "20"),
}
# Levels that are there whatever the claims say: fine prompts are better than coarse ones, and controls do not help.
_CONDITIONS = {
    **dict.fromkeys(("coarse", "control_step0", "control_t5_direct", "control_shuffled", "control_known_words"), -0.3),
    **{"refined": 0.0, "fine": 0.3, "fitting_styles": 0.5},
}


@dataclass(frozen=True)
class Design:
    """How a study is drawn: its size, and how the scores of one arm vary (`arm`: variances of its own seeds, prompts and rest; `shared`:
    the variance that all arms share at a seed and prompt).

    `seed_effects`: "normal", "skewed" (log-normal) or "collapsed" (one seed in five off by 5 deviations). `zero_one`: endpoints that are 0
    or 1. `poolable`: whether spread may be pooled.
    """

    seeds: int = 5
    prompts: int = 64
    text_prompts: int = 256
    # Half of what differences in fidelity vary by (docs/statistics.md): a difference has two arms.
    arm: Components = field(default_factory=lambda: Components(5e-5, 1e-4, 0.0063))
    shared: float = 0.01
    seed_effects: str = "normal"
    zero_one: tuple[str, ...] = ("style_fits",)
    poolable: bool = True


def sensitive() -> dict[tuple[str, str, str], float]:
    """Effects with which every positive control is found; no other arm differs from its reference."""
    names = {name for claim in load_claims() for setting in claim.settings for name in setting.endpoints["tiny"]} | {"words_f1"}
    found = {("conditions", row, name): level for row, level in _CONDITIONS.items() for name in names}
    found |= {("losses", row, name): -0.3 for row in ("mse+clip", "text+clip") for name in names}
    return found | {("prompt_length", "4", "words_f1"): -0.3}


def draw_study(rng: np.random.Generator, design: Design, effects: Effects | None = None, plan: Plan | None = None) -> Evidence:
    """The evidence of one study with every comparison that a claim or a control reads."""
    given = sensitive() if effects is None else effects
    wanted = _wanted()
    found = [_comparison(rng, design, given, key, names) for key, names in wanted.items()]
    endpoints = {name: Endpoint(name, name) for names in wanted.values() for name in names}
    return Evidence("tiny", tuple(found), endpoints, plan)


def _wanted() -> dict[tuple[str, str], tuple[str, ...]]:
    """The endpoints of every (table, condition) that is read."""
    wanted: dict[tuple[str, str], list[str]] = {}
    for claim in load_claims():
        for setting in claim.settings:
            names = setting.endpoints["tiny"]
            control = setting.positive_control
            theirs = (control.endpoints or setting.endpoints)["tiny"]
            for table, condition, own in (
                (claim.table, setting.condition, names),
                (control.table, control.condition or setting.condition, theirs),
            ):
                wanted.setdefault((table, "" if table == "conditions" else condition), []).extend(own)
    return {key: tuple(dict.fromkeys(names)) for key, names in wanted.items()}


def _comparison(rng: np.random.Generator, design: Design, effects: Effects, key: tuple[str, str], names: Sequence[str]) -> Comparison:
    table, condition = key
    rows = _ROWS.get(table, ("refined", *(name for name in _CONDITIONS if name != "refined")))
    seeds = tuple(range(design.seeds))
    scores: dict[str, dict[str, Scores]] = {row: {} for row in rows}
    for name in names:
        num_prompts = design.text_prompts if name in OF_TEXTS else design.prompts
        levels = np.array([0.5 + effects.get((table, row, name), 0.0) for row in rows])
        drawn = draw_arms(rng, design, levels, num_prompts, name in design.zero_one)
        prompts = tuple(f"prompt {i}" for i in range(num_prompts))
        for row, values in zip(rows, drawn, strict=True):
            scores[row][name] = Scores(values, seeds, prompts)
    arms = {row: Arm(row, row, scores[row], seeds, checks=dict.fromkeys(seeds, CHECKS | _WITHOUT.get(row, {}))) for row in rows}
    slug = f"{table}-{condition}"
    return Comparison(table, condition, rows[0], arms, slug=slug, poolable=design.poolable and table != "conditions")


def draw_arms(rng: np.random.Generator, design: Design, levels_K: np.ndarray, num_prompts: int, is_zero_one: bool) -> np.ndarray:
    """Scores (K, num_seeds, num_prompts) of arms with these levels, which share what is common to a seed and prompt."""
    arms, seeds, arm = len(levels_K), design.seeds, design.arm
    common = rng.normal(0, design.shared**0.5, (1, seeds, num_prompts))
    own_seed = seed_effects(rng, design.seed_effects, (arms, seeds, 1)) * arm.seed**0.5
    own_prompt = rng.normal(0, arm.prompt**0.5, (arms, 1, num_prompts))
    level = levels_K[:, None, None] + common + own_seed + own_prompt
    if is_zero_one:  # one threshold for all arms: pictures are drawn from the same noise
        shared = rng.random((1, seeds, num_prompts))
        differs = rng.random((arms, seeds, num_prompts))
        return (np.where(differs < 0.5, shared, rng.random((arms, seeds, num_prompts))) < level).astype(float)
    return level + rng.normal(0, arm.rest**0.5, (arms, seeds, num_prompts))


def seed_effects(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Seed effects of mean 0; of variance 1 but for collapsed seeds, one in five of which is off by 5."""
    if kind == "collapsed":
        return rng.normal(0, 1, shape) - 5.0 * (rng.random(shape) < 0.2) + 1.0
    if kind == "skewed":
        return (np.exp(rng.normal(0, 1, shape)) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)
    return rng.normal(0, 1, shape)


def with_arm(evidence: Evidence, table: str, row: str, **changes) -> Evidence:
    """The evidence with a row changed in every comparison of a table."""
    comparisons = tuple(
        replace(c, arms={**c.arms, row: replace(c.arms[row], **changes)}) if c.table == table and row in c.arms else c
        for c in evidence.comparisons
    )
    return replace(evidence, comparisons=comparisons)
