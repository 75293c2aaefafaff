"""The arms of the paper's ablation tables by name: what the config key `ablation` may be, and the keys that each name sets.

A W&B grid is a plain product, and the paper's arms are a union of products (switches at one length, lengths at one setting of the
switches). As values of one key they are a grid again, so that one sweep file holds all of them, with and without W&B:

    ablation: {values: [full, without_mse, ..., length_20]}
    seed: {values: [0, 1, 2]}

Every name sets all of `FULL`'s keys, so that it means the same arm whatever the profile's defaults are. Imports nothing.
"""

FULL: dict[str, bool | int] = {
    "use_mse": True,
    "use_text": True,
    "use_clip": True,
    "use_afe": True,
    "use_feature": False,
    "prompt_len": 6,
}
LENGTHS = (2, 4, 6, 8, 10, 12, 16, 20)

NAMED_ABLATIONS: dict[str, dict[str, bool | int]] = {
    "full": FULL,
    "without_mse": FULL | {"use_mse": False},
    # AFE acts only through L_clip, and goes with it.
    "without_clip": FULL | {"use_clip": False, "use_afe": False},
    "without_mse_and_clip": FULL | {"use_mse": False, "use_clip": False, "use_afe": False},
    "without_text": FULL | {"use_text": False},
    "with_feature": FULL | {"use_feature": True},
    "without_afe": FULL | {"use_afe": False},
    # Length 6 is `full`.
    **{f"length_{length}": FULL | {"prompt_len": length} for length in LENGTHS if length != FULL["prompt_len"]},
}
