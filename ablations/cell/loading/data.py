"""The data module of an arm."""

from __future__ import annotations

from collections.abc import Callable

from ablations.cell.loading.device import device_of
from ablations.config import Config
from ablations.results.run_folder import RunFolder, cache_folder
from datamodules.cfp import CFPDataModule
from datamodules.settings import DataSettings
from lightning_modules.prompt_refiner import PromptRefinerModule

# Processes that load data for a GPU: enough to read a batch from a network file system while the one before is trained on.
_GPU_WORKERS = 4


def data_settings(config: Config, folder: RunFolder | None = None) -> DataSettings:
    """The data module's settings as a config has them; the manifest is written to `folder`, or nowhere."""
    d = config.data
    return DataSettings(
        source=d.source,
        images=d.images,
        test_source=d.test_source,
        own_split=d.own_split,
        eval_prompts=config.eval.prompts,
        num_train=d.num_train if d.source == "tiny" else None,
        num_validation=d.num_validation,
        image_size=d.image_size,
        random_flip=d.random_flip,
        clean_captions=d.clean_captions,
        max_bad_fraction=d.max_bad_fraction,
        batch_size=config.train.batch_size,
        target_len=config.train.target_len,
        clip_bank=config.loss.clip_bank if config.use_clip else 0,
        hard_negatives=config.loss.hard_negatives,
        world=d.world,
        caption_dropout=d.caption_dropout,
        cache=d.cache,
        cache_dir=cache_folder(config),
        encode_batch_size=d.encode_batch_size,
        num_workers=_num_workers(config),
        manifest_path=folder.path / "manifest.json" if folder is not None else None,
    )


def _num_workers(config: Config) -> int:
    """On a GPU data is loaded beside it; a CPU that trains has no time for that."""
    asked = config.data.num_workers
    return asked if asked is not None else _GPU_WORKERS if device_of(config).type == "cuda" else 0


def build_data(config: Config, module: PromptRefinerModule, say: Callable[[str], None], folder: RunFolder | None = None) -> CFPDataModule:
    """The data module of an arm: it caches the frozen features that the losses of `module` read, and no others.

    The manifest of what was left out goes to `folder`; without one none is written.
    """
    settings = data_settings(config, folder)
    return CFPDataModule(settings, config.seed, module.backbones, module.feature_encoders, say, module.step_chance)
