"""The runs of an output folder for the page: which there are, and their diversity grids side by side at one seed, as plain data.

Reads run.json, scores.parquet, prompts.jsonl and images through the report's readers; a run that cannot be shown is listed with the reason.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ablations.figures.new_words import split_new_words
from ablations.results.looking import RUN, MissingPicture, picture_within
from ablations.results.prompts_and_scores import PROMPTS, SCORES, read_prompts
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import readable

if TYPE_CHECKING:
    import pandas as pd

    from ablations.reporting.collect import FinishedCell, LeftOut
    from ablations.reporting.columns import Column

NUM_CANDIDATES = 3
MAX_PROMPTS = 200
ORDERS = ("as evaluated", "most diverse", "least diverse", "largest difference")
# The measure that a diversity grid shows large comes first.
_DEFAULT_MEASURE = "st_lpips"


class NoSuchPicture(UserError):
    """A picture that no run that can be shown has."""


class RunBrowser:
    """The runs under `output_dir`; None: no folder was given, and there are none. Methods may be called from several threads.

    What was read is kept until the run's files change.
    """

    def __init__(self, output_dir: Path | None):
        self.output_dir = output_dir
        self._lock = threading.Lock()
        self._kept: dict[Path, tuple[tuple, _Shown]] = {}

    def list_runs(self) -> dict[str, Any]:
        """The runs with a grid, the most diverse first, the runs left out with the reason, and the measures of diversity.

        {"runs": [{name, arm, seed, group, profile, diversity: {measure: mean}, grid}], "left_out": [{name, status, reason}],
        "measures": [{key, heading, note}], "groups": [text]}; runs of one group may be compared.
        """
        from ablations.reporting.columns import DIVERSITY, STYLE_ENTROPY, columns_of

        shown, left_out = self._runs()
        groups = list(dict.fromkeys(run.group for run in shown))
        columns: dict[str, Column] = {}
        runs = []
        for run in shown:
            means = {}
            for column in columns_of(*run.cell.metrics(), run.cell.profile == "tiny", "refined"):
                values = run.diversity(column.key) if column.block == DIVERSITY and column.metric != STYLE_ENTROPY else None
                if values is not None:
                    means[column.key] = float(values.mean())
                    columns[column.key] = column
            runs.append(
                {
                    "name": run.name,
                    "arm": run.cell.arm,
                    "seed": run.cell.seed,
                    "group": groups.index(run.group),
                    "profile": run.cell.profile,
                    "diversity": means,
                    "grid": run.url("diversity_grid.png"),
                }
            )
        first = _DEFAULT_MEASURE if _DEFAULT_MEASURE in columns else next(iter(columns), "")
        runs.sort(key=lambda run: -run["diversity"].get(first, float("-inf")))
        return {
            "output_dir": None if self.output_dir is None else str(self.output_dir),
            "runs": runs,
            "left_out": [{"name": item.name, "status": item.status, "reason": item.reason} for item in left_out],
            "measures": [{"key": column.key, "heading": column.heading, "note": column.note} for column in columns.values()],
            "groups": [f"{profile} profile, data {data[:8]}, weights {weights[:8]}" for profile, data, weights in groups],
        }

    def grids(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The grids of {runs: [name], measure, filter, order, limit} side by side, a row per coarse prompt that every run has.

        `filter`: words that the coarse prompt or a refined one must have, in any case. `order`: one of ORDERS, by the runs' mean
        diversity, or by how far the runs are apart. Raises UserError for runs of different seeds or groups: their pictures do not
        compare; and for names that are not among the runs.
        """
        runs = self._chosen(request)
        measure, order = request.get("measure"), request.get("order", ORDERS[0])
        if order not in ORDERS:
            raise UserError(f"order must be one of {', '.join(ORDERS)}")
        limit = request.get("limit", 20)
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PROMPTS:
            raise UserError(f"limit must be a whole number from 1 to {MAX_PROMPTS}")
        if not isinstance(measure, str | None) or not isinstance(request.get("filter", ""), str):
            raise UserError("measure and filter must be text")
        words = request.get("filter", "").casefold().split()
        lines = [run.lines for run in runs]
        values = [run.diversity(measure) if measure else None for run in runs]
        shared = [prompt for prompt in lines[0] if all(prompt in own for own in lines[1:])]
        rows = [_Row(prompt, [own[prompt] for own in lines], [_value(series, prompt) for series in values]) for prompt in shared]
        rows = [row for row in rows if row.has(words)]
        if order != ORDERS[0]:
            # Rows without a value stay at the end, in either direction.
            rows = sorted((row for row in rows if row.is_measured), key=_SORT[order]) + [row for row in rows if not row.is_measured]
        return {
            "total": len(rows),
            "left_out_prompts": max(len(own) for own in lines) - len(shared),
            "rows": [row.record(runs) for row in rows[:limit]],
        }

    def picture(self, arm: str, seed: str, name: str) -> Path:
        """The file of a run's picture. Raises NoSuchPicture for anything but a PNG in the folder of a run that can be shown."""
        for folder in (run.cell.folder for run in self._runs()[0] if run.name == f"{arm}/{seed}"):
            try:
                path = picture_within(folder, name)
            except MissingPicture:
                break
            if path.suffix == ".png":
                return path
        raise NoSuchPicture("there is no such picture")

    def _chosen(self, request: Mapping[str, Any]) -> list[_Shown]:
        names = request.get("runs")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise UserError("pick at least one run")
        known = {run.name: run for run in self._runs()[0]}
        missing = [name for name in names if name not in known]
        if missing:
            raise UserError(f"there is no run {missing[0]!r} that can be shown any more: look at the list again")
        runs = [known[name] for name in dict.fromkeys(names)]
        if len({run.cell.seed for run in runs}) > 1:
            raise UserError("these runs have different seeds: side by side, prompts and image noise must be the same")
        if len({run.group for run in runs}) > 1:
            raise UserError("these runs were made from different data or weights: they do not compare")
        return runs

    def _runs(self) -> tuple[list[_Shown], list[LeftOut]]:
        """The runs with a grid, and what was left out."""
        if self.output_dir is None:
            return [], []
        from ablations.reporting.collect import cell_folders

        folders = cell_folders(self.output_dir)
        shown, left_out = [], []
        with self._lock:
            for folder in folders:
                stamp = tuple(_stamp(folder / name) for name in (RUN, SCORES, PROMPTS))
                if self._kept.get(folder, (None,))[0] != stamp:
                    read = _read_run(folder, self.output_dir)
                    if not isinstance(read, _Shown):
                        left_out.append(read)
                        continue
                    self._kept[folder] = stamp, read
                shown.append(self._kept[folder][1])
        return shown, left_out


