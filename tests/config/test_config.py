"""Claims about the config: layers, conversions, one-line refusals, digests and help."""

import dataclasses
import json
import subprocess
import sys
import time

import pytest

from ablations.config import KEYS, Config, arm_name, digest, from_flat_dict, help_text, parse, to_flat_dict, train_id
from ablations.config import config as config_module
from ablations.config.parsing import Key, Option
from ablations.runtime.errors import RunFolderError, UserError

HINT = "(python -m ablations.run --help lists all)"
ROOT = str(config_module.__file__).rpartition("/ablations/")[0]


def refusal(*argv: str) -> str:
    """The one line that these arguments end with."""
    with pytest.raises(UserError) as caught:
        parse(list(argv))
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 2
    return message


# Layers


def test_tiny_profile_is_the_default_and_has_its_own_training_and_drawing_values():
    c = parse([])
    assert (c.profile, c.prompt_len, c.seed, c.use_afe) == ("tiny", 6, 0, True)
    assert (c.train.max_steps, c.train.max_epochs, c.train.accumulate, c.train.warmup_steps) == (550, None, 1, 20)
    assert (c.train.learning_rate, c.train.new_parts_lr_scale, c.train.beta2, c.train.batch_size) == (4e-4, 8.0, 0.98, 8)
    assert (c.train.precision, c.loss.clip_bank, c.loss.text_weight) == ("32-true", 48, 1.0)
    assert (c.data.image_size, c.data.random_flip, c.data.clean_captions) == (64, False, False)
    assert (c.eval.num_prompts, c.eval.steps, c.eval.max_new_tokens, c.eval.batch_size) == (10, 15, 40, 32)


def test_paper_profile_has_the_published_values():
    c = parse(["profile=paper"])
    t = c.train
    assert (t.learning_rate, t.beta1, t.beta2, t.weight_decay, t.adam_eps, t.grad_clip) == (5e-5, 0.9, 0.999, 1e-2, 1e-8, 1.0)
    assert (t.batch_size, t.accumulate, t.warmup_steps, t.max_epochs, t.max_steps) == (16, 4, 1000, 100, None)
    assert (t.precision, c.data.image_size, c.data.random_flip, c.data.clean_captions) == ("16-mixed", 512, True, True)
    assert (c.loss.mse_weight, c.loss.text_weight, c.loss.clip_weight, c.loss.clip_scale, c.loss.clip_bank) == (1.0, 0.1, 0.1, 10.0, 0)
    assert (c.eval.num_prompts, c.eval.steps, c.eval.guidance_scale, c.eval.top_p, c.eval.top_k) == (100, 50, 7.0, 0.95, 50)


def test_yaml_overrides_the_profile_and_the_command_line_overrides_yaml(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("profile: paper\ntrain:\n  max_steps: 7\n  batch_size: 8\nloss.mse_weight: 2\neval:\n")
    c = parse([f"config={file}", "train.batch_size=4"])
    assert (c.profile, c.train.accumulate) == ("paper", 4)
    assert (c.train.max_steps, c.train.batch_size, c.loss.mse_weight) == (7, 4, 2.0)
    assert parse([f"config={file}", "profile=tiny"]).train.accumulate == 1


def test_empty_yaml_file_changes_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert arm_name(parse([f"config={tmp_path / 'empty.yaml'}"])) == arm_name(parse([]))


def test_config_is_a_frozen_nested_dataclass():
    c = parse([])
    assert type(c) is Config
    for part, name in ((c, "seed"), (c.train, "max_steps")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, name, 1)


# Conversions


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("false", False), ("False", False)])
def test_booleans_are_understood_as_wandb_writes_them(text, value):
    assert parse([f"--use_feature={text}"]).use_feature is value
    assert parse([f"use_mse={text}"]).use_mse is value


@pytest.mark.parametrize("text", ["null", "None"])
def test_null_is_understood_as_wandb_and_yaml_write_it(text):
    assert parse([f"loss.clip_scale={text}"]).loss.clip_scale is None


@pytest.mark.parametrize(("text", "value"), [("12", 12), ("12.0", 12), ("1.2e1", 12)])
def test_whole_numbers_are_integers_however_they_are_written(text, value):
    length = parse([f"prompt_len={text}"]).prompt_len
    assert length == value and type(length) is int


def test_an_integer_is_a_number_and_becomes_a_float():
    weight = parse(["loss.mse_weight=2"]).loss.mse_weight
    assert weight == 2.0 and type(weight) is float


