"""The metrics beyond those that every cell scores by itself: what `eval.metrics` asks for, and what plug-ins have scored in every cell."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablations.cell.scoring.candidates import sets_of_candidates
from ablations.cell.scoring.pictures import Pictures
from ablations.cell.scoring.score_store import ScoreStore
from ablations.config import Config
from ablations.metrics.base import Metric, MetricError
from ablations.metrics.register import Required, always_by_pictures, require
from ablations.metrics.weights import weights_folder
from ablations.results.made_by import full_batches
from ablations.results.scores import Score
from ablations.runtime.errors import UserError

# What a `Scorer` computes by itself, without being asked.
BY_EVERY_CELL = ("piqe", "entropy")


@dataclass(frozen=True)
class FurtherMetrics:
    """The metrics beyond a cell's own: what `metrics.base.require` gave, eval.missing_metrics, and where weights lie."""

    required: Required
    missing: str = "error"
    folder: Path | None = None


def further_metrics(config: Config) -> FurtherMetrics | None:
    """What eval.metrics asks for and plug-ins add to every cell, if anything. Raises UserError where some cannot be computed and are not
    to be skipped."""
    names = config.eval.metrics.split(",") if config.eval.metrics else []
    names += [name for name in always_by_pictures() if name not in BY_EVERY_CELL]
    if not names:
        return None
    folder = weights_folder(config.eval.metrics_dir)
    required = require(names, config.eval.missing_metrics, folder, config.data.image_size)
    return FurtherMetrics(required, config.eval.missing_metrics, folder)


def further_scores(
    further: FurtherMetrics,
    scored: Collection[str],
    pictures: Pictures,
    store: ScoreStore,
    device: str,
    say: Callable[[str], None],
    check: Callable[[], None],
) -> tuple[list[Score], dict[str, str]]:
    """Scores by the metrics that were asked for beyond those that are `scored` in any case, and why there are none of some.

    Raises UserError where a metric gives no number and is not to be skipped.
    """
    scores: list[Score] = []
    unavailable = dict(further.required.unavailable)
    for metric in further.required.available:
        if metric.name in scored:
            continue
        say(f"scoring: {metric.title}")
        try:
            scores += _scores_of(metric, further.folder, pictures, store, device)
        except MetricError as error:
            if further.missing == "error":
                raise UserError(
                    f"{error}. Leave it out of eval.metrics, or set eval.missing_metrics=skip; what was trained, drawn and scored is kept"
                ) from error
            unavailable[metric.name] = str(error)
        check()
    return scores, unavailable


def _scores_of(metric: Metric, folder: Path | None, pictures: Pictures, store: ScoreStore, device: str) -> list[Score]:
    images = pictures.images

    def compute(positions: np.ndarray) -> np.ndarray:
        batches = full_batches(images[positions], metric.at_once(images))
        return np.concatenate([metric.compute(part, device=device, folder=folder)[:count] for part, count in batches])

    values = store.remember(metric.key(folder), pictures.keys, compute)
    if metric.per == "candidates":
        assert metric.together is not None
        return [
            Score.of_set(prompt_id, condition, metric.name, metric.together(values[members]))
            for (prompt_id, condition), members in sets_of_candidates(pictures.drawings).items()
        ]
    if metric.together is None:
        return [Score.of_picture(d, metric.name, v) for d, v in zip(pictures.drawings, values[:, 0], strict=True)]
    conditions = np.array([drawing.condition for drawing in pictures.drawings])
    return [
        Score.of_condition(condition, metric.name, metric.together(values[conditions == condition]))
        for condition in dict.fromkeys(conditions.tolist())
    ]
