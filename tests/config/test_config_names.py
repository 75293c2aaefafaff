"""Flat configs, and the names and digests that arms and trainings get from them."""

import json

import pytest

from ablations.config import KEYS, arm_name, digest, from_flat_dict, parse, to_flat_dict, train_id
from ablations.config.names import tags_of
from ablations.config.parsing import Key, Option
from ablations.runtime.errors import UserError


def test_flat_dict_survives_json_and_comes_back_equal():
    c = parse(["profile=paper", "loss.clip_scale=null", "wandb.name=x", "use_afe=false"])
    flat = json.loads(json.dumps(to_flat_dict(c)))
    assert list(flat) == list(KEYS)
    assert flat["train.learning_rate"] == 5e-5 and flat["use_afe"] is False
    assert from_flat_dict(flat) == c


def test_flat_dict_of_another_machine_is_read_though_its_files_are_not_here():
    assert from_flat_dict({"data.source": "/gone.csv", "profile": "paper"}).train.accumulate == 4
    with pytest.raises(UserError, match="unknown key 'promt_len'"):
        from_flat_dict({"promt_len": 6})
    with pytest.raises(UserError, match="nothing to train"):
        from_flat_dict({"use_mse": False, "use_text": False, "use_clip": False})


def test_slug_says_what_is_on_and_how_it_refines():
    def slug(*argv: str) -> str:
        return arm_name(parse(list(argv))).rpartition("-")[0]

    assert slug("prompt_len=12", "use_mse=false", "use_afe=false") == "tiny-len12-text-clip"
    assert slug("use_clip=false", "use_feature=true") == "tiny-len6-mse-text-feature"
    assert slug("eval.mode=rewrite") == "tiny-len6-rewrite-mse-text-clip-afe"
    assert slug("eval.extend_by=append", "eval.rounds=3") == "tiny-len6-append-rounds3-mse-text-clip-afe"


def test_tags_are_the_arm_in_words():
    assert tags_of(parse(["use_mse=false", "afe.reading=experts"])) == (
        "tiny",
        "len6",
        "text",
        "clip",
        "afe",
        "reading:experts",
        "data:tiny",
    )
    assert tags_of(from_flat_dict({"data.source": "/home/me/cfp.csv", "use_clip": False}))[-1] == "data:cfp.csv"
    assert all(1 <= len(tag) <= 64 for tag in tags_of(from_flat_dict({"data.source": f"{'x' * 99}.csv"})))


OTHER_VALUES = {
    "data.source": "setup.csv",
    "use_afe": False,
    "use_clip": False,
    "train.max_epochs": 3,
    "backbones.dir": "x",
    "data.images": "x",
    "profile": "paper",
    "data.world": 1,
    "ablation": "full",
    "eval.checkpoint": "best",
    # A module that registers nothing is a plug-in too.
    "plugins": "json",
}


# Keys that have one possible value in the tiny profile for now.
FIXED = ("data.image_size", "data.test_source")


def another_value(key: Key) -> object:
    value = to_flat_dict(parse([]))[key.name]
    if key.name in OTHER_VALUES:
        return OTHER_VALUES[key.name]
    if key.option.choices:
        return next(choice for choice in key.option.may_be if choice != value)
    if key.type is bool:
        return not value
    if key.name == "eval.metrics":
        return "brisque"
    if key.type is str:
        return "other"
    if key.option.most == 1 or key.option.below == 1:
        return 0.5 if value != 0.5 else 0.25
    return (value or 1) + (key.option.multiple_of or 1)


@pytest.mark.parametrize("name", [name for name in KEYS if name not in ("use_clip", *FIXED)])
def test_each_key_enters_the_names_that_its_kind_says(name):
    base = to_flat_dict(parse(["loss.clip_bank=0"]))  # a bank would need data.cache
    changed = from_flat_dict(base | {name: another_value(KEYS[name])})
    assert to_flat_dict(changed)[name] != base[name]
    kind = KEYS[name].option.kind
    same_arm = arm_name(changed) == arm_name(from_flat_dict(base))
    same_training = train_id(changed) == train_id(from_flat_dict(base))
    assert (same_arm, same_training) == {"train": (False, False), "eval": (False, True), "run": (True, True), "seed": (True, True)}[kind]


def test_arms_are_named_after_resolution():
    assert arm_name(parse(["use_afe=true"])) == arm_name(parse([]))
    assert arm_name(parse(["loss.mse_weight=1", "prompt_len=6.0"])) == arm_name(parse([]))
    assert arm_name(parse(["seed=7", "output_dir=elsewhere", "force=true"])) == arm_name(parse([]))


def test_a_key_added_later_leaves_old_digests_alone_while_it_means_what_was_done_before():
    c = parse([])
    old = {name: key for name, key in KEYS.items() if name != "eval.rounds"}
    new = old | {"eval.rounds": Key("eval.rounds", int, False, 1, Option("eval", "", as_before=1))}
    assert digest(c, ("eval",), new) == digest(c, ("eval",), old) != digest(c, ("eval",), KEYS)
    assert digest(parse(["eval.rounds=2"]), ("eval",), new) != digest(c, ("eval",), new)
