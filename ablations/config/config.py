"""The config of a cell: every key, what it may be, and the names that follow from it.

A key is declared once, in `config.keys`, with its default, kind, help, profile values and constraint; validation, `--help` and the
digests are generated from that. Layers, later ones win: defaults < profile < YAML (`config=FILE`) < command line `key=value`. Imports
no heavy library, so that a mistake is reported at once.
"""

import functools
import math
import operator
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from ablations.config.keys import KEYS, Config, config_class
from ablations.config.parsing import (
    UNSET,
    Scalar,
    convert,
    load_yaml,
    read_command_line,
    read_yaml,
    require_known,
    show,
    warn_of_no_effect,
)
from ablations.config.presets import REHEARSAL, named_ablations
from ablations.config.wandb_names import check_name
from ablations.runtime.errors import UserError
from ablations.runtime.plugins import load_plugins
from lightning_modules.terms import all_terms


def parse(argv: list[str]) -> Config:
    """The config that the arguments `key=value` ask for, checked and with `use_afe` resolved to a bool.

    Raises UserError, in one line, for an unknown or repeated key, a wrong type, an impossible value or combination, and a file that is
    not there. Logs a warning for each key that was set but has no effect; of a training it makes no other one. Plug-ins are imported
    first: they may add keys.
    """
    return config_maker(argv)({})


def config_maker(argv: Sequence[str]) -> Callable[[Mapping[str, Any]], Config]:
    """Makes configs of `argv` and of further keys, which count as if they stood there, too, and win: files and words are read once.

    What it raises and logs, now or for a config, is what `parse` does.
    """
    load_plugins(plugins_asked_for(argv))
    typed = {name: convert(KEYS[name], text) for name, text in read_command_line(argv, KEYS).items()}
    file = typed.get("config")
    from_file: dict[str, Scalar] = {}
    if file is not None:
        from_file = {name: convert(KEYS[name], raw, f" in {file}") for name, raw in read_yaml(str(file), KEYS).items()}
        if "config" in from_file:
            raise UserError(f"config: {file} names another config file; give one file, on the command line")

    def make(further: Mapping[str, Any]) -> Config:
        for name in further:
            require_known(name, KEYS)
        given = from_file | typed | {name: convert(KEYS[name], raw) for name, raw in further.items()}
        _check_named_ablation(given)
        config = _build(given)
        _check_paths(config)
        _check_metrics(config)
        for name in ("project", "entity", "group", "name"):
            check_name(f"wandb.{name}", getattr(config.wandb, name))
        idle = warn_of_no_effect(given, to_flat_dict(config), KEYS)
        idle = [name for name in idle if KEYS[name].option.kind == "train"]
        return _build({name: value for name, value in given.items() if name not in idle}) if idle else config

    return make


def from_flat_dict(flat: Mapping[str, Any]) -> Config:
    """The config of a flat dict such as run.json holds; keys that it lacks take their value in its profile.

    Checks keys, types and combinations as `parse` does, but not that files exist: results are also read on other machines. A key that
    was added after the dict was written takes the value that means what was done before it existed.
    """
    load_plugins(flat.get("plugins"))
    for name in flat:
        require_known(name, KEYS)
    older = {name: key.option.as_before for name, key in KEYS.items() if key.option.as_before is not UNSET}
    return _build(older | {name: convert(KEYS[name], raw) for name, raw in flat.items()})


def plugins_asked_for(argv: Sequence[str]) -> Any:
    """The value of `plugins` on the command line, else in the config file that it names."""
    given = {name.removeprefix("--"): text for name, _, text in (word.partition("=") for word in argv)}
    if "plugins" in given or "config" not in given:
        return given.get("plugins")
    return load_yaml(os.path.expanduser(given["config"])).get("plugins")


def to_flat_dict(config: Config) -> dict[str, Scalar]:
    """Every key's value by dotted name, in the order of declaration: `{"prompt_len": 6, ..., "loss.mse_weight": 1.0, ...}`."""
    names, values_of = _all_values(type(config))
    return dict(zip(names, values_of(config), strict=True))


