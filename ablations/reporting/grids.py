"""The diversity grids of arms side by side, for the page: the same prompts at the same seed, pictures embedded, prompts as text."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablations.figures.new_words import split_new_words
from ablations.reporting.collect import FinishedCell, Section
from ablations.reporting.layouts import LAYOUTS, PLACEBO, Family, Layout, families
from ablations.results.looking import MissingPicture
from ablations.results.prompts_and_scores import PROMPTS, read_prompts
from ablations.results.run_pictures import read_picture

if TYPE_CHECKING:
    from PIL import Image

# Pictures are embedded at most this large, in pixels: a page of a hundred stays below some megabytes.
_LONGEST_SIDE, _QUALITY = 224, 84
PLUG_IN = "plug_in"
NUM_PROMPTS, NUM_CANDIDATES = 4, 3


@dataclass(frozen=True)
class Picture:
    """A picture with its prompt: `pieces` are (text, added by the refiner); `uri` is its data, "" where there is none, and `missing` says
    why."""

    uri: str
    pieces: tuple[tuple[str, bool], ...]
    missing: str = ""


@dataclass(frozen=True)
class GridArm:
    """One arm's candidates for one prompt; `plug_in` is the coarse prompt drawn with its trained E_T, None where that was not drawn."""

    label: str
    candidates: tuple[Picture, ...]
    plug_in: Picture | None = None


@dataclass(frozen=True)
class GridPrompt:
    """One coarse prompt: its own picture, and every arm's candidates."""

    coarse: Picture
    arms: tuple[GridArm, ...]


@dataclass(frozen=True)
class SideBySide:
    """The grids of a family's arms at one seed."""

    title: str
    family: str
    seed: int
    prompts: tuple[GridPrompt, ...]


def side_by_side(section: Section) -> list[SideBySide]:
    """Grids of every family of arms: with and without AFE first. None of a family whose arms have no seed in common."""
    order = {"afe": 0, "losses": 1, "prompt_length": 2}
    found = []
    for layout in sorted(LAYOUTS, key=lambda layout: order.get(layout.id, len(order))):
        for family in families(layout, section.cells):
            seeds = set.intersection(*(set(cells) for cells in family.rows.values()))
            if seeds:
                found.append(_grid(family, min(seeds)))
    return [grid for grid in found if grid.prompts]


def _grid(family: Family, seed: int) -> SideBySide:
    cells = {key: family.rows[key][seed] for key in family.ordered_keys() if key in family.rows and key != PLACEBO}
    lines = {key: _prompt_lines(cell) for key, cell in cells.items()}
    first = next(iter(lines.values()))
    prompts = []
    for prompt_id in list(dict.fromkeys(prompt_id for prompt_id, _ in first))[:NUM_PROMPTS]:
        if any((prompt_id, "refined") not in own or (prompt_id, "coarse") not in own for own in lines.values()):
            continue
        source = next(iter(cells.values()))
        coarse = first[prompt_id, "coarse"][0]
        arms = [
            GridArm(
                family.layout.label(key),
                tuple(_picture(cells[key], line) for line in own[prompt_id, "refined"][:NUM_CANDIDATES]),
                _plug_in(family.layout, cells[key], own.get((prompt_id, PLUG_IN), ())),
            )
            for key, own in lines.items()
        ]
        prompts.append(GridPrompt(_picture(source, coarse, ((coarse["coarse"], False),)), tuple(arms)))
    return SideBySide(family.layout.title, family.name, seed, tuple(prompts))


def _plug_in(layout: Layout, cell: FinishedCell, lines: Sequence[dict]) -> Picture | None:
    """The picture of the first candidate; None in a layout that does not read it, and where it is not there."""
    if PLUG_IN not in layout.conditions or not lines:
        return None
    drawn = _picture(cell, lines[0])
    return drawn if drawn.uri else None


def _prompt_lines(cell: FinishedCell) -> Mapping[tuple[int, str], Sequence[dict]]:
    """The lines of prompts.jsonl with a picture by prompt and condition, candidates in order."""
    lines: dict[tuple[int, str], list[dict]] = {}
    for line in read_prompts(cell.folder / PROMPTS):
        if line["image"]:
            lines.setdefault((line["prompt_id"], line["condition"]), []).append(line)
    return {key: sorted(members, key=lambda line: line["candidate"]) for key, members in lines.items()}


def _picture(cell: FinishedCell, line: dict, pieces: tuple[tuple[str, bool], ...] | None = None) -> Picture:
    pieces = tuple(split_new_words(line["coarse"], line["refined"])) if pieces is None else pieces
    try:
        return Picture(_data_uri(read_picture(cell.folder, line["image"])), pieces)
    except MissingPicture as missing:
        return Picture("", pieces, str(missing))


def _data_uri(picture: Image.Image) -> str:
    """The picture as a data URI (WebP), reduced where it is large."""
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=_QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
