"""Variances of paired differences from finished cells. No mean and no difference leaves this file: planning must not show who wins.

The scores of K arms at the same seeds, prompts and candidates are

    y_kspc = level_sp + arm_k + a_ks + b_kp + ab_ksp + e_kspc

so a difference between two arms has twice the variances of a (seed), b (prompt), ab (seed x prompt) and e (candidate: token sampling and
image noise). The mean of the mean squares over all pairs of arms estimates them with (K - 1)(S - 1) degrees of freedom for the seed: with 6
arms 2 seeds give 5, where one pair gives 1. Components below 0 are taken as 0.

Shapes, as in the whole file: K = arms, S = seeds, P = prompts, C = candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from ablations.metrics.register import labels
from ablations.reporting.collect import FinishedCell
from ablations.reporting.pooling import Components

_MOST_APART = 2.0
_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Scores:
    """Scores of K arms: `every` (K, S, P, C) at the candidates that nearly all prompts have, `some` (K, S, Q, D) of the prompts that have
    more (those of the diversity grid), None where none has two. `is_of_sets`: a value is of all candidates of a prompt together."""

    every: np.ndarray
    some: np.ndarray | None
    is_of_sets: bool


def components_of(scores: Scores) -> Components:
    """Variances of the paired difference of two of the arms, from all pairs. What a single level of a factor cannot show is 0.

    Raises ValueError for fewer than two arms or seeds.
    """
    num_arms, num_seeds, num_prompts, num_candidates = scores.every.shape
    if num_arms < 2 or num_seeds < 2:
        raise ValueError(f"variances of paired differences need 2 arms and 2 seeds, got {num_arms} and {num_seeds}")
    own_KSP = _of_pairs(scores.every).mean(axis=-1)
    if num_prompts == 1:
        return Components(seed=float(own_KSP[..., 0].var(axis=-1, ddof=1).mean()), prompt=0.0, rest=0.0, candidate=0.0)
    mean_K11 = own_KSP.mean(axis=(-2, -1), keepdims=True)
    seed_KS1, prompt_K1P = own_KSP.mean(axis=-1, keepdims=True), own_KSP.mean(axis=-2, keepdims=True)
    freedom = num_arms * (num_seeds - 1) * (num_prompts - 1)
    rest = float(((own_KSP - seed_KS1 - prompt_K1P + mean_K11) ** 2).sum() / freedom)
    seeds = num_prompts * float(((seed_KS1 - mean_K11) ** 2).sum() / (num_arms * (num_seeds - 1)))
    prompts = num_seeds * float(((prompt_K1P - mean_K11) ** 2).sum() / (num_arms * (num_prompts - 1)))
    candidate = 0.0 if scores.some is None else float(_of_pairs(scores.some).var(axis=-1, ddof=1).mean())
    # The few prompts that have several candidates must not say that these spread more than all prompts do.
    candidate = min(candidate, rest * num_candidates)
    return Components(
        seed=max(0.0, (seeds - rest) / num_prompts),
        prompt=max(0.0, (prompts - rest) / num_seeds),
        rest=max(0.0, rest - candidate / num_candidates),
        candidate=candidate,
    )


def _of_pairs(values_K: np.ndarray) -> np.ndarray:
    """Deviations from the mean over arms, scaled so that the mean of a square over arms is that of a difference over pairs of arms."""
    return (values_K - values_K.mean(axis=0)) * np.sqrt(2 / (1 - 1 / len(values_K)))


def mean_components(parts: Sequence[Components]) -> Components:
    """The mean of several sets of components, each estimated from as much."""
    return Components(**{name: float(np.mean([getattr(part, name) for part in parts])) for name in asdict(parts[0])})


def scores_of(arms: Sequence[Sequence[FinishedCell]], metric: str, conditions: Sequence[str]) -> Scores | None:
    """Scores of arms, each a cell per seed in one order, each read in the condition of its place; None where none is in all of them.

    Only prompts that all cells have count, those of equal text as one. A metric with one value for a whole seed has P = 1.
    """
    tables = [[_by_candidate(cell, metric, condition) for cell in cells] for cells, condition in zip(arms, conditions, strict=True)]
    flat = [table for cells in tables for table in cells if table is not None]
    if not flat or len(flat) < sum(map(len, tables)):
        return None
    prompts = sorted(set.intersection(*(set(table.index) for table in flat)))
    candidates = sorted(set.intersection(*(set(table.columns) for table in flat)))
    if not prompts or not candidates:
        return None
    values = np.array([[table.loc[prompts, candidates].to_numpy(dtype=np.float64) for table in cells] for cells in tables])
    is_there_PC = np.isfinite(values).all(axis=(0, 1))
    # Nearly all prompts have them: a text that adds no word has no score of its words, and costs its prompt, not its candidate.
    share_C = is_there_PC.mean(axis=0)
    common_C = (share_C > 0) & (share_C >= _NEARLY_ALL * share_C.max())
    every = values[..., common_C][:, :, is_there_PC[:, common_C].all(axis=1)]
    some = values[:, :, is_there_PC.all(axis=1)]
    has_some = some.shape[-1] > 1 and some.shape[-2] > 0
    return Scores(every, some if has_some else None, -1 in candidates) if every.size else None


def _by_candidate(cell: FinishedCell, metric: str, condition: str) -> pd.DataFrame | None:
    """Scores of a cell, a row for each prompt's text and a column for each candidate, -1 for all together; None if not scored."""
    scores = cell.scores[(cell.scores.condition == condition) & (cell.scores.metric == metric) & (cell.scores.candidate >= 0)]
    if metric in labels() or scores.empty:
        values = cell.values(metric, condition)
        return None if values is None else values.to_frame(-1)
    return scores.pivot_table(index="coarse", columns="candidate", values="value", aggfunc="mean")


def of_wider_spread(values_KSP: np.ndarray) -> list[int]:
    """The arms whose own variance is more than twice the middle arm's: the report's pool leaves such arms out, too, by a test.

    With 2 seeds that test, which is strictest about seeds, would leave out arms by chance and take their seed's variance from one degree of
    freedom.
    """
    own_KSP = values_KSP - values_KSP.mean(axis=0)
    variance_K = (own_KSP - own_KSP.mean(axis=(1, 2), keepdims=True)).var(axis=(1, 2))
    return np.flatnonzero(variance_K > _MOST_APART * np.median(variance_K)).tolist()
