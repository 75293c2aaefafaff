"""Evaluation of a cell, second half: scores per picture and per prompt, their means, and the rows of the diversity grid."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ablations.config import Config
from ablations.diversity_grid import GridRow
from ablations.errors import UserError
from ablations.evaluation import Drawing
from ablations.metrics import clip_score, diversity, faithfulness, fidelity, image_quality, word_oracle
from ablations.metrics.base import Metric, MetricError, Required, require
from ablations.metrics.weights import weights_folder
from ablations.reuse import ScoreStore, full_batches, picture_key
from datamodules.records import EvalPrompt
from datamodules.tiny_world.renderer import IMAGE_SIZE
from lightning_modules.backbones import Backbones

COLUMNS = ("prompt_id", "condition", "candidate", "metric", "value", "image_seed", "image")
# Conditions whose candidates are compared with one another. The coarse prompt redrawn is the floor: what image noise alone does.
DIVERSITY_CONDITIONS = ("coarse", "plug_in", "refined", "refined_shared_noise", "rewrite")
# Networks score so many pictures or texts at a time, always: see ablations.reuse.
_AT_ONCE = 16
# In place of a prompt's number: a value of all pictures of a condition together.
WHOLE_SET = -1
# The class of the style that the oracle sees: a label for the report's style entropy, not a quantity to be averaged.
STYLE_SEEN = "style_seen"
_ORACLE_SCORES = ("fidelity", "closeness", "sharpness", "cleanness", "subject_kept", "words_drawn", "style_drawn", STYLE_SEEN)


class JointSpace:
    """The backbones' OpenCLIP as the metrics want it: uint8 pictures or texts in, embeddings (N, E) out."""

    def __init__(self, backbones: Backbones):
        self._backbones = backbones
        self._images = backbones.image_vector_encoder(grid=1)

    @torch.no_grad()
    def encode_image(self, images_NHWC: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(images_NHWC)).permute(0, 3, 1, 2).float() / 127.5 - 1
        return self._images.encode(pixels)["image_pooled"].cpu()

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        device = self._backbones.text_to_image.device
        return self._backbones.text_encoder(self._backbones.tokenize(list(texts)).to(device)).pooled_BE.cpu()


@dataclass(frozen=True)
class CellScores:
    """`table` has the columns of scores.parquet; `embeddings` (N, E) are the pictures' unit vectors in the joint space.

    `unavailable` says of further metrics, by name, why they have no value.
    """

    table: pd.DataFrame
    embeddings: np.ndarray
    unavailable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FurtherMetrics:
    """The metrics that eval.metrics asks for: what `metrics.base.require` gave, eval.missing_metrics, and where weights lie."""

    required: Required
    missing: str = "error"
    folder: Path | None = None


def further_metrics(config: Config) -> FurtherMetrics | None:
    """What eval.metrics asks for, if anything. Raises UserError where some cannot be computed and are not to be skipped."""
    if not config.eval.metrics:
        return None
    folder = weights_folder(config.eval.metrics_dir)
    required = require(config.eval.metrics.split(","), config.eval.missing_metrics, folder, config.data.image_size)
    return FurtherMetrics(required, config.eval.missing_metrics, folder)


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
        parts = [clip_score.encode_texts(joint_space, list(part))[:count] for part, count in full_batches(np.array(distinct), _AT_ONCE)]
        text_embeddings.update(zip(distinct, np.concatenate(parts), strict=True))
        values[name] = clip_score.clip_score_of_embeddings(embeddings, np.stack([text_embeddings[text] for text in texts]))
    check()
    for name, metric in (("piqe", image_quality.piqe), ("entropy", image_quality.entropy)):
        values[name] = _scored(name, keys, images, metric, store)[:, 0]
        check()
    # The tiny world's oracles know its pictures at its own size only.
    if images.shape[1:3] == (IMAGE_SIZE, IMAGE_SIZE) and all(prompt.scene is not None for prompt in prompts):
        values |= _oracle_scores(prompt_of, drawings, images, keys, store)
    rows = [
        (d.prompt_id, d.condition, d.candidate, name, float(value), d.image_seed, d.image)
        for name, column in values.items()
        for d, value in zip(drawings, column, strict=True)
    ]
    check()
    rows += _diversity_rows(drawings, images, embeddings, keys, store)
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
        more, unavailable = _further_rows(further, set(values), drawings, images, keys, store, device, say, check)
        rows += more
    if sentences.problem:
        unavailable[faithfulness.SENTENCE_SIMILARITY.name] = sentences.problem
    return CellScores(pd.DataFrame(rows, columns=list(COLUMNS)), embeddings, unavailable)


