"""Reads a W&B sweep file for running it here: what is swept, over which values, by which method. Imports no heavy library.

The files are W&B's own format, so that `wandb sweep FILE` takes them unchanged. What W&B would only find out while running (a key that
`ablations.run` does not have, a value of the wrong type, a nested block) is refused here before anything runs.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ablations.config import KEYS
from ablations.config.parsing import Key, Scalar, convert, read_command_line, require_known, show
from ablations.results.logged import TRAIN, VALIDATION
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import is_file, is_folder, shown
from ablations.runtime.plugins import load_plugins
from ablations.runtime.yaml_files import readable_yaml

METHODS = ("grid", "random", "bayes")
RANGES = ("int_uniform", "uniform", "q_uniform", "log_uniform", "log_uniform_values", "q_log_uniform_values")
_LISTS = ("constant", "categorical", "categorical_w_probabilities")
_KNOWN_TO_WANDB = (
    *("program", "name", "description", "project", "entity", "method", "metric", "parameters", "command", "run_cap"),
    *("early_terminate", "controller", "settings", "job", "image_uri", "scheduler", "imports"),
)
# What W&B's server does with runs, and nothing here does: named in a warning.
_WITHOUT_EFFECT_HERE = ("early_terminate", "controller", "job", "image_uri", "scheduler")
_PARAMETER_FIELDS = ("value", "values", "probabilities", "distribution", "min", "max", "q")
# More cells than these nobody runs, and no memory holds.
MOST_CELLS = 100_000
_ARGUMENTS = ("${args_no_hyphens}", "${args}")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both possible; `step` is the grid of q_ distributions and of integers, None for real numbers.

    `log`: the logarithm is uniform.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False


@dataclass(frozen=True)
class Parameter:
    """A swept key: a list of typed values, with `probabilities` where they differ, or a range."""

    name: str
    values: tuple[Scalar, ...] = ()
    probabilities: tuple[float, ...] | None = None
    range: Range | None = None


@dataclass(frozen=True)
class SweepFile:
    """A sweep as its file and the command line describe it.

    `fixed` are the typed keys that every cell has: run keys and others from the command line, and what the file's command itself
    passes. `goal` is "minimize" or "maximize"; `metric` is a name as in W&B's summary, such as refined/fidelity, or None.
    """

    path: Path
    name: str
    method: str
    parameters: tuple[Parameter, ...]
    fixed: Mapping[str, Scalar]
    metric: str | None = None
    goal: str = "minimize"
    run_cap: int | None = None
    without_effect: tuple[str, ...] = ()


def read_sweep_file(path: str | os.PathLike[str], arguments: list[str] | tuple[str, ...] = ()) -> SweepFile:
    """The sweep of a file, with `key=value` arguments that replace or add to it; `seed=0,1,2` sweeps over a list.

    A file of ours, such as sweeps/losses.yaml, is found from any folder. Raises UserError in one line for a file that is not there or no
    YAML, for whatever W&B or `ablations.run` would not understand, and for impossible values.
    """
    path = _found(Path(path))
    content = _load(path)
    load_plugins(_plugins_of(content, arguments))
    unknown = [name for name in content if name not in _KNOWN_TO_WANDB]
    if unknown:
        raise UserError(f"{path}: unknown key {unknown[0]!r}; a sweep file may have {', '.join(_KNOWN_TO_WANDB[:10])}")
    method = content.get("method")
    if method not in METHODS:
        raise UserError(f"{path}: method must be one of {', '.join(METHODS)}, not {show(method)}")
    blocks = content.get("parameters")
    if not isinstance(blocks, dict) or not blocks:
        raise UserError(f"{path}: parameters must be a block of keys, each with value, values or a range")
    parameters = {str(name): _parameter(str(name), block, method, path) for name, block in blocks.items()}
    fixed = _fixed_by_command(content, path)
    doubled = next((name for name in fixed if name in parameters), None)
    if doubled:
        raise UserError(f"{path}: {doubled} stands in command and in parameters: leave one of them out")
    for name, text in read_command_line(arguments, KEYS).items():
        fixed.pop(name, None)
        parameters[name] = Parameter(name, _listed(KEYS[name], text))
    fixed |= {name: parameter.values[0] for name, parameter in parameters.items() if len(parameter.values) == 1}
    parameters = {name: parameter for name, parameter in parameters.items() if name not in fixed}
    if fixed.get("force"):
        raise UserError("force=true would run finished cells again at every start of the sweep: delete their folders instead")
    metric, goal = _metric(content.get("metric"), method, path)
    _require_early_terminate(content.get("early_terminate"), metric, path)
    run_cap = content.get("run_cap")
    if run_cap is not None and (not isinstance(run_cap, int) or isinstance(run_cap, bool) or run_cap < 1):
        raise UserError(f"{path}: run_cap must be an integer of at least 1, not {show(run_cap)}")
    for key, field in (("wandb.project", "project"), ("wandb.entity", "entity")):
        if content.get(field) is not None and key not in parameters:
            fixed.setdefault(key, convert(KEYS[key], content[field], f" ({field} in {path})"))
    return SweepFile(
        path=path,
        name=path.stem,
        method=method,
        parameters=tuple(parameters.values()),
        fixed=fixed,
        metric=metric,
        goal=goal,
        run_cap=run_cap,
        without_effect=tuple(name for name in _WITHOUT_EFFECT_HERE if name in content),
    )


def _plugins_of(content: Mapping[Any, Any], arguments: list[str] | tuple[str, ...]) -> object:
    """What the arguments, the file's command or its parameters name as plug-ins; they may bring keys that the file sweeps."""
    command = content.get("command") if isinstance(content.get("command"), list) else []
    words = [str(word) for word in (*command, *arguments) if str(word).startswith("plugins=")]
    if words:
        return words[-1].partition("=")[2]
    parameters = content.get("parameters")
    block = parameters.get("plugins") if isinstance(parameters, dict) else None
    return block.get("value") if isinstance(block, dict) else None


