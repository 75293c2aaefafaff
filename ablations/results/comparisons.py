"""Which comparisons there are, which arms stand in each, and what each reads: a cell draws the union of what is read of it, and no more.

A comparison is a kind of table. It reads some conditions, each with so many candidates: one candidate of a prompt for quality, all of
them for diversity, as pictures of the first `eval.num_prompts` prompts or as texts of all held-out ones (`eval.text_prompts`). What is
read follows from an arm's settings, so no key has to be set for it that would set arms apart. Imports no heavy library.

    losses          arms with other loss terms (AFE goes with L_clip), the placebo, lengths: refined and plug-in pictures, rewritten texts
    afe             the arm with AFE, without it, its twins and the placebo: those, and the candidates at one image noise
    prompt_length   the full arm at every length: refined pictures, their ceiling `fine_prefix`, and the texts that may end earlier
    conditions      the full arm alone: every condition, controls and positive controls among them

An arm of none of these is read by all of them. The first `eval.grid_prompts` prompts keep all refined candidates in every arm, for the
diversity grid; every arm has the coarse prompt's picture and the fine prompt's text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ablations.config import Config, EvalConfig, to_flat_dict
from ablations.config.parsing import Scalar
from ablations.config.presets import FULL_LENGTH, PLACEBO_FACTOR
from ablations.results.conditions import COARSE, FINE, PLUG_IN, REFINED, REWRITE, SHARED_NOISE, all_conditions
from lightning_modules.terms import all_terms

Settings = Mapping[str, Scalar]
# Every candidate that there is: eval.num_candidates bounds it.
ALL = 10**6


@dataclass(frozen=True)
class Reads:
    """How many candidates of a condition are read: `pictures` of the prompts with pictures, `in_grid` of those in the diversity grid,
    `texts` of all held-out prompts."""

    pictures: int = 0
    texts: int = 0
    in_grid: int = 0

    def __or__(self, other: Reads) -> Reads:
        """What both read together."""
        return Reads(max(self.pictures, other.pictures), max(self.texts, other.texts), max(self.in_grid, other.in_grid))

    def at_most(self, count: int) -> Reads:
        """The same of `count` candidates."""
        return Reads(min(self.pictures, count), min(self.texts, count), min(max(self.in_grid, self.pictures), count))

    def pictures_of(self, in_grid: bool) -> int:
        """How many candidates of a prompt with pictures are drawn."""
        return self.in_grid if in_grid else self.pictures


QUALITY, DIVERSITY = Reads(pictures=1), Reads(pictures=ALL)


@dataclass(frozen=True)
class Comparison:
    """A kind of table: `has(settings)` says whether an arm with these train and eval keys stands in it, `reads` what of it is read."""

    id: str
    has: Callable[[Settings], bool] = field(repr=False)
    reads: Mapping[str, Reads]


def has_papers_terms(settings: Settings) -> bool:
    """Whether the loss terms of the paper are on and no others."""
    return all(bool(settings.get(f"use_{term.name}")) == term.on for term in all_terms())


def has_learned_afe(settings: Settings) -> bool:
    """Whether AFE is on, and neither of its twins."""
    return bool(settings["use_afe"]) and settings.get("afe.weights", "learned") == "learned"


def base_clip_weight(settings: Settings) -> Scalar:
    """The weight of L_clip; of a placebo, whose weight is PLACEBO_FACTOR times another one, that other one."""
    weight = settings["loss.clip_weight"]
    if not isinstance(weight, float):
        return weight
    base = float(f"{weight / PLACEBO_FACTOR:.6g}")
    # 0.10001 is 0.1 changed in the fifth digit; 0.3 is not 0.29997 changed.
    return base if len(repr(base)) < len(repr(weight)) and abs(base * PLACEBO_FACTOR - weight) < 1e-12 else weight


def is_placebo(settings: Settings) -> bool:
    """Whether an arm differs from another one by nothing that could matter."""
    return bool(settings["use_clip"]) and base_clip_weight(settings) != settings["loss.clip_weight"]


def _has_papers_length(settings: Settings) -> bool:
    return settings["prompt_len"] == FULL_LENGTH or settings["eval.mode"] == "rewrite"


def _is_full_of_some_length(settings: Settings) -> bool:
    return has_papers_terms(settings) and has_learned_afe(settings) and not is_placebo(settings)


def is_reference(settings: Settings) -> bool:
    """Whether this is a full arm, with which others are compared: whatever its weights, reading and data."""
    return _is_full_of_some_length(settings) and _has_papers_length(settings)


_IN_TEXT = Reads(texts=1)
LOSSES = Comparison(
    "losses",
    # In the paper's table L_clip stands for L_clip with its AFE module.
    has=lambda settings: settings["use_afe"] == settings["use_clip"] and settings.get("afe.weights", "learned") == "learned",
    reads={REFINED: QUALITY | _IN_TEXT, PLUG_IN: QUALITY, REWRITE: _IN_TEXT},
)
AFE = Comparison(
    "afe",
    has=lambda settings: (
        bool(settings["use_clip"]) and has_papers_terms(settings) and (_has_papers_length(settings) or not has_learned_afe(settings))
    ),
    reads={REFINED: QUALITY | Reads(texts=ALL), SHARED_NOISE: DIVERSITY, PLUG_IN: QUALITY, REWRITE: _IN_TEXT},
)
PROMPT_LENGTH = Comparison(
    "prompt_length",
    has=lambda settings: settings["eval.mode"] == "extend" and _is_full_of_some_length(settings),
    reads={REFINED: QUALITY | _IN_TEXT, "fine_prefix": QUALITY | _IN_TEXT, "refined_may_stop": _IN_TEXT},
)
CONDITIONS = Comparison(
    "conditions",
    has=is_reference,
    reads={
        **{COARSE: DIVERSITY, REFINED: DIVERSITY | Reads(texts=ALL), SHARED_NOISE: DIVERSITY, "fitting_styles": DIVERSITY},
        **{FINE: QUALITY, PLUG_IN: QUALITY, REWRITE: QUALITY | _IN_TEXT, "fine_prefix": QUALITY | _IN_TEXT},
        **{name: QUALITY for name in ("control_step0", "control_t5_direct", "control_shuffled", "control_known_words")},
    },
)
COMPARISONS = (LOSSES, AFE, PROMPT_LENGTH, CONDITIONS)
# Drawn once for all arms of a seed, and what grids, pages and comparisons with the coarse prompt start from.
_EVERY_ARM = {COARSE: QUALITY, FINE: _IN_TEXT, REFINED: QUALITY | Reads(in_grid=ALL)}


def stands_in(settings: Settings) -> tuple[Comparison, ...]:
    """The comparisons that an arm stands in; one that fits none is read by all."""
    return tuple(comparison for comparison in COMPARISONS if comparison.has(settings)) or COMPARISONS


def what_is_read(config: Config) -> dict[str, Reads]:
    """What is read of a cell, and so drawn, by condition, in the order in which they are drawn.

    A condition that no comparison names, such as a plug-in's, is drawn with all candidates, and so is one that was asked for by its own
    key (`eval.controls=true`), and every one with `eval.draw=all`.
    """
    read: dict[str, Reads] = dict(_EVERY_ARM)
    for comparison in stands_in(to_flat_dict(config)):
        for name, reads in comparison.reads.items():
            read[name] = read.get(name, Reads()) | reads
    named = {*_EVERY_ARM, *(name for comparison in COMPARISONS for name in comparison.reads)}
    resolved = _resolved(config, read)
    found = {}
    for condition in (condition for condition in all_conditions().values() if condition.when(resolved)):
        reads = read.get(condition.name, Reads())
        asked_for = bool(condition.key) and getattr(config.eval, condition.key) is True
        if config.eval.draw == "all" or asked_for or condition.name not in named:
            reads |= DIVERSITY
        if reads != Reads():
            found[condition.name] = reads.at_most(config.eval.num_candidates)
    return found


def _resolved(config: Config, read: Mapping[str, Reads]) -> EvalConfig:
    """The eval keys with the three switches of conditions as they come out in this arm: null follows what is read."""
    switched = [condition for condition in all_conditions().values() if condition.key and getattr(config.eval, condition.key) is None]
    wanted = dict.fromkeys((condition.key for condition in switched), config.eval.draw == "all")
    wanted |= {condition.key: True for condition in switched if condition.name in read}
    return dataclasses.replace(config.eval, **wanted)
