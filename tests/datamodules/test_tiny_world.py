"""The tiny world: its grammar, its pictures, and the oracles that judge them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ablations.metrics.fidelity import fidelity
from ablations.metrics.word_oracle import word_scores, words_seen
from datamodules.tiny_world.grammar import (
    QUALITIES,
    SCENES,
    STYLES,
    SUBJECTS,
    SUITED_QUALITIES,
    SUITED_STYLE,
    SceneDescription,
    coarse_prompts,
    draw_fine_caption,
    draw_split,
    draw_web_caption,
    split_of,
)
from datamodules.tiny_world.renderer import high_quality, render


@pytest.fixture(scope="module")
def test_captions():
    return draw_split("test", 200, seed=11)


def test_the_world_has_its_promised_size():
    assert (len(SUBJECTS), len(SCENES), len(STYLES), len(QUALITIES)) == (10, 6, 6, 6)


def test_splits_share_no_fine_prompt():
    texts = {split: {caption.text for caption in draw_split(split, 500, seed=0)} for split in ("train", "validation", "test")}
    assert all(len(found) == 500 for found in texts.values())
    assert not (texts["train"] & texts["test"] or texts["train"] & texts["validation"] or texts["validation"] & texts["test"])
    assert all(split_of(text) == split for split, found in texts.items() for text in found)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        draw_split("dev", 1, seed=0)


def test_coarse_prompts_are_prefixes_of_the_promised_lengths(small_backbones, test_captions):
    for caption in test_captions:
        cuts = coarse_prompts(caption.text, small_backbones.count_tokens)
        assert all(caption.text.startswith(cut) for cut in cuts)
        assert [
            low <= small_backbones.count_tokens(cut) <= high for cut, (low, high) in zip(cuts, ((1, 5), (6, 10), (11, 15)), strict=True)
        ]
        assert not any(word in cuts[1] for word in (*STYLES, *QUALITIES))


def test_style_suits_the_scene_and_quality_words_the_subject_in_fine_prompts_but_not_in_web_captions():
    rng = np.random.default_rng(5)
    fine = [draw_fine_caption(rng).description for _ in range(2000)]
    assert np.mean([d.style == SUITED_STYLE[d.scene] for d in fine]) == pytest.approx(0.9 + 0.1 / 6, abs=0.02)
    assert all(set(d.qualities) <= set(SUITED_QUALITIES[d.subject]) for d in fine)
    web = [draw_web_caption(rng).description for _ in range(4000)]
    styled = [d for d in web if d.style and d.scene]
    assert np.mean([d.style == SUITED_STYLE[d.scene] for d in styled]) == pytest.approx(1 / 6, abs=0.03)
    assert np.mean([not d.style and not d.qualities for d in web]) > 0.55


def test_the_same_description_gives_the_same_pixels_and_another_layout_others():
    description = SceneDescription("cat", "snow", "noon", "comic book", ("8k",), 4)
    assert np.array_equal(render(description), render(description))
    assert not np.array_equal(render(description), render(replace(description, layout_seed=5)))
    assert render(description).shape == (64, 64, 3) and render(description).dtype == np.uint8


@pytest.mark.parametrize("word", [*QUALITIES, *STYLES])
def test_every_word_changes_the_picture_visibly(word):
    plain = SceneDescription("castle", "mountains", "noon", None, ("sharp focus", "8k", "vivid colors"), 3)
    if word in STYLES:
        pair = plain, replace(plain, style=word)
    else:
        rest = tuple(q for q in plain.qualities if q != word)
        pair = replace(plain, qualities=rest), replace(plain, qualities=(*rest, word))
    one, two = (render(description).astype(float) for description in pair)
    assert np.abs(one - two).mean() > 2.5  # grey levels of 255


# The high-quality render, the same blurred and grainy, and the render of the bare prompt.
FROZEN = (0.980263, 0.8429362, 0.3705433)


def test_fidelity_is_frozen():
    """The oracle was fixed before any backbone was trained; these are its values then.

    The damaged picture is damaged here, not by the renderer: how strongly a style mends a poor render is the world's, which may change.
    """
    description = SceneDescription("owl", "desert", "sunset", "oil painting", ("8k", "cinematic"), 7)
    best = render(high_quality(description))
    grain = np.random.default_rng(7).normal(0, 8, best.shape)
    damaged = np.clip(gaussian_filter(best.astype(np.float64), (1, 1, 0)) + grain, 0, 255).astype(np.uint8)
    bare = render(replace(description, style=None, qualities=()))
    assert [fidelity(image, description).score for image in (best, damaged, bare)] == pytest.approx(FROZEN, abs=1e-6)


def test_fidelity_falls_as_a_picture_gets_worse(test_captions):
    captions = test_captions[:40]

    def mean(change) -> float:
        return float(np.mean([fidelity(render(change(c.description)), c.description).score for c in captions]))

    other_style = {style: STYLES[(i + 1) % 6] for i, style in enumerate(STYLES)}
    best, fine = mean(high_quality), mean(lambda d: d)
    wrong_style = mean(lambda d: replace(d, style=other_style[d.style]))
    bare = mean(lambda d: replace(d, style=None, qualities=()))
    poor = mean(lambda d: replace(d, style=None, qualities=(), poor=("sharp focus", "8k")))
    assert best > 0.9 > fine > 0.75 > wrong_style > bare > poor


def test_fidelity_refuses_other_pictures_and_vague_scenes():
    description = SceneDescription("owl", "desert", "noon")
    with pytest.raises(ValueError, match="uint8"):
        fidelity(np.zeros((64, 64, 3), dtype=np.float32), description)
    with pytest.raises(ValueError, match="scene and time"):
        fidelity(np.zeros((64, 64, 3), dtype=np.uint8), replace(description, scene=None))


def test_the_word_oracle_reads_held_out_renders(test_captions):
    seen = words_seen(np.stack([render(caption.description) for caption in test_captions]))
    scores = [word_scores(seen, i, caption.description) for i, caption in enumerate(test_captions)]
    assert np.mean([s["subject_kept"] for s in scores]) > 0.99
    assert np.mean([s["style_drawn"] for s in scores]) > 0.97
    assert np.mean([s["words_drawn"] for s in scores]) > 0.97


def test_the_word_oracle_sees_no_words_in_plain_poor_pictures(test_captions):
    plain = [replace(caption.description, style=None, qualities=()) for caption in test_captions]
    seen = words_seen(np.stack([render(description) for description in plain]))
    assert Counter(seen.styles)[None] / len(plain) > 0.97
    assert np.mean([len(words) for words in seen.qualities]) < 0.1


def test_word_scores_need_a_word_to_count():
    seen = words_seen(np.zeros((1, 64, 64, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="no style or quality word"):
        word_scores(seen, 0, SceneDescription("owl", "desert", "noon"))