def test_paths_lose_their_dots_and_tildes(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert parse(["output_dir=./runs//a/"]).output_dir == "runs/a"
    assert parse(["output_dir=~/runs"]).output_dir == "/home/ada/runs"


def test_use_afe_follows_use_clip_unless_it_is_said():
    assert parse([]).use_afe is True
    assert parse(["use_clip=false"]).use_afe is False
    assert parse(["use_afe=false"]).use_afe is False
    assert parse(["use_clip=false", "use_afe=false"]).use_afe is False


# Refusals


def test_unknown_key_names_the_nearest_known_one():
    assert refusal("promt_len=6") == f"unknown key 'promt_len'; did you mean 'prompt_len'? {HINT}"
    assert refusal("prompt-len=6") == f"unknown key 'prompt-len'; did you mean 'prompt_len'? {HINT}"
    assert refusal("mse_weight=1") == f"unknown key 'mse_weight'; did you mean 'loss.mse_weight'? {HINT}"
    assert refusal("batch_size=1") == f"unknown key 'batch_size'; did you mean 'train.batch_size' or 'eval.batch_size'? {HINT}"
    assert refusal("qqqq=1") == f"unknown key 'qqqq' {HINT}"


def test_a_group_is_not_a_key():
    assert refusal("loss=1") == "'loss' is a group of keys; set its keys one by one, as in loss.mse_weight=1.0"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("prompt_len=six", "prompt_len must be an integer from 1 to 256, not 'six'"),
        ("prompt_len=6.5", "prompt_len must be an integer from 1 to 256, not '6.5'"),
        ("prompt_len=0", "prompt_len must be an integer from 1 to 256, not '0'"),
        ("prompt_len=257", "prompt_len must be an integer from 1 to 256, not '257'"),
        ("prompt_len=null", "prompt_len must be an integer from 1 to 256, not 'null'"),
        ("prompt_len=true", "prompt_len must be an integer from 1 to 256, not 'true'"),
        ("prompt_len=", "prompt_len must be an integer from 1 to 256, not ''"),
        ("seed=-1", "seed must be an integer from 0 to 4294967295, not '-1'"),
        ("use_mse=yes", "use_mse must be true or false, not 'yes'"),
        ("use_afe=maybe", "use_afe must be true or false or null, not 'maybe'"),
        ("loss.mse_weight=0", "loss.mse_weight must be a number above 0, not '0'"),
        ("loss.clip_scale=-1", "loss.clip_scale must be a number above 0 or null, not '-1'"),
        ("loss.clip_bank=-1", "loss.clip_bank must be an integer of at least 0, not '-1'"),
        ("train.beta1=1", "train.beta1 must be a number of at least 0 and below 1, not '1'"),
        ("eval.top_p=1.5", "eval.top_p must be a number above 0 and of at most 1, not '1.5'"),
        ("data.image_size=60", "data.image_size must be an integer from 16 to 2048, a multiple of 8, not '60'"),
        ("data.max_bad_fraction=2", "data.max_bad_fraction must be a number from 0 to 1, not '2'"),
        ("eval.mode=extnd", "eval.mode must be one of extend, rewrite, not 'extnd'"),
        ("profile=large", "profile must be one of tiny, paper, not 'large'"),
        ("wandb.entity=", "wandb.entity must be text or null, not '' (write null for no value)"),
        ("output_dir=a\nb", "output_dir must be a path, not 'a\\nb'"),
        ("output_dir=null", "output_dir must be a path, not 'null'"),
    ],
)
def test_impossible_value_names_the_key_what_it_may_be_and_what_was_given(argument, message):
    assert refusal(argument) == message


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-inf", "Infinity", ".nan", "1e999", "9" * 5000, "${seed}", "???"])
@pytest.mark.parametrize("key", ["loss.mse_weight", "prompt_len", "train.max_steps"])
def test_numbers_without_a_value_and_interpolations_are_refused(key, text):
    assert refusal(f"{key}={text}").startswith(f"{key} must be a")


@pytest.mark.parametrize("text", ["nan", "inf", "${oc.env:HOME}", "a${b}c"])
def test_interpolations_and_nan_are_refused_as_text_too(text):
    assert refusal(f"wandb.name={text}").startswith(f"wandb.name must be text or null, not '{text}'")


def test_missing_equals_sign_is_named():
    assert refusal("prompt_len") == f"'prompt_len' has no '='; arguments are written key=value {HINT}"
    assert refusal("--use_clip") == f"'--use_clip' has no '='; write use_clip=true {HINT}"


