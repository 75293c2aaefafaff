"""The qualitative figure: methods as columns, prompts as rows, each picture above the prompt that it was drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ablations.figures.new_words import split_new_words
from ablations.figures.typesetting import (
    ACCENT,
    CARD,
    FAINT_INK,
    INK,
    MISSING,
    PAPER,
    RULE,
    SMALL_SIDE,
    SOFT_INK,
    Block,
    Run,
    Style,
    checked_picture,
    drawable,
    paste_picture,
    scaled,
    wrap,
)

_MARGIN, _GAP, _PADDING = 36, 18, 18
_TITLE, _SUBTITLE, _HEADING = Style(26, "bold"), Style(14, colour=SOFT_INK), Style(13, "bold", INK)
_PROMPT, _NEW, _FAILED = Style(14), Style(14, "bold", ACCENT), Style(13, "italic", FAINT_INK)


@dataclass(frozen=True)
class Shown:
    """A cell of the figure: the prompt and its picture, uint8 (H, W, 3); or the reason why there is none."""

    prompt: str = ""
    picture: np.ndarray | None = None
    failure: str = ""


def draw_figure(
    headings: Sequence[str], rows: Sequence[tuple[str, Sequence[Shown]]], path: str | Path, title: str = "", subtitle: str = ""
) -> Path:
    """Draws the figure as a PNG and returns its path; the same content gives the same bytes.

    Args:
        headings: a method's title for each column.
        rows: a coarse prompt with what each method made of it, in the order of the headings. Words that are not the coarse prompt's are
            bold and coloured.

    Text is wrapped, never cut. Raises ValueError for no rows, rows of another length than the headings, or pictures that are not uint8
    (H, W, 3).
    """
    if not headings or not rows or any(len(cells) != len(headings) for _, cells in rows):
        raise ValueError(f"the figure needs a cell for each of its {len(headings)} columns in each of its rows, and at least one of both")
    pictures = [
        [scaled(checked_picture(cell.picture, f"row {i}")) if cell.picture is not None else None for cell in cells]
        for i, (_, cells) in enumerate(rows)
    ]
    cell_width = max([SMALL_SIDE, *(picture.width for row in pictures for picture in row if picture is not None)])
    picture_height = max([SMALL_SIDE, *(picture.height for row in pictures for picture in row if picture is not None)])
    texts = [[_text(coarse, cell, cell_width) for cell in cells] for coarse, cells in rows]
    width = len(headings) * cell_width + (len(headings) - 1) * _GAP + 2 * _PADDING
    lacking = any(MISSING in drawable(cell.prompt) for _, cells in rows for cell in cells)
    note = f"{MISSING} stands for a character that this drawing's font lacks" if lacking else ""
    above = [(wrap(Run(title, _TITLE), width), 0), (wrap(Run(subtitle, _SUBTITLE), width), 14)]
    names = [wrap(Run(heading, _HEADING), cell_width) for heading in headings]
    footer = wrap(Run(note, _FAILED), width)
    head = sum(block.height + space for block, space in above) + max(name.height for name in names) + 8
    heights = [2 * _PADDING + picture_height + 10 + max(text.height for text in row) for row in texts]
    height = 2 * _MARGIN + head + sum(heights) + 12 * (len(rows) - 1) + (footer.height + 12 if note else 0)
    canvas = Image.new("RGB", (width + 2 * _MARGIN, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    y = _MARGIN
    for block, space in above:
        block.draw(draw, _MARGIN, y)
        y += block.height + space
    for column, name in enumerate(names):
        name.draw(draw, _MARGIN + _PADDING + column * (cell_width + _GAP), y)
    y += max(name.height for name in names) + 8
    for row_pictures, row_texts, row_height in zip(pictures, texts, heights, strict=True):
        draw.rounded_rectangle((_MARGIN, y, _MARGIN + width - 1, y + row_height - 1), radius=10, fill=CARD, outline=RULE)
        for column, (picture, text) in enumerate(zip(row_pictures, row_texts, strict=True)):
            x, top = _MARGIN + _PADDING + column * (cell_width + _GAP), y + _PADDING
            if picture is None:
                draw.rounded_rectangle((x, top, x + cell_width - 1, top + picture_height - 1), radius=4, fill=PAPER, outline=RULE)
            else:
                paste_picture(canvas, picture, x, top)
            text.draw(draw, x, top + picture_height + 10)
        y += row_height + 12
    footer.draw(draw, _MARGIN, y)
    canvas.save(path, format="PNG")
    return Path(path)


def _text(coarse: str, cell: Shown, width: int) -> Block:
    if cell.failure:
        return wrap(Run(f"failed: {cell.failure}", _FAILED), width)
    return wrap([Run(text, _NEW if is_new else _PROMPT) for text, is_new in split_new_words(coarse, cell.prompt)], width)


def figure_rows(
    coarse: Mapping[int, str], methods: Sequence[str], shown: Mapping[tuple[str, int], Shown]
) -> list[tuple[str, Sequence[Shown]]]:
    """Rows for `draw_figure`: prompts by id, with what each method made of them."""
    return [(text, [shown[name, prompt_id] for name in methods]) for prompt_id, text in coarse.items()]
