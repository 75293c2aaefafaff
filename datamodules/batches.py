"""Batches as functions of their number: which records, which coarse length, which view, which bank.

A batch of training is a pure function of (seed, number of the global batch): nothing is remembered between batches, so any
number of workers gives the same ones, and a resumed run starts at the batch where it stopped.

Shapes: B = batch, S = CLIP text positions, T = target tokens of the longest target in the batch, N = bank, M = distinct
coarse prompts, R = records, L = coarse prompts per record (1 or 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from datamodules import keyed
from datamodules.feature_cache.cache import FeatureCache
from datamodules.images import load_pixels, to_unit_range
from datamodules.records import CFPRecord, text_group
from datamodules.settings import Tokenizers

_CHUNK = 1024
MAX_TARGET_TOKENS = 256


class RecordTable:
    """Records with everything that does not change from batch to batch: tokens, groups, ids.

    Texts are tokenised once, here, in the main process: workers need no tokenizer, and a distinct coarse prompt is
    tokenised once. Targets longer than `target_len` tokens (None: 256, as the authors) keep their first `target_len` and
    lose the end-of-text token, so that nothing teaches the decoder to stop where the text only was cut.
    """

    def __init__(
        self,
        records: Sequence[CFPRecord],
        tokenizers: Tokenizers,
        target_len: int | None,
    ):
        self.records = list(records)
        self.pad_id = tokenizers.t5_pad_id
        self.ids_R = np.array([record.id for record in records], dtype=np.int64)
        self.subjects_R = np.array([record.subject_group for record in records], dtype=np.int64)
        rows: dict[str, int] = {}
        self.coarse_rows_RL = np.array([[rows.setdefault(text, len(rows)) for text in record.coarse_prompts] for record in records])
        texts = list(rows)
        self.text_tokens_MS = torch.cat([tokenizers.tokenize(texts[i : i + _CHUNK]).long() for i in range(0, len(texts), _CHUNK)])
        self.groups_M = np.array([text_group(text) for text in texts], dtype=np.int64)
        longest = target_len or MAX_TARGET_TOKENS
        fine = [record.fine_prompt for record in records]
        targets = [ids[:longest] for i in range(0, len(fine), _CHUNK) for ids in tokenizers.tokenize_t5(fine[i : i + _CHUNK])]
        self._target_starts = np.cumsum([0, *map(len, targets)])
        self._targets = np.fromiter((token for ids in targets for token in ids), dtype=np.int64, count=self._target_starts[-1])

    @property
    def num_ids(self) -> int:
        """One more than the largest id."""
        return int(self.ids_R.max()) + 1

    def target_lengths(self, positions: np.ndarray) -> np.ndarray:
        """Target tokens of each record at `positions`, int64 (B,)."""
        return self._target_starts[positions + 1] - self._target_starts[positions]

    def targets(self, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Target tokens int64 (B, T), padded to the longest with the pad id, and their mask bool (B, T)."""
        starts, ends = self._target_starts[positions], self._target_starts[positions + 1]
        tokens_BT = np.full((len(positions), int((ends - starts).max())), self.pad_id, dtype=np.int64)
        for row, start, end in zip(tokens_BT, starts, ends, strict=True):
            row[: end - start] = self._targets[start:end]
        mask_BT = np.arange(tokens_BT.shape[1]) < (ends - starts)[:, None]
        return torch.from_numpy(tokens_BT), torch.from_numpy(mask_BT)


@dataclass(frozen=True)
class Draws:
    """What chance decided for records: coarse length index and view, int64 each, by position in the table."""

    epoch: int
    lengths_R: np.ndarray
    views_R: np.ndarray


