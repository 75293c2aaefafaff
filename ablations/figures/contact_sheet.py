"""Labelled pictures on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ablations.figures.diversity_grid import GAP, MARGIN, TITLE
from ablations.figures.typesetting import PAPER, Run, Style, checked_picture, paste_picture, scaled, wrap


def contact_sheet(images: Sequence[np.ndarray], labels: Sequence[str], columns: int, path: str | Path, title: str = "") -> Path:
    """Draws labelled pictures in rows of `columns` as a PNG, just where it is told, and returns its path.

    Args:
        images: uint8 (H, W, 3) each, at least one.
        labels: a text per picture, wrapped below it; "" for none.

    Raises ValueError for no pictures, labels that do not match, or fewer than one column.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(
            f"a contact sheet needs a label per picture and at least one picture, got {len(images)} pictures and {len(labels)} labels"
        )
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    pictures = [scaled(checked_picture(image, f"picture {i}")) for i, image in enumerate(images)]
    cell = max(192, *(picture.width for picture in pictures))
    texts = [wrap(Run(label, Style(13)), cell) for label in labels]
    columns = min(columns, len(pictures))
    width = columns * cell + (columns - 1) * GAP
    heading = wrap(Run(title, TITLE), width)
    rows = [range(start, min(start + columns, len(pictures))) for start in range(0, len(pictures), columns)]
    picture_heights = [max(pictures[i].height for i in row) for row in rows]
    row_heights = [tall + 6 + max(texts[i].height for i in row) for tall, row in zip(picture_heights, rows, strict=True)]
    header = heading.height + 16 if heading.height else 0
    canvas = Image.new("RGB", (width + 2 * MARGIN, 2 * MARGIN + header + sum(row_heights) + GAP * (len(rows) - 1)), PAPER)
    draw = ImageDraw.Draw(canvas)
    heading.draw(draw, MARGIN, MARGIN - 4)
    y = MARGIN + header
    for row, tall, row_height in zip(rows, picture_heights, row_heights, strict=True):
        for column, i in enumerate(row):
            x = MARGIN + column * (cell + GAP)
            paste_picture(canvas, pictures[i], x, y)
            texts[i].draw(draw, x, y + tall + 6)
        y += row_height + GAP
    canvas.save(path, format="PNG")
    return Path(path)
