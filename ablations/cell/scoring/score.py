"""Evaluation of a cell, second half: scores per picture and per prompt, their means, and the rows of the diversity grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ablations.cell.scoring.candidates import diversity_rows
from ablations.cell.scoring.further import FurtherMetrics, further_rows
from ablations.cell.scoring.joint_space import JointSpace
from ablations.cell.scoring.score_store import ScoreStore
from ablations.cell.scoring.tiny_world import oracle_scores
from ablations.config import Config
from ablations.metrics import clip_score, faithfulness, image_quality
from ablations.results.made_by import AT_ONCE, full_batches, picture_key
from ablations.results.prompts_and_scores import Drawing
from datamodules.records import EvalPrompt
from datamodules.tiny_world.renderer import IMAGE_SIZE
from lightning_modules.backbones.backbones import Backbones

COLUMNS = ("prompt_id", "condition", "candidate", "metric", "value", "image_seed", "image")


@dataclass(frozen=True)
class CellScores:
    """`table` has the columns of scores.parquet; `embeddings` (N, E) are the pictures' unit vectors in the joint space.

    `unavailable` says of further metrics, by name, why they have no value.
    """

    table: pd.DataFrame
    embeddings: np.ndarray
    unavailable: Mapping[str, str] = field(default_factory=dict)


def sentences_for(config: Config, backbones: Backbones) -> faithfulness.Sentences:
    """What embeds sentences as the config asks, loaded once. Raises UserError where it cannot be loaded: ask before the training."""
    return faithfulness.sentences_by(config.eval.sentence_encoder, config.eval.missing_metrics, str(backbones.text_to_image.device))


def score(
    backbones: Backbones,
    prompts: Sequence[EvalPrompt],
    drawings: Sequence[Drawing],
    images: np.ndarray,
    say: Callable[[str], None],
    check: Callable[[], None],
    store: ScoreStore | None = None,
    further: FurtherMetrics | None = None,
    sentences: faithfulness.Sentences | None = None,
) -> CellScores:
    """Score every picture, and every set of candidates for its diversity. `check()` may raise between metrics to stop.

    What `store` knows of a picture is not computed again; equal pictures have equal scores in any case. Raises UserError where a further
    metric gives no number and is not to be skipped.
    """
    store = store or ScoreStore(None, {})
    keys = [picture_key(image) for image in images]
    prompt_of = {prompt.prompt_id: prompt for prompt in prompts}
    joint_space = JointSpace(backbones)
    values: dict[str, np.ndarray] = {}
    say(f"scoring {len(images)} pictures")
    embeddings = _scored("embedding", keys, images, lambda part: clip_score.encode_images(joint_space, part), store)
    text_embeddings: dict[str, np.ndarray] = {}
    for name, texts in (("clip_score", [d.text for d in drawings]), ("clip_score_coarse", [d.coarse for d in drawings])):
        distinct = list(dict.fromkeys(texts))
        parts = [clip_score.encode_texts(joint_space, list(part))[:count] for part, count in full_batches(np.array(distinct), AT_ONCE)]
        text_embeddings.update(zip(distinct, np.concatenate(parts), strict=True))
        values[name] = clip_score.clip_score_of_embeddings(embeddings, np.stack([text_embeddings[text] for text in texts]))
    check()
    for name, metric in (("piqe", image_quality.piqe), ("entropy", image_quality.entropy)):
        values[name] = _scored(name, keys, images, metric, store)[:, 0]
        check()
    # The tiny world's oracles know its pictures at its own size only.
    if images.shape[1:3] == (IMAGE_SIZE, IMAGE_SIZE) and all(prompt.scene is not None for prompt in prompts):
        values |= oracle_scores(prompt_of, drawings, images, keys, store)
    rows = [
        (d.prompt_id, d.condition, d.candidate, name, float(value), d.image_seed, d.image)
        for name, column in values.items()
        for d, value in zip(drawings, column, strict=True)
    ]
    check()
    rows += diversity_rows(drawings, images, embeddings, keys, store)
    unavailable: dict[str, str] = {}
    sentences = sentences or faithfulness.Sentences()
    encode = None if sentences.problem else sentences.encode or (lambda texts: np.stack([text_embeddings[text] for text in texts]))
    by_text = faithfulness.text_scores([d.coarse for d in drawings], [d.text for d in drawings], encode)
    rows += [
        (d.prompt_id, d.condition, d.candidate, name, value, d.image_seed, d.image)
        for name, column in by_text.items()
        for d, value in zip(drawings, column, strict=True)
        if value is not None
    ]
    if further is not None:
        device = str(backbones.text_to_image.device)
        more, unavailable = further_rows(further, set(values), drawings, images, keys, store, device, say, check)
        rows += more
    if sentences.problem:
        unavailable[faithfulness.SENTENCE_SIMILARITY.name] = sentences.problem
    return CellScores(pd.DataFrame(rows, columns=list(COLUMNS)), embeddings, unavailable)


def _scored(
    name: str, keys: Sequence[str], images: np.ndarray, metric: Callable[[np.ndarray], np.ndarray], store: ScoreStore
) -> np.ndarray:
    """The rows (N, D) of a metric for every picture, out of the store or computed in full batches."""

    def compute(positions: np.ndarray) -> np.ndarray:
        return np.concatenate([metric(part)[:count] for part, count in full_batches(images[positions], AT_ONCE)])

    return store.remember(name, keys, compute)