class BatchAssembler:
    """Puts a batch together from the record table and, where images are needed, the feature caches or the pictures."""

    def __init__(self, table: RecordTable, caches: Sequence[FeatureCache], image_size: int | None):
        self.table = table
        self._caches = list(caches)
        self._image_size = image_size  # None: no pictures in the batch

    def draw(self, seed: int, epoch: int, flips: bool, length_tag: int) -> Draws:
        """Coarse lengths and views of an epoch, keyed by (seed, epoch, record id)."""
        table = self.table
        lengths_R = keyed.uniform_by_id(seed, epoch, table.num_ids, length_tag)[table.ids_R] * table.coarse_rows_RL.shape[1]
        views_R = np.zeros(len(table.ids_R), dtype=np.int64)
        if flips:
            views_R = (keyed.uniform_by_id(seed, epoch, table.num_ids, keyed.FLIP)[table.ids_R] < 0.5).astype(np.int64)
        return Draws(epoch, lengths_R.astype(np.int64), views_R)

    def batch(self, positions: np.ndarray, draws: Draws) -> dict[str, Tensor | list[str]]:
        """The batch of the records at `positions`, int64 (B,)."""
        table = self.table
        lengths, views = draws.lengths_R[positions], draws.views_R[positions]
        rows = table.coarse_rows_RL[positions, lengths]
        ids_B = torch.from_numpy(table.ids_R[positions])
        target_tokens_BT, target_mask_BT = table.targets(positions)
        records = [table.records[position] for position in positions]
        batch: dict[str, Tensor | list[str]] = {
            "ids_B": ids_B,
            "coarse_prompts": [record.coarse_prompts[length] for record, length in zip(records, lengths, strict=True)],
            "fine_prompts": [record.fine_prompt for record in records],
            "draw_seeds": torch.stack([torch.full_like(ids_B, draws.epoch), ids_B], dim=1),
            "text_tokens_BS": table.text_tokens_MS[torch.from_numpy(rows)],
            "target_tokens_BT": target_tokens_BT,
            "target_mask_BT": target_mask_BT,
            "coarse_groups_B": torch.from_numpy(table.groups_M[rows]),
            "subject_groups_B": torch.from_numpy(table.subjects_R[positions]),
        }
        for cache in self._caches:
            batch.update({_BATCH_KEYS[feature]: values for feature, values in cache.rows(views, positions).items()})
        if self._image_size is not None:
            pixels = [load_pixels(record, self._image_size) for record in records]
            mirrored = [picture[:, ::-1] if view else picture for picture, view in zip(pixels, views, strict=True)]
            batch["images_BCHW"] = to_unit_range(np.stack(mirrored))
        return batch

    def bank(self, positions: np.ndarray, draws: Draws) -> dict[str, Tensor]:
        """Image representations of other records, with the coarse groups and views that these have in this epoch."""
        cache = next(cache for cache in self._caches if "image_pooled" in cache.shapes)
        rows = self.table.coarse_rows_RL[positions, draws.lengths_R[positions]]
        features = cache.rows(draws.views_R[positions], positions)
        vectors = {"bank_vectors_NKE": features["image_vectors"]} if "image_vectors" in features else {}
        return {
            **vectors,
            "bank_pooled_NE": features["image_pooled"],
            "bank_groups_N": torch.from_numpy(self.table.groups_M[rows]),
            "bank_subject_groups_N": torch.from_numpy(self.table.subjects_R[positions]),
        }


_BATCH_KEYS = {
    "latent_mean": "latent_mean_BCHW",
    "latent_logvar": "latent_logvar_BCHW",
    "image_vectors": "image_vectors_BKE",
    "image_pooled": "image_pooled_BE",
}