@functools.cache
def _all_values(config_class: type) -> tuple[tuple[str, ...], Callable[[Config], tuple[Scalar, ...]]]:
    """The names of a class's keys, and what gets their values out of a config: a sweep does it ten thousand times."""

    def names_in(cls: type, prefix: str) -> list[str]:
        found: list[str] = []
        for name, group in _groups(cls):
            found += names_in(group, f"{prefix}{name}.") if group else [prefix + name]
        return found

    names = tuple(names_in(config_class, ""))
    return names, operator.attrgetter(*names)


@functools.cache
def _groups(cls: type) -> tuple[tuple[str, type | None], ...]:
    """The fields of a dataclass, each with its own dataclass where it is a group of keys."""
    hints = typing.get_type_hints(cls)
    return tuple((item.name, hints[item.name] if is_dataclass(hints[item.name]) else None) for item in fields(cls))


def _made(cls: type, values: Mapping[str, Scalar], prefix: str = "") -> Any:
    """The tree of dataclasses that has these values, by dotted name."""
    return cls(**{name: _made(group, values, f"{prefix}{name}.") if group else values[prefix + name] for name, group in _groups(cls)})


def _build(given: Mapping[str, Scalar]) -> Config:
    """Defaults < profile < rehearsal < named ablation < the typed values, as a checked Config."""
    profile = str(given.get("profile", KEYS["profile"].default))
    values: dict[str, Scalar] = {name: key.profile_default(profile) for name, key in KEYS.items()}
    if profile == "paper" and given.get("backbones.init") == "random":
        values |= REHEARSAL
    values |= named_ablations().get(str(given.get("ablation")), {}) | given
    if values["eval.metrics"] is not None:
        from ablations.metrics.register import names_in

        values["eval.metrics"] = ",".join(names_in(str(values["eval.metrics"])))
    _resolve_switches(values)
    if values["data.source"] != "tiny":
        # A table has neither: their values are those of before, so that its results keep their names.
        values |= {name: KEYS[name].option.as_before for name in ("data.world", "data.caption_dropout")}
    for name, key in KEYS.items():  # what was declared as 1 is 1.0 where the key is a number of any kind
        if key.type is float and type(values[name]) is int:
            values[name] = float(values[name])
    config = _made(config_class(), values)
    _check_combinations(config)
    return config


def _resolve_switches(values: dict[str, Scalar]) -> None:
    """A switch that acts through a term alone follows it where it is null. Raises UserError where it is on and its term is off."""
    for term in all_terms():
        for switch in (f"use_{name}" for name in term.switches):
            if values[switch] and not values[f"use_{term.name}"]:
                acts = f"{switch.removeprefix('use_').upper()} acts only through {term.title}"
                raise UserError(f"{switch}=true needs use_{term.name}=true: {acts} ({switch}=null follows use_{term.name})")
            if values[switch] is None:
                values[switch] = values[f"use_{term.name}"]


def _check_named_ablation(given: Mapping[str, Scalar]) -> None:
    """Raises UserError where a key says otherwise than the ablation that was named: the name would lie."""
    name = given.get("ablation")
    for key, value in named_ablations().get(str(name), {}).items():
        if key in given and given[key] != value:
            raise UserError(f"ablation={name} means {key}={show(value)}, not {key}={show(given[key])}: leave one of the two out")


