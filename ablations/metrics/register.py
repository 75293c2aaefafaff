"""The register of all metrics: every one by name, and which of those asked for can be computed here."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.metrics import weights as weight_files
from ablations.metrics.base import Metric
from ablations.runtime.errors import UserError
from ablations.runtime.open_table import OpenTable

# Modules that register nothing; two of them import heavy libraries.
_WITHOUT_METRICS = {"__main__", "base", "listing", "weights", "fidelity", "word_oracle", "judge", "added_words", "references", "style_text"}


# Names that stand for several: what the paper's tables show, by pyiqa.
GROUPS = {"paper": ("nima", "musiq-koniq", "dbcnn", "tres", "nima-vgg16-ava", "musiq-ava")}


_METRICS: dict[str, Metric] = {}
_TABLE = OpenTable("metric", _METRICS)


def register(metric: Metric) -> Metric:
    """Enters a metric in the register and returns it. Registering the same metric again is harmless.

    Raises UserError for two different ones under one name, and for a name that cannot be written on a command line.
    """
    return _TABLE.register(metric)


def all_metrics() -> dict[str, Metric]:
    """Every metric by name: those of this package in the order of the modules' names, and what plug-ins registered."""
    package = importlib.import_module(__package__)
    for module in sorted({module.name for module in pkgutil.iter_modules(package.__path__)} - _WITHOUT_METRICS):
        importlib.import_module(f"{__package__}.{module}")
    return _TABLE.entries()


def shown_metrics() -> list[Metric]:
    """The metrics of the table that a cell ends with, best known first; those that plug-ins show come last."""
    return sorted((metric for metric in all_metrics().values() if metric.shown), key=lambda metric: metric.order)


def labels() -> set[str]:
    """The names of the metrics whose values are classes, which are averaged nowhere."""
    return {metric.name for metric in all_metrics().values() if metric.is_label}


def always_by_pictures() -> list[str]:
    """The names of the metrics that every cell scores and that are computed from pictures alone, in alphabetical order."""
    return sorted(metric.name for metric in all_metrics().values() if metric.always and metric.can_be_asked_for)


def metric_named(name: str) -> Metric:
    """The metric called `name`. Raises ValueError with the nearest known name where there is none."""
    metrics = all_metrics()
    if name not in metrics:
        near = difflib.get_close_matches(name, metrics, n=1, cutoff=0.0)
        raise ValueError(f"unknown metric {name!r}; the nearest is {near[0]!r}, known are {', '.join(metrics)}")
    return metrics[name]


@dataclass(frozen=True)
class Required:
    """What came of `require`: the metrics that can be computed, and why the others cannot."""

    available: tuple[Metric, ...]
    unavailable: Mapping[str, str]


def names_in(text: str) -> tuple[str, ...]:
    """The metrics that `eval.metrics` lists, each once, in alphabetical order; `paper` stands for the paper's six.

    Raises UserError for a name that is no metric's, and for a metric that is not computed from pictures alone.
    """
    words = [word.strip().strip("'\"") for word in text.strip().removeprefix("[").removesuffix("]").split(",")]
    names = {name for word in words if word for name in GROUPS.get(word, (word,))}
    for name in names:
        try:
            metric = metric_named(name)
        except ValueError as error:
            raise UserError(f"eval.metrics: {error} (python -m ablations.metrics describes them)") from error
        if not metric.can_be_asked_for:
            raise UserError(f"eval.metrics: {name} is not computed from pictures alone; it is scored where its inputs are: leave it out")
    if not names:
        raise UserError(f"eval.metrics={text!r} names no metric: write null for none")
    return tuple(sorted(names))


def require(
    names: Sequence[str],
    missing: str = "error",
    folder: Path | None = None,
    image_size: int | None = None,
    look_inside: bool = True,
) -> Required:
    """The metrics called `names` that can be computed here, in the order given, without loading any.

    Args:
        missing: "error" raises UserError where weights of one are missing or damaged, "skip" lists it as unavailable.
        folder: where weights lie; None is the usual place, see `ablations.metrics.weights`.
        image_size: the pictures' side in pixels, where it is known: a metric that cannot read such pictures is unavailable too.
        look_inside: whether files of weights are compared with their digests, which takes some seconds a gigabyte.

    Raises UserError, in one line with the files and the remedy; ValueError for an unknown name.
    """
    assert missing in ("error", "skip"), missing
    metrics = [metric_named(name) for name in dict.fromkeys(names)]
    unavailable: dict[str, str] = {}
    for metric in metrics:
        if image_size is not None and image_size < metric.min_side:
            unavailable[metric.name] = f"it reads pictures of {metric.min_side} px or more a side, these have {image_size}"
        elif problem := weight_files.problem_of(metric.weights, folder, look_inside):
            unavailable[metric.name] = problem
    if unavailable and missing == "error":
        why = "; ".join(f"{name}: {problem}" for name, problem in unavailable.items())
        lacking = [metric.name for metric in metrics if metric.name in unavailable and "px or more" not in unavailable[metric.name]]
        remedies = [f"get them with `python -m ablations.metrics fetch {' '.join(lacking)}`"] if lacking else []
        remedies += ["leave the metric out of eval.metrics", "or set eval.missing_metrics=skip, and tables will say not available"]
        raise UserError(f"metrics that cannot be computed: {why}. Remedy: {', '.join(remedies)}")
    return Required(tuple(metric for metric in metrics if metric.name not in unavailable), unavailable)
