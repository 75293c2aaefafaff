"""Pictures and scores that were made before: found by what made them, the same bit for bit, and never in the way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from ablations.cell.drawing.picture_store import PictureStore
from ablations.cell.drawing.pictures import draw_pictures
from ablations.cell.scoring.score_store import ScoreStore
from ablations.cell.scoring.scorer import Scorer
from ablations.config import parse
from ablations.results.made_by import full_batches, picture_key
from ablations.results.prompts_and_scores import Drawing
from datamodules.records import EvalPrompt
from lightning_modules.text_encoder import FineGrainedTextEncoder

CONFIG = parse(["eval.steps=2", "eval.batch_size=4"]).eval


def drawings_of(*texts: str, trained: bool = False) -> list[Drawing]:
    condition = "plug_in" if trained else "refined"
    return [
        Drawing(i, condition, candidate, "a cat", text, 0, 1000 + candidate, by_trained_encoder=trained)
        for i, text in enumerate(texts)
        for candidate in range(2)
    ]


def pictures(backbones, drawings, store=None, trained=None) -> np.ndarray:
    return draw_pictures(backbones, drawings, CONFIG, lambda items, total, label: items, lambda: None, trained, store)


def drawn(monkeypatch, backbones) -> list[int]:
    """Counts the pictures that the model draws, a number for each batch."""
    batches: list[int] = []
    generate = backbones.text_to_image.generate

    def counted(states, empty, seeds, **options):
        batches.append(len(seeds))
        return generate(states, empty, seeds, **options)

    monkeypatch.setattr(backbones.text_to_image, "generate", counted)
    return batches


def test_a_picture_is_the_same_whatever_else_is_drawn_with_it(small_backbones):
    texts = ("a cat", "a red boat in the rain, oil painting", "a castle", "a robot", "a tree at night, 8k")
    together = pictures(small_backbones, drawings_of(*texts))
    alone = pictures(small_backbones, drawings_of(texts[3])[1:])
    backwards = pictures(small_backbones, list(reversed(drawings_of(*texts))))
    np.testing.assert_array_equal(together[7], alone[0])
    np.testing.assert_array_equal(together, backwards[::-1])


def test_what_is_in_the_store_is_not_drawn_and_the_rest_is_the_same_bit_for_bit(small_backbones, tmp_path, monkeypatch):
    every = drawings_of("a cat", "a boat", "a castle")
    without = pictures(small_backbones, every)
    store = PictureStore(tmp_path, {"steps": 2})
    pictures(small_backbones, every[:3], store)
    batches = drawn(monkeypatch, small_backbones)
    np.testing.assert_array_equal(pictures(small_backbones, every, store), without)
    assert (batches, store.reused) == ([4], 3)  # 3 are missing, and batches are always full
    np.testing.assert_array_equal(pictures(small_backbones, every, PictureStore(tmp_path, {"steps": 2})), without)
    assert batches == [4]


def test_pictures_made_otherwise_and_by_other_encoders_are_not_taken(small_backbones, tmp_path, monkeypatch):
    store = PictureStore(tmp_path, {"steps": 2})
    pictures(small_backbones, drawings_of("a cat"), store)
    batches = drawn(monkeypatch, small_backbones)
    pictures(small_backbones, drawings_of("a cat"), PictureStore(tmp_path, {"steps": 3}))
    assert len(batches) == 1
    encoder = FineGrainedTextEncoder(small_backbones.clip_model).eval()
    pictures(small_backbones, drawings_of("a cat", trained=True), store, encoder)
    assert len(batches) == 2
    with torch.no_grad():
        encoder.positional_embedding.add_(0.1)
    pictures(small_backbones, drawings_of("a cat", trained=True), store, encoder)
    assert len(batches) == 3
    pictures(small_backbones, drawings_of("a cat", trained=True), store, encoder)
    assert len(batches) == 3


def test_a_torn_picture_is_drawn_again_with_a_warning(small_backbones, tmp_path, caplog):
    store = PictureStore(tmp_path, {})
    whole = pictures(small_backbones, drawings_of("a cat"), store)
    torn = next(store.folder.glob("*/*.png"))
    torn.write_bytes(torn.read_bytes()[:40])
    np.testing.assert_array_equal(pictures(small_backbones, drawings_of("a cat"), store), whole)
    assert "cannot be read" in caplog.text and torn.stat().st_size > 40


def test_scores_are_asked_for_once_whichever_process_asked_before(tmp_path):
    asked: list[list[int]] = []

    def compute(positions):
        asked.append(positions.tolist())
        return np.stack([positions, positions**2], axis=1) + 0.1

    one, other = ScoreStore(tmp_path, {"code": 1}), ScoreStore(tmp_path, {"code": 1})
    rows = one.remember("metric", ["a", "b", "a", "c"], compute)
    assert asked == [[0, 1, 3]] and rows[2].tolist() == rows[0].tolist() == [0.1, 0.1]
    np.testing.assert_array_equal(other.remember("metric", ["c", "d", "a"], compute)[[0, 2]], rows[[3, 0]])
    assert asked == [[0, 1, 3], [1]] and other.reused == 2
    assert one.remember("metric", ["d"], compute).tolist() == [[1.1, 1.1]] and len(asked) == 2
    ScoreStore(tmp_path, {"code": 2}).remember("metric", ["a"], compute)
    assert len(asked) == 3


def test_a_torn_shard_is_computed_again_with_a_warning(tmp_path, caplog):
    ScoreStore(tmp_path, {}).remember("metric", ["a"], lambda positions: np.ones(1))
    store = ScoreStore(tmp_path, {})
    shard = next(store.folder.glob("metric-*.npz"))
    shard.write_bytes(shard.read_bytes()[:50])
    assert store.remember("metric", ["a"], lambda positions: np.full(1, 2.0)).tolist() == [[2.0]]
    assert "computed again" in caplog.text


def test_batches_are_filled_up_with_copies_of_the_last(tmp_path):
    batches = full_batches(np.arange(5), 4)
    assert [(part.tolist(), count) for part, count in batches] == [([0, 1, 2, 3], 4), ([4, 4, 4, 4], 1)]
    assert full_batches(np.arange(0), 4) == []
    assert picture_key(np.zeros((2, 8, 3), np.uint8)) != picture_key(np.zeros((8, 2, 3), np.uint8))


@pytest.mark.parametrize("count", [2, 5])
def test_scores_are_the_same_with_and_without_a_store_and_in_any_company(small_backbones, tmp_path, count):
    prompts = [EvalPrompt(i, "a cat", "a cat, 8k", None) for i in range(count)]
    drawings = drawings_of(*(f"a cat {i}" for i in range(count)))
    images = np.random.default_rng(0).integers(0, 256, (2 * count, 64, 64, 3), dtype=np.uint8)

    def table(store, chosen=slice(None)) -> pd.DataFrame:
        return Scorer(small_backbones, store).score(prompts, drawings[chosen], images[chosen]).table

    without = table(ScoreStore(None, {}))
    store = ScoreStore(tmp_path, {})
    few = table(store, slice(0, 2))
    pd.testing.assert_frame_equal(table(store), without, check_exact=True)
    both = ["prompt_id", "condition", "candidate", "metric"]
    joined = few.merge(without, on=both)
    assert len(joined) == len(few) and (joined.value_x == joined.value_y).all()
    again = ScoreStore(tmp_path, {})
    pd.testing.assert_frame_equal(table(again), without, check_exact=True)
    # Embedding, piqe and entropy of pictures, st_lpips of each set, and embeddings of the texts, which two scores ask for.
    assert again.reused == 3 * 2 * count + count + 2 * (count + 1)