def test_repeated_key_is_named():
    assert refusal("seed=1", "--seed=2") == "seed is given twice on the command line ('1' and '2'); give it once"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["use_clip=false", "use_afe=true"],
            "use_afe=true needs use_clip=true: AFE acts only through L_clip (use_afe=null follows use_clip)",
        ),
        (
            ["use_mse=false", "use_text=false", "use_clip=false"],
            "nothing to train: at least one of use_mse, use_text, use_clip and use_feature must be true",
        ),
        (["train.max_steps=null"], "training would never end: train.max_steps and train.max_epochs are both null; set one of them"),
        (
            ["train.batch_size=1", "loss.clip_bank=0"],
            "use_clip=true needs at least two candidates, but train.batch_size=1 and loss.clip_bank=0; raise one of them",
        ),
        (["data.cache=false"], "loss.clip_bank=48 needs data.cache=true, where it draws from; or set it to 0"),
    ],
)
def test_impossible_combination_is_refused(argv, message):
    assert refusal(*argv) == message


def test_combinations_that_only_l_clip_forbids_are_allowed_without_it():
    assert parse(["use_clip=false", "data.cache=false", "train.batch_size=1"]).loss.clip_bank == 48
    assert parse(["train.batch_size=1", "loss.clip_bank=1"]).train.batch_size == 1
    assert parse(["use_mse=false", "use_text=false", "use_clip=false", "use_feature=true"]).use_feature


