"""The names that follow from a config: digests, the arm, the training, and what kind of run it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from ablations.config.config import to_flat_dict
from ablations.config.keys import KEYS, Config
from ablations.config.parsing import UNSET, Key
from ablations.runtime.plugins import belongs_to, load_plugins
from lightning_modules import readings
from lightning_modules.terms import all_terms, terms_on


def digest(config: Config, kinds: tuple[str, ...], keys: Mapping[str, Key] = KEYS) -> str:
    """SHA-256 (hex) of the keys of these kinds and their values; equal digests mean equal values.

    The digest covers every key, default or not, rather than only those that differ from the defaults: a default that is changed later then
    gives a new digest instead of passing old results off as new ones. A key that is *added* later would also rename every old result, for
    nothing: such a key declares `as_before`, the value that means what the code did until then, and is left out at that value. The keys of
    a loss term that came later, and those of AFE that did, are left out while it is off. The code of plug-ins counts as a value.
    """
    flat = to_flat_dict(config)
    covered: dict[str, object] = {
        name: flat[name] for name, key in keys.items() if name in flat and key.option.kind in kinds and flat[name] != key.option.as_before
    }
    for term in all_terms():
        if not (term.in_every_digest or flat.get(f"use_{term.name}")):
            covered = {name: value for name, value in covered.items() if name not in (f"use_{term.name}", f"loss.{term.name}_weight")}
    if not config.use_afe:
        covered = {name: value for name, value in covered.items() if not name.startswith("afe.") or keys[name].option.as_before is UNSET}
    if plugins := plugins_behind(config, "eval" in kinds):
        covered["plugins"] = plugins
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


def arm_name(config: Config) -> str:
    """The arm's folder name, as in `tiny-len6-mse-text-clip-afe-1a2b3c4d`: a slug and 8 digits of the digest of all train and eval keys."""
    return "-".join([*_words(config), digest(config, ("train", "eval"))[:8]])


def tags_of(config: Config) -> tuple[str, ...]:
    """The arm in words by which runs can be filtered, as in ("tiny", "len6", "mse", "clip", "afe", "reading:experts", "data:tiny")."""
    own = [f"reading:{config.afe.reading}"] if config.use_afe else []
    source = config.data.source.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return tuple(tag[:64] for tag in dict.fromkeys([*_words(config), *own, f"data:{source}"]))


def _words(config: Config) -> list[str]:
    e = config.eval
    words = [config.profile, f"len{config.prompt_len}"]
    words += ["rewrite"] if e.mode == "rewrite" else ["append"] if e.extend_by == "append" else []
    words += [f"rounds{e.rounds}"] if e.rounds > 1 else []
    return [*words, *_terms(config)]


def train_id(config: Config) -> str:
    """The name of the training, as in `tiny-mse-text-clip-afe-1a2b3c4d5e6f`: arms that differ only in eval keys share it."""
    return "-".join([config.profile, *_terms(config), digest(config, ("train",))[:12]])


def _terms(config: Config) -> list[str]:
    """The terms that are on, each followed by the switches that act through it."""
    switches = [name for term in all_terms() for name in (term.name, *term.switches)]
    # A config that was made before a plug-in was imported lacks its switches.
    return [name for name in switches if getattr(config, f"use_{name}", False)]


def plugins_behind(config: Config, evaluated: bool) -> dict[str, str]:
    """{plug-in: digest of its code}: all of the config's where what is `evaluated` counts, else those that the training depends on.

    A training depends on the plug-ins whose loss terms and AFE reading are on.
    """
    loaded = load_plugins(config.plugins)
    if evaluated:
        return loaded
    modules = [term.plugin for term in terms_on(to_flat_dict(config))]
    modules += [readings.plugin_of(config.afe.reading)] if config.use_afe else []
    return {name: digest for name, digest in loaded.items() if any(belongs_to(module, name) for module in modules)}


def is_rehearsal(config: Config) -> bool:
    return config.profile == "paper" and config.backbones.init == "random"
