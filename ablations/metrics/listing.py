"""The metrics as a list, and the weights that they need: which are here, and getting those that are not. Imports no heavy library."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ablations.metrics.base import Metric
from ablations.metrics.register import GROUPS, all_metrics, metric_named
from ablations.metrics.weights import WEIGHTS, FetchError, digest_of, fetch, state_of, weights_folder
from ablations.runtime.command_line import say_error
from ablations.runtime.console import Console
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import is_folder, is_there
from ablations.runtime.stopping import StopRequest

_NEEDS = {
    "images": "image",
    "texts": "prompt",
    "references": "reference",
    "scene": "the tiny world's truth",
    "image_embeddings": "CLIP embedding of the image",
    "text_embeddings": "CLIP embedding of the prompt",
}
_OF = {"image": "each image", "candidates": "each prompt's candidates", "pictures": "each condition, all images"}


def show_metrics(arguments: argparse.Namespace, stop: StopRequest) -> int:
    """Do what the arguments ask for; returns 1 where weights could not be got or named ones are not here, else 0.

    Raises UserError for arguments that do not go together, and for an unknown metric.
    """
    if arguments.source is not None and (arguments.command != "fetch" or not is_folder(arguments.source)):
        raise UserError(f"--from {str(arguments.source)!r}: it goes with fetch and names a folder that is there")
    if arguments.json and arguments.command != "list":
        raise UserError("--json goes with the list of metrics alone")
    folder = weights_folder(arguments.dir)
    if is_there(folder) and not is_folder(folder):
        raise UserError(f"--dir {str(folder)!r} is a file, not a folder")
    metrics = _chosen(arguments.names)
    try:
        if arguments.command == "fetch":
            return _fetch(metrics, folder, arguments.source)
        if arguments.command == "check":
            return _check(metrics, folder, bool(arguments.names))
        return _list(metrics, folder, arguments.json)
    except BrokenPipeError:  # the reader, as in `| head`, has seen enough
        sys.stderr.close()
        return 0


def _chosen(words: Sequence[str]) -> list[Metric]:
    """The metrics that were named, all without names. Raises UserError for an unknown one."""
    names = [name for word in words for name in word.split(",") if name]
    names = [member for name in names for member in GROUPS.get(name, (name,))]
    if not names:
        return list(all_metrics().values())
    try:
        return [metric_named(name) for name in dict.fromkeys(names)]
    except ValueError as error:
        raise UserError(error) from error


def better(metric: Metric) -> str:
    """Which direction is better, in a word."""
    return {True: "higher", False: "lower", None: "neither"}[metric.higher_is_better]


def _bound(value: float) -> str:
    return {float("inf"): "unbounded", float("-inf"): "unbounded"}.get(value, f"{value:g}")


def _list(metrics: Sequence[Metric], folder: Path, as_json: bool) -> int:
    if as_json:
        print(json.dumps([_as_json(metric, folder) for metric in metrics], indent=2))
        return 0
    for metric in metrics:
        low, high = (_bound(value) for value in metric.range)
        print(f"{metric.name}: {metric.title}")
        print(f"  better: {better(metric)}; range: {low} to {high}; one value for {_OF[metric.per]}")
        print(f"  needs: {', '.join(_NEEDS[need] for need in metric.needs)}; asked for by eval.metrics: {_yes(metric.can_be_asked_for)}")
        for name in metric.weights:
            file = WEIGHTS[name]
            size = f", {file.megabytes:g} MB" if file.megabytes else ""
            print(f"  weights: {name}{size}, {state_of(name, folder, look_inside=False)}; {file.licence}")
        print(f"  licence: {metric.licence}")
        notes = [metric.note] if metric.note else []
        notes += [f"not a quality measure below {metric.small_below} px"] if metric.small_below else []
        notes += [f"cannot read pictures below {metric.min_side} px"] if metric.min_side > 1 else []
        if notes:
            print(f"  note: {'; '.join(notes)}")
        if metric.source:
            print(f"  source: {metric.source}")
    print(f"\n{len(metrics)} metrics; weights are looked for in {folder}")
    return 0


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _as_json(metric: Metric, folder: Path) -> dict[str, object]:
    names = ("name", "title", "per", "licence", "note", "source", "small_below", "min_side", "version")
    return {
        **{name: getattr(metric, name) for name in names},
        "better": better(metric),
        "range": [value if abs(value) != float("inf") else None for value in metric.range],
        "needs": [_NEEDS[need] for need in metric.needs],
        "weights": {name: state_of(name, folder, look_inside=False) for name in metric.weights},
    }


def _files(metrics: Sequence[Metric]) -> dict[str, list[str]]:
    """The files that metrics need, each with the names of those metrics."""
    needed: dict[str, list[str]] = {}
    for metric in metrics:
        for name in metric.weights:
            needed.setdefault(name, []).append(metric.name)
    return needed


def _check(metrics: Sequence[Metric], folder: Path, were_named: bool) -> int:
    needed = _files(metrics)
    print(f"weights are looked for in {folder}" + ("" if is_folder(folder) else ", which is not there"))
    states = {name: state_of(name, folder) for name in needed}
    for name, users in needed.items():
        print(f"  {name}: {states[name]} (for {', '.join(users)})")
    without = [metric.name for metric in metrics if not metric.weights]
    if without:
        print(f"no files of weights to get for: {', '.join(without)}")
    lacking = list(dict.fromkeys(user for name, users in needed.items() if states[name] != "present" for user in users))
    if lacking:
        print(f"get what is missing with: python -m ablations.metrics fetch {' '.join(lacking)}")
    return 1 if lacking and were_named else 0


def _fetch(metrics: Sequence[Metric], folder: Path, source: Path | None) -> int:
    from ablations.metrics.weights import WEIGHTS, state_of

    console = Console()
    failed: list[str] = []
    for name in _files(metrics):
        if state_of(name, folder) == "present":
            console.say(f"{name}: present already")
            continue
        try:
            fetch(name, folder, console.track, source)
        except FetchError as error:  # the others are fetched all the same
            failed.append(str(error))
            continue
        digest = digest_of(folder / name)
        known = len(WEIGHTS[name].sha256)
        checked = (
            "as published" if known == 64 else f"first {known} digits as published" if known else "no digest was published to compare with"
        )
        console.say(f"{name}: kept in {folder}; SHA-256 {digest} ({checked})")
    for problem in failed:
        say_error(problem)
    return FetchError.exit_code if failed else 0
