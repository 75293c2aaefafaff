"""Arms, trainings and keys are what they were when the first results were made: their folders bear these names for good.

The values below were written down from the code of then, and are no function of today's. A test that fails here says that results
which lie on somebody's disk would be computed again, or would be taken for those of another config. A key that is added declares
`as_before` (see `config.digest`) and gets a line of its own.
"""

from __future__ import annotations

import json

import pytest

from ablations.config import KEYS, arm_name, from_flat_dict, parse, to_flat_dict, train_id
from ablations.config.parsing import UNSET, Key

# Keys whose default means something else than it did then, at the values of then.
OF_THEN = {
    "afe.reading": "class_and_patches",
    **{"data.world": "1", "eval.draw": "all", "eval.text_prompts": "0", "eval.judge": "conditioning"},
    **{"eval.controls": "true", "eval.plug_in": "true", "eval.rewrite_too": "true"},
}
# Defaults of then that were changed since, with what they are now: a new default means new results.
CHANGED = {
    "eval.controls eval true": "eval.controls eval null",
    "eval.plug_in eval true as_before=false": "eval.plug_in eval null as_before=false",
    "eval.rewrite_too eval true": "eval.rewrite_too eval null",
    'train.precision train "16-mixed" tiny="32-true"': 'train.precision train "bf16-mixed" tiny="32-true"',
    'backbones.frozen_dtype train "float32" as_before="float32"': (
        'backbones.frozen_dtype train "float32" paper="bfloat16" as_before="float32"'
    ),
    "train.checkpoint_every run 200": "train.checkpoint_every run 200 paper=2000",
    "data.num_validation train 256 tiny=32": "data.num_validation train 8192 tiny=32",
    "data.num_workers run 0": "data.num_workers run null",
    "eval.metrics eval null as_before=null": 'eval.metrics eval null paper="paper" as_before=null',
    'eval.missing_metrics run "error"': 'eval.missing_metrics run "error" paper="skip"',
}
# What the defaults of profile=paper were until it computed in bfloat16, with the VAE in float32, held out as many rows as the authors and
# scored by the paper's metrics unasked.
PAPER_OF_THEN = "train.precision=16-mixed backbones.frozen_dtype=float32 backbones.vae_dtype=null data.num_validation=256 eval.metrics=null"
# Arguments, beside those of then, the arm's name, the training's.
NAMES = (
    ("", "tiny-len6-mse-text-clip-afe-259385fb", "tiny-mse-text-clip-afe-5d98d60c38fb"),
    ("prompt_len=12", "tiny-len12-mse-text-clip-afe-1ebc83a8", "tiny-mse-text-clip-afe-5d98d60c38fb"),
    ("seed=7", "tiny-len6-mse-text-clip-afe-259385fb", "tiny-mse-text-clip-afe-5d98d60c38fb"),
    ("use_mse=false", "tiny-len6-text-clip-afe-a058e755", "tiny-text-clip-afe-b48f28a4caf3"),
    ("use_text=false", "tiny-len6-mse-clip-afe-1150693e", "tiny-mse-clip-afe-6cfaf06833a1"),
    ("use_clip=false", "tiny-len6-mse-text-e4b2227a", "tiny-mse-text-d5092833a0b7"),
    ("use_afe=false", "tiny-len6-mse-text-clip-7a1cbb13", "tiny-mse-text-clip-bed105f2ddb2"),
    ("use_feature=true", "tiny-len6-mse-text-clip-afe-feature-8a975394", "tiny-mse-text-clip-afe-feature-461f9bd01f3a"),
    ("ablation=without_mse", "tiny-len6-text-clip-afe-a058e755", "tiny-text-clip-afe-b48f28a4caf3"),
    (
        "use_mse=false use_clip=false use_feature=true loss.feature_weight=0.5",
        "tiny-len6-text-feature-a2a08f21",
        "tiny-text-feature-85ec69bce9db",
    ),
    ("loss.clip_scale=null loss.hard_negatives=true", "tiny-len6-mse-text-clip-afe-fdfd4565", "tiny-mse-text-clip-afe-16a37f3261bf"),
    ("afe.temperature=0.5 afe.hidden=32 afe.grid=2", "tiny-len6-mse-text-clip-afe-acd718db", "tiny-mse-text-clip-afe-fa63cab9521f"),
    ("adapter.output_relu=true", "tiny-len6-mse-text-clip-afe-4cc74c1d", "tiny-mse-text-clip-afe-732fcc327079"),
    ("adapter.match_scale=false adapter.mask_padding=false", "tiny-len6-mse-text-clip-afe-066e318f", "tiny-mse-text-clip-afe-36a62a1f3af9"),
    ("train.target_len=32", "tiny-len6-mse-text-clip-afe-c2dc8346", "tiny-mse-text-clip-afe-c67cd309a8cc"),
    ("train.decay_share=0 train.max_steps=40", "tiny-len6-mse-text-clip-afe-69074891", "tiny-mse-text-clip-afe-a8c3a3d01d8d"),
    ("eval.mode=rewrite", "tiny-len6-rewrite-mse-text-clip-afe-1c3ce7e5", "tiny-mse-text-clip-afe-5d98d60c38fb"),
    ("eval.extend_by=append", "tiny-len6-append-mse-text-clip-afe-37e2a7cc", "tiny-mse-text-clip-afe-5d98d60c38fb"),
    ("eval.rounds=3 prompt_len=4", "tiny-len4-rounds3-mse-text-clip-afe-17244eea", "tiny-mse-text-clip-afe-5d98d60c38fb"),
    ("eval.plug_in=false", "tiny-len6-mse-text-clip-afe-660ab54f", "tiny-mse-text-clip-afe-5d98d60c38fb"),
    ("eval.metrics=piqe", "tiny-len6-mse-text-clip-afe-5b8a4513", "tiny-mse-text-clip-afe-5d98d60c38fb"),
    ("eval.long_prompts=chunk", "tiny-len6-mse-text-clip-afe-55fde8c6", "tiny-mse-text-clip-afe-5d98d60c38fb"),
    (
        "eval.coarse_length=long eval.num_prompts=4 eval.num_candidates=2",
        "tiny-len6-mse-text-clip-afe-5167f04e",
        "tiny-mse-text-clip-afe-5d98d60c38fb",
    ),
    ("backbones.init=random", "tiny-len6-mse-text-clip-afe-01581c39", "tiny-mse-text-clip-afe-db0f54ab2c41"),
    ("data.source=pairs.csv", "tiny-len6-mse-text-clip-afe-a414a8f7", "tiny-mse-text-clip-afe-0ffc5d1fa476"),
    (f"profile=paper {PAPER_OF_THEN}", "paper-len6-mse-text-clip-afe-b915fbc6", "paper-mse-text-clip-afe-74477ed748f2"),
    (
        "profile=paper backbones.init=random backbones.frozen_dtype=bfloat16 backbones.vae_dtype=null "
        "eval.controls=false eval.rewrite_too=false",
        "paper-len6-mse-text-clip-afe-9c19a9ba",
        "paper-mse-text-clip-afe-661e65ef1962",
    ),
    (
        f"profile=paper {PAPER_OF_THEN} eval.long_prompts=truncate eval.metrics=paper eval.missing_metrics=skip",
        "paper-len6-mse-text-clip-afe-fdccc24b",
        "paper-mse-text-clip-afe-74477ed748f2",
    ),
    (
        f"profile=paper {PAPER_OF_THEN} adapter.match_scale=true use_afe=false",
        "paper-len6-mse-text-clip-5b2221d0",
        "paper-mse-text-clip-bc69206d9764",
    ),
    (
        "output_dir=elsewhere trainer.devices=2 wandb.mode=disabled",
        "tiny-len6-mse-text-clip-afe-259385fb",
        "tiny-mse-text-clip-afe-5d98d60c38fb",
    ),
)

