"""Scores of anybody, from a long table: a row for each value, with columns that say which arm, seed, unit and metric it is of.

CSV, TSV, JSON lines or parquet, whatever the columns are called: those that are not named are recognised by their usual names.
"""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ablations.reporting.evidence import Scores
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.foreign import is_file

if TYPE_CHECKING:
    import pandas as pd

# What columns are usually called, likelier names first, in lower case and without "_" and blanks.
_USUAL: dict[str, tuple[str, ...]] = {
    "arm": ("arm", "method", "model", "system", "variant", "condition", "name", "group"),
    "unit": ("unit", "prompt", "prompttext", "caption", "question", "item", "example", "task", "promptid", "sampleid", "id"),
    "seed": ("seed", "trainingseed", "randomseed", "run", "replicate"),
    "metric": ("metric", "measure", "endpoint"),
    "value": ("value", "score", "result"),
    "candidate": ("candidate", "repeat", "draw", "generation"),
}
NONE = "none"
# Rows that differ in these alone are draws or twins of one unit.
_NUMBERS = ("promptid", "sampleid", "id", "index", "row", "image", "imageid", "imageseed", "file")
_METRIC = "value"


@dataclass(frozen=True)
class Asked:
    """What the user says of a table: the names of its columns (None: to be recognised; "none": there is no such column), the columns that
    are averaged over, the arms that count (none: all), and the values that a row must have, any one of those given for a column."""

    unit: str | None = None
    seed: str | None = None
    arm: str | None = None
    metric: str | None = None
    candidate: str | None = None
    values: tuple[str, ...] = ()
    average_over: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. Without `metric` each column of `values` is a metric of its own name."""

    arm: str
    unit: str
    seed: str | None
    metric: str | None
    candidate: str | None
    values: tuple[str, ...]

    @property
    def keys(self) -> dict[str, str]:
        """What tells rows apart, {what: column}."""
        named = {"arm": self.arm, "seed": self.seed, "unit": self.unit, "metric": self.metric, "candidate": self.candidate}
        return {what: column for what, column in named.items() if column is not None}


@dataclass(frozen=True)
class LongTable:
    """Scores by metric and arm. `seeds` are the names of the seeds by their number, empty where the table has none; `notes` say what was
    averaged and what was left out."""

    columns: Columns
    scores: Mapping[str, Mapping[str, Scores]]
    seeds: tuple[str, ...]
    notes: tuple[str, ...]


def read_long_table(paths: Sequence[Path], asked: Asked) -> LongTable:
    """The scores of a table, which may come in several files of equal columns. Candidates, and rows that `asked` says are averaged over,
    become one value for each arm, seed and unit.

    Every arm, seed and unit counts as many candidates as all of them have, the first ones. Of an arm those units count that all of its
    seeds have. Raises UserError, naming file and column, for what cannot be read, a column that cannot be told, a value that is no finite
    number, and rows of one arm, seed and unit that another column tells apart.
    """
    path = str(paths[0]) if len(paths) == 1 else f"{paths[0]} (and {len(paths) - 1} more)"
    frame = _where(_together(paths), asked.where, path)
    columns = _columns(frame, asked, path)
    frame = _having(frame, columns.arm, asked.arms, path, "arm") if asked.arms else frame
    notes: list[str] = []
    seeds = sorted(_levels(frame[columns.seed]), key=_by_number) if columns.seed else []
    _require_keys(frame, columns, path)
    scores: dict[str, dict[str, Scores]] = {}
    for metric, part in _by_metric(frame, columns, path):
        _require_told_apart(part, metric, columns, asked, path, notes)
        part, candidates = _equal_candidates(part, columns, metric, notes)
        scores[metric] = _by_arm(part, columns, seeds, candidates, metric, notes)
    return LongTable(columns, scores, tuple(seeds), tuple(dict.fromkeys(notes)))


def _together(paths: Sequence[Path]) -> pd.DataFrame:
    import pandas as pd

    frames = [_read(path) for path in paths]
    for path, frame in zip(paths[1:], frames[1:], strict=True):
        if apart := sorted(set(frame.columns) ^ set(frames[0].columns)):
            raise UserError(f"{path} has other columns than {paths[0]}: {', '.join(map(repr, apart))[:120]}; give files of equal columns")
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def _read(path: Path) -> pd.DataFrame:
    """The file's rows; texts stay as they are written, so that a unit may be called NA or 1e5."""
    import pandas as pd

    if not is_file(path):
        raise UserError(f"{path}: there is no such file")
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            import pyarrow.parquet as pq

            frame = pq.read_table(path).to_pandas()
        elif kind in (".jsonl", ".ndjson"):
            lines = path.read_text(encoding="utf-8").split("\n")
            frame = pd.DataFrame([dict(json.loads(line)) for line in lines if line.strip()])
        else:
            with warnings.catch_warnings():
                # A row with more fields than the header would lose the last ones.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                how = {"dtype": str, "keep_default_na": False, "index_col": False, "skipinitialspace": True}
                frame = pd.read_csv(path, sep=_separator(path), encoding="utf-8-sig", **how)
    except Exception as error:  # pandas and pyarrow fail to read a torn file in many ways
        raise UserError(f"{path} cannot be read as a table ({one_line(error)[:140]})") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise UserError(f"{path}: the column {twice[0]!r} is there several times")
    if frame.empty:
        raise UserError(f"{path} has no rows")
    return frame


