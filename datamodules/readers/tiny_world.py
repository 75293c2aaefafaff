"""The tiny world as a source of records."""

from __future__ import annotations

from collections.abc import Callable

from datamodules.keyed import STYLE_DROPOUT, uniform_by_id
from datamodules.records import CFPRecord
from datamodules.tiny_world.grammar import Caption, coarse_prompts, draw_split
from datamodules.tiny_world.worlds import World

# The grammar has about 100,000 likely prompts; drawing distinct ones takes ever longer near a split's end.
TINY_WORLD_LIMITS = {"train": 40_000, "validation": 4_000, "test": 8_000}


TINY_WORLD_DATA_SEED = 0


# Ids of the tiny world's splits do not overlap: training rows from 0, then validation, then test.
TINY_WORLD_ID_OFFSETS = {"train": 0, "validation": 100_000, "test": 200_000}


def read_tiny_world(
    split: str,
    count: int,
    world: World,
    count_tokens: Callable[[str], int],
    clean: Callable[[str], str] | None = None,
    caption_dropout: float = 0.0,
) -> list[CFPRecord]:
    """The first `count` records of a split of the tiny world: the same in every run, whatever its seed.

    Of the training records, a share of `caption_dropout` in [0, 1] has no style word in its texts, though its picture has the style.
    Raises ValueError for a count that the split cannot give.
    """
    limit = TINY_WORLD_LIMITS[split]
    if not 0 <= count <= limit:
        raise ValueError(f"the tiny world's {split} split gives 0 to {limit} records, not {count}")
    clean = clean or (lambda text: text)
    chances = uniform_by_id(TINY_WORLD_DATA_SEED, 0, count, STYLE_DROPOUT)
    records = []
    for number, caption in enumerate(draw_split(split, count, TINY_WORLD_DATA_SEED, world.draw_fine_caption)):
        text = _without_style(caption) if split == "train" and chances[number] < caption_dropout else caption.text
        coarse = tuple(clean(cut) for cut in coarse_prompts(text, count_tokens))
        records.append(CFPRecord(TINY_WORLD_ID_OFFSETS[split] + number, clean(text), coarse, scene=caption.description))
    return records


def _without_style(caption: Caption) -> str:
    head, *words = caption.text.split(", ")
    return ", ".join([head, *(word for word in words if word != caption.description.style)])
