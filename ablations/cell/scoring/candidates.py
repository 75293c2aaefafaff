"""Diversity: scores of the candidates of one prompt together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ablations.cell.scoring.pictures import Pictures
from ablations.cell.scoring.score_store import ScoreStore
from ablations.metrics import diversity
from ablations.results.conditions import all_conditions
from ablations.results.prompts_and_scores import Drawing
from ablations.results.scores import Score


def sets_of_candidates(drawings: Sequence[Drawing]) -> dict[tuple[int, str], list[int]]:
    """The positions of the candidates of each prompt in each condition whose candidates are compared with one another, two or more.

    The coarse prompt redrawn is the floor: what image noise alone does.
    """
    compared = {name for name, condition in all_conditions().items() if condition.compared}
    groups: dict[tuple[int, str], list[int]] = {}
    for i, drawing in enumerate(drawings):
        if drawing.condition in compared:
            groups.setdefault((drawing.prompt_id, drawing.condition), []).append(i)
    return {group: members for group, members in groups.items() if len(members) > 1}


def st_lpips_of(pictures: Pictures, sets: Sequence[Sequence[int]], store: ScoreStore, device: str = "cpu") -> np.ndarray:
    """ST-LPIPS of each set of places of pictures, float64 (len(sets),); what is known of a set is not computed again."""
    if not sets:
        return np.zeros(0)
    set_keys = [hashlib.sha256(" ".join(pictures.keys[i] for i in members).encode()).hexdigest()[:32] for members in sets]
    compute = lambda positions: diversity.st_lpips_of_sets([pictures.images[list(sets[i])] for i in positions], device)  # noqa: E731
    return store.remember("st_lpips", set_keys, compute)[:, 0]


def diversity_scores(pictures: Pictures, embeddings: np.ndarray | None, store: ScoreStore, device: str = "cpu") -> list[Score]:
    """How far the pictures of every set of two candidates or more are apart.

    `embeddings` (N, E) are their unit vectors in the judge's joint space; None: there is no judge.
    """
    groups = sets_of_candidates(pictures.drawings)
    found: list[Score] = []
    for ((prompt_id, condition), members), distance in zip(
        groups.items(), st_lpips_of(pictures, list(groups.values()), store, device), strict=True
    ):
        scores = {"st_lpips": distance}
        if embeddings is not None:
            scores["clip_distance"] = diversity.clip_distance(embeddings[members])
            scores["vendi"] = diversity.vendi(embeddings[members])
        found += [Score.of_set(prompt_id, condition, name, value) for name, value in scores.items()]
    return found


def text_diversity_scores(drawings: Sequence[Drawing]) -> list[Score]:
    """How different the texts of every set of two candidates or more are, with pictures or without.

    Of extended prompts the added words alone are compared: the user's own, which all candidates share, would drown them.
    """
    found: list[Score] = []
    for (prompt_id, condition), members in sets_of_candidates(drawings).items():
        texts = [_added(drawings[i]) for i in members]
        # Texts of one word have no pairs of words: such a set has no value, rather than a made-up one.
        lengths = [len(diversity.words(text)) for text in texts]
        scores = {f"distinct_{n}": diversity.distinct_n(texts, n) for n in (1, 2) if max(lengths) >= n}
        if min(lengths) >= 2:
            scores["vendi_texts"] = diversity.vendi_texts(texts)
        if min(lengths) >= 1:
            scores["self_bleu"] = diversity.self_bleu(texts)
        found += [Score.of_set(prompt_id, condition, name, value) for name, value in scores.items()]
    return found


def _added(drawing: Drawing) -> str:
    """What an extended prompt says beyond the user's; the whole of a prompt that was rewritten, or left as it is."""
    return drawing.text.removeprefix(drawing.coarse).lstrip(" ,") or drawing.text
