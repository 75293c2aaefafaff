"""The next cell of a random or bayes search, drawn by Optuna: TPE for bayes, so that it learns from the cells that have finished."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from ablations.config import KEYS
from ablations.config.parsing import Scalar
from ablations.results.logged import values_of
from ablations.sweeping.cell import Cell
from ablations.sweeping.sweep_file import Parameter, SweepFile

# Cells that are drawn at random before TPE learns from results. Optuna's 10 would be most of a sweep here.
STARTUP_CELLS = 5


def next_values(sweep: SweepFile, cells: Sequence[Cell], search_seed: int) -> dict[str, Scalar]:
    """The swept values of cell number len(cells), a function of the search's seed, that number and how `cells` ended."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = int(np.random.SeedSequence([search_seed, len(cells)]).generate_state(1)[0])
    spaces = {parameter.name: _space(parameter) for parameter in sweep.parameters}
    if sweep.method == "random":
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    else:
        study = optuna.create_study(direction=sweep.goal, sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_CELLS))
        for cell in cells:
            study.add_trial(_told(sweep, cell, spaces))
    drawn = study.ask(spaces).params
    return {parameter.name: _value(parameter, drawn[parameter.name]) for parameter in sweep.parameters}


def metric_of(sweep: SweepFile, cell: Cell) -> float | None:
    """The sweep's metric of a cell; None of one that has not finished, and of one that has not got it."""
    run = cell.folder.read()
    if sweep.metric is None or run is None or run["status"] != "finished":
        return None
    return values_of(cell.folder.path, run).get(sweep.metric)


def _told(sweep: SweepFile, cell: Cell, spaces: dict[str, BaseDistribution]) -> FrozenTrial:
    """An earlier cell as Optuna knows it: its values, and how it ended or that it is still running.

    One that finished without the metric is a trial that failed: there is nothing to be learnt from it.
    """
    value = metric_of(sweep, cell)
    if value is not None:
        return create_trial(params=dict(cell.swept), distributions=spaces, value=value)
    status = (cell.folder.read() or {}).get("status")
    state = TrialState.FAIL if status in ("failed", "finished") else TrialState.RUNNING
    return create_trial(params=dict(cell.swept), distributions=spaces, state=state)


def _space(parameter: Parameter) -> BaseDistribution:
    if parameter.probabilities is not None:
        return FloatDistribution(0.0, 1.0)  # a share of the probability, see `_value`
    if parameter.range is None:
        return CategoricalDistribution(parameter.values)
    low, high, step, log = parameter.range.low, parameter.range.high, parameter.range.step, parameter.range.log
    if step is None or log:
        return FloatDistribution(low, high, log=log)
    high = low + math.floor((high - low) / step + 1e-9) * step
    if KEYS[parameter.name].type is int:
        return IntDistribution(int(low), int(high), step=int(step))
    return FloatDistribution(low, high, step=step)


def _value(parameter: Parameter, drawn: Any) -> Scalar:
    """What a key is set to for what Optuna drew."""
    if parameter.probabilities is not None:
        chosen = int(np.searchsorted(np.cumsum(parameter.probabilities), drawn, side="right"))
        return parameter.values[min(chosen, len(parameter.values) - 1)]
    if parameter.range is not None and parameter.range.log and parameter.range.step is not None:
        step = parameter.range.step
        drawn = min(max(round(drawn / step) * step, parameter.range.low), parameter.range.high)
    return int(drawn) if KEYS[parameter.name].type is int and drawn is not None else drawn
