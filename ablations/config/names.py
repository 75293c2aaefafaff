"""The names that follow from a config: digests, the arm, the training, and what kind of run it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ablations.config.config import KEYS, to_flat_dict
from ablations.config.keys import Config
from ablations.config.parsing import Key

if TYPE_CHECKING:
    from ablations.config.keys import Config


def digest(config: Config, kinds: tuple[str, ...], keys: Mapping[str, Key] = KEYS) -> str:
    """SHA-256 (hex) of the keys of these kinds and their values; equal digests mean equal values.

    The digest covers every key, default or not, rather than only those that differ from the defaults: a default that is changed later then
    gives a new digest instead of passing old results off as new ones. A key that is *added* later would also rename every old result, for
    nothing: such a key declares `as_before`, the value that means what the code did until then, and is left out at that value.
    """
    flat = to_flat_dict(config)
    covered = {name: flat[name] for name, key in keys.items() if key.option.kind in kinds and flat[name] != key.option.as_before}
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


def arm_name(config: Config) -> str:
    """The arm's folder name, as in `tiny-len6-mse-text-clip-afe-1a2b3c4d`: a slug and 8 digits of the digest of all train and eval keys."""
    e = config.eval
    words = [config.profile, f"len{config.prompt_len}"]
    words += ["rewrite"] if e.mode == "rewrite" else ["append"] if e.extend_by == "append" else []
    words += [f"rounds{e.rounds}"] if e.rounds > 1 else []
    return "-".join([*words, *_terms(config), digest(config, ("train", "eval"))[:8]])


def train_id(config: Config) -> str:
    """The name of the training, as in `tiny-mse-text-clip-afe-1a2b3c4d5e6f`: arms that differ only in eval keys share it."""
    return "-".join([config.profile, *_terms(config), digest(config, ("train",))[:12]])


def _terms(config: Config) -> list[str]:
    terms = {"mse": config.use_mse, "text": config.use_text, "clip": config.use_clip, "afe": config.use_afe, "feature": config.use_feature}
    return [term for term, on in terms.items() if on]


def is_rehearsal(config: Config) -> bool:
    return config.profile == "paper" and config.backbones.init == "random"
