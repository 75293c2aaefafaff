"""CFPDataModule: records in, batches out.

Reads a source, leaves bad records out and says so, caches the frozen features that the run needs, and gives batches that are
functions of (seed, batch number) alone. See `datamodules.batches` for a batch's content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules import keyed
from datamodules.batches import (
    BankPlan,
    BatchAssembler,
    Draws,
    ImagesInOrder,
    KeyedBatchSampler,
    RecordTable,
    TrainingBatches,
    TrainingOrder,
    ValidationBatches,
    as_it_is,
    stack_images,
)
from datamodules.feature_cache.building import Together, encode_beside, open_or_build
from datamodules.feature_cache.cache import FeatureCache, FeatureEncoder
from datamodules.feature_cache.ranges import Ranges
from datamodules.images import PREPROCESSING, check_images, content_digest, count_done
from datamodules.manifest import Manifest
from datamodules.phrases import count_phrases
from datamodules.progress import track
from datamodules.readers.captions import clean_caption
from datamodules.readers.evaluation_prompts import listed_prompts
from datamodules.readers.record_parser import ReadTable
from datamodules.readers.source import is_read_by_a_plug_in, read_source
from datamodules.readers.tiny_world import TINY_WORLD_LIMITS, read_tiny_world
from datamodules.records import CFPRecord, EvalPrompt, coarse_length_index, prefix_share
from datamodules.settings import TINY_WORLD, DataSettings, Tokenizers
from datamodules.sharing import Sharing
from datamodules.splits import TableSplit, own_split, split_as_told, split_table
from datamodules.tiny_world.worlds import world

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class _Loaded:
    """A source as read and checked; positions are int64 indexes into `records`."""

    records: list[CFPRecord]
    train: np.ndarray
    validation: np.ndarray
    distinct: dict[str, np.ndarray]
    content_digests: list[str]
    manifest: Manifest


class CFPDataModule(LightningDataModule):
    """Coarse-fine prompt data for training and evaluation.

    `encoders` are the frozen networks whose features the run needs: none of them, and no picture, is touched if there are none. `seed`
    decides about the order of records and every other chance; `say` hears of what is found; `chance` draws further entries of a training
    batch of its `draw_seeds`, where the batch is loaded. Raises ValueError or FileNotFoundError, one
    line each, for what a user can set right.
    """

    def __init__(
        self,
        settings: DataSettings,
        seed: int,
        tokenizers: Tokenizers,
        encoders: Sequence[FeatureEncoder] = (),
        say: Callable[[str], None] = print,
        chance: Callable[[Tensor], dict[str, Tensor]] | None = None,
    ):
        super().__init__()
        if seed < 0:
            raise ValueError(f"seed={seed} must be at least 0")
        self.settings, self.seed, self.encoders = settings, seed, list(encoders)
        self.is_tiny_world = settings.is_tiny_world
        self.source = TINY_WORLD if self.is_tiny_world else Path(settings.source)
        self.images = Path(settings.images) if settings.images is not None else None
        self.test_source = Path(settings.test_source) if settings.test_source is not None else None
        self.cache_dir = Path(settings.cache_dir) if settings.cache_dir is not None else None
        self.rank, self.sharing = 0, Sharing()
        # Has other processes encode a share of the training features, each by `encode_beside`; None: there are none.
        self.together: Together | None = None
        self._tokenizers, self._say, self._chance = tokenizers, say, chance
        self._clean = clean_caption if settings.clean_captions else None
        self._start_batch: int | None = None
        self._loaded: _Loaded | None = None
        self._assembler: BatchAssembler | None = None
        uses_bank = settings.clip_bank > 0 and any(encoder.name == "image_vectors" for encoder in self.encoders)
        self._bank = BankPlan(settings.clip_bank if uses_bank else 0, settings.hard_negatives)
        self._check_features()

    def _check_features(self) -> None:
        """What depends on the features that are needed: settings that nothing reads are in nobody's way."""
        settings = self.settings
        if self.encoders and settings.cache and self.cache_dir is None:
            raise ValueError("data.cache=true needs a folder: set data.cache_dir")
        if self._bank.size and not settings.cache:
            raise ValueError(f"loss.clip_bank={self._bank.size} is drawn from the feature cache: set data.cache=true or loss.clip_bank=0")
        if self._bank.size and settings.hard_negatives and not self.is_tiny_world:
            raise ValueError(f"loss.hard_negatives=true needs subject labels, which only the tiny world has, not {self.source}")

    def setup(self, stage: str | None = None) -> None:
        """Read and check the source; for fitting and validation, make the feature cache ready too."""
        self._load()
        if stage in (None, "fit", "validate"):
            self._assemble()

    def read_records(self) -> object:
        """Read and check the source now; what comes back is for `use_records` of another module of the same source and settings."""
        return self._load()

    def use_records(self, read: object) -> None:
        """Use what another module has read, instead of reading it again. The manifest is written, and enforced, here too."""
        assert isinstance(read, _Loaded)
        self._loaded = read
        self._write_manifest(read.manifest)

    @property
    def records(self) -> list[CFPRecord]:
        """Every usable record: training and validation."""
        return self._load().records

    @property
    def train_records(self) -> list[CFPRecord]:
        return [self.records[position] for position in self._load().train]

    @property
    def validation_records(self) -> list[CFPRecord]:
        return [self.records[position] for position in self._load().validation]

    @property
    def manifest(self) -> Manifest:
        return self._load().manifest

    @property
    def digest(self) -> str:
        """Digest of what is trained and validated on, and a test source of prompts alone: ids, prompts, pictures, split; 64 hex digits."""
        loaded = self._load()
        digest = hashlib.sha256()
        for name, positions in (("train", loaded.train), ("validation", loaded.validation)):
            for position in positions:
                record = loaded.records[position]
                entry = [name, record.id, record.fine_prompt, record.coarse_prompts, loaded.content_digests[position]]
                digest.update(json.dumps(entry).encode())
        for record in self._listed.records if self._listed and self.settings.eval_prompts is None else ():
            digest.update(json.dumps(["test", record.id, record.coarse_prompts]).encode())
        return digest.hexdigest()

    @property
    def prefix_share(self) -> float:
        """Share of coarse prompts that are prefixes of their fine prompt, over the training records."""
        return prefix_share(self.train_records)

    @property
    def batches_per_epoch(self) -> int:
        """Global batches in an epoch; an incomplete last one is dropped (other records are, in every epoch)."""
        num_train, batch_size = len(self._load().train), self.settings.batch_size
        if num_train < batch_size:
            raise ValueError(f"train.batch_size={batch_size} needs as many training records; {self.source} gives {num_train}")
        if self._bank.size and num_train < self._bank.size + batch_size:
            raise ValueError(
                f"loss.clip_bank={self._bank.size} and train.batch_size={batch_size} need {self._bank.size + batch_size} "
                f"training records; {self.source} gives {num_train}: {'raise data.num_train or ' * self.is_tiny_world}lower loss.clip_bank"
            )
        return num_train // batch_size

    def num_eval_prompts(self, split: str) -> int:
        """How many evaluation prompts a split has at most."""
        if split == "test" and self._listed:
            return len(self._listed.records)
        if self.is_tiny_world:
            return TINY_WORLD_LIMITS[split]
        return len(self._load().distinct["train" if split == "train" else "validation"])

    def known_phrases(self) -> dict[str, int]:
        """What stands between commas in the training prompts, with the number of prompts that have it, most frequent first."""
        return dict(count_phrases(record.fine_prompt for record in self.train_records))

    def eval_prompts(self, split: str, count: int, coarse_length: str | int = "middle") -> list[EvalPrompt]:
        """The first `count` evaluation prompts of a split: distinct fine prompts, the same for every seed.

        The tiny world draws them from its own split. A table has one held-out set, which "validation" and "test" both name, unless there
        is a list of prompts to evaluate with: these are the "test", and their fine prompt is "".
        """
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; it may be {', '.join(SPLITS)}")
        length = coarse_length_index(coarse_length)
        is_listed, there = split == "test" and self._listed is not None, self.num_eval_prompts(split)
        if count > there and (is_listed or not self.is_tiny_world):
            where, kind = (self.settings.eval_prompts or self.test_source, "") if is_listed else (self.source, "fine ")
            remedy = "" if is_listed else "raise data.num_validation or "
            raise ValueError(
                f"{count} evaluation prompts asked for, {where} has {there} distinct {kind}prompts in {split!r}: "
                f"{remedy}lower the number of prompts"
            )
        if is_listed and self._listed:
            records = self._listed.records[:count]
        elif self.is_tiny_world:
            records = read_tiny_world(split, count, world(self.settings.world), self._tokenizers.count_tokens, self._clean)
        else:
            loaded = self._load()
            chosen = loaded.distinct["train" if split == "train" else "validation"][:count]
            records = [loaded.records[position] for position in chosen]
        ids: Iterable[int] = range(count) if self.is_tiny_world and not is_listed else [record.id for record in records]
        return [EvalPrompt(i, r.coarse_prompt(length), r.fine_prompt, r.scene) for i, r in zip(ids, records, strict=True)]

    def _load(self) -> _Loaded:
        if self._loaded is None:
            self._loaded = self._load_tiny_world() if self.is_tiny_world else self._load_table()
            for line in self._loaded.manifest.lines():
                self._say(line)
            self._say(f"data: {self.prefix_share:.1%} of the coarse prompts are prefixes of their fine prompt")
        return self._loaded

    def _load_tiny_world(self) -> _Loaded:
        num_train = self.settings.num_train
        assert num_train is not None  # the settings see to it
        asked = world(self.settings.world), self._tokenizers.count_tokens, self._clean
        records = read_tiny_world("train", num_train, *asked, self.settings.caption_dropout)
        records += read_tiny_world("validation", self.settings.num_validation, *asked)
        manifest = self._write_manifest(Manifest(TINY_WORLD, "tiny world", len(records)))
        train, validation = np.arange(num_train), np.arange(num_train, len(records))
        return _Loaded(records, train, validation, {}, [content_digest(record, {}) for record in records], manifest)

    def _load_table(self) -> _Loaded:
        table, listed = self._read(self.source), None if self.settings.eval_prompts else self._listed
        if self.test_source is not None and listed is None:
            table = table.with_test(self._read(self.test_source), self.test_source)
        if self.encoders and table.records and not table.any_image:
            raise FileNotFoundError(table.why_no_image(self.source))
        # Pictures are checked wherever they are, needed or not: else arms with and without image terms would train on different records.
        records, bad, found = check_images(table, self._ledger(), self._say) if table.any_image else (table.records, table.bad, {})
        digests = {path: checked.digest for path, checked in found.items() if checked.digest}
        done = {**table.done, **count_done(found[record.image] for record in records if record.image in found)}
        bad = sorted(bad, key=lambda entry: entry.id)
        bad += [replace(entry, id=entry.id + table.total) for entry in listed.bad] if listed else []
        total = table.total + (listed.total if listed else 0)
        manifest = self._write_manifest(Manifest(str(self.source), table.layout, total, tuple(bad), done))
        split = self._split(records, self.settings.own_split or (self.test_source is not None and listed is None))
        if split.remark:
            self._say(f"data: {split.remark}")
        contents = [content_digest(record, digests) for record in records]
        return _Loaded(records, split.train, split.validation, split.distinct, contents, manifest)

    @cached_property
    def _listed(self) -> ReadTable | None:
        """A list of prompts to evaluate with: nothing is held out for it, as there is nothing to train on."""
        other = self.test_source if self.test_source is not None and not is_read_by_a_plug_in(self.test_source) else None
        path = self.settings.eval_prompts
        return listed_prompts(Path(path) if path is not None else None, other, self._clean, self._say)

    def _read(self, source: Path) -> ReadTable:
        table = read_source(source, self.images, self._tokenizers.count_tokens, self._clean)
        if table.total == 0:
            raise ValueError(f"{source} has a header and no rows")
        return table

    def _split(self, records: Sequence[CFPRecord], as_told: bool) -> TableSplit:
        settings = self.settings
        kinds, remark = own_split(records) if as_told else ({}, "")
        if remark:
            self._say(f"data: {remark}")
        if kinds:
            return split_as_told(records, kinds, settings.num_validation, settings.num_train)
        return split_table(records, settings.num_validation, settings.num_train)

    def _ledger(self) -> Path | None:
        """Where it is remembered which pictures are good."""
        name = f"images-{hashlib.sha256(str(Path(self.source).resolve()).encode()).hexdigest()[:16]}.json"
        return self.cache_dir / name if self.cache_dir is not None else None

    def _write_manifest(self, manifest: Manifest) -> Manifest:
        if self.settings.manifest_path is not None:
            manifest.write(self.settings.manifest_path)
        manifest.enforce(self.settings.max_bad_fraction, self.settings.manifest_path)
        return manifest

    @property
    def start_batch(self) -> int:
        """The global batch that training starts with: set by hand, or the trainer's steps times the micro-batches of one."""
        if self._start_batch is not None:
            return self._start_batch
        if self.trainer is None:
            return 0
        return self.trainer.global_step * self.trainer.accumulate_grad_batches * self.sharing.at_once

    @start_batch.setter
    def start_batch(self, number: int | None) -> None:
        self._start_batch = number

    def train_dataloader(self) -> DataLoader:
        """Batches without end from `start_batch` on; the loader has no length."""
        assert self.batches_per_epoch
        self._check_trainer()
        shared = self.sharing
        if self.settings.batch_size % shared.processes_per_batch:
            raise ValueError(
                f"train.batch_size={self.settings.batch_size} cannot be shared by {shared.processes_per_batch} devices: take a multiple"
            )
        assembler, train = self._assemble(), self._load().train
        order = TrainingOrder(self.seed, self.settings.batch_size, self.settings.random_flip)
        which, part = shared.place_of(self.rank)
        batches = TrainingBatches(assembler, train, order, self._bank, part, shared.processes_per_batch, self._chance)
        sampler = KeyedBatchSampler(lambda: self.start_batch + which, shared.at_once)
        return self._loader(batches, sampler, self.settings.num_workers)

    def val_dataloader(self) -> DataLoader | list:
        """The validation records once, the same batches in every epoch and for every seed; empty without such records."""
        assert self.batches_per_epoch
        validation = self._load().validation
        if not len(validation):
            return []
        self._check_trainer()
        rank, world_size = self.rank, self.sharing.world_size
        if len(validation) // -(-len(validation) // self.settings.batch_size) < world_size:
            raise ValueError(f"data.num_validation={len(validation)} gives batches too small for {world_size} devices")
        batches = ValidationBatches(
            self._assemble(), validation, self.settings.batch_size, self._bank, self._load().train, rank, world_size
        )
        return self._loader(batches, range(len(batches)), 0 if self.settings.cache else self.settings.num_workers)

    def fitting_batches(self, count: int = 2048) -> Iterator[dict[str, Tensor | list[str]]]:
        """The first `count` training records in order, plain views, the same for every seed: what a network may start from."""
        positions, assembler = self._load().train[:count], self._assemble()
        draws = assembler.draw(0, 0, False, keyed.VALIDATION_COARSE_LENGTH)
        size = self.settings.encode_batch_size
        return (assembler.batch(positions[start : start + size], draws) for start in range(0, len(positions), size))

    def held_out_batches(
        self, count: int, encoders: Sequence[FeatureEncoder], batch_size: int | None = None
    ) -> Iterator[dict[str, Tensor | list[str]]]:
        """The first `count` held-out records in order, or as many as a table has, for measuring: coarse prompts of middle length, plain
        views, whole targets, and the features of `encoders`, cached as those of the training are; no picture and no feature where there
        are no encoders. The same for every seed and arm.
        """
        records, contents = self._held_out(count)
        is_cached = self.settings.cache or not encoders
        caches = self._open_caches(records, contents, encoders, flips=False) if encoders and is_cached else []
        table = RecordTable(records, self._tokenizers, None)
        assembler = BatchAssembler(table, caches, None if is_cached else self.settings.image_size)
        length, size = min(1, table.coarse_rows_RL.shape[1] - 1), batch_size or self.settings.encode_batch_size
        draws = Draws(0, np.full(len(records), length), np.zeros(len(records), dtype=np.int64))
        return (assembler.batch(np.arange(start, min(start + size, len(records))), draws) for start in range(0, len(records), size))

    def held_out_have_pictures(self, count: int) -> bool:
        """Whether each of the first `count` held-out records has its picture. A training without L_mse and L_clip needs none."""
        return self.is_tiny_world or all(record.image is not None for record in self._held_out(count)[0])

    def _held_out(self, count: int) -> tuple[list[CFPRecord], list[str]]:
        """Held-out records and the digests of their pictures. The tiny world gives more of them than a training watches."""
        if self.is_tiny_world:
            records = read_tiny_world("validation", count, world(self.settings.world), self._tokenizers.count_tokens, self._clean)
            return records, [content_digest(record, {}) for record in records]
        loaded = self._load()
        positions = loaded.validation[:count]
        return [loaded.records[position] for position in positions], [loaded.content_digests[position] for position in positions]

    def watched_batches(self, count: int) -> list[dict[str, Tensor | list[str]]]:
        """About the first `count` validation records in whole batches, as the training's are, for one process: what it is watched by.

        None where they are too few for a contrastive loss.
        """
        positions = self._load().validation[:count]
        if len(positions) < 2:
            return []
        batches = ValidationBatches(self._assemble(), positions, max(2, self.settings.batch_size), self._bank, self._load().train)
        return [batches[number] for number in range(len(batches))]

    def _check_trainer(self) -> None:
        """Raises ValueError where a trainer's processes are not those of `rank` and `sharing`."""
        if self.trainer is None:
            return
        if self.trainer.world_size > 1 and self.trainer._accelerator_connector.use_distributed_sampler:
            raise ValueError("batches are shared out by the data module itself: use Trainer(use_distributed_sampler=False)")
        if (self.trainer.global_rank, self.trainer.world_size) != (self.rank, self.sharing.world_size):
            raise ValueError(
                f"the trainer has {self.trainer.world_size} processes and the data is shared by {self.sharing.world_size}: "
                "set `rank` and `sharing` before the fit"
            )

    def _loader(self, batches, sampler, num_workers: int) -> DataLoader:
        # A generator of its own: without one, every iterator would take a number from the global random state.
        return DataLoader(
            batches,
            batch_size=None,
            sampler=sampler,
            num_workers=num_workers,
            collate_fn=as_it_is,
            generator=torch.Generator().manual_seed(self.seed),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
        )

    def encode_beside(self, lacking: Ranges, share: tuple[int, int]) -> None:
        """Encode a share of the rows that another process, in whose `together` this is, said are lacking."""
        self._open_caches(self.records, self._load().content_digests, self.encoders, self.settings.random_flip, (lacking, share))

    def _assemble(self) -> BatchAssembler:
        if self._assembler is None:
            records = self.records
            caches = []
            if self.encoders and self.settings.cache:
                contents, flips = self._load().content_digests, self.settings.random_flip
                caches = self._open_caches(records, contents, self.encoders, flips, together=self.together)
            table = RecordTable(records, self._tokenizers, self.settings.target_len)
            self._assembler = BatchAssembler(table, caches, self.settings.image_size if self.encoders and not self.settings.cache else None)
        return self._assembler

    def _open_caches(
        self,
        records: Sequence[CFPRecord],
        content_digests: Sequence[str],
        encoders: Sequence[FeatureEncoder],
        flips: bool,
        beside: tuple[Ranges, tuple[int, int]] | None = None,
        together: Together | None = None,
    ) -> list[FeatureCache]:
        content = json.dumps([PREPROCESSING, [record.id for record in records], list(content_digests)])
        digest = hashlib.sha256(content.encode()).hexdigest()
        folder, pictures = self.cache_dir / "features", (len(records), digest, self.settings.image_size, flips)
        caches = [FeatureCache(folder, encoder.name, encoder.digest, encoder.shapes(), *pictures) for encoder in encoders]

        def image_batches(start: int = 0, end: int | None = None) -> DataLoader:
            return DataLoader(
                ImagesInOrder(records[start:end], self.settings.image_size),
                self.settings.encode_batch_size,
                num_workers=self.settings.num_workers,
                collate_fn=stack_images,
                generator=torch.Generator().manual_seed(0),
            )

        def show(batches: Iterable[tuple[int, Tensor]], total: int, what: str) -> Iterable[tuple[int, Tensor]]:
            return track(batches, total, what, self._say, lambda batch: len(batch[1]))

        if beside is not None:
            encode_beside(caches, encoders, image_batches, *beside)
        else:
            open_or_build(caches, encoders, image_batches, show, self._say, self.settings.full_cache_check, together)
        return caches
