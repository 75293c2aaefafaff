"""The data module of an arm."""

from __future__ import annotations

from collections.abc import Callable

from ablations.config import Config
from ablations.results.run_folder import RunFolder
from datamodules.cfp import CFPDataModule
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule


def build_data(
    config: Config, folder: RunFolder, backbones: Backbones, module: PromptRefinerModule, say: Callable[[str], None]
) -> CFPDataModule:
    """The data module of an arm: it caches the frozen features that the arm's losses read, and no others."""
    tiny = config.data.source == "tiny"
    return CFPDataModule(
        source=config.data.source,
        images=config.data.images,
        seed=config.seed,
        tokenize_clip=backbones.tokenize,
        tokenize_t5=backbones.tokenize_t5,
        t5_pad_id=backbones.decoder.tokenizer.pad_token_id,
        count_tokens=backbones.count_tokens,
        encoders=module.feature_encoders,
        cache=config.data.cache,
        cache_dir=config.data.cache_dir or f"{config.output_dir}/cache",
        batch_size=config.train.batch_size,
        num_workers=config.data.num_workers,
        random_flip=config.data.random_flip,
        clean_captions=config.data.clean_captions,
        image_size=config.data.image_size,
        encode_batch_size=config.data.encode_batch_size,
        clip_bank=config.loss.clip_bank if config.use_clip else 0,
        hard_negatives=config.loss.hard_negatives,
        target_len=config.train.target_len,
        max_bad_fraction=config.data.max_bad_fraction,
        manifest_path=folder.path / "manifest.json",
        num_train=config.data.num_train if tiny else None,
        num_validation=config.data.num_validation,
        say=say,
    )
