"""What is compared: the arm's seeds with their trained checkpoints, and the methods. Imports no heavy library."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.baselines.base import AnswerStore
from ablations.baselines.chat_settings import ChatSettings
from ablations.baselines.register import REFERENCE, all_methods
from ablations.config import Config, parse
from ablations.results.checkpoints import FINAL, asked_for
from ablations.results.run_folder import RunFolder, cache_folder, read_run
from ablations.results.trained_run import find_trained_run
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import is_file, is_folder, is_there, within

DEFAULT_SEEDS = (0, 1, 2)
# Before the name of a chat model among the methods.
CHAT = "chat:"
# On the tiny profile: three seeds of all embedded methods then take some minutes on two cores.
TINY_PROMPTS = 24


@dataclass(frozen=True)
class Comparison:
    """What is to be done. `configs` by seed are the arm's, all alike but for the seed; `sources` say where hub models come from.

    `metrics` and `missing_metrics` take the place of the arm's own eval.metrics and eval.missing_metrics; None leaves them.
    """

    arm: str
    configs: dict[int, Config]
    methods: tuple[str, ...]
    num_prompts: int
    num_candidates: int
    num_modifiers: int | None
    figure_prompts: int
    sources: dict[str, str]
    chat: ChatSettings
    to: Path
    metrics: str | None = None
    missing_metrics: str | None = None

    @property
    def config(self) -> Config:
        return next(iter(self.configs.values()))

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.configs)

    @property
    def scoring_config(self) -> Config:
        """The arm's config with the metrics that were asked for here, if any were."""
        changes = {name: value for name in ("metrics", "missing_metrics") if (value := getattr(self, name)) is not None}
        return dataclasses.replace(self.config, eval=dataclasses.replace(self.config.eval, **changes))

    def checkpoint(self, seed: int) -> Path:
        config = self.configs[seed]
        return asked_for(RunFolder(config).checkpoints, config.eval.checkpoint)

    def untrained(self) -> list[int]:
        return [seed for seed in self.seeds if not is_file(RunFolder(self.configs[seed]).checkpoints / FINAL)]


def configs_of(arm: Path | None, keys: Sequence[str], seeds: Sequence[int] | None) -> tuple[str, dict[int, Config]]:
    """The arm's name and its configs by seed: of a folder OUTPUT_DIR/ARM, or as `key=value` arguments of ablations.run say.

    `seeds` None: those of the folder whose training is finished; without a folder DEFAULT_SEEDS. Raises UserError for a folder that is
    no arm or has no trained seed.
    """
    if arm is None:
        config = parse(list(keys))
        if any(key.startswith("seed=") for key in keys) and seeds is None:
            seeds = (config.seed,)
        configs = {seed: dataclasses.replace(config, seed=seed) for seed in seeds or DEFAULT_SEEDS}
        return RunFolder(config).arm, configs
    if keys:
        raise UserError(f"give an arm's folder ({arm}) or key=value ({keys[0]}), not both: the folder says how the arm was trained")
    if is_there(arm / "run.json"):
        raise UserError(f"{arm} is one run: give the arm's folder above it, {arm.resolve().parent}")
    found: dict[int, Config] = {}
    problems = []
    for folder in within(arm, "seed-*"):
        if read_run(folder) is None:
            continue
        try:
            run = find_trained_run(folder)
        except UserError as error:
            problems.append(str(error))
            continue
        found[run.config.seed] = dataclasses.replace(run.config, output_dir=str(folder.resolve().parent.parent), force=False)
    if not found:
        why = f"; {problems[0]}" if problems else ": give OUTPUT_DIR/ARM of finished runs, or nothing to use or train the default arm"
        raise UserError(f"{arm} holds no trained seed{why}")
    found = dict(sorted(found.items()))
    some = next(iter(found.values()))
    return arm.resolve().name, {s: found.get(s, dataclasses.replace(some, seed=s)) for s in (seeds or found)}


def require_training_allowed(comparison: Comparison) -> None:
    """Raises UserError where seeds are not trained and training them is no matter of minutes."""
    missing = comparison.untrained()
    if missing and comparison.config.profile != "tiny":
        raise UserError(
            f"seed {', '.join(map(str, missing))} of {comparison.arm} is not trained: train it with python -m ablations.run "
            f"seed={missing[0]} and the arm's keys, or leave it out of --seeds"
        )


def sources_of(methods: Sequence[str], folder: Path | None, given: Sequence[str]) -> dict[str, str]:
    """Where each hub model comes from: as `--model NAME=SOURCE` says, else FOLDER/NAME where there is one, else the hub.

    Raises UserError for a name that is no hub model and a folder that is not there.
    """
    if folder is not None and not is_folder(folder):
        raise UserError(f"--models: there is no folder {str(folder)!r}")
    sources = {name: method.source for name, method in all_methods().items() if method.source or method.takes_model}
    models = tuple(sources)
    sources |= {name: str(folder / name) for name in models if folder is not None and is_folder(folder / name)}
    for item in given:
        name, equals, source = item.partition("=")
        if name not in models or not equals or not source:
            raise UserError(f"--model {item!r}: write NAME=FOLDER or NAME=HUB_ID with NAME one of {', '.join(models)}")
        if name not in methods:
            raise UserError(f"--model {name} has no effect: add {name} to --methods")
        sources[name] = source
    return sources


def methods_of(text: str | None, chat: ChatSettings) -> tuple[str, ...]:
    """The methods that a comma-separated list names, in the table's order, chat models before our refiner; the reference is always in."""
    known = all_methods()
    embedded = [name for name, method in known.items() if not method.needs_download]
    names = embedded if text is None else [part.strip() for part in text.split(",") if part.strip()]
    if "all" in names:
        names = [*(name for name, method in known.items() if method.in_all), *(name for name in names if name != "all")]
    for name in names:
        if name not in known:
            raise UserError(f"--methods: unknown method {name!r}; known: {', '.join(known)}, all (chat models are named with --chat)")
    ordered = [name for name in known if name in {*names, REFERENCE}]
    at = ordered.index(REFERENCE)
    return (*ordered[:at], *(f"{CHAT}{model.name}" for model in chat.models), *ordered[at:])


def answer_store(comparison: Comparison, kind: str) -> AnswerStore:
    """Where answers are kept: with the pictures and scores; nowhere with eval.reuse=false."""
    config = comparison.config
    root = cache_folder(config)
    # A chat model's answers cost money and cannot be had again: they are kept in any case.
    return AnswerStore(root / "answers" / kind if config.eval.reuse or kind == "chat" else None)
