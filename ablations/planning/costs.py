"""Seconds that cells take, from the run.json of finished ones, in place of a probe: what components.yaml ships.

They are those of the machine that ran the cells, with whatever else it did; `ablations.plan` without --no-probe times this one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from ablations.config import Config, from_flat_dict, train_id
from ablations.results.looking import Run, look_at_run
from ablations.results.prompts_and_scores import PROMPTS, read_prompts
from ablations.sweeping.forecast import EvaluationCosts, TrainingCosts, refined_tokens

_STAGES = ("training", "refining", "drawing", "scoring")


def costs_of_cells(folders: Sequence[Path]) -> dict[str, Any]:
    """Seconds of a training step by what is trained, of a token, a picture and its scores, and of the rest of a cell."""
    steps: dict[str, list[float]] = {}
    parts: dict[str, list[float]] = {"token": [], "picture": [], "score": [], "other": []}
    for folder in folders:
        run = look_at_run(folder)
        if not isinstance(run, Run) or run.seconds is None:
            continue
        config = from_flat_dict(run.config)
        seconds, reused = run.timings, run.reused
        if not reused.get("training"):
            num_steps = max(1, int((run.metrics.get("training") or {}).get("steps") or config.train.max_steps or 0))
            steps.setdefault(terms_of(config), []).append(seconds.get("training", 0.0) / num_steps)
        pictures = sum(bool(line.get("image")) for line in read_prompts(folder / PROMPTS))
        new = pictures - int(reused.get("pictures", 0))
        parts["token"].append(seconds.get("refining", 0.0) / max(1, refined_tokens(config)))
        if new > 0:
            parts["picture"].append(seconds.get("drawing", 0.0) / new)
            parts["score"].append(seconds.get("scoring", 0.0) / new)
        parts["other"].append(max(0.0, run.seconds - sum(seconds.get(stage, 0.0) for stage in _STAGES)))
    return {
        "step_seconds": {name: _short(mean(values)) for name, values in sorted(steps.items())},
        **{f"{name}_seconds": _short(median(values)) if values else 0.0 for name, values in parts.items()},
    }


def terms_of(config: Config) -> str:
    """What is trained, as in "tiny-mse-text-clip-afe": trainings that cost about the same."""
    return train_id(config).rpartition("-")[0]


def training_costs(config: Config, costs: Mapping[str, Any]) -> TrainingCosts:
    """What a training takes by shipped costs; one of terms that were not measured counts like the dearest."""
    by_terms = costs["step_seconds"]
    step = by_terms.get(terms_of(config), max(by_terms.values(), default=0.0))
    steps = config.train.max_steps or 0
    return TrainingCosts(steps, step, 0.0, 0, config.data.num_train or 0, 0.0, 0.0, 0, {})


def evaluation_costs(costs: Mapping[str, Any]) -> EvaluationCosts:
    """What refining, drawing and scoring take by shipped costs."""
    return EvaluationCosts(costs["token_seconds"], costs["picture_seconds"], costs["score_seconds"], 0.0)


def _short(value: float) -> float:
    return json.loads(f"{value:.4g}")
