"""The loss terms, an open table: what each is called, weighs, reads and trains. Imports no torch, since the config reads it.

A term is a row here and a class in `losses.py`; config keys (`use_NAME`, `loss.NAME_weight`), help, arm names, training, tables
and forecasts follow from the row. A plug-in adds one from outside: its module calls `register`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# What a term may read of the frozen networks' features of the fine picture; they are cached for the terms that are on, and no others.
PICTURE_FEATURES = ("latents", "image_vectors")
# What a term may train: E_T's states or its pooled joint feature, the domain adapter, the feature extraction.
TRAINED_PARTS = ("text_encoder.states", "text_encoder.pooled", "adapter", "afe")


@dataclass(frozen=True)
class Term:
    """A loss term.

    `name` is a word of lower-case letters, digits and underscores: the term is switched by `use_NAME`, weighed by `loss.NAME_weight` and
    logged as l_NAME. `loss` is its class, or "module:Class" to import it only when it is used: an `nn.Module` with
    `of(step) -> scalar`, see `training_step.Step`; made by `Class.build(settings, backbones)` where there is such a method, else by
    `Class()`. `title` names it in tables, `label` in a row that has it beside the others. `on` and `weight` are the defaults;
    `tiny_weight` is the weight in profile=tiny where it is another. `reads` is out of `PICTURE_FEATURES`, `trains` out of
    `TRAINED_PARTS`. `switches` are further config switches, as in "afe" for use_afe, that act through this term alone.
    `in_every_digest`: its keys are part of every arm's digest, on or off; true of the terms that the first results were made with.
    `plugin` is the module that registered it.
    """

    name: str
    title: str
    loss: type | str
    help: str
    weight_help: str = ""
    label: str = ""
    on: bool = False
    weight: float = 1.0
    tiny_weight: float | None = None
    reads: tuple[str, ...] = ()
    trains: tuple[str, ...] = ("text_encoder.states",)
    switches: tuple[str, ...] = ()
    in_every_digest: bool = False
    plugin: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not (self.name.isidentifier() and self.name == self.name.lower()):
            raise ValueError(f"loss term {self.name!r}: the name must be a lower-case word, as in entropy")
        if not self.weight > 0 or (self.tiny_weight is not None and not self.tiny_weight > 0):
            raise ValueError(f"loss term {self.name}: weights must be above 0")
        for what, given, known in (("reads", self.reads, PICTURE_FEATURES), ("trains", self.trains, TRAINED_PARTS)):
            if unknown := [part for part in given if part not in known]:
                raise ValueError(f"loss term {self.name}: {what} {unknown[0]!r}; it may be {', '.join(known)}")

    @property
    def in_words(self) -> str:
        """What a table's row calls it: as in "with the feature term"."""
        return self.label or self.title

    def loss_class(self) -> type:
        """The class of the loss. Raises ImportError or AttributeError where it is not there."""
        if not isinstance(self.loss, str):
            return self.loss
        module, _, name = self.loss.partition(":")
        return getattr(importlib.import_module(module), name)


_TERMS: dict[str, Term] = {}


def register(term: Term) -> Term:
    """Enter a term at the end of the table and return it. The same term again is harmless; another one of its name is a ValueError."""
    caller = sys._getframe(1).f_globals.get("__name__", "")
    term = replace(term, plugin="" if caller == __name__ else caller)
    if _TERMS.get(term.name, term) != term:
        raise ValueError(f"loss term {term.name}: there is another one of this name")
    switches = [switch for other in _TERMS.values() if other.name != term.name for switch in (other.name, *other.switches)]
    if taken := {term.name, *term.switches} & set(switches):
        raise ValueError(f"loss term {term.name}: use_{taken.pop()} is a switch already")
    return _TERMS.setdefault(term.name, term)


def all_terms() -> tuple[Term, ...]:
    """Every term, in the order in which they are computed, summed and named."""
    return tuple(_TERMS.values())


def term_weights(**switched: bool | float) -> dict[str, float]:
    """{name: weight} of the terms that are on: those that are by default, but for the `switched` (False, True, or the weight).

    Raises ValueError for a name that is no term's.
    """
    if unknown := [name for name in switched if name not in _TERMS]:
        raise ValueError(f"no loss term is called {unknown[0]!r}; there are {', '.join(_TERMS)}")
    weights: dict[str, float] = {}
    for term in _TERMS.values():
        switch = switched.get(term.name, term.on)
        if switch is not False:
            weights[term.name] = term.weight if switch is True else float(switch)
    return weights


def terms_on(values: Mapping[str, Any]) -> tuple[Term, ...]:
    """The terms that are on in flat config values, in order."""
    return tuple(term for term in all_terms() if values.get(f"use_{term.name}"))


register(
    Term(
        "mse",
        title="L_mse",
        loss="lightning_modules.losses:DiffusionNoiseLoss",
        help="L_mse: the frozen UNet denoises the fine image, told the coarse prompt",
        on=True,
        reads=("latents",),
        in_every_digest=True,
    )
)
register(
    Term(
        "text",
        title="L_text",
        loss="lightning_modules.losses:TextConversionLoss",
        help="L_text: the frozen T5 writes the fine prompt",
        on=True,
        weight=0.1,
        tiny_weight=1.0,
        trains=("text_encoder.states", "adapter"),
        in_every_digest=True,
    )
)
register(
    Term(
        "clip",
        title="L_clip",
        loss="lightning_modules.losses:ClipContrastiveLoss",
        help="L_clip: text features are pulled to the fine image's (reconstructed)",
        weight_help=" (not published: reconstructed)",
        on=True,
        weight=0.1,
        reads=("image_vectors",),
        trains=("text_encoder.pooled", "afe"),
        switches=("afe",),
        in_every_digest=True,
    )
)
register(
    Term(
        "feature",
        title="L_feature",
        label="the feature term",
        loss="lightning_modules.losses:FeatureMatchingLoss",
        help="feature matching (our addition): text features are pulled to the fine prompt's",
        weight_help=" (our addition)",
        trains=("text_encoder.pooled",),
        in_every_digest=True,
    )
)