# Name, kind and default of every key; its value in a profile where that is another; what results without the key were made with.
KEYS_OF_THEN = """
prompt_len eval 6
use_mse train true
use_text train true
use_clip train true
use_afe train null
use_feature train false
seed seed 0
profile train "tiny"
ablation run null
output_dir run "outputs"
config run null
force run false
loss.mse_weight train 1.0
loss.text_weight train 0.1 tiny=1.0
loss.clip_weight train 0.1
loss.feature_weight train 1.0
loss.clip_scale train 10.0
loss.clip_bank train 0 tiny=48
loss.hard_negatives train false
afe.temperature train 1.0
afe.hidden train 64
afe.grid train 4
adapter.output_relu train true tiny=false as_before=true
adapter.match_scale train false tiny=true as_before=false
adapter.mask_padding train false tiny=true as_before=false
train.max_steps train null tiny=550
train.max_epochs train 100 tiny=null
train.batch_size train 16 tiny=8
train.accumulate train 4 tiny=1
train.learning_rate train 5e-05 tiny=0.0004
train.new_parts_lr_scale train 1.0 tiny=8.0
train.beta1 train 0.9
train.beta2 train 0.999 tiny=0.98
train.weight_decay train 0.01
train.adam_eps train 1e-08
train.grad_clip train 1.0
train.warmup_steps train 1000 tiny=20
train.decay_share train 0.0 tiny=0.5 as_before=0.0
train.target_len train null
train.precision train "16-mixed" tiny="32-true"
train.checkpoint_every run 200
train.log_every run 10
data.source train "tiny"
data.images train null
data.num_train train 1200
data.num_validation train 256 tiny=32
data.image_size train 512 tiny=64
data.random_flip train true tiny=false
data.clean_captions train true tiny=false
data.max_bad_fraction train 0.05
data.cache run true
data.cache_dir run null
data.num_workers run 0
data.encode_batch_size run 8 tiny=64
backbones.dir train null
backbones.init train "pretrained"
backbones.image_model train null as_before=null
backbones.open_clip train null as_before=null
backbones.t5 train null as_before=null
backbones.frozen_dtype train "float32" as_before="float32"
eval.num_prompts eval 10 paper=100
eval.num_candidates eval 3
eval.coarse_length eval "middle"
eval.mode eval "extend"
eval.extend_by eval "prime"
eval.rounds eval 1
eval.max_new_tokens eval 50 tiny=40
eval.top_p eval 0.95
eval.top_k eval 50
eval.steps eval 50 tiny=15
eval.guidance_scale eval 7.0
eval.controls eval true
eval.plug_in eval true as_before=false
eval.rewrite_too eval true
eval.grid_prompts eval 6
eval.long_prompts eval "truncate" paper="chunk" as_before="truncate"
eval.metrics eval null as_before=null
eval.sentence_encoder eval null as_before=null
eval.missing_metrics run "error"
eval.metrics_dir run null
eval.batch_size run 16 tiny=32
eval.reuse run true
wandb.mode run "auto"
wandb.project run "uf-fgtg-ablations"
wandb.entity run null
wandb.group run null
wandb.name run null
trainer.accelerator run "auto"
trainer.devices run 1
trainer.num_nodes run 1
trainer.strategy run "auto"
trainer.checkpoint_unet run false
trainer.compile_unet run false
trainer.threads run null
trainer.progress run "auto"
"""