@dataclass(frozen=True)
class _Shown:
    """A finished run: its scores, and the lines of prompts.jsonl by (prompt id, coarse prompt) and condition, candidates in order."""

    cell: FinishedCell
    lines: Mapping[tuple[int, str], Mapping[str, Sequence[dict]]]

    @property
    def name(self) -> str:
        return f"{self.cell.arm}/{self.cell.folder.name}"

    @property
    def group(self) -> tuple[str, str, str]:
        return self.cell.profile, self.cell.data_digest, self.cell.weights_digest

    def diversity(self, measure: str) -> pd.Series | None:
        """By coarse prompt; the measure is `metric`, or `metric@condition`. None where it was not measured."""
        metric, _, condition = measure.partition("@")
        return self.cell.values(metric, condition or "refined")

    def url(self, name: str) -> str | None:
        """The address of one of the run's pictures on the page's own server; None where its file is missing."""
        try:
            picture_within(self.cell.folder, name)
        except MissingPicture:
            return None
        return "/pictures/" + "/".join(quote(part) for part in (self.cell.arm, self.cell.folder.name, *Path(name).parts))


def _read_run(folder: Path, output_dir: Path) -> _Shown | LeftOut:
    from ablations.reporting.collect import LeftOut, read_cell

    read = read_cell(folder, output_dir)
    try:
        return read if isinstance(read, LeftOut) else _Shown(read, _read_lines(folder))
    except UserError as error:  # it was exchanged meanwhile
        return LeftOut(readable(folder.relative_to(output_dir)), "unreadable", f"{error}: run the cell again with force=true")


def _read_lines(folder: Path) -> dict[tuple[int, str], dict[str, list[dict]]]:
    """The prompts with pictures of both conditions that a grid has."""
    found: dict[tuple[int, str], dict[str, list[dict]]] = {}
    for line in read_prompts(folder / PROMPTS):
        if line["condition"] in ("coarse", "refined") and line["image"]:
            line = {name: line[name] for name in ("prompt_id", "condition", "candidate", "coarse", "refined", "image")}
            found.setdefault((line["prompt_id"], line["coarse"]), {}).setdefault(line["condition"], []).append(line)
    for conditions in found.values():
        for lines in conditions.values():
            lines.sort(key=lambda line: line["candidate"])
    return {prompt: conditions for prompt, conditions in found.items() if len(conditions) == 2}


class _Row:
    """A prompt in all chosen runs: `lines` and `values` (diversity, None where it was not measured) are in the runs' order."""

    def __init__(self, prompt: tuple[int, str], lines: Sequence[Mapping[str, list[dict]]], values: Sequence[float | None]):
        self.prompt_id, self.coarse = prompt
        self.lines, self.values = lines, values

    @property
    def is_measured(self) -> bool:
        return all(value is not None for value in self.values)

    def has(self, words: Sequence[str]) -> bool:
        texts = [self.coarse, *(line["refined"] for own in self.lines for line in own["refined"][:NUM_CANDIDATES])]
        together = "\n".join(texts).casefold()
        return all(word in together for word in words)

    def record(self, runs: Sequence[_Shown]) -> dict[str, Any]:
        return {
            "prompt_id": self.prompt_id,
            "coarse": self.coarse,
            "picture": runs[0].url(self.lines[0]["coarse"][0]["image"]),
            "runs": [
                {
                    "name": run.name,
                    "diversity": value,
                    "candidates": [
                        {"pieces": split_new_words(self.coarse, line["refined"]), "picture": run.url(line["image"])}
                        for line in own["refined"][:NUM_CANDIDATES]
                    ],
                }
                for run, own, value in zip(runs, self.lines, self.values, strict=True)
            ],
        }


_SORT = {
    "most diverse": lambda row: -sum(row.values),
    "least diverse": lambda row: sum(row.values),
    "largest difference": lambda row: min(row.values) - max(row.values),
}


def _value(series: pd.Series | None, prompt: tuple[int, str]) -> float | None:
    return float(series[prompt[1]]) if series is not None and prompt[1] in series.index else None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