def _check_combinations(config: Config) -> None:
    """Raises UserError where values that are possible one by one are impossible together."""
    switches = [f"use_{term.name}" for term in all_terms()]
    if not any(getattr(config, switch) for switch in switches):
        raise UserError(f"nothing to train: at least one of {', '.join(switches[:-1])} and {switches[-1]} must be true")
    if config.eval.checkpoint not in ("last", "best") and not config.eval.checkpoint.isdecimal():
        raise UserError(f"eval.checkpoint={config.eval.checkpoint} is none: it may be last, best, or the number of a step")
    if config.train.max_steps is None and config.train.max_epochs is None:
        raise UserError("training would never end: train.max_steps and train.max_epochs are both null; set one of them")
    if config.profile == "tiny" and config.data.image_size != 64:
        raise UserError(f"data.image_size={config.data.image_size}, but the tiny networks draw 64 px: leave it at 64")
    if config.profile != "tiny" and config.eval.judge == "tiny":
        raise UserError("eval.judge=tiny knows the tiny world's pictures of 64 px alone: leave it at null, or set it to conditioning")
    processes = config.trainer.devices * config.trainer.num_nodes
    # Whole micro-batches are shared out first: see datamodules.sharing.
    sharing = processes // math.gcd(processes, config.train.accumulate)
    if config.train.batch_size % sharing:
        raise UserError(
            f"train.batch_size={config.train.batch_size} cannot be shared out evenly among {sharing} processes "
            f"(trainer.devices={config.trainer.devices}, trainer.num_nodes={config.trainer.num_nodes}, "
            f"train.accumulate={config.train.accumulate}): take a multiple of {sharing}"
        )
    if config.data.source == "tiny":
        needed = config.train.batch_size + (config.loss.clip_bank if config.use_clip else 0)
        if config.data.num_train < needed:
            raise UserError(f"data.num_train={config.data.num_train} is too few for train.batch_size and loss.clip_bank: {needed} or more")
        if config.data.test_source is not None:
            raise UserError("data.test_source goes with a data.source of yours: the tiny world has a test split of its own")
    elif config.loss.hard_negatives:
        raise UserError("loss.hard_negatives=true needs subject labels, which a table has not: leave it false")
    # Of a test source's own prompts the data module knows how many there are.
    has_own_test = config.data.test_source is not None or config.eval.prompts is not None
    if config.data.source != "tiny" and not has_own_test and config.eval.num_prompts > config.data.num_validation:
        raise UserError(
            f"eval.num_prompts={config.eval.num_prompts} needs as many held-out records, and data.num_validation is "
            f"{config.data.num_validation}: raise it, or lower eval.num_prompts"
        )
    if config.use_clip:
        if config.train.batch_size + config.loss.clip_bank < 2:
            raise UserError(
                f"use_clip=true needs at least two candidates, but train.batch_size={config.train.batch_size} and "
                f"loss.clip_bank={config.loss.clip_bank}; raise one of them"
            )
        if config.loss.clip_bank > 0 and not config.data.cache:
            raise UserError(f"loss.clip_bank={config.loss.clip_bank} needs data.cache=true, where it draws from; or set it to 0")


def _check_paths(config: Config) -> None:
    """Raises UserError for an input that is not there, or an output folder that cannot be one."""
    if config.data.source != "tiny" and not os.path.exists(config.data.source):
        raise UserError(f"data.source: there is no file {config.data.source!r}; give tiny, a CSV or parquet file, or a folder")
    if config.data.test_source is not None and not os.path.exists(config.data.test_source):
        raise UserError(f"data.test_source: there is no file {config.data.test_source!r}; give a CSV or parquet file, or a folder")
    if config.eval.prompts is not None and not os.path.isfile(config.eval.prompts):
        raise UserError(f"eval.prompts: there is no file {config.eval.prompts!r}; give a list of prompts, such as PartiPrompts.tsv")
    for name, folder in (("data.images", config.data.images), ("backbones.dir", config.backbones.dir)):
        if folder is not None and not os.path.isdir(folder):
            raise UserError(f"{name}: there is no folder {folder!r}")
    for name, folder in (("output_dir", config.output_dir), ("data.cache_dir", config.data.cache_dir)):
        if folder is not None and os.path.exists(folder) and not os.path.isdir(folder):
            raise UserError(f"{name}: {folder!r} is a file, not a folder")


def _check_metrics(config: Config) -> None:
    """Raises UserError for a metric that was asked for and whose weights are not there, before anything is loaded or trained."""
    if config.eval.sentence_encoder and config.eval.num_prompts and config.eval.missing_metrics == "error":
        from ablations.metrics.faithfulness import require as require_sentence_encoder

        require_sentence_encoder(config.eval.sentence_encoder)
    if config.eval.metrics and config.eval.num_prompts and config.eval.missing_metrics == "error":
        from ablations.metrics.register import require
        from ablations.metrics.weights import weights_folder

        folder = weights_folder(config.eval.metrics_dir)
        require(config.eval.metrics.split(","), "error", folder, config.data.image_size, look_inside=False)
