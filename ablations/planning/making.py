"""`ablations.plan`: the cells and their time; with --power what designs can decide; with --register the registration."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest
from ablations.sweeping.gpus import jobs_here
from ablations.sweeping.planning import plan_sweep

if TYPE_CHECKING:
    from ablations.config.parsing import Scalar
    from ablations.planning.designs import CostsOf
    from ablations.planning.measured import ComponentsFile
    from ablations.planning.power import Plan, Power
    from ablations.runtime.console import Console
    from ablations.sweeping.cells import Grid
    from ablations.sweeping.sweep_file import SweepFile


def plan(arguments: argparse.Namespace, stop: StopRequest) -> None:
    """Do what the arguments of `ablations.plan` ask for. Raises UserError for a mistake in them, the sweep file or the components."""
    if arguments.register:
        _register(arguments)
    elif arguments.power:
        _show_power(arguments)
    elif arguments.sources or arguments.keep or arguments.csv:
        raise UserError("--from, --keep and --csv are for --power: add it")
    else:
        plan_sweep(arguments, stop)


def _show_power(arguments: argparse.Namespace) -> None:
    if arguments.keep and not arguments.sources:
        raise UserError("--keep writes what --from OUTPUT_DIR measures: say which folder")
    began = time.monotonic()
    _, cells = _grid(arguments, "--power")
    console = _console(cells)
    power = _power(arguments, cells, console, began)
    from ablations.planning import power_table
    from ablations.planning.measured import write_components
    from ablations.runtime.files import write_atomically

    if arguments.sources:
        console.table(power_table.components_table(power.components))
    power_table.show_power(power, console)
    if arguments.csv:
        write_atomically(arguments.csv, power_table.as_csv(power, power.designs))
        console.say(f"written: {arguments.csv}")
    if arguments.keep:
        write_components(arguments.keep, power.components)
        console.say(f"written: {arguments.keep}, variances and costs alone")


def _register(arguments: argparse.Namespace) -> None:
    if arguments.keep or arguments.csv:
        raise UserError("--keep and --csv are for --power, not for --register")
    began = time.monotonic()
    sweep, cells = _grid(arguments, "--register")
    from ablations.planning import power_table, registering
    from ablations.results.registration import write_registration

    registering.refuse_late(cells, arguments.register)
    console = _console(cells)
    power = _power(arguments, cells, console, began)
    planned = registering.planned_of(sweep, cells, power.plan.text_prompts)
    digests = registering.digests_of(cells.example, console.say)
    registration = registering.registration_for(planned, power, digests)
    write_registration(arguments.register, registration)
    power_table.show_power(power, console)
    for expected in registration.expected_undecided:
        where = f"{expected.condition} ({', '.join(expected.endpoints)})"
        console.say(f"expected to be undecided: {expected.claim} in {where}; it needs {expected.needs}")
    revision = registration.code_revision or "unknown"
    if revision.endswith("+dirty"):
        console.say("the code has changes that are not committed: commit them first if git is to show what was registered")
    console.say(f"registered: {arguments.register} (digest {registration.digest}, code {revision[:12]})")


def _grid(arguments: argparse.Namespace, option: str) -> tuple[SweepFile, Grid]:
    from ablations.sweeping.arguments import read_cells
    from ablations.sweeping.cells import Grid

    sweep, cells = read_cells(arguments)
    if not isinstance(cells, Grid):
        raise UserError(f"{sweep.path}: {option} is for method grid: a search does not know its cells beforehand")
    if not cells.example.eval.num_prompts:
        raise UserError(f"{sweep.path}: eval.num_prompts=0: there is nothing to judge")
    return sweep, cells


def _console(cells: Grid) -> Console:
    from ablations.runtime.console import Console

    return Console(cells.example.trainer.progress)


def _plan_of(cells: Grid) -> Plan:
    from ablations.planning.designs import Design
    from ablations.planning.power import Plan

    arms = {cell.arm_label: cell.config for cell in reversed(cells.cells)}
    arms = {label: arms[label] for label in dict.fromkeys(cell.arm_label for cell in cells.cells)}
    e = cells.example.eval
    seeds = len({cell.config.seed for cell in cells.cells})
    candidates = e.num_candidates if e.draw == "all" else 1
    return Plan(arms, Design(seeds, e.num_prompts, candidates), max(e.text_prompts, e.num_prompts))


def _power(arguments: argparse.Namespace, cells: Grid, console: Console, began: float) -> Power:
    from ablations.planning.contrasts import contrasts_of
    from ablations.planning.designs import Minutes
    from ablations.planning.power import Power

    plan = _plan_of(cells)
    contrasts = contrasts_of(list(plan.settings.values()), plan.profile)
    if not contrasts:
        raise UserError(f"{arguments.files[0]} has no arms that a claim of ablations/reporting/claims.yaml compares")
    components = _components(arguments.sources, contrasts, {cell.folder.arm: plan.settings[cell.arm_label] for cell in cells.cells})
    if components.origin.profile != plan.profile:
        raise UserError(f"variances are known of profile={components.origin.profile}: say --from with a folder of profile={plan.profile}")
    jobs = jobs_here(arguments.jobs, cells.example)
    costs_of = _shipped(components.costs) if arguments.no_probe else _probed(jobs, console, began)
    return Power(plan, components, Minutes(plan.arms, costs_of, jobs))


def _components(sources: list[Path], contrasts: list, settings_of: Mapping[str, Mapping[str, Scalar]]) -> ComponentsFile:
    from ablations.planning.estimating import measure_folder, measure_reports
    from ablations.planning.measured import SHIPPED, read_components
    from ablations.planning.reported import is_report

    if sources and all(is_report(source) for source in sources):
        return measure_reports(sources, contrasts, settings_of)
    if len(sources) > 1:
        others = next(source for source in sources if not is_report(source))
        raise UserError(f"--from {others}: several are read together only where each is the folder of a report, and this is none")
    source = sources[0] if sources else SHIPPED
    return read_components(source) if source.suffix in (".yaml", ".yml") else measure_folder(source, contrasts)


def _shipped(costs: Mapping[str, Any]) -> CostsOf | None:
    from ablations.planning.costs import evaluation_costs, training_costs

    if not costs:
        return None
    return lambda config: (training_costs(config, costs), evaluation_costs(costs))


def _probed(jobs: int, console: Console, began: float) -> CostsOf:
    from ablations.sweeping.costs import Probes
    from ablations.sweeping.workers import num_processors

    probes = Probes(max(1, num_processors() // jobs) if jobs > 1 else None, console.say, began)
    return lambda config: (probes.training(config), probes.evaluation(config))
