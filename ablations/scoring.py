"""Evaluation of a cell, second half: scores per picture and per prompt, their means, and the rows of the diversity grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ablations.diversity_grid import GridRow
from ablations.evaluation import Drawing
from ablations.metrics import clip_score, diversity, fidelity, image_quality, word_oracle
from datamodules.records import EvalPrompt
from datamodules.tiny_world.renderer import IMAGE_SIZE
from lightning_modules.backbones import Backbones

COLUMNS = ("prompt_id", "condition", "candidate", "metric", "value", "image_seed", "image")
# Conditions whose candidates are compared with one another. The coarse prompt redrawn is the floor: what image noise alone does.
DIVERSITY_CONDITIONS = ("coarse", "refined", "refined_shared_noise", "rewrite")


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
    """`table` has the columns of scores.parquet; `embeddings` (N, E) are the pictures' unit vectors in the joint space."""

    table: pd.DataFrame
    embeddings: np.ndarray


def score(
    backbones: Backbones,
    prompts: Sequence[EvalPrompt],
    drawings: Sequence[Drawing],
    images: np.ndarray,
    say: Callable[[str], None],
    check: Callable[[], None],
) -> CellScores:
    """Score every picture, and every set of candidates for its diversity. `check()` may raise between metrics to stop."""
    prompt_of = {prompt.prompt_id: prompt for prompt in prompts}
    joint_space = JointSpace(backbones)
    values: dict[str, np.ndarray] = {}
    say(f"scoring {len(images)} pictures")
    embeddings = clip_score.encode_images(joint_space, images)
    for name, texts in (("clip_score", [d.text for d in drawings]), ("clip_score_coarse", [d.coarse for d in drawings])):
        distinct = list(dict.fromkeys(texts))
        row_of = {text: row for row, text in enumerate(distinct)}
        text_embeddings = clip_score.encode_texts(joint_space, distinct)[[row_of[text] for text in texts]]
        values[name] = clip_score.clip_score_of_embeddings(embeddings, text_embeddings)
    check()
    values["piqe"] = image_quality.piqe(images)
    values["entropy"] = image_quality.entropy(images)
    check()
    # The tiny world's oracles know its pictures at its own size only.
    if images.shape[1:3] == (IMAGE_SIZE, IMAGE_SIZE) and all(prompt.scene is not None for prompt in prompts):
        values |= _oracle_scores(prompt_of, drawings, images)
    rows = [
        (d.prompt_id, d.condition, d.candidate, name, float(value), d.image_seed, d.image)
        for name, column in values.items()
        for d, value in zip(drawings, column, strict=True)
    ]
    check()
    rows += _diversity_rows(drawings, images, embeddings)
    return CellScores(pd.DataFrame(rows, columns=list(COLUMNS)), embeddings)


def _oracle_scores(prompt_of: dict[int, EvalPrompt], drawings: Sequence[Drawing], images: np.ndarray) -> dict[str, np.ndarray]:
    seen = word_oracle.words_seen(images)
    columns: dict[str, list[float]] = {}
    for i, (drawing, image) in enumerate(zip(drawings, images, strict=True)):
        truth = prompt_of[drawing.prompt_id].scene
        close = fidelity.fidelity(image, truth)
        scores = {"fidelity": close.score, "closeness": close.closeness, "sharpness": close.sharpness, "cleanness": close.cleanness}
        scores |= word_oracle.word_scores(seen, i, truth)
        scores["subject_in_text"] = float(truth.subject in drawing.text.replace(",", " ").split())
        for name, value in scores.items():
            columns.setdefault(name, []).append(value)
    return {name: np.array(column) for name, column in columns.items()}


def _diversity_rows(drawings: Sequence[Drawing], images: np.ndarray, embeddings: np.ndarray) -> list[tuple]:
    groups: dict[tuple[int, str], list[int]] = {}
    for i, drawing in enumerate(drawings):
        if drawing.condition in DIVERSITY_CONDITIONS:
            groups.setdefault((drawing.prompt_id, drawing.condition), []).append(i)
    rows = []
    for (prompt_id, condition), members in groups.items():
        if len(members) < 2:
            continue
        texts = [drawings[i].text for i in members]
        scores = {
            "st_lpips": diversity.st_lpips(images[members]),
            "clip_distance": diversity.clip_distance(embeddings[members]),
            "vendi": diversity.vendi(embeddings[members]),
            "distinct_1": diversity.distinct_n(texts, 1),
            "distinct_2": diversity.distinct_n(texts, 2),
        }
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
