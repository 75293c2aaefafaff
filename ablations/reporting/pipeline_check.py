"""Simulations of the whole of it: studies whose truth is known, judged by the functions that judge the report's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ablations.reporting.claims import margins
from ablations.reporting.drawn_studies import Design, draw_study, sensitive
from ablations.reporting.judging import CONTRADICTED, NO_EFFECT, REPRODUCED, Verdict, judge
from ablations.reporting.pooling import Components
from ablations.reporting.pooling_check import Share

MOST_WRONG, MOST_WRONG_POOLED = 0.05, 0.06
# Measured components, and ones in which seeds weigh as much as everything else.
_SEEDS_WEIGH = Components(0.002, 1e-3, 0.0063)
DESIGNS: Mapping[str, Design] = {
    "5 x 64, 256 texts": Design(),
    "5 x 64, 256 texts, seeds weigh": Design(arm=_SEEDS_WEIGH),
    "5 x 64, 256 texts, skewed seeds": Design(arm=_SEEDS_WEIGH, seed_effects="skewed"),
    "3 x 10, 256 texts": Design(seeds=3, prompts=10, arm=_SEEDS_WEIGH),
}
# What `sensitive` draws as an effect, beside everything else, which has none.
_TRUE = {("l_mse", "plug_in"), ("l_mse", "refined"), ("l_text", "refined"), ("l_text", "rewrite"), ("refiner", "refined")}


def _is_wrong(verdict: Verdict) -> bool:
    """Whether an effect is said where there is none, or the other way where there is one."""
    if (verdict.claim.id, verdict.condition) in _TRUE:
        return verdict.verdict == CONTRADICTED
    return verdict.verdict in (REPRODUCED, CONTRADICTED)


def false_effects(studies: int, seed: int = 7) -> list[Share]:
    """Studies in which any verdict says an effect where there is none: 8 of 13 settings have none, at every design, with the arms' spread
    pooled and without."""
    found = []
    for name, design in DESIGNS.items():
        for poolable in (False, True):
            rng = np.random.default_rng([seed, poolable, len(name)])
            own = replace(design, poolable=poolable)
            wrong = sum(any(map(_is_wrong, judge(draw_study(rng, own), False))) for _ in range(studies))
            most = MOST_WRONG_POOLED if poolable else MOST_WRONG
            pooled = ", pooled" if poolable else ""
            found.append(Share(f"{name}{pooled}: a study says an effect where there is none", wrong / studies, studies, at_most=most))
    return found


def false_absence(studies: int, seed: int = 8) -> list[Share]:
    """How often a claim whose effect is exactly its margin gets "no effect larger than the margin": by claim, and in any of a study."""
    limits = margins("tiny")
    effects = sensitive()
    for table, row in (("losses", "mse+text"), ("losses", "mse+text+clip+feature"), ("afe", "without"), ("afe", "uniform")):
        sign = 1 if row.endswith("feature") else -1
        effects |= {(table, row, name): sign * margin for name, margin in limits.items()}
    rng, design = np.random.default_rng(seed), Design(arm=Components(2e-5, 2e-5, 0.002), shared=0.002)
    counts: dict[tuple[str, str], int] = {}
    anywhere = 0
    for _ in range(studies):
        said = {
            (v.claim.id, v.condition)
            for v in judge(draw_study(rng, design, effects), False)
            if v.claim.id in ("l_clip", "feature", "afe") and v.verdict == NO_EFFECT
        }
        anywhere += bool(said)
        for key in said:
            counts[key] = counts.get(key, 0) + 1
    greatest = max(counts.values(), default=0) / studies
    return [
        Share("5 x 64, effects as large as the margin: 'no effect' of a claim, the greatest of 6", greatest, studies, at_most=MOST_WRONG),
        Share("... of any of the 6, of which none is corrected for the others", anywhere / studies, studies),
    ]


def true_effects(studies: int, seed: int = 9) -> list[Share]:
    """How often effects of three margins are reproduced, and arms without one have "no effect", in the shipped design."""
    effects = sensitive() | {("losses", "mse+text", name): -3 * margin for name, margin in margins("tiny").items()}
    rng, reproduced, none = np.random.default_rng(seed), 0, 0
    for _ in range(studies):
        found = {(v.claim.id, v.condition): v.verdict for v in judge(draw_study(rng, Design(), effects), False) if v.is_primary}
        reproduced += found["l_clip", "plug_in"] == REPRODUCED
        none += found["feature", "refined"] == NO_EFFECT
    return [
        Share("5 x 64, an effect of three margins is reproduced in plug_in pictures (one endpoint 0 or 1)", reproduced / studies, studies),
        Share("5 x 64, 256 texts: no effect is recognised as none in texts", none / studies, studies),
    ]