class _Loader(yaml.SafeLoader):
    """YAML as W&B reads it, except that a key given twice is an error and not a silent loss of the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key_node.value} is given twice", key_node.start_mark)
            seen.add(key_node.value if isinstance(key_node, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


def shipped_sweeps() -> list[Path]:
    """The sweep files that come with the suite: within this package in a wheel, beside the packages in a checkout."""
    installed, checkout = Path(__file__).parent / "files", Path(__file__).parents[2]
    if is_file(checkout / "pyproject.toml"):
        installed = checkout / "sweeps"
    return sorted(installed.glob("*.yaml"))


def _found(path: Path) -> Path:
    """The file itself or, where there is none, the one of ours that is called so, alone or as sweeps/NAME."""
    if is_file(path) or path.parent not in (Path(), Path("sweeps")):
        return path
    return next((ours for ours in shipped_sweeps() if ours.name == path.name), path)


def _load(path: Path) -> dict[Any, Any]:
    if not is_file(path):
        listed = _listing(path) or ", ".join(ours.name for ours in shipped_sweeps())
        raise UserError(f"there is no sweep file {shown(path)!r}" + (f"; there are {listed}" if listed else ""))
    with readable_yaml(path):
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a W&B sweep file with method and parameters")
    return content


def _listing(path: Path) -> str:
    return ", ".join(str(other) for other in sorted(path.parent.glob("*.yaml"))) if is_folder(path.parent) else ""


def _parameter(name: str, block: object, method: str, path: Path) -> Parameter:
    where = f" in {path}"
    if isinstance(block, dict) and "parameters" in block:
        keys = block["parameters"] if isinstance(block["parameters"], dict) else {}
        dotted = f"{name}.{next(iter(keys), 'key')}"
        raise UserError(f"{path}: {name} nests parameters; write them flat, as in {dotted}: W&B hands nested ones over as a dict")
    require_known(name, KEYS, where)
    key = KEYS[name]
    if name in ("config", "force"):
        raise UserError(f"{path}: {name} cannot be swept; give it on the command line")
    if not isinstance(block, dict) or not block:
        raise UserError(f"{path}: {name} must have value, values or min and max, as in {name}: {{values: [...]}}")
    distribution = block.get("distribution")
    if distribution is not None and distribution not in (*_LISTS, *RANGES):
        raise UserError(f"{path}: {name}: distribution {distribution!r} is not known here; it may be {', '.join((*_LISTS, *RANGES))}")
    unknown = [field for field in block if field not in _PARAMETER_FIELDS]
    if unknown:
        raise UserError(f"{path}: {name}: unknown field {unknown[0]!r}; here it may have {', '.join(_PARAMETER_FIELDS)}")
    given = [field for field in ("value", "values", "min") if field in block]
    if len(given) != 1:
        raise UserError(f"{path}: {name} must have one of value, values, and min with max")
    is_range = given == ["min"]
    if distribution is not None and is_range != (distribution in RANGES):
        raise UserError(f"{path}: {name}: distribution {distribution} goes with {'min and max' if not is_range else 'value or values'}")
    if is_range:
        return _ranged(key, block, method, path)
    values = block["values"] if given == ["values"] else [block["value"]]
    if not isinstance(values, list) or not values:
        raise UserError(f"{path}: {name}: values must be a list, as in [0, 1, 2]")
    typed = tuple(convert(key, value, where) for value in values)
    if len(set(typed)) < len(typed):
        raise UserError(f"{path}: {name} has a value twice: {', '.join(show(value) for value in typed)}")
    return Parameter(name, typed, _probabilities(block.get("probabilities"), typed, method, name, path))


def _probabilities(raw: object, values: tuple[Scalar, ...], method: str, name: str, path: Path) -> tuple[float, ...] | None:
    if raw is None:
        return None
    if method != "random":
        raise UserError(f"{path}: {name}: probabilities go with method random, not {method}")
    numbers = [float(p) for p in raw if isinstance(p, int | float) and p >= 0] if isinstance(raw, list) else []
    if len(numbers) != len(values) or not math.isclose(sum(numbers), 1.0, abs_tol=1e-6):
        raise UserError(f"{path}: {name}: probabilities must be {len(values)} numbers of at least 0 that add up to 1")
    return tuple(numbers)


def _ranged(key: Key, block: Mapping[str, Any], method: str, path: Path) -> Parameter:
    where = f"{path}: {key.name}"
    if key.type not in (int, float):
        raise UserError(f"{where} must be {key.allowed()}: it has no range; list its values")
    if "max" not in block:
        raise UserError(f"{where} has min but no max")
    distribution = block.get("distribution") or ("int_uniform" if all(isinstance(block[end], int) for end in ("min", "max")) else "uniform")
    step = block.get("q", 1) if distribution.startswith("q_") else 1 if distribution == "int_uniform" else None
    is_step = isinstance(step, int | float) and not isinstance(step, bool) and 0 < step < math.inf
    if step is not None and not is_step:
        raise UserError(f"{where}: q must be a number above 0, not {show(step)}")
    if key.type is int and (step is None or step != int(step)):
        raise UserError(f"{where} must be {key.allowed()}: take distribution int_uniform, or a q_ distribution with an integer q")
    ends = []
    for end in ("min", "max"):
        raw = block[end]
        if distribution == "log_uniform":  # W&B's meaning: min and max are exponents of e
            if isinstance(raw, bool) or not isinstance(raw, int | float) or abs(raw) > 700:
                raise UserError(f"{where}: {end} of log_uniform is an exponent of e, not {show(raw)}")
            raw = math.exp(raw)
        value = convert(key, raw, f" ({end} in {path})")
        assert isinstance(value, int | float)
        ends.append(float(value))
    low, high = ends
    log = "log_" in distribution
    if high <= low:
        raise UserError(f"{where}: max must be above min")
    if log and low <= 0:
        raise UserError(f"{where}: min of {distribution} must be above 0")
    if method == "grid":
        if step is None:
            raise UserError(f"{where}: method grid needs values: a range of real numbers has no end")
        count = math.floor((high - low) / step + 1e-9) + 1
        if count > MOST_CELLS:
            raise UserError(f"{where}: {count:,} values are more than a grid of at most {MOST_CELLS:,} cells has room for")
        return Parameter(key.name, tuple(convert(key, low + i * step) for i in range(count)))
    return Parameter(key.name, range=Range(low, high, step, log))


def _listed(key: Key, text: str) -> tuple[Scalar, ...]:
    """The value or, separated by commas, the values of a command-line argument. Plain text may have commas of its own."""
    parts = text.split(",") if key.type is not str or key.option.choices else [text]
    values = tuple(convert(key, part) for part in parts)
    if len(set(values)) < len(values):
        raise UserError(f"{key.name} has a value twice: {text}")
    return values


def _fixed_by_command(content: Mapping[str, Any], path: Path) -> dict[str, Scalar]:
    """The keys that the file's command itself passes, as in `- profile=paper`. Raises UserError where it would not run a cell."""
    program = str(content.get("program", ""))
    command = content.get("command")
    example = "command: [${env}, ${interpreter}, -m, ablations.run, ${args_no_hyphens}]"
    if command is None:
        if program.endswith("ablations/run.py"):
            return {}
        raise UserError(f"{path}: add what runs a cell: {example}")
    if not isinstance(command, list) or not command or not all(isinstance(part, str) for part in command):
        raise UserError(f"{path}: command must be a list of words, as in {example}")
    starts = [i for i, part in enumerate(command) if part in ("ablations.run", program) or part.endswith("ablations/run.py")]
    starts += [i for i, part in enumerate(command) if part == "${program}" and program.endswith("ablations/run.py")]
    if not starts:
        raise UserError(f"{path}: command does not run ablations.run; write {example}")
    rest = command[starts[0] + 1 :]
    if not any(part in _ARGUMENTS for part in rest):
        raise UserError(f"{path}: command does not hand the parameters over; end it with ${{args_no_hyphens}}")
    macro = next((part for part in rest if part.startswith("${") and part not in _ARGUMENTS), None)
    if macro:
        raise UserError(f"{path}: command has {macro}, which ablations.run does not read; use ${{args_no_hyphens}}")
    texts = read_command_line([part for part in rest if part not in _ARGUMENTS], KEYS)
    return {name: convert(KEYS[name], text, f" (command in {path})") for name, text in texts.items()}


