"""What a data module is asked for, and the tokenizers that it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from datamodules.tiny_world.worlds import DEFAULT_WORLD, WORLDS

TINY_WORLD = "tiny"


class Tokenizers(Protocol):
    """OpenCLIP's tokenizer, which reads coarse prompts, and T5's, which writes fine ones."""

    @property
    def tokenize(self) -> Callable[[list[str]], Tensor]:
        """OpenCLIP's: texts to ids, int64 (B, 77)."""

    @property
    def t5_pad_id(self) -> int:
        """What T5's ids are padded with."""

    def tokenize_t5(self, texts: list[str]) -> list[list[int]]:
        """T5's ids of each text with the end-of-text token."""

    def count_tokens(self, text: str) -> int:
        """The number of OpenCLIP tokens without start and end."""


@dataclass(frozen=True)
class DataSettings:
    """Which records, how they are prepared, and how batches are made of them.

    `source` is "tiny" (the tiny world) or a path: of a CSV table (layouts: `datamodules.readers`), a parquet file or a folder
    (`datamodules.readers.folders`); `images` is the folder that image paths are relative to. `test_source` is another such source, all of
    which is held out; with `own_split` a column `split` says which rows are. `eval_prompts` is a list of prompts to evaluate with, in place
    of those that are held out. `num_train` None takes every training record of a table; the
    tiny world needs a number. `world` says which tiny world, and `caption_dropout` in how large a share of its training
    texts the style word is left out, which the picture keeps; tables have neither. `image_size` is in pixels per side. `max_bad_fraction`
    of the records may be bad, which the manifest (written to `manifest_path`, if there is one) lists. `batch_size` counts records over
    all devices; `target_len` None keeps all T5 tokens of a fine prompt. `clip_bank` further negatives come from the feature cache in
    `cache_dir`, with `hard_negatives` half of them of the batch's subjects; without `cache` batches carry pictures instead of features.
    `full_cache_check` reads a cache that is there through before it is used.

    Raises ValueError, in one line that names the config's key, for numbers that are none of their kind and for a bank without a cache.
    """

    source: str | Path
    image_size: int
    batch_size: int
    num_validation: int
    images: str | Path | None = None
    test_source: str | Path | None = None
    own_split: bool = True
    eval_prompts: str | Path | None = None
    num_train: int | None = None
    random_flip: bool = True
    clean_captions: bool = True
    max_bad_fraction: float = 0.05
    target_len: int | None = None
    clip_bank: int = 0
    hard_negatives: bool = False
    world: int = DEFAULT_WORLD
    caption_dropout: float = 0.0
    cache: bool = True
    cache_dir: str | Path | None = None
    encode_batch_size: int = 8
    full_cache_check: bool = False
    num_workers: int = 0
    manifest_path: Path | None = None

    def __post_init__(self) -> None:
        for name, value, least in (
            ("train.batch_size", self.batch_size, 1),
            ("data.num_workers", self.num_workers, 0),
            ("data.num_validation", self.num_validation, 0),
            ("data.num_train", self.num_train, 1),
            ("train.target_len", self.target_len, 1),
            ("data.image_size", self.image_size, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name}={value} must be at least {least}")
        if self.world not in WORLDS:
            raise ValueError(f"data.world={self.world} must be one of {', '.join(map(str, WORLDS))}")
        if not 0 <= self.caption_dropout <= 1:
            raise ValueError(f"data.caption_dropout={self.caption_dropout} must be from 0 to 1")
        if self.is_tiny_world and self.num_train is None:
            raise ValueError("data.num_train: the tiny world has no end, say how many records to train on")

    @property
    def is_tiny_world(self) -> bool:
        return str(self.source) == TINY_WORLD
