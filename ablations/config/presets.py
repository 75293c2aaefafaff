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


# What a rehearsal does unless it is told otherwise: as little as shows everything, within minutes on a CPU.
REHEARSAL: dict[str, bool | int | str] = {
    "loss.clip_bank": 15,
    "train.max_steps": 2,
    "train.batch_size": 1,
    "train.accumulate": 1,
    "train.precision": "32-true",
    "train.log_every": 1,
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
    "eval.grid_prompts": 1,
}