def _separator(path: Path) -> str:
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline()
    return max("\t,;", key=header.count)


def _where(frame: pd.DataFrame, where: Mapping[str, Sequence[str]], path: str) -> pd.DataFrame:
    """The rows that have one of the values asked for, in every column that is asked about."""
    for column, values in where.items():
        _require_column(frame, column, path, "--where")
        frame = _having(frame, column, values, path, f"--where {column}=")
    return frame


def _having(frame: pd.DataFrame, column: str, values: Sequence[str], path: str, what: str) -> pd.DataFrame:
    """The rows with one of the values. Raises UserError for a value that no row has; `what` says what it is."""
    levels = {str(level): level for level in frame[column].unique()}
    for value in values:
        if value not in levels:
            raise UserError(
                f"{what}{'' if what.endswith('=') else ' '}{value}: {_nearest(value, list(levels), f'no row of {path} has it')}"
            )
    return frame[frame[column].isin([levels[value] for value in values])]


def _columns(frame: pd.DataFrame, asked: Asked, path: str) -> Columns:
    """The columns as asked for, the others by their usual names, each at most once."""
    given = {what: getattr(asked, what) for what in ("arm", "unit", "seed", "metric", "candidate")}
    for what, name in given.items():
        if name is not None and (name != NONE or what in ("arm", "unit")):
            _require_column(frame, name, path, f"--{what}" if what == "unit" else f"--{what}-column")
    for name in (*asked.values, *asked.average_over):
        _require_column(frame, name, path, "--value-column" if name in asked.values else "--average-over")
    taken = {name for name in (*given.values(), *asked.values, *asked.average_over, *_one_valued(asked)) if name is not None}
    usual = {name.lower().replace("_", "").replace(" ", "").replace("-", ""): name for name in reversed(frame.columns)}
    for what, names in _USUAL.items():
        if given.get(what) is None and not (what == "value" and asked.values):
            given[what] = next((usual[name] for name in names if name in usual and usual[name] not in taken), None)
            taken |= {given[what]} - {None}
    values = asked.values or ((given["value"],) if given["value"] else _only_number(frame, taken))
    found = ", ".join(map(repr, frame.columns[:12]))
    for what, option in (("arm", "--arm-column"), ("unit", "--unit")):
        if given[what] is None:
            raise UserError(f"{path}: which column holds the {what}? name it with {option}; there are {found}"[:290])
    if not values:
        raise UserError(f"{path}: which column holds the scores? name it with --value-column; there are {found}"[:290])
    seed, metric, candidate = (given[what] if given[what] != NONE else None for what in ("seed", "metric", "candidate"))
    return Columns(given["arm"], given["unit"], seed, metric, candidate, values)


def _one_valued(asked: Asked) -> list[str]:
    """Columns that --where leaves one value of: they tell nothing apart, unless they are asked for by name."""
    return [column for column, values in asked.where.items() if len(values) == 1 and column.lower() not in _USUAL["metric"]]


def _only_number(frame: pd.DataFrame, taken: set[str]) -> tuple[str, ...]:
    """The one column of numbers that is nothing else, if there is just one."""
    import pandas as pd

    free = [name for name in frame.columns if name not in taken and name.lower().replace("_", "") not in _NUMBERS]
    numbers = [name for name in free if pd.to_numeric(frame[name], errors="coerce").notna().all()]
    return tuple(numbers) if len(numbers) == 1 else ()


def _require_column(frame: pd.DataFrame, name: str, path: str, option: str) -> None:
    if name not in frame.columns:
        raise UserError(f"{option} {name}: {_nearest(name, list(frame.columns), f'{path} has no such column')}")


