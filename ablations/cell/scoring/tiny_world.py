"""Scores by the tiny world's oracles, which know the truth of each picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ablations.cell.scoring.pictures import Pictures
from ablations.cell.scoring.score_store import ScoreStore
from ablations.metrics import fidelity, oracles, word_oracle
from ablations.results.made_by import AT_ONCE, full_batches
from datamodules.records import EvalPrompt

# The class of the style that the oracle sees: a label for the report's style entropy, not a quantity to be averaged.
STYLE_SEEN = oracles.STYLE_SEEN.name
_ORACLE_SCORES = ("fidelity", "closeness", "sharpness", "cleanness", "subject_kept", "words_drawn", "style_drawn", STYLE_SEEN)


def oracle_scores(prompts: Sequence[EvalPrompt], pictures: Pictures, store: ScoreStore) -> dict[str, np.ndarray]:
    """float64 (N,) by metric: what the oracles see of each picture, against the scene of its prompt."""
    drawings, images = pictures.drawings, pictures.images
    scene_of = {prompt.prompt_id: prompt.scene for prompt in prompts}
    truths = [scene_of[drawing.prompt_id] for drawing in drawings]
    truth_keys = {truth: hashlib.sha256(repr(truth).encode()).hexdigest()[:16] for truth in set(truths)}

    def compute(positions: np.ndarray) -> np.ndarray:
        rows = []
        for start, (part, count) in enumerate(full_batches(images[positions], AT_ONCE)):
            seen = word_oracle.words_seen(part)
            for i in range(count):
                truth = truths[positions[start * AT_ONCE + i]]
                close = fidelity.fidelity(part[i], truth)
                scores = {"fidelity": close.score, "closeness": close.closeness, "sharpness": close.sharpness, "cleanness": close.cleanness}
                scores |= word_oracle.word_scores(seen, i, truth) | {STYLE_SEEN: float(word_oracle.style_class(seen.styles[i]))}
                rows.append([scores[name] for name in _ORACLE_SCORES])
        return np.array(rows)

    known = store.remember("oracles", [f"{key}-{truth_keys[truth]}" for key, truth in zip(pictures.keys, truths, strict=True)], compute)
    said = [truth.subject in drawing.text.replace(",", " ").split() for drawing, truth in zip(drawings, truths, strict=True)]
    return {**dict(zip(_ORACLE_SCORES, known.T, strict=True)), "subject_in_text": np.array(said, dtype=np.float64)}
