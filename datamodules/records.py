"""What a record is: one coarse-fine prompt pair with its fine image, wherever it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from datamodules.stored_images import StoredImage
from datamodules.tiny_world.grammar import SUBJECTS, SceneDescription

COARSE_LENGTHS = ("short", "middle", "long")


@dataclass(frozen=True)
class CFPRecord:
    """A coarse-fine prompt pair.

    `id` is the row number in its source (from 0, bad rows counted), so it stays when other rows are repaired or dropped.
    `coarse_prompts` has one entry, or three, shortest first. `image` is the picture's file, or its place inside a parquet file or a
    saved data set; None where the record has no picture on disk;
    `scene` is the tiny world's truth, from which its picture is rendered. `metadata` keeps the source's other columns.
    """

    id: int
    fine_prompt: str
    coarse_prompts: tuple[str, ...]
    image: Path | StoredImage | None = None
    scene: SceneDescription | None = None
    metadata: dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        assert len(self.coarse_prompts) in (1, 3), "a record has one coarse prompt or three"

    def coarse_prompt(self, length: int) -> str:
        """The coarse prompt of a length (0 short, 1 middle, 2 long), or the only one there is."""
        return self.coarse_prompts[min(length, len(self.coarse_prompts) - 1)]

    @property
    def subject_group(self) -> int:
        """Index of the subject in the tiny world; -1 where the subject is not known."""
        return -1 if self.scene is None else SUBJECTS.index(self.scene.subject)


@dataclass(frozen=True)
class EvalPrompt:
    """A coarse prompt to be refined and scored; `prompt_id` is its row number in its split, `fine_prompt` "" where there is none."""

    prompt_id: int
    coarse_prompt: str
    fine_prompt: str
    scene: SceneDescription | None = None


@dataclass(frozen=True)
class BadRecord:
    """A row that is left out: its row number, its line in the file (from 1; 0 if none), a reason's code, and the detail."""

    id: int
    line: int
    reason: str
    detail: str


def text_group(text: str) -> int:
    """A stable int64 for a text: equal texts have equal groups, in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def coarse_length_index(coarse_length: str | int) -> int:
    """0, 1 or 2 for a coarse length given by name or by number. Raises ValueError for any other."""
    if coarse_length in COARSE_LENGTHS:
        return COARSE_LENGTHS.index(coarse_length)
    if isinstance(coarse_length, int) and not isinstance(coarse_length, bool) and 0 <= coarse_length < len(COARSE_LENGTHS):
        return coarse_length
    raise ValueError(f"unknown coarse length {coarse_length!r}; it may be {', '.join(COARSE_LENGTHS)} (or 0, 1, 2)")


def prefix_share(records: list[CFPRecord]) -> float:
    """Share of (coarse, fine) pairs in which the coarse prompt is a prefix of the fine one, in [0, 1].

    Where it is low, coarse prompts are summaries: a decoder primed with one continues a text that the fine prompt is not.
    """
    pairs = [(coarse.strip(), record.fine_prompt.strip()) for record in records for coarse in record.coarse_prompts]
    return sum(fine.startswith(coarse) for coarse, fine in pairs) / len(pairs) if pairs else 0.0
