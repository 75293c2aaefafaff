"""Claims about the config: layers, conversions, help, and how quickly it is there."""

import dataclasses
import subprocess
import sys
import time

import pytest

from ablations.config import KEYS, Config, arm_name, from_flat_dict, help_text, parse, to_flat_dict
from ablations.config import config as config_module
from ablations.metrics.register import names_in

ROOT = str(config_module.__file__).rpartition("/ablations/")[0]


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
    assert (t.precision, c.data.image_size, c.data.random_flip, c.data.clean_captions) == ("bf16-mixed", 512, True, True)
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
            if name not in ("use_afe", "profile", "eval.metrics"):
                assert flat[name] == key.profile_default(profile), name
        asked = KEYS["eval.metrics"].profile_default(profile)
        assert flat["eval.metrics"] == (asked and ",".join(names_in(asked)))  # "paper" is the names of its six


def test_parsing_takes_less_than_a_tenth_of_a_second():
    def seconds() -> float:
        start = time.process_time()
        parse(["profile=paper", "prompt_len=12"])
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 0.1


def test_importing_the_config_imports_no_heavy_library():
    code = "import sys, ablations.config, ablations.results.run_folder; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
    assert "omegaconf" in loaded
    assert not loaded & {"torch", "pytorch_lightning", "lightning", "pandas", "numpy", "transformers", "diffusers", "wandb"}
