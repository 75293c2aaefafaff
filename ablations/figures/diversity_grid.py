"""The diversity grid: what the refiner made of each prompt, and how different its candidates are.

A row per prompt: the coarse prompt's picture first, then the candidates, each with its text; words that the refiner added
are set bold and coloured; the row's diversity stands at the right. `contact_sheet` draws labelled pictures in the same style.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

MARGIN, GAP, _PADDING, _PANEL = 40, 20, 20, 208
# Extra room beside the rule that sets the coarse prompt apart.
_APART = 16
TITLE, _SUBTITLE = Style(26, "bold"), Style(14, colour=SOFT_INK)
_HEADING = Style(11, "bold", FAINT_INK)
_PROMPT, _ADDED = Style(14), Style(14, "bold", ACCENT)
_SCORE, _SCORE_LABEL = Style(30, "bold", INK), Style(12, colour=SOFT_INK)
_VALUE, _NOTE = Style(12, "bold", INK), Style(11, "italic", FAINT_INK)


@dataclass(frozen=True)
class GridRow:
    """One prompt of the grid.

    Pictures are uint8 (H, W, 3). `candidates` holds (refined prompt, picture). `diversity` maps a label to its value; the
    first is shown large. `note` is a remark under the scores. `prompt_id` and `condition` name the row in W&B's table.
    """

    coarse_prompt: str
    coarse_image: np.ndarray
    candidates: Sequence[tuple[str, np.ndarray]]
    diversity: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    prompt_id: int = -1
    condition: str = "refined"


def _prompt_block(coarse_prompt: str, prompt: str, width: int) -> Block:
    if not drawable(prompt):
        return wrap(Run("(empty prompt)", _NOTE), width)
    return wrap([Run(text, _ADDED if is_new else _PROMPT) for text, is_new in split_new_words(coarse_prompt, prompt)], width)


def _figure(value: float) -> str:
    if not np.isfinite(value):
        return "not measured"
    if abs(value) < 10:
        return f"{value:.3f}"
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:.4g}"


class _ScorePanel:
    """The right end of a row: the first measure large, the others as a list with bars relative to the best row."""

    def __init__(self, row: GridRow, largest: Mapping[str, float]) -> None:
        self._items: list[tuple[int, Block, int]] = []
        self._bars: list[tuple[int, float]] = []
        y = 0
        for i, (label, value) in enumerate(row.diversity.items()):
            if i == 0:
                y = self._add(wrap(Run(_figure(value), _SCORE if np.isfinite(value) else _VALUE), _PANEL), y)
                y = self._add(wrap(Run(label, _SCORE_LABEL), _PANEL), y) + 4
            else:
                value_block = wrap(Run(_figure(value), _VALUE), _PANEL // 2 - 12, align="right")
                label_block = wrap(Run(label, _SCORE_LABEL), _PANEL // 2 + 12)
                self._items.append((y, value_block, _PANEL // 2 + 12))
                y = max(self._add(label_block, y), y + value_block.height) + 2
            share = value / largest[label] if largest.get(label) else 0.0
            self._bars.append((y, share if np.isfinite(share) else 0.0))
            y += 14 if i else 20
        if drawable(row.note):
            y = self._add(wrap(Run(row.note, _NOTE), _PANEL), y + 2)
        self.height = y

    def _add(self, block: Block, y: int) -> int:
        self._items.append((y, block, 0))
        return y + block.height

    def draw(self, draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
        for offset, block, indent in self._items:
            block.draw(draw, x + indent, y + offset)
        for offset, share in self._bars:
            draw.rounded_rectangle((x, y + offset, x + _PANEL - 1, y + offset + 3), radius=2, fill=RULE)
            end = round((_PANEL - 1) * min(max(share, 0.0), 1.0))
            if end >= 4:
                draw.rounded_rectangle((x, y + offset, x + end, y + offset + 3), radius=2, fill=ACCENT)


class _Legend:
    """What the two kinds of words and the bars mean, each with a swatch, on as many lines as they need."""

    def __init__(self, width: int, with_bars: bool) -> None:
        style = Style(12, colour=SOFT_INK)
        items = [(INK, Run("the user's words", style)), (ACCENT, Run("words that the refiner added", Style(12, "bold", ACCENT)))]
        if with_bars:
            items.append((None, Run("bars: relative to the largest value in this grid", style)))
        self._places: list[tuple[float, int, tuple[int, int, int] | None, Block]] = []
        x, y = 0.0, 0
        for colour, run in items:
            block = wrap(run, width - 16)
            if x and x + 16 + block.text_width > width:
                x, y = 0.0, y + style.line_height
            self._places.append((x, y, colour, block))
            x += 16 + block.text_width + 24
        self.height = y + style.line_height

    def draw(self, draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
        for offset, down, colour, block in self._places:
            left, top = round(x + offset), y + down
            if colour is None:
                draw.rounded_rectangle((left, top + 7, left + 9, top + 10), radius=2, fill=ACCENT)
            else:
                draw.rounded_rectangle((left, top + 4, left + 9, top + 13), radius=2, fill=colour)
            block.draw(draw, left + 16, top)


class _GridLayout:
    """Every block of the grid measured, before the canvas is made."""

    def __init__(self, rows: Sequence[GridRow], title: str, subtitle: str) -> None:
        self.rows = rows
        self.pictures = [[scaled(image) for image in (row.coarse_image, *(image for _, image in row.candidates))] for row in rows]
        # Never narrower than an enlarged picture: a tall picture's text would be a column of syllables.
        self.cell = max(192, *(picture.width for pictures in self.pictures for picture in pictures))
        self.columns = max(len(pictures) for pictures in self.pictures)
        self.texts = [
            [_prompt_block(row.coarse_prompt, text, self.cell) for text in (row.coarse_prompt, *(text for text, _ in row.candidates))]
            for row in rows
        ]
        labels = {label for row in rows for label in row.diversity}
        largest = {
            label: max((abs(row.diversity[label]) for row in rows if np.isfinite(row.diversity.get(label, np.nan))), default=0.0)
            for label in labels
        }
        self.panels = [_ScorePanel(row, largest) for row in rows]
        panel = GAP * 2 + _PANEL if any(row.diversity or drawable(row.note) for row in rows) else 0
        self.card_width = 2 * _PADDING + self.columns * self.cell + (self.columns - 1) * GAP + _APART + panel
        self.width = self.card_width + 2 * MARGIN
        self.title = wrap(Run(title, TITLE), self.card_width)
        self.subtitle = wrap(Run(subtitle, _SUBTITLE), self.card_width)
        self.legend = _Legend(self.card_width, with_bars=panel > 0)
        texts = [
            title,
            subtitle,
            *(text for row in rows for text in (row.coarse_prompt, row.note, *row.diversity, *(t for t, _ in row.candidates))),
        ]
        lacking = any(MISSING in drawable(text) for text in texts)
        footer = f"{MISSING} stands for a character that this drawing's font lacks; prompts.jsonl has the exact text" if lacking else ""
        self.footer = wrap(Run(footer, _NOTE), self.card_width)
        self.heights = [
            2 * _PADDING + max(max(p.height for p in pictures) + 10 + max(t.height for t in texts), panel.height)
            for pictures, texts, panel in zip(self.pictures, self.texts, self.panels, strict=True)
        ]

    def column_x(self, column: int) -> int:
        return MARGIN + _PADDING + column * (self.cell + GAP) + (_APART if column else 0)


def draw_grid(rows: Sequence[GridRow], path: str | Path, title: str = "", subtitle: str = "") -> Path:
    """Draws the grid as a PNG, just where it is told, and returns its path; the same rows give the same bytes.

    Args:
        rows: at least one prompt, each with at least one candidate. Rows may differ in their number of candidates.
        title: the headline: arm name and seed.
        subtitle: a quieter line under it, such as `TINY_WORLD_NOTE`.

    Pictures of 64 px are enlarged to 192, pictures of 512 px reduced to 256. Text is wrapped, never cut. Raises ValueError
    where there is nothing to draw or a picture is not uint8 (H, W, 3).
    """
    _check(rows)
    layout = _GridLayout(rows, title, subtitle)
    headings = ["COARSE PROMPT", *(f"CANDIDATE {i}" for i in range(1, layout.columns))]
    header = layout.title.height + layout.subtitle.height + layout.legend.height + 8 + 18 + _HEADING.line_height + 6
    footer = layout.footer.height + 12 if layout.footer.height else 0
    height = 2 * MARGIN - 4 + header + sum(layout.heights) + 12 * (len(rows) - 1) + footer
    canvas = Image.new("RGB", (layout.width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    y = MARGIN - 4
    for block, space in ((layout.title, 0), (layout.subtitle, 8), (layout.legend, 18)):
        block.draw(draw, MARGIN, y)
        y += block.height + space
    for column, heading in enumerate(headings):
        wrap(Run(heading, _HEADING), layout.cell).draw(draw, layout.column_x(column), y)
    if layout.column_x(layout.columns) < layout.width - MARGIN:
        wrap(Run("DIVERSITY OF CANDIDATES", _HEADING), _PANEL).draw(draw, layout.column_x(layout.columns) + GAP, y)
    y += _HEADING.line_height + 6
    for i, row_height in enumerate(layout.heights):
        _draw_row(canvas, draw, layout, i, y)
        y += row_height + 12
    layout.footer.draw(draw, MARGIN, y)
    canvas.save(path, format="PNG")
    return Path(path)


def _check(rows: Sequence[GridRow]) -> None:
    if not rows:
        raise ValueError("the diversity grid has no rows: hand in at least one prompt")
    for i, row in enumerate(rows):
        if not row.candidates:
            raise ValueError(f"row {i} of the diversity grid ({row.coarse_prompt!r}) has no candidates")
        checked_picture(row.coarse_image, f"the coarse picture of row {i}")
        for candidate, (_, image) in enumerate(row.candidates):
            checked_picture(image, f"candidate {candidate} of row {i}")


def _draw_row(canvas: Image.Image, draw: ImageDraw.ImageDraw, layout: _GridLayout, i: int, y: int) -> None:
    card = (MARGIN, y, MARGIN + layout.card_width - 1, y + layout.heights[i] - 1)
    draw.rounded_rectangle(card, radius=10, fill=CARD, outline=RULE)
    top = y + _PADDING
    text_top = top + max(picture.height for picture in layout.pictures[i]) + 10
    for column in (1, layout.columns) if layout.width - MARGIN > layout.column_x(layout.columns) else (1,):
        x = layout.column_x(column) - ((GAP + _APART) // 2 if column < layout.columns else 0)
        draw.line((x, top, x, y + layout.heights[i] - _PADDING), fill=RULE)
    for column, (picture, text) in enumerate(zip(layout.pictures[i], layout.texts[i], strict=True)):
        paste_picture(canvas, picture, layout.column_x(column), top)
        text.draw(draw, layout.column_x(column), text_top)
    layout.panels[i].draw(draw, layout.column_x(layout.columns) + GAP, top)
