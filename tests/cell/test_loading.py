"""What a cell loads follows from its config: networks, and the settings of its data."""

from __future__ import annotations

import dataclasses

import pytest

from ablations.cell.loading.backbones import backbone_choice
from ablations.cell.loading.data import data_settings
from ablations.cell.loading.kept import Kept
from ablations.config import KEYS, parse
from ablations.results.run_folder import RunFolder, cache_folder
from datamodules.settings import DataSettings
from lightning_modules.backbones.loading import BackboneChoice


def test_configs_that_differ_in_nothing_about_networks_share_them():
    kept, config = Kept(), parse(["backbones.init=random"])
    first = kept.backbones(config)
    assert kept.backbones(parse(["backbones.init=random", "seed=3", "use_mse=false", "prompt_len=12"])) is first
    assert kept.backbones(parse(["backbones.init=random", "backbones.frozen_dtype=bfloat16"])) is not first


@pytest.mark.parametrize("key", ["backbones.init=random", "backbones.frozen_dtype=bfloat16"])
def test_another_key_of_the_networks_is_another_choice(key):
    assert backbone_choice(parse([])) == BackboneChoice()
    assert backbone_choice(parse([key])) != BackboneChoice()


def test_the_data_modules_defaults_are_those_of_the_config():
    """Where a setting has a default at all: one that said something else than the config would be a trap for other users."""
    defaults = {item.name: item.default for item in dataclasses.fields(DataSettings) if item.default is not dataclasses.MISSING}
    keys = {name.rpartition(".")[2]: key for name, key in KEYS.items() if name.startswith(("data.", "train.", "loss."))}
    shared = defaults.keys() & keys.keys() - {"num_train", "num_workers"}  # of the tiny world alone, and the device's
    assert {"max_bad_fraction", "clean_captions", "random_flip", "encode_batch_size", "clip_bank"} <= shared
    assert {name: defaults[name] for name in shared} == {name: keys[name].default for name in shared}


def test_the_cache_is_in_the_output_folder_unless_it_is_said_where(tmp_path):
    config = parse([f"output_dir={tmp_path}"])
    assert cache_folder(config) == data_settings(config).cache_dir == tmp_path / "cache"
    assert cache_folder(parse([f"output_dir={tmp_path}", "data.cache_dir=elsewhere"])).name == "elsewhere"


def test_the_manifest_goes_to_the_run_folder_or_nowhere(tmp_path):
    config = parse([f"output_dir={tmp_path}"])
    assert data_settings(config).manifest_path is None
    assert data_settings(config, RunFolder(config)).manifest_path == RunFolder(config).path / "manifest.json"