def _metric(block: object, method: str, path: Path) -> tuple[str | None, str]:
    if block is None:
        if method == "bayes":
            raise UserError(f"{path}: method bayes needs a metric, as in metric: {{name: refined/fidelity, goal: maximize}}")
        return None, "minimize"
    if not isinstance(block, dict) or not isinstance(block.get("name"), str) or set(block) - {"name", "goal", "target"}:
        raise UserError(f"{path}: metric must have name and goal, as in metric: {{name: refined/fidelity, goal: maximize}}")
    goal = block.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        raise UserError(f"{path}: goal of the metric must be minimize or maximize, not {show(goal)}")
    return block["name"], goal


def _require_early_terminate(block: object, metric: str | None, path: Path) -> None:
    """Raises UserError where W&B's server could stop nothing by it: it looks at what a training logs at its steps."""
    if block is None:
        return
    example = "early_terminate: {type: hyperband, min_iter: 3}"
    fields = ("type", "min_iter", "max_iter", "s", "eta", "strict")
    if not isinstance(block, dict) or block.get("type") != "hyperband" or set(block) - set(fields):
        raise UserError(f"{path}: early_terminate must be of type hyperband, with {', '.join(fields[1:])}, as in {example}")
    whole = {name: block[name] for name in fields[1:-1] if name in block}
    wrong = next((name for name, raw in whole.items() if isinstance(raw, bool) or not isinstance(raw, int) or raw < 1), None)
    if wrong:
        raise UserError(f"{path}: {wrong} of early_terminate must be an integer of at least 1, not {show(whole[wrong])}")
    if ("min_iter" in whole) == ("max_iter" in whole) or ("max_iter" in whole and "s" not in whole):
        raise UserError(f"{path}: early_terminate must have either min_iter, or max_iter with s, as in {example}")
    if metric is None or not metric.startswith((TRAIN, VALIDATION)):
        raise UserError(
            f"{path}: early_terminate needs a metric that a training logs at its steps, as val/loss, not {metric or 'none'}: nothing else "
            "is known before a cell is done"
        )


def digest_of(sweep: SweepFile, *further: object) -> str:
    """8 hex digits of what decides which cells a sweep has, and in which order; paths, workers and logging do not."""
    fixed = {name: value for name, value in sweep.fixed.items() if KEYS[name].option.kind != "run" or name == "ablation"}
    content = [sweep.method, [asdict(parameter) for parameter in sweep.parameters], fixed, sweep.metric, sweep.goal, *further]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
