"""The arms of the paper's ablation tables by name: what the config key `ablation` may be, and the keys that each name sets.

A W&B grid is a plain product, and the paper's arms are a union of products (switches at one length, lengths at one setting of the
switches). As values of one key they are a grid again, so that one sweep file holds all of them, with and without W&B:

    ablation: {values: [full, without_mse, ..., length_20]}
    seed: {values: [0, 1, 2]}

Every name sets the switch of every loss term and the prompt length, so that it means the same arm whatever the profile's defaults are.
A further preset is `REHEARSAL`. Imports no heavy library.
"""

from lightning_modules.terms import Term, all_terms

# Arms that keep the parameters of AFE and take away that its weights are learned: AFE helps only where it beats them.
AFE_TWINS: dict[str, dict[str, str]] = {f"afe_{weights}": {"afe.weights": weights} for weights in ("uniform", "frozen")}
LENGTHS = (2, 4, 6, 8, 10, 12, 16, 20)
FULL_LENGTH = 6
# The placebo's only difference: what it does to the scores is what another rounding of the same training does.
PLACEBO_FACTOR = 1.0001

Preset = dict[str, bool | int | float | str | None]


def full_arm() -> Preset:
    """The keys of the arm that the others are compared with: every term at its default, with what acts through it, at length 6."""
    switches = {f"use_{name}": term.on for term in all_terms() for name in (term.name, *term.switches)}
    return {**switches, "afe.weights": "learned", "prompt_len": FULL_LENGTH}


def named_ablations() -> dict[str, Preset]:
    """{name: the keys that it sets}: the full arm, each term or what acts through it switched, AFE's twins, and the lengths."""
    full, terms = full_arm(), {term.name: term for term in all_terms()}
    arms = {"full": full}
    arms |= {f"without_{name}": full | _off(term) for name, term in terms.items() if term.on}
    arms["without_mse_and_clip"] = full | _off(terms["mse"]) | _off(terms["clip"])
    arms |= {f"with_{name}": full | {f"use_{name}": True} for name, term in terms.items() if not term.on}
    arms |= {f"without_{switch}": full | {f"use_{switch}": False} for term in terms.values() for switch in term.switches}
    arms |= {name: full | keys for name, keys in AFE_TWINS.items()}
    # Nobody would notice the difference in the loss.
    arms["placebo"] = full | {"loss.clip_weight": terms["clip"].weight * PLACEBO_FACTOR}
    # Length 6 is `full`.
    arms |= {f"length_{length}": full | {"prompt_len": length} for length in LENGTHS if length != FULL_LENGTH}
    return arms


def _off(term: Term) -> Preset:
    """A term goes with what acts only through it."""
    return {f"use_{name}": False for name in (term.name, *term.switches)}


# What a rehearsal does unless it is told otherwise: as little as shows everything, within minutes on a CPU.
REHEARSAL: Preset = {
    "eval.metrics": None,
    "loss.clip_bank": 15,
    "train.max_steps": 2,
    "train.batch_size": 1,
    "train.accumulate": 1,
    "train.precision": "32-true",
    "train.log_every": 1,
    "train.validate_every": 0,
    # With it the float32 networks train on a machine with 24 GB.
    "trainer.checkpoint_unet": True,
    "data.num_train": 16,
    "data.num_validation": 1,
    "data.random_flip": False,
    "data.encode_batch_size": 1,
    "eval.num_prompts": 1,
    "eval.num_candidates": 1,
    "eval.steps": 2,
    "eval.batch_size": 1,
    "eval.controls": False,
    "eval.rewrite_too": False,
    "eval.judge": "conditioning",
    "eval.grid_prompts": 1,
}