def _further_rows(
    further: FurtherMetrics,
    scored: set[str],
    drawings: Sequence[Drawing],
    images: np.ndarray,
    keys: Sequence[str],
    store: ScoreStore,
    device: str,
    say: Callable[[str], None],
    check: Callable[[], None],
) -> tuple[list[tuple], dict[str, str]]:
    """Rows of the metrics that were asked for beyond those that are `scored` in any case, and why there are none of some."""
    rows: list[tuple] = []
    unavailable = dict(further.required.unavailable)
    for metric in further.required.available:
        if metric.name in scored:
            continue
        say(f"scoring: {metric.title}")
        try:
            rows += _rows_of(metric, further.folder, drawings, images, keys, store, device)
        except MetricError as error:
            if further.missing == "error":
                raise UserError(
                    f"{error}. Leave it out of eval.metrics, or set eval.missing_metrics=skip; what was trained, drawn and scored is kept"
                ) from error
            unavailable[metric.name] = str(error)
        check()
    return rows, unavailable


def _rows_of(
    metric: Metric,
    folder: Path | None,
    drawings: Sequence[Drawing],
    images: np.ndarray,
    keys: Sequence[str],
    store: ScoreStore,
    device: str,
) -> list[tuple]:
    def compute(positions: np.ndarray) -> np.ndarray:
        batches = full_batches(images[positions], metric.at_once(images))
        return np.concatenate([metric.compute(part, device=device, folder=folder)[:count] for part, count in batches])

    values = store.remember(metric.key(folder), keys, compute)
    if metric.together is None:
        column = values[:, 0]
        return [
            (d.prompt_id, d.condition, d.candidate, metric.name, float(v), d.image_seed, d.image)
            for d, v in zip(drawings, column, strict=True)
        ]
    conditions = np.array([drawing.condition for drawing in drawings])
    return [
        (WHOLE_SET, condition, -1, metric.name, metric.together(values[conditions == condition]), -1, "")
        for condition in dict.fromkeys(conditions.tolist())
    ]


def _scored(
    name: str, keys: Sequence[str], images: np.ndarray, metric: Callable[[np.ndarray], np.ndarray], store: ScoreStore
) -> np.ndarray:
    """The rows (N, D) of a metric for every picture, out of the store or computed in full batches."""

    def compute(positions: np.ndarray) -> np.ndarray:
        return np.concatenate([metric(part)[:count] for part, count in full_batches(images[positions], _AT_ONCE)])

    return store.remember(name, keys, compute)


