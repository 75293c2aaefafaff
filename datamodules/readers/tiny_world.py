"""The tiny world as a source of records."""

from __future__ import annotations

from collections.abc import Callable

from datamodules.records import CFPRecord
from datamodules.tiny_world import grammar

# The grammar has about 100,000 likely prompts; drawing distinct ones takes ever longer near a split's end.
TINY_WORLD_LIMITS = {"train": 40_000, "validation": 4_000, "test": 8_000}


TINY_WORLD_DATA_SEED = 0


# Ids of the tiny world's splits do not overlap: training rows from 0, then validation, then test.
TINY_WORLD_ID_OFFSETS = {"train": 0, "validation": 100_000, "test": 200_000}


def read_tiny_world(
    split: str, count: int, count_tokens: Callable[[str], int], clean: Callable[[str], str] | None = None
) -> list[CFPRecord]:
    """The first `count` records of a split of the tiny world: the same in every run, whatever its seed.

    Raises ValueError for a count that the split cannot give.
    """
    limit = TINY_WORLD_LIMITS[split]
    if not 0 <= count <= limit:
        raise ValueError(f"the tiny world's {split} split gives 0 to {limit} records, not {count}")
    clean = clean or (lambda text: text)
    return [
        CFPRecord(
            TINY_WORLD_ID_OFFSETS[split] + number,
            clean(caption.text),
            tuple(clean(text) for text in grammar.coarse_prompts(caption.text, count_tokens)),
            scene=caption.description,
        )
        for number, caption in enumerate(grammar.draw_split(split, count, TINY_WORLD_DATA_SEED))
    ]
