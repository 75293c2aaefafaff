"""The grid and its relatives: nothing overflows, nothing is lost, the same call gives the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ablations.config.scope import TINY_WORLD_NOTE
from ablations.figures.contact_sheet import contact_sheet
from ablations.figures.diversity_grid import GridRow, draw_grid
from ablations.figures.loss_curves import loss_curves
from ablations.figures.new_words import split_new_words
from ablations.figures.typesetting import ACCENT, CARD, MISSING, Run, Style, drawable, scaled, wrap
from datamodules.tiny_world.grammar import SceneDescription
from datamodules.tiny_world.renderer import render

COARSE = "an old castle in the mountains"
LONG = " ".join(f"word{'x' * (i % 9)}" for i in range(60))
MONSTER = "W" * 300


def _row(**changes) -> GridRow:
    picture = render(SceneDescription("castle", "mountains", "noon"))
    fine = render(SceneDescription("castle", "mountains", "noon", "oil painting", ("sharp focus", "8k")))
    fields = {
        "coarse_prompt": COARSE,
        "coarse_image": picture,
        "candidates": [(f"{COARSE}, oil painting", fine)] * 3,
        "diversity": {"ST-LPIPS": 0.2, "Vendi": 1.5},
    }
    return GridRow(**{**fields, **changes})


def _text_of(block) -> str:
    return "".join(run.text for line in block.lines for _, run in line)


@pytest.mark.parametrize(
    "text", [LONG, MONSTER, f"a {MONSTER} b", "Łódź, größer, кошка на крыше, γάτα", "猫 🐈 cat", "a\tb\n\nc", "fi" * 100]
)
@pytest.mark.parametrize("weight", ["regular", "bold", "italic"])
def test_wrapped_text_stays_within_its_width_and_loses_nothing(text, weight):
    block = wrap(Run(text, Style(14, weight)), 192)
    assert block.text_width <= 192
    assert _text_of(block) == drawable(text).replace(" ", "")
    assert block.height == len(block.lines) * block.line_height


def test_a_word_that_changes_style_in_the_middle_is_not_broken_there():
    block = wrap([Run("a cat", Style(14)), Run("fish, red", Style(14, "bold"))], 400)
    (line,) = block.lines
    offsets = {run.text: offset for offset, run in line}
    cat = next(run for _, run in line if run.text == "cat")
    assert offsets["fish,"] == pytest.approx(offsets["cat"] + wrap(cat, 400).text_width)


def test_ink_stays_in_the_text_column():
    for text in (LONG, MONSTER, "gjpqyÅÉ " * 30):
        block = wrap(Run(text, Style(14, "bold")), 192)
        canvas = Image.new("RGB", (192 + 40, block.height + 40), "white")
        block.draw(ImageDraw.Draw(canvas), 20, 20)
        ink = np.argwhere(np.asarray(canvas.convert("L")) < 200)
        assert ink[:, 1].min() >= 18 and ink[:, 1].max() < 20 + 192 + 2
        assert ink[:, 0].min() >= 20 and ink[:, 0].max() < 20 + block.height


def test_added_words_are_told_from_the_users_own():
    assert split_new_words("a cat", "a cat, oil painting") == [("a cat", False), (", oil painting", True)]
    assert split_new_words("a cat", "a catfish") == [("a cat", False), ("fish", True)]
    assert split_new_words("a cat", "a cat") == [("a cat", False)]
    rewritten = split_new_words("a red cat", "Cat, red, by a lake at a pier")
    assert "".join(text for text, _ in rewritten) == "Cat, red, by a lake at a pier"
    assert [text for text, new in rewritten if new] == ["by", "lake", "at", "a", "pier"]


def test_characters_that_the_font_lacks_are_shown_as_a_box_and_controls_vanish():
    assert drawable("猫 cat") == f"{MISSING} cat"
    assert drawable("a\u200b\x00b\n c") == "ab c"
    assert drawable("é") == "é"


def test_grid_has_the_pictures_unharmed_and_in_order(tmp_path):
    red, blue = (np.full((192, 192, 3), colour, np.uint8) for colour in ((200, 0, 0), (0, 0, 200)))
    path = draw_grid([_row(coarse_image=red, candidates=[("a", blue), ("b", red)])], tmp_path / "grid.png")
    pixels = np.asarray(Image.open(path))
    for colour, count in (((200, 0, 0), 2), ((0, 0, 200), 1)):
        # All but the four rounded corners of each.
        assert (pixels == colour).all(axis=-1).sum() == pytest.approx(count * 192 * 192, abs=count * 64)
    row = pixels[np.flatnonzero((pixels == (0, 0, 200)).all(axis=-1).any(axis=1))[96]]
    is_red, is_blue = (row == (200, 0, 0)).all(axis=-1), (row == (0, 0, 200)).all(axis=-1)
    assert np.flatnonzero(is_red)[0] < np.flatnonzero(is_blue)[0] < np.flatnonzero(is_red)[-1]


def test_grid_colours_added_words_only(tmp_path):
    plain = _row(diversity={}, candidates=[(COARSE, _row().coarse_image)])
    added = _row(diversity={}, candidates=[(f"{COARSE}, oil painting", _row().coarse_image)])
    counts = []
    for row in (plain, added):
        pixels = np.asarray(Image.open(draw_grid([row], tmp_path / "grid.png")))
        counts.append(int((pixels[250:] == ACCENT).all(axis=-1).sum()))
    assert counts[0] == 0 and counts[1] > 50


def test_the_same_grid_has_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        draw_grid([_row(), _row()], tmp_path / name, "arm · seed 0", TINY_WORLD_NOTE)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_grid_grows_with_its_texts_and_keeps_its_margins_clean(tmp_path):
    big = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    rows = [
        _row(coarse_prompt=LONG, candidates=[(f"{LONG} {MONSTER}", big)], diversity={"ST-LPIPS": float("nan"), MONSTER: 1.0}, note=MONSTER),
        _row(coarse_prompt="", candidates=[("", big[:256])] * 4, diversity={}),
    ]
    small = Image.open(draw_grid([_row()], tmp_path / "small.png"))
    pixels = np.asarray(Image.open(draw_grid(rows, tmp_path / "large.png", MONSTER, MONSTER)))
    assert pixels.shape[0] > 2 * small.height and pixels.shape[1] > small.width
    background = pixels[0, 0]
    for strip in (pixels[:36], pixels[-36:], pixels[:, :38], pixels[:, -38:]):
        assert (strip == background).all()
    # The strip between a card's outline and its first column holds no ink.
    inside = pixels[len(pixels) // 2, 45:56]
    assert (inside == CARD).all()


def test_small_pictures_are_enlarged_and_large_ones_reduced():
    assert scaled(np.zeros((64, 64, 3), np.uint8)).size == (192, 192)
    assert scaled(np.zeros((32, 64, 3), np.uint8)).size == (192, 96)
    assert scaled(np.zeros((512, 512, 3), np.uint8)).size == (256, 256)
    assert scaled(np.zeros((200, 200, 3), np.uint8)).size == (200, 200)


def test_nothing_to_draw_and_wrong_pictures_are_errors(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        draw_grid([], tmp_path / "grid.png")
    with pytest.raises(ValueError, match=r"row 0 .* has no candidates"):
        draw_grid([_row(candidates=[])], tmp_path / "grid.png")
    with pytest.raises(ValueError, match="candidate 0 of row 0 must be a uint8 picture"):
        draw_grid([_row(candidates=[("a", np.zeros((64, 64, 3)))])], tmp_path / "grid.png")
    with pytest.raises(ValueError, match="label per picture"):
        contact_sheet([np.zeros((64, 64, 3), np.uint8)], [], 3, tmp_path / "sheet.png")
    assert list(tmp_path.iterdir()) == []


def test_contact_sheet_places_pictures_in_columns(tmp_path):
    pictures = [np.full((192, 192, 3), 10 * i, np.uint8) for i in range(1, 6)]
    pixels = np.asarray(Image.open(contact_sheet(pictures, ["", LONG, "c", "d", MONSTER], 3, tmp_path / "sheet.png", "Sheet")))
    assert pixels.shape[1] == 3 * 192 + 2 * 20 + 2 * 40
    for i, (x, above) in enumerate([(40, None), (252, 0), (464, 1), (40, 0), (252, 1)]):
        found = np.argwhere((pixels == 10 * (i + 1)).all(axis=-1))
        inside = found[(found[:, 1] >= x) & (found[:, 1] < x + 192)]
        assert len(inside) >= 192 * 192 - 64, (i, above)


def _metrics_csv(path, rows: int, columns: str = "epoch,step,train/l_mse,train/loss,val/piqe") -> None:
    lines = [columns] + [f"0,{step},{1 / (step + 1)},{2 / (step + 1)}," for step in range(rows)] + [f"0,{rows},,,40.0"]
    path.write_text("\n".join(lines) + "\n")


def test_loss_curves_draw_a_panel_for_each_loss_column_and_the_same_bytes(tmp_path):
    _metrics_csv(tmp_path / "metrics.csv", 60)
    for name in ("a.png", "b.png"):
        loss_curves(tmp_path / "metrics.csv", tmp_path / name, title="arm_" * 60)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    one = Image.open(loss_curves(tmp_path / "metrics.csv", tmp_path / "one.png", columns=["train/loss"]))
    assert Image.open(tmp_path / "a.png").width == pytest.approx(2 * one.width, abs=60)


def test_a_held_out_curve_stands_in_the_panel_of_its_term(tmp_path):
    rows = ["step,train/l_text,val/l_text", *(f"{step},{1 / step},{2 / step if step % 5 == 0 else ''}" for step in range(1, 31))]
    (tmp_path / "metrics.csv").write_text("\n".join(rows))
    (tmp_path / "alone.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows))
    both, alone = (Image.open(loss_curves(tmp_path / f"{name}.csv", tmp_path / f"{name}.png")) for name in ("metrics", "alone"))
    assert both.size == alone.size and both.tobytes() != alone.tobytes()


def test_loss_curves_say_what_is_missing(tmp_path):
    _metrics_csv(tmp_path / "metrics.csv", 3)
    with pytest.raises(ValueError, match=r"no column 'train/l_clip'; it has epoch, step, train/l_mse"):
        loss_curves(tmp_path / "metrics.csv", tmp_path / "a.png", columns=["train/l_clip"])
    (tmp_path / "empty.csv").write_text("step,train/loss\n")
    with pytest.raises(ValueError, match="no loss values"):
        loss_curves(tmp_path / "empty.csv", tmp_path / "a.png")
