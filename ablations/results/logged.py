"""What a cell logs, by name as W&B's summary has it: what a sweep may steer by. Reads a finished cell's values. Imports no heavy library.

    CONDITION/METRIC             mean of a metric over a condition's pictures or texts, as in refined/fidelity
    diversity/CONDITION/METRIC   mean of what candidates have together, as in diversity/refined/st_lpips
    train/NAME, val/NAME         the last value of the training's curves, in metrics.csv: loss, l_TERM, learning_rate, ...
    checks/NAME                  a manipulation check, as in checks/mse_gap_closed
    training/steps, n/prompts, n/candidates

`may_be_logged` says which of them a config's cell can have. It is lenient where that depends on what is written: a cell that lacks such a
value has none, which is for who reads it to say.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.config import Config, to_flat_dict
from ablations.metrics.base import Metric
from ablations.metrics.register import all_metrics
from ablations.results.comparisons import Reads, what_is_read
from ablations.results.conditions import REFINED, all_conditions
from lightning_modules.terms import terms_on

TRAIN, VALIDATION, CHECKS = "train/", "val/", "checks/"
LOSS, RATE, NORM, SKIPPED = "loss", "learning_rate", "gradient_norm", "skipped_steps"
# Of the machine rather than of the cell: W&B alone has them.
SPEED, MEMORY = "records_per_second", "memory_gb"
_OF_CLIP = ("clip_accuracy",)
_OF_AFE = ("afe_entropy", "afe_class_token_mass", "afe_cosine_to_pooled", "afe_cosine_to_mean_weights", "afe_forcing")
# Of held-out records; those of AFE where there is AFE.
_CHECKS = ("pooled_retrieval_coarse", "clip_accuracy", "text_loss", "mse_gap_closed", "records")
_AFE_CHECKS = (
    *("afe_cosine_to_pooled", "afe_entropy_share", "afe_cosine_to_mean_weights", "afe_retrieval_coarse", "afe_retrieval_fine"),
    *("afe_retrieval_coarse_mean_weights", "afe_retrieval_coarse_other_weights"),
)
# What the refiner's own probabilities say needs no candidates.
_OF_ONE_TEXT = ("style_kl", "style_fit_probability", "style_entropy_exact", "style_mass")


def may_be_logged(config: Config) -> set[str]:
    """The names that a finished cell of this config may have."""
    checks = (*_CHECKS, *(_AFE_CHECKS if config.use_afe else ())) if config.train.check_records else ()
    return {"training/steps", *_of_training(config), *(CHECKS + name for name in checks), *_of_scores(config)}


def is_for_wandb_alone(name: str) -> bool:
    """Whether a name is logged to W&B and kept nowhere: how fast the machine was says nothing of the cell."""
    return name in (TRAIN + SPEED, TRAIN + MEMORY)


def _of_training(config: Config) -> set[str]:
    terms = [LOSS, *(f"l_{term.name}" for term in terms_on(to_flat_dict(config)))]
    found = [*terms, RATE, NORM]
    found += [SKIPPED] if config.train.precision == "16-mixed" else []
    found += _OF_CLIP if config.use_clip else ()
    found += _OF_AFE if config.use_afe else ()
    names = {TRAIN + name for name in found}
    return names | {VALIDATION + name for name in terms} if config.train.validate_every else names


def _of_scores(config: Config) -> set[str]:
    if not config.eval.num_prompts:
        return set()
    asked_for = config.eval.metrics.split(",") if config.eval.metrics else ()
    metrics = [metric for metric in all_metrics().values() if (metric.always or metric.name in asked_for) and not metric.is_label]
    if config.data.source != "tiny":
        metrics = [metric for metric in metrics if "scene" not in metric.needs]
    names = {"n/prompts", "n/candidates"}
    for condition, reads in what_is_read(config).items():
        for metric in metrics:
            if _has_value(metric, condition, reads, config):
                names.add(f"{condition}/{metric.name}" if metric.per == "image" else f"diversity/{condition}/{metric.name}")
    return names


def _has_value(metric: Metric, condition: str, reads: Reads, config: Config) -> bool:
    in_grid = min(config.eval.grid_prompts, config.eval.num_prompts)
    needs_pictures = bool({"images", "image_embeddings"} & set(metric.needs))
    if metric.per != "candidates":
        return not needs_pictures or reads.pictures > 0 or (reads.in_grid > 0 and in_grid > 0)
    if metric.name in _OF_ONE_TEXT:
        return condition == REFINED
    known = all_conditions().get(condition)
    if known is None or not known.compared:
        return False
    # Where few prompts have several candidates, their diversity is no mean of the cell.
    have_sets = reads.pictures > 1 or (reads.in_grid > 1 and in_grid >= 0.5 * config.eval.num_prompts)
    return have_sets or (not needs_pictures and reads.texts > 1)


def values_of(folder: Path, run: Mapping[str, Any]) -> dict[str, float]:
    """The values of a finished cell by name, out of its run.json and its metrics.csv; what is no finite number is left out."""
    found = _last_values(folder / "metrics.csv") | flatten(run.get("checks") or {}, CHECKS) | flatten(run.get("metrics") or {})
    is_number = {name: isinstance(value, int | float) and not isinstance(value, bool) for name, value in found.items()}
    return {name: float(value) for name, value in found.items() if is_number[name] and math.isfinite(value)}


def flatten(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested metrics with their keys joined by "/": {"refined": {"piqe": 40.0}} becomes {"refined/piqe": 40.0}."""
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}/"))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _last_values(path: Path) -> dict[str, float]:
    """The last value of each column; none where there is no such file, or none that can be read: the cell has no curves then."""
    last: dict[str, float] = {}
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                for name, text in row.items():
                    if isinstance(name, str) and name.startswith((TRAIN, VALIDATION)) and isinstance(text, str) and text:
                        last[name] = float(text)
    except (OSError, ValueError, csv.Error):
        return {}
    return last