def test_files_that_are_not_there_are_named(tmp_path):
    gone = str(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    assert refusal(f"data.source={gone}") == f"data.source: there is no file '{gone}'; give tiny, a CSV or parquet file, or a folder"
    assert refusal(f"backbones.dir={gone}") == f"backbones.dir: there is no folder '{gone}'"
    assert refusal(f"data.images={gone}") == f"data.images: there is no folder '{gone}'"
    assert refusal(f"config={gone}") == f"config: there is no file '{gone}'"
    assert refusal(f"output_dir={tmp_path / 'file'}") == f"output_dir: '{tmp_path / 'file'}' is a file, not a folder"
    assert parse([f"data.source={tmp_path / 'file'}"]).data.source == str(tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("promt_len: 6", f"unknown key 'promt_len' in FILE; did you mean 'prompt_len'? {HINT}"),
        ("loss:\n  mse: 6", f"unknown key 'loss.mse' in FILE; did you mean 'loss.mse_weight'? {HINT}"),
        ("loss: 3", "'loss' is a group of keys in FILE; set its keys one by one, as in loss.mse_weight=1.0"),
        ("prompt_len: [1, 2]", "prompt_len must be an integer from 1 to 256, not [1, 2] in FILE"),
        ("prompt_len: true", "prompt_len must be an integer from 1 to 256, not true in FILE"),
        ("prompt_len: .nan", "prompt_len must be an integer from 1 to 256, not nan in FILE"),
        ("prompt_len:", "prompt_len must be an integer from 1 to 256, not null in FILE"),
        ("use_mse: 1", "use_mse must be true or false, not 1 in FILE"),
        ("wandb.name: 1.10", "wandb.name must be text or null, not 1.1 (quote text that YAML reads as something else) in FILE"),
        ("loss.mse_weight: 1\nloss:\n  mse_weight: 2", "loss.mse_weight is given twice in FILE; give it once"),
        ("config: other.yaml", "config: FILE names another config file; give one file, on the command line"),
        ("seed: 1\nseed: 2", "FILE line 2: found duplicate key seed"),
        ("- 1\n- 2", "FILE: expected key: value lines, not a list"),
        ("42", "FILE: expected key: value lines"),
    ],
)
def test_mistakes_in_yaml_name_the_file(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert refusal(f"config={file}").replace(str(file), "FILE") == message


def test_yaml_syntax_error_names_the_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 1\n prompt_len: 2\n")
    assert refusal(f"config={tmp_path / 'mine.yaml'}").startswith(f"{tmp_path / 'mine.yaml'} line 2: mapping values are not allowed")


def test_yaml_that_is_not_text_is_refused_in_one_line(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00seed: 1")
    assert refusal(f"config={tmp_path / 'mine.yaml'}").startswith(f"{tmp_path / 'mine.yaml'}")
    (tmp_path / "open.yaml").write_text("wandb.name: ${seed")
    assert "${seed" in refusal(f"config={tmp_path / 'open.yaml'}")


def test_key_without_effect_is_warned_of_only_if_it_was_set(caplog):
    parse(["use_clip=false"])
    assert caplog.messages == []
    parse(["use_clip=false", "loss.clip_scale=null", "eval.steps=3"])
    assert caplog.messages == ["loss.clip_scale=null has no effect: it needs use_clip=true"]


def test_errors_are_one_line_whatever_they_are_given():
    assert str(UserError(" a\n  b\r\n\n c\u2028d ")) == "a b c d"
    assert str(RunFolderError("a\nb")) == "a b" and RunFolderError.exit_code == 1


# Names and digests


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


def test_names_of_the_default_arms_are_pinned():
    """Results lie in folders of these names. If a new key broke this test, declare its `as_before` (see `config.digest`)."""
    assert arm_name(parse([])) == "tiny-len6-mse-text-clip-afe-259385fb"
    assert train_id(parse([])) == "tiny-mse-text-clip-afe-5d98d60c38fb"
    assert arm_name(parse(["profile=paper"])) == "paper-len6-mse-text-clip-afe-b915fbc6"
    assert train_id(parse(["profile=paper"])) == "paper-mse-text-clip-afe-74477ed748f2"


def test_slug_says_what_is_on_and_how_it_refines():
    def slug(*argv: str) -> str:
        return arm_name(parse(list(argv))).rpartition("-")[0]

    assert slug("prompt_len=12", "use_mse=false", "use_afe=false") == "tiny-len12-text-clip"
    assert slug("use_clip=false", "use_feature=true") == "tiny-len6-mse-text-feature"
    assert slug("eval.mode=rewrite") == "tiny-len6-rewrite-mse-text-clip-afe"
    assert slug("eval.extend_by=append", "eval.rounds=3") == "tiny-len6-append-rounds3-mse-text-clip-afe"


OTHER_VALUES = {
    "data.source": "setup.csv",
    "use_afe": False,
    "use_clip": False,
    "train.max_epochs": 3,
    "backbones.dir": "x",
    "data.images": "x",
    "profile": "paper",
}


# Keys that have one possible value in the tiny profile for now.
FIXED = ("data.image_size",)


def another_value(key: Key) -> object:
    value = to_flat_dict(parse([]))[key.name]
    if key.name in OTHER_VALUES:
        return OTHER_VALUES[key.name]
    if key.option.choices:
        return next(choice for choice in key.option.choices if choice != value)
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
    assert arm_name(parse(["seed=7", "output_dir=/tmp/x", "force=true"])) == arm_name(parse([]))


def test_a_key_added_later_leaves_old_digests_alone_while_it_means_what_was_done_before():
    c = parse([])
    old = {name: key for name, key in KEYS.items() if name != "eval.rounds"}
    new = old | {"eval.rounds": Key("eval.rounds", int, False, 1, Option("eval", "", as_before=1))}
    assert digest(c, ("eval",), new) == digest(c, ("eval",), old) != digest(c, ("eval",), KEYS)
    assert digest(parse(["eval.rounds=2"]), ("eval",), new) != digest(c, ("eval",), new)


# Help and speed


def test_help_lists_every_key_with_its_default_kind_and_profile_difference():
    text = help_text()
    lines = text.splitlines()
    assert max(map(len, lines)) <= 132
    for name, key in KEYS.items():
        (line,) = (line for line in lines if line.startswith(f"  {name}="))
        assert line.split()[1] == key.option.kind
    assert "  prompt_len=6                     eval   tokens that one round appends; an integer from 1 to 256" in lines
    assert "  train.accumulate=1               train  batches per optimiser step; an integer of at least 1; profile=paper: 4" in lines
    assert "python -m ablations.run prompt_len=12" in text


def test_every_default_is_a_value_that_its_key_allows():
    for profile in ("tiny", "paper"):
        flat = to_flat_dict(parse([f"profile={profile}"]))
        assert from_flat_dict(flat) == parse([f"profile={profile}"])
        for name, key in KEYS.items():
            if name not in ("use_afe", "profile"):
                assert flat[name] == key.profile_default(profile), name


def test_parsing_takes_less_than_a_tenth_of_a_second():
    def seconds() -> float:
        start = time.process_time()
        parse(["profile=paper", "prompt_len=12"])
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 0.1


def test_importing_the_config_imports_no_heavy_library():
    code = "import sys, ablations.config, ablations.run_folder; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
    assert "omegaconf" in loaded
    assert not loaded & {"torch", "pytorch_lightning", "lightning", "pandas", "numpy", "transformers", "diffusers", "wandb"}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["data.image_size=128"], "data.image_size=128"),
        (["trainer.devices=3"], "train.batch_size=8 cannot be shared out evenly among 3 processes"),
        (["train.batch_size=2000"], "data.num_train=1200 is too few"),
        (["loss.clip_bank=1199"], "data.num_train=1200 is too few"),
    ],
)
def test_what_could_only_fail_later_is_refused_at_once(argv, said):
    with pytest.raises(UserError, match=said):
        parse(argv)
