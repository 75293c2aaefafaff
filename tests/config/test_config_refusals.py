"""What the config refuses: in one line that names the key, what it may be and what was given."""

import pytest

from ablations.config import parse
from ablations.runtime.errors import RunFolderError, UserError

HINT = "(python -m ablations.run --help)"


def refusal(*argv: str) -> str:
    """The one line that these arguments end with."""
    with pytest.raises(UserError) as caught:
        parse(list(argv))
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 2
    return message


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