def _nearest(name: str, known: Sequence[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    return f"{what}; did you mean {near[0]!r}?" if near else f"{what}; there are {shown}"[:200]


def _require_keys(frame: pd.DataFrame, columns: Columns, path: str) -> None:
    """Every row says what it is of."""
    for what, column in columns.keys.items():
        empty = np.flatnonzero((frame[column].isna() | (frame[column].astype(object) == "")).to_numpy())
        if empty.size:
            raise UserError(
                f"{path}: {empty.size} of {len(frame)} rows have no {what} (column {column!r}), first row {frame.index[empty[0]] + 1}"
            )


def _by_metric(frame: pd.DataFrame, columns: Columns, path: str) -> list[tuple[str, pd.DataFrame]]:
    """(metric, its rows with the number `_METRIC`), in the order of the table."""
    import pandas as pd

    parts = []
    for name in columns.values:
        numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(numbers))
        if bad.size:
            first = frame.iloc[bad[0]]
            raise UserError(
                f"{path}: {bad.size} of {len(frame)} values in {name!r} are no finite numbers, the first is {str(first[name])[:30]!r} in "
                f"row {frame.index[bad[0]] + 1}; a missing score cannot be averaged away: leave such rows out, and their units are"
            )
        own = frame.drop(columns=list(columns.values)).assign(**{_METRIC: numbers})
        if columns.metric is None:
            parts.append((name, own))
        else:
            groups = own.groupby(columns.metric, observed=True, sort=False)
            parts += [(str(metric) if len(columns.values) == 1 else f"{metric} {name}", part) for metric, part in groups]
    return parts


def _require_told_apart(part: pd.DataFrame, metric: str, columns: Columns, asked: Asked, path: str, notes: list[str]) -> None:
    """Rows of one arm, seed, unit and candidate are averaged; not where a column tells them apart that nothing was said of."""
    keys = [column for what, column in columns.keys.items() if what != "metric"]
    repeated = part[part.duplicated(keys, keep=False)]
    if repeated.empty:
        return
    others = [name for name in part.columns if name not in {*keys, columns.metric, _METRIC, *asked.average_over}]
    others = [name for name in others if name.lower().replace("_", "").replace(" ", "") not in _NUMBERS]
    groups = repeated.groupby(keys, observed=True)
    for name in others:
        if (groups[name].nunique() > 1).any():
            level = str(repeated[name].iloc[0])[:30]
            raise UserError(
                f"{path}: {len(repeated)} rows share arm, seed and unit with another and differ in {name!r}: choose with "
                f"--where {name}={level}, or average with --average-over {name}"[:295]
            )
    most = int(groups.size().max())
    notes.append(f"{metric}: up to {most} rows of one {'candidate' if columns.candidate else 'arm, seed and unit'} are averaged")


def _equal_candidates(part: pd.DataFrame, columns: Columns, metric: str, notes: list[str]) -> tuple[pd.DataFrame, int]:
    """The rows of as many candidates as every arm, seed and unit has, the first ones; and how many these are."""
    if columns.candidate is None:
        return part, 1
    cell = [column for column in (columns.arm, columns.seed, columns.unit) if column]
    fewest = int(part.groupby(cell, observed=True)[columns.candidate].nunique().min())
    levels = sorted(part[columns.candidate].unique(), key=lambda level: _by_number(str(level)))
    if fewest < len(levels):
        notes.append(f"{metric}: {fewest} of {len(levels)} candidates count, as many as every arm, seed and unit has")
        part = part[part[columns.candidate].isin(levels[:fewest])]
    return part, fewest


def _by_arm(
    part: pd.DataFrame, columns: Columns, seeds: Sequence[str], candidates: int, metric: str, notes: list[str]
) -> dict[str, Scores]:
    """Scores by arm, over the seeds that it has and the units that all of these have."""
    number = {seed: i for i, seed in enumerate(seeds)}
    found = {}
    for arm, own in part.groupby(columns.arm, observed=True, sort=False):
        if columns.seed is None:
            table = own.groupby(columns.unit, observed=True)[_METRIC].mean().to_frame().T
            names = (0,)
        else:
            table = own.groupby([columns.seed, columns.unit], observed=True)[_METRIC].mean().unstack()
            table = table.iloc[np.argsort([number[str(seed)] for seed in table.index])]
            names = tuple(number[str(seed)] for seed in table.index)
        whole = table.dropna(axis="columns")
        if whole.shape[1] < table.shape[1]:
            counts = table.notna().sum(axis="columns")
            fewest = f"seed {counts.idxmin()} has {counts.min()}"
            notes.append(
                f"{metric}: {whole.shape[1]} of {table.shape[1]} units of {arm} count, those that all of its seeds have ({fewest})"
            )
        if whole.size:
            found[str(arm)] = Scores(whole.to_numpy(), names, tuple(map(str, whole.columns)), candidates)
    return found


def _levels(column: pd.Series) -> list[str]:
    return [str(level) for level in column.unique()]


def _by_number(text: str) -> tuple[float, str]:
    """Numbers by size, other names after them."""
    try:
        return float(text), text
    except ValueError:
        return np.inf, text
