"""The metrics beyond those that every cell scores by itself: what `eval.metrics` asks for, and what plug-ins have scored in every cell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


class FurtherScores:
    """Scores by the metrics that were asked for beyond a cell's own, part by part of the pictures.

    `unavailable` says why there are none of some, as the metrics' register or the metrics themselves do; of such a metric no value counts,
    of earlier parts neither.
    """

    def __init__(
        self,
        further: FurtherMetrics | None,
        store: ScoreStore,
        device: str,
        say: Callable[[str], None] = lambda line: None,
        check: Callable[[], None] = lambda: None,
    ):
        self._further, self._store, self._device, self._say, self._check = further, store, device, say, check
        self._said: set[str] = set()
        # Of metrics that read a condition's pictures together: the rows of each condition, part after part.
        self.rows: dict[str, dict[str, list[np.ndarray]]] = {}
        self.unavailable: dict[str, str] = dict(further.required.unavailable) if further else {}

    def of(self, pictures: Pictures, scored: Collection[str] = ()) -> list[Score]:
        """Of some pictures, by what is not `scored` already. Raises UserError where a metric gives no number and is not to be skipped."""
        scores: list[Score] = []
        for metric in self._further.required.available if self._further else ():
            if metric.name in scored or metric.name in self.unavailable:
                continue
            if metric.name not in self._said:
                self._said.add(metric.name)
                self._say(f"scoring: {metric.title}")
            try:
                scores += self._of(metric, pictures)
            except MetricError as error:
                self._refuse_or_skip(metric, error)
            self._check()
        return scores

    def take(self, shares: Iterable[Any]) -> None:
        """Take over the rows and failures of several processes."""
        for share in shares:
            self.unavailable |= share.unavailable
            for name, of_conditions in share.rows.items():
                for condition, parts in of_conditions.items():
                    self.rows.setdefault(name, {}).setdefault(condition, []).extend(parts)

    def of_conditions(self) -> list[Score]:
        """Of whole conditions, once all pictures were seen. Raises as `of` does."""
        scores: list[Score] = []
        for metric in self._further.required.available if self._further else ():
            rows = self.rows.get(metric.name, {}) if metric.name not in self.unavailable else {}
            try:
                scores += [
                    Score.of_condition(condition, metric.name, metric.together(np.concatenate(parts))) for condition, parts in rows.items()
                ]
            except MetricError as error:
                self._refuse_or_skip(metric, error)
        return scores

    def _refuse_or_skip(self, metric: Metric, error: MetricError) -> None:
        if self._further.missing == "error":
            raise UserError(
                f"{error}. Leave it out of eval.metrics, or set eval.missing_metrics=skip; what was trained, drawn and scored is kept"
            ) from error
        self.unavailable[metric.name] = str(error)

    def _of(self, metric: Metric, pictures: Pictures) -> list[Score]:
        images, folder, device = pictures.images, self._further.folder, self._device

        def compute(positions: np.ndarray) -> np.ndarray:
            batches = full_batches(images[positions], metric.at_once(images))
            return np.concatenate([metric.compute(part, device=device, folder=folder)[:count] for part, count in batches])

        values = self._store.remember(metric.key(folder), pictures.keys, compute)
        if metric.per == "candidates":
            assert metric.together is not None
            return [
                Score.of_set(prompt_id, condition, metric.name, metric.together(values[members]))
                for (prompt_id, condition), members in sets_of_candidates(pictures.drawings).items()
            ]
        if metric.together is None:
            return [Score.of_picture(d, metric.name, v) for d, v in zip(pictures.drawings, values[:, 0], strict=True)]
        conditions = np.array([drawing.condition for drawing in pictures.drawings])
        for condition in dict.fromkeys(conditions.tolist()):
            self.rows.setdefault(metric.name, {}).setdefault(condition, []).append(values[conditions == condition])
        return []