def _oracle_scores(
    prompt_of: dict[int, EvalPrompt], drawings: Sequence[Drawing], images: np.ndarray, keys: Sequence[str], store: ScoreStore
) -> dict[str, np.ndarray]:
    truths = [prompt_of[drawing.prompt_id].scene for drawing in drawings]
    truth_keys = {truth: hashlib.sha256(repr(truth).encode()).hexdigest()[:16] for truth in set(truths)}

    def compute(positions: np.ndarray) -> np.ndarray:
        rows = []
        for start, (part, count) in enumerate(full_batches(images[positions], _AT_ONCE)):
            seen = word_oracle.words_seen(part)
            for i in range(count):
                truth = truths[positions[start * _AT_ONCE + i]]
                close = fidelity.fidelity(part[i], truth)
                scores = {"fidelity": close.score, "closeness": close.closeness, "sharpness": close.sharpness, "cleanness": close.cleanness}
                scores |= word_oracle.word_scores(seen, i, truth) | {STYLE_SEEN: float(word_oracle.style_class(seen.styles[i]))}
                rows.append([scores[name] for name in _ORACLE_SCORES])
        return np.array(rows)

    known = store.remember("oracles", [f"{key}-{truth_keys[truth]}" for key, truth in zip(keys, truths, strict=True)], compute)
    said = [truth.subject in drawing.text.replace(",", " ").split() for drawing, truth in zip(drawings, truths, strict=True)]
    return {**dict(zip(_ORACLE_SCORES, known.T, strict=True)), "subject_in_text": np.array(said, dtype=np.float64)}


def _diversity_rows(
    drawings: Sequence[Drawing], images: np.ndarray, embeddings: np.ndarray, keys: Sequence[str], store: ScoreStore
) -> list[tuple]:
    groups: dict[tuple[int, str], list[int]] = {}
    for i, drawing in enumerate(drawings):
        if drawing.condition in DIVERSITY_CONDITIONS:
            groups.setdefault((drawing.prompt_id, drawing.condition), []).append(i)
    groups = {group: members for group, members in groups.items() if len(members) > 1}
    if not groups:
        return []
    sets = list(groups.values())
    set_keys = [hashlib.sha256(" ".join(keys[i] for i in members).encode()).hexdigest()[:32] for members in sets]
    st_lpips = store.remember("st_lpips", set_keys, lambda positions: np.array([diversity.st_lpips(images[sets[i]]) for i in positions]))
    rows = []
    for ((prompt_id, condition), members), distance in zip(groups.items(), st_lpips[:, 0], strict=True):
        texts = [drawings[i].text for i in members]
        scores = {
            "st_lpips": distance,
            "clip_distance": diversity.clip_distance(embeddings[members]),
            "vendi": diversity.vendi(embeddings[members]),
        }
        # Texts of one word have no pairs of words: such a set has no value, rather than a made-up one.
        lengths = [len(diversity.words(text)) for text in texts]
        scores |= {f"distinct_{n}": diversity.distinct_n(texts, n) for n in (1, 2) if max(lengths) >= n}
        if min(lengths) >= 2:
            scores["vendi_texts"] = diversity.vendi_texts(texts)
        if min(lengths) >= 1:
            scores["self_bleu"] = diversity.self_bleu(texts)
        rows += [(prompt_id, condition, -1, name, float(value), -1, "") for name, value in scores.items()]
    return rows


def grid_rows(drawings: Sequence[Drawing], images: np.ndarray, scores: CellScores, count: int) -> list[GridRow]:
    """The first `count` prompts as rows of the diversity grid: the coarse picture, then the refined candidates."""
    index = {(d.prompt_id, d.condition, d.candidate): i for i, d in enumerate(drawings)}
    prompt_ids = list(dict.fromkeys(d.prompt_id for d in drawings))[:count]
    sets = scores.table[(scores.table.candidate == -1) & (scores.table.condition == "refined")]
    value = sets.set_index(["prompt_id", "metric"])["value"]
    labels = {"st_lpips": "ST-LPIPS", "clip_distance": "CLIP distance", "vendi": "Vendi", "distinct_2": "distinct-2"}
    rows = []
    for prompt_id in prompt_ids:
        first = index[prompt_id, "coarse", 0]
        members = sorted((c, i) for (p, condition, c), i in index.items() if p == prompt_id and condition == "refined")
        rows.append(
            GridRow(
                coarse_prompt=drawings[first].coarse,
                coarse_image=images[first],
                candidates=[(drawings[i].text, images[i]) for _, i in members],
                diversity={label: value[prompt_id, name] for name, label in labels.items() if (prompt_id, name) in value.index},
                prompt_id=prompt_id,
            )
        )
    return rows