def declaration(key: Key) -> str:
    """A key in a line, as above."""
    words = {name: getattr(key.option, name) for name in ("tiny", "paper", "as_before")}
    more = [f"{name}={json.dumps(value)}" for name, value in words.items() if value is not UNSET]
    return " ".join([key.name, key.option.kind, json.dumps(key.default), *more])


@pytest.mark.parametrize(("arguments", "arm", "training"), NAMES)
def test_results_lie_in_the_folders_that_they_always_had(arguments, arm, training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.csv").touch()
    given = OF_THEN | dict(word.split("=", 1) for word in arguments.split())
    config = parse([f"{name}={text}" for name, text in given.items()])
    assert (arm_name(config), train_id(config)) == (arm, training)
    assert arm_name(from_flat_dict(json.loads(json.dumps(to_flat_dict(config))))) == arm


def test_an_old_result_is_of_the_old_world_and_a_new_one_is_told_from_it():
    old, new = parse(["data.world=1"]), parse([])
    written = to_flat_dict(old)
    for name in ("data.world", "data.caption_dropout"):
        del written[name]
    assert from_flat_dict(written).data.world == 1 and arm_name(from_flat_dict(written)) == arm_name(old)
    assert new.data.world == 2 and train_id(new) != train_id(old)


def test_an_old_result_is_of_the_old_reading_and_arms_without_afe_keep_their_names_whatever_the_reading():
    of_then = [f"{name}={text}" for name, text in OF_THEN.items()]
    written = to_flat_dict(parse(of_then))
    for name in ("afe.reading", "afe.weights", "afe.forcing"):
        del written[name]
    old = from_flat_dict(written)
    assert (old.afe.reading, old.afe.weights, old.afe.forcing) == ("class_and_patches", "learned", 0.0)
    assert arm_name(old) == "tiny-len6-mse-text-clip-afe-259385fb" and parse([]).afe.reading == "position_values"
    without = [word for word in of_then if word != "afe.reading=class_and_patches"]
    without += ["use_afe=false", "afe.reading=layers", "afe.weights=uniform", "afe.forcing=0.3"]
    assert arm_name(parse(without)) == "tiny-len6-mse-text-clip-7a1cbb13"


def test_what_may_be_written_sets_arms_apart_only_where_it_is_not_as_before():
    as_before, masked = parse([]), parse(["eval.any_piece=false"])
    assert arm_name(parse(["eval.any_piece=true"])) == arm_name(as_before) != arm_name(masked)
    assert train_id(masked) == train_id(as_before)


def test_a_table_has_no_world_and_its_results_keep_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.csv").touch()
    drawn = [f"{name}={text}" for name, text in OF_THEN.items() if name != "data.world"]
    worlds = ([], ["data.world=1"], ["data.world=2", "data.caption_dropout=0.5"])
    names = {arm_name(parse(["data.source=pairs.csv", *drawn, *more])) for more in worlds}
    assert names == {"tiny-len6-mse-text-clip-afe-a414a8f7"}


def test_every_key_of_then_is_there_with_its_kind_and_values():
    """In whatever order: the digests sort the keys."""
    then = [CHANGED.get(line, line) for line in KEYS_OF_THEN.strip().splitlines()]
    now = [declaration(key) for key in KEYS.values()]
    same = {line.split()[0]: line for line in now}
    changed = [f"then {line}; now {same.get(line.split()[0])}" for line in then if line not in now]
    assert changed == []


def test_keys_added_since_then_leave_the_names_of_old_results_alone():
    then = {line.split()[0] for line in KEYS_OF_THEN.strip().splitlines()}
    for name, key in KEYS.items():
        assert name in then or key.option.kind == "run" or key.option.as_before is not UNSET, name
