"""What scores pictures, with all that it needs for that: networks, what is known already, the metrics that were asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ablations.cell.scoring.candidates import diversity_scores, text_diversity_scores
from ablations.cell.scoring.fitting import Fitting, fitting_picture_scores, fitting_text_scores
from ablations.cell.scoring.further import FurtherMetrics, FurtherScores
from ablations.cell.scoring.joint_space import JointSpace
from ablations.cell.scoring.pictures import Pictures, parts_of
from ablations.cell.scoring.score_store import ScoreStore
from ablations.cell.scoring.tiny_world import oracle_scores
from ablations.config import Config
from ablations.metrics import clip_score, faithfulness, image_quality
from ablations.metrics.base import ClipEncoder
from ablations.metrics.judge import JUDGED, Judge, judge_asked_for, judge_by
from ablations.metrics.weights import weights_folder
from ablations.results.made_by import AT_ONCE, full_batches, text_key
from ablations.results.picture_files import PictureFiles
from ablations.results.prompts_and_scores import Drawing, drawn
from ablations.results.scores import Score, table_of
from datamodules.records import EvalPrompt
from datamodules.tiny_world.renderer import IMAGE_SIZE
from lightning_modules.backbones.backbones import Backbones


@dataclass(frozen=True)
class ShareScores:
    """Scores of some prompts: the table of what is known already, and what `FurtherScores` needs to go on: its rows and what failed."""

    table: pd.DataFrame
    rows: dict[str, dict[str, list[np.ndarray]]]
    unavailable: dict[str, str]


# Texts whose embeddings are in memory at a time.
_TEXTS_AT_ONCE = 4096


@dataclass(frozen=True)
class CellScores:
    """`table` has the columns of scores.parquet. `unavailable` says of further metrics, by name, why they have no value."""

    table: pd.DataFrame
    unavailable: Mapping[str, str] = field(default_factory=dict)


def judge_for(config: Config, device: str) -> Judge:
    """Who judges pictures as the config asks, loaded once. Raises UserError where it cannot be loaded: ask before the training."""
    name = judge_asked_for(config.eval.judge, config.profile)
    return judge_by(name, config.eval.missing_metrics, weights_folder(config.eval.metrics_dir), device)


def sentences_for(config: Config, backbones: Backbones) -> faithfulness.Sentences:
    """What embeds sentences as the config asks, loaded once. Raises UserError where it cannot be loaded: ask before the training."""
    return faithfulness.sentences_by(config.eval.sentence_encoder, config.eval.missing_metrics, str(backbones.text_to_image.device))


@dataclass(frozen=True)
class Scorer:
    """Scores pictures by the metrics of every cell and by `further` ones.

    What `store` knows of a picture is not computed again; equal pictures have equal scores in any case. `sentences` embed texts, by
    default with the original text encoder. `say` hears what is being scored, `track` shows progress, `check()` may raise between metrics
    to stop. `fitting` says what suits the prompts, where that is known; `judge` compares pictures with texts and with one another, by
    default the OpenCLIP that conditions the image model.
    """

    backbones: Backbones
    store: ScoreStore = field(default_factory=lambda: ScoreStore(None, {}))
    further: FurtherMetrics | None = None
    sentences: faithfulness.Sentences = field(default_factory=faithfulness.Sentences)
    say: Callable[[str], None] = lambda line: None
    track: Callable[[Iterable, int, str], Iterable] = lambda items, total, label: items
    check: Callable[[], None] = lambda: None
    fitting: Fitting | None = None
    judge: Judge = field(default_factory=Judge)

    def score(self, prompts: Sequence[EvalPrompt], drawings: Sequence[Drawing], images: np.ndarray | PictureFiles) -> CellScores:
        """Score every picture, every text and every set of candidates for its diversity.

        `images`, uint8 (N, H, W, 3) in memory or on the disk, are the pictures of the N drawings that are drawn; the others are scored as
        texts alone. No more of them than fit are in memory at a time. Raises UserError where a further metric gives no number and is not
        to be skipped.
        """
        return self.finish(prompts, drawings, [self.score_share(prompts, drawings, images)])

    def score_share(self, prompts: Sequence[EvalPrompt], drawings: Sequence[Drawing], images: np.ndarray | PictureFiles) -> ShareScores:
        """What can be said of some prompts' drawings without the others'. The arguments and what is raised are as in `score`."""
        shown, parts = drawn(drawings), parts_of(drawn(drawings), images)
        more = len(drawings) - len(images)
        self.say(f"scoring {len(images)} pictures" + (f" and {more} texts without one" if more else ""))
        # The tiny world's oracles know its pictures at its own size only.
        has_oracle = images.shape[1:3] == (IMAGE_SIZE, IMAGE_SIZE) and all(prompt.scene is not None for prompt in prompts)
        further = FurtherScores(self.further, self.store, self._device, self.say, self.check)
        tables = []
        for part in self.track(parts, len(parts), "scoring") if len(parts) > 1 else parts:
            pictures = Pictures([shown[i] for i in part], images[part])
            tables.append(table_of(self._of_pictures(prompts, pictures, further, has_oracle)))
        tables.append(table_of(_by_drawing(drawings, self._text_scores(drawings))))
        return ShareScores(pd.concat(tables, ignore_index=True), further.rows, further.unavailable)

    def finish(self, prompts: Sequence[EvalPrompt], drawings: Sequence[Drawing], shares: Sequence[ShareScores]) -> CellScores:
        """All scores, of the shares of all drawings and of what is said of them together. Raises as `score` does."""
        further = FurtherScores(self.further, self.store, self._device)
        further.take(shares)
        scores = text_diversity_scores(drawings) + further.of_conditions()
        if self.fitting is not None:
            scores += fitting_text_scores(self.fitting, prompts, drawings, self.store)
        self.check()
        table = pd.concat([*(share.table for share in shares), table_of(scores)], ignore_index=True)
        return CellScores(table[~table.metric.isin(further.unavailable)].reset_index(drop=True), further.unavailable | self._unavailable)

    @property
    def _device(self) -> str:
        return str(self.backbones.text_to_image.device)

    @property
    def _unavailable(self) -> dict[str, str]:
        """Why there are no values of what a cell scores by itself, by metric."""
        judged = dict.fromkeys(JUDGED, self.judge.problem) if self.judge.problem else {}
        return judged | ({faithfulness.SENTENCE_SIMILARITY.name: self.sentences.problem} if self.sentences.problem else {})

    def _of_pictures(self, prompts: Sequence[EvalPrompt], pictures: Pictures, further: FurtherScores, has_oracle: bool) -> list[Score]:
        """Of every one of some pictures, and of their sets of candidates."""
        values, embeddings = self._judged(pictures)
        self.check()
        for name, metric in (("piqe", image_quality.piqe), ("entropy", image_quality.entropy)):
            values[name] = self._remember(name, pictures, lambda part, metric=metric: metric(part, self._device))[:, 0]
            self.check()
        if has_oracle:
            values |= oracle_scores(prompts, pictures, self.store)
        scores = _by_drawing(pictures.drawings, values)
        self.check()
        scores += diversity_scores(pictures, embeddings, self.store, self._device)
        if has_oracle and self.fitting is not None:
            scores += fitting_picture_scores(self.fitting, prompts, pictures, self.store, self._device)
            self.check()
        return scores + further.of(pictures, values)

    def _remember(self, name: str, pictures: Pictures, metric: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The rows (N, D) of a metric for every picture, out of the store or computed in full batches."""

        def compute(positions: np.ndarray) -> np.ndarray:
            return np.concatenate([metric(part)[:count] for part, count in full_batches(pictures.images[positions], AT_ONCE)])

        return self.store.remember(name, pictures.keys, compute)

    def _judged(self, pictures: Pictures) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """The CLIP scores (N,) by name, and the pictures' unit vectors (N, E) in the judge's joint space; none without a judge."""
        judge = self.judge
        if judge.problem:
            return {}, None
        encoder: ClipEncoder = judge.encoder or JointSpace(self.backbones)
        store = "embedding" if judge.encoder is None else f"embedding-{judge.key}"
        embeddings = self._remember(store, pictures, lambda part: clip_score.encode_images(encoder, part))
        texts_of = {"clip_score": [d.text for d in pictures.drawings], "clip_score_coarse": [d.coarse for d in pictures.drawings]}
        embedded = self._embed(f"text_{store}", encoder, itertools.chain(*texts_of.values()))
        rows = {name: np.stack([embedded[text] for text in texts]) for name, texts in texts_of.items()}
        return {name: clip_score.clip_score_of_embeddings(embeddings, texts_NE) for name, texts_NE in rows.items()}, embeddings

    def _text_scores(self, drawings: Sequence[Drawing]) -> dict[str, list[float | None]]:
        sentences, space = self.sentences, JointSpace(self.backbones)

        def by_original(texts: Sequence[str]) -> np.ndarray:
            embedded = self._embed("text_embedding", space, texts)
            return np.stack([embedded[text] for text in texts])

        encode = None if sentences.problem else sentences.encode or by_original
        found: dict[str, list[float | None]] = {}
        for start in range(0, len(drawings), _TEXTS_AT_ONCE):
            part = drawings[start : start + _TEXTS_AT_ONCE]
            for name, values in faithfulness.text_scores([d.coarse for d in part], [d.text for d in part], encode).items():
                found.setdefault(name, []).extend(values)
        return found

    def _embed(self, name: str, encoder: ClipEncoder, texts: Iterable[str]) -> dict[str, np.ndarray]:
        """The unit vector (E,) of each different text in a joint space, out of the store or computed in full batches."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}

        def compute(positions: np.ndarray) -> np.ndarray:
            parts = full_batches(np.array([distinct[i] for i in positions]), AT_ONCE)
            return np.concatenate([clip_score.encode_texts(encoder, list(part))[:count] for part, count in parts])

        return dict(zip(distinct, self.store.remember(name, [text_key(text) for text in distinct], compute), strict=True))


def _by_drawing(drawings: Sequence[Drawing], columns: Mapping[str, Iterable[float | None]]) -> list[Score]:
    """The values (N,) of each metric as scores; a drawing without a value has none."""
    return [
        Score.of_picture(drawing, name, value)
        for name, column in columns.items()
        for drawing, value in zip(drawings, column, strict=True)
        if value is not None
    ]