@dataclass(frozen=True)
class BankPlan:
    """How many representations a batch's bank has, and whether half of them share their subject with the batch's records."""

    size: int
    hard_negatives: bool = False

    def draw(self, rng: np.random.Generator, candidates: np.ndarray, batch: np.ndarray, subjects_R: np.ndarray) -> np.ndarray:
        """Positions of the bank, int64 (N,): from `candidates`, without replacement, none of them in `batch`.

        Hard negatives are shared out among the batch's records in turn; where a subject has too few, others fill up.
        """
        taken = np.zeros(len(subjects_R), dtype=bool)
        taken[batch] = True
        hard: list[np.ndarray] = []
        if self.hard_negatives:
            subjects, wanted = np.unique(np.resize(subjects_R[batch], self.size // 2), return_counts=True)
            for subject, count in zip(subjects, wanted, strict=True):
                pool = candidates[(subjects_R[candidates] == subject) & ~taken[candidates]]
                hard.append(rng.choice(pool, min(int(count), len(pool)), replace=False))
                taken[hard[-1]] = True
        missing = self.size - sum(map(len, hard))
        # Drawing as many more as are taken and dropping those is the same as drawing from the rest, and needs no list of it.
        surplus = min(len(candidates), missing + int(taken.sum()))
        rest = candidates[rng.choice(len(candidates), surplus, replace=False)]
        return np.concatenate([*hard, rest[~taken[rest]][:missing]])


@dataclass(frozen=True)
class TrainingOrder:
    """What decides, with its number, which records a batch has: the seed, records over all ranks, and whether views are mirrored."""

    seed: int
    batch_size: int
    random_flip: bool


class TrainingBatches(Dataset):
    """Training batches by number: `batches[k]` is this rank's share of global batch k, for any k from 0.

    Of several ranks that share a batch, each also gets `target_token_share`: its target tokens over the mean of the ranks. `chance` adds
    entries by the batch's `draw_seeds`.
    """

    def __init__(
        self,
        assembler: BatchAssembler,
        train_positions: np.ndarray,
        order: TrainingOrder,
        bank: BankPlan,
        rank: int = 0,
        world_size: int = 1,
        chance: Callable[[Tensor], dict[str, Tensor]] | None = None,
    ):
        self._chance = chance
        self._assembler = assembler
        self._positions = train_positions
        self._seed, self._batch_size, self._random_flip = order.seed, order.batch_size, order.random_flip
        self._bank = bank
        self._rank, self._world_size = rank, world_size
        self._draws: Draws | None = None

    @property
    def batches_per_epoch(self) -> int:
        return len(self._positions) // self._batch_size

    def __getitem__(self, number: int) -> dict[str, Tensor | list[str]]:
        epoch, step = divmod(number, self.batches_per_epoch)
        order = keyed.permutation(self._seed, epoch, len(self._positions))
        whole = self._positions[order[step * self._batch_size : (step + 1) * self._batch_size]]
        if self._draws is None or self._draws.epoch != epoch:
            self._draws = self._assembler.draw(self._seed, epoch, self._random_flip, keyed.COARSE_LENGTH)
        share = self._batch_size // self._world_size
        mine = whole[self._rank * share : (self._rank + 1) * share]
        batch = self._assembler.batch(mine, self._draws)
        if self._world_size > 1:
            count = self._assembler.table.target_lengths
            batch["target_token_share"] = float(count(mine).sum() * self._world_size / count(whole).sum())
        if self._bank.size:
            # Every rank draws the same bank, free of the whole batch, since representations are gathered across ranks.
            rng = keyed.keyed_rng(self._seed, number, tag=keyed.BANK)
            bank = self._bank.draw(rng, self._positions, whole, self._assembler.table.subjects_R)
            batch.update(self._assembler.bank(bank, self._draws))
        return batch | self._chance(batch["draw_seeds"]) if self._chance else batch


class ValidationBatches(Dataset):
    """Validation batches: the same in every epoch and for every seed, plain views, sizes that differ by one at most."""

    def __init__(
        self,
        assembler: BatchAssembler,
        positions: np.ndarray,
        batch_size: int,
        bank: BankPlan,
        bank_positions: np.ndarray,
        rank: int = 0,
        world_size: int = 1,
    ):
        self._assembler, self._bank, self._bank_positions = assembler, bank, bank_positions
        self._rank, self._world_size = rank, world_size
        self._batches = np.array_split(positions, -(-len(positions) // batch_size))
        self._draws = assembler.draw(0, 0, False, keyed.VALIDATION_COARSE_LENGTH)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> dict[str, Tensor | list[str]]:
        whole = self._batches[number]
        batch = self._assembler.batch(np.array_split(whole, self._world_size)[self._rank], self._draws)
        if self._bank.size:
            rng = keyed.keyed_rng(0, number, tag=keyed.VALIDATION_BANK)
            bank = self._bank.draw(rng, self._bank_positions, whole, self._assembler.table.subjects_R)
            batch.update(self._assembler.bank(bank, self._draws))
        return batch


class KeyedBatchSampler(Sampler[int]):
    """The numbers of every `every`-th global batch from `first_batch()` on, without end; so it has no length.

    `first_batch` is asked when iteration starts: by then a trainer has restored its step count from a checkpoint.
    """

    def __init__(self, first_batch: Callable[[], int], every: int = 1):
        self._first_batch, self._every = first_batch, every

    def __iter__(self) -> Iterator[int]:
        number = self._first_batch()
        while True:
            yield number
            number += self._every


class ImagesInOrder(Dataset):
    """Pictures of records in their order, uint8 (H, W, 3), for encoding into a feature cache."""

    def __init__(self, records: Sequence[CFPRecord], image_size: int):
        self._records, self._image_size = records, image_size

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, position: int) -> np.ndarray:
        return load_pixels(self._records[position], self._image_size)


def stack_images(pixels: list[np.ndarray]) -> Tensor:
    """Pictures uint8 (H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]."""
    return to_unit_range(np.stack(pixels))


def as_it_is(batch):
    """Collation for batches that are whole already."""
    return batch
