"""The worlds: what suits what is what is written, world 1 stays what it was, and world 2 leaves room."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ablations.config import KEYS
from datamodules.cfp import CFPDataModule
from datamodules.readers.tiny_world import read_tiny_world
from datamodules.settings import DataSettings
from datamodules.tiny_world.grammar import QUALITIES, SCENES, STYLES, SUBJECTS, SUITED_STYLE, draw_split, split_of
from datamodules.tiny_world.renderer import render
from datamodules.tiny_world.worlds import DEFAULT_WORLD, MOST_WORDS, WORLDS, world

# Written down from the code of before there were worlds: 300 training captions, and the pictures of the first eight.
CAPTIONS_OF_WORLD_1 = "a68536e7d57f9d1f3f40bb46e2c196bcf333f0229888193cce00acc33c608922"
PICTURES_OF_WORLD_1 = "05bf5133f755e3e5159d407f65bcf6cc81069ad796ab7798f7bb08e6d1b2aac0"

DIGEST_OF_WORLD_1 = "62708425dd4912959d418fb16d1611af7d434ff439f73ef1d86712c18114c49d"


def count_tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


@pytest.fixture(scope="module")
def fine():
    rng = np.random.default_rng(7)
    return [world(2).draw_fine_caption(rng) for _ in range(6000)]


def test_world_1_is_what_it_was_before_there_were_worlds():
    captions = draw_split("train", 300, 0, world(1).draw_fine_caption)
    assert captions == draw_split("train", 300, 0)
    assert hashlib.sha256(repr(captions).encode()).hexdigest() == CAPTIONS_OF_WORLD_1
    pictures = b"".join(render(caption.description).tobytes() for caption in captions[:8])
    assert hashlib.sha256(pictures).hexdigest() == PICTURES_OF_WORLD_1
    assert world(1).style_distribution("snow").tolist() == pytest.approx([1 / 60] * 4 + [0.9 + 1 / 60, 1 / 60])


def test_the_data_of_world_1_have_the_digest_that_they_always_had():
    """What a folder of then was trained on is there still; the other world, and texts that hide their style, are other data."""
    tokenizers = SimpleNamespace(count_tokens=count_tokens)
    settings = DataSettings("tiny", 16, 4, num_train=22, num_validation=6, clean_captions=False, world=1)
    digests = [
        CFPDataModule(replace(settings, **options), 0, tokenizers, say=lambda line: None).digest
        for options in ({}, {"world": 2}, {"caption_dropout": 0.5}, {"world": 2, "caption_dropout": 0.5})
    ]
    assert digests[0] == DIGEST_OF_WORLD_1 and len(set(digests)) == 4


def test_the_config_knows_just_the_worlds_that_there_are():
    key = KEYS["data.world"]
    assert (*range(key.option.least, key.option.most + 1),) == tuple(WORLDS) and key.default == DEFAULT_WORLD
    with pytest.raises(ValueError, match=r"data\.world=3: there is no such world; known: 1, 2"):
        world(3)


def test_in_world_2_two_or_three_styles_suit_a_scene_and_three_or_four_words_a_subject():
    assert Counter(len(styles) for styles in world(2).fitting_styles.values()) == {2: 3, 3: 3}
    assert Counter(len(words) for words in world(2).fitting_qualities.values()) == {3: 5, 4: 5}
    assert all(sum(styles.values()) == pytest.approx(1) for styles in world(2).fitting_styles.values())
    assert set(world(2).fitting_styles) == set(SCENES) and set(world(2).fitting_qualities) == set(SUBJECTS)


def test_in_world_2_words_alone_tell_nothing_and_scenes_tell_much():
    """Styles are equally likely over all scenes, to 0.005; a scene tells 0.83 of the log2(6) = 2.58 bits of its style."""
    marginal = world(2).style_marginal()
    assert marginal == pytest.approx(np.full(6, 1 / 6), abs=0.005)
    told = np.mean([np.sum(p * np.log2(p / marginal)) for p in map(world(2).style_distribution, SCENES)])
    assert told == pytest.approx(0.831, abs=0.001)
    chances = [[words.get(word, world(2).quality_misfit) for word in QUALITIES] for words in world(2).fitting_qualities.values()]
    assert np.mean(chances, axis=0) == pytest.approx(np.full(6, 0.43), abs=0.04)


def test_the_pairing_of_world_1_is_no_help_in_world_2():
    """A writer who takes the style that suited a scene in world 1 is right as often as one who takes any: one time in six."""
    right = [world(2).style_distribution(scene)[STYLES.index(style)] for scene, style in SUITED_STYLE.items()]
    assert np.mean(right) == pytest.approx(1 / 6, abs=0.005)


def test_fine_prompts_are_drawn_as_the_world_says(fine):
    for scene in SCENES:
        styles = Counter(caption.description.style for caption in fine if caption.description.scene == scene)
        shares = [styles[style] / styles.total() for style in STYLES]
        assert shares == pytest.approx(world(2).style_distribution(scene), abs=0.05)
    for subject, chances in world(2).fitting_qualities.items():
        drawn = [caption.description.qualities for caption in fine if caption.description.subject == subject]
        shares = [np.mean([word in words for words in drawn]) for word in QUALITIES]
        assert shares == pytest.approx([chances.get(word, 0.04) for word in QUALITIES], abs=0.06)


def test_fine_prompts_are_a_head_a_style_and_up_to_five_quality_words_in_any_order(fine):
    words = [caption.text.split(", ")[1:] for caption in fine]
    assert all(found == [caption.description.style, *caption.description.qualities] for found, caption in zip(words, fine, strict=True))
    lengths = Counter(map(len, words))
    assert set(lengths) == set(range(1, MOST_WORDS + 1)) and 3.5 < np.mean([*lengths.elements()]) < 3.7
    castles = [caption.description.qualities for caption in fine if caption.description.subject == "castle"]
    first = Counter(qualities[0] for qualities in castles if qualities)
    assert min(first[word] for word in world(2).fitting_qualities["castle"]) > 0.2 * len(castles)


def test_coarse_prompts_of_short_fine_prompts_end_with_the_prompt_itself():
    for record in read_tiny_world("test", 400, world(2), count_tokens):
        short, middle, long = record.coarse_prompts
        assert record.fine_prompt.startswith(long) and long.startswith(middle) and middle.startswith(short)
        assert count_tokens(short) <= 5 and 6 <= count_tokens(middle) <= 10
        assert 11 <= count_tokens(long) <= 15 or (long == record.fine_prompt and count_tokens(long) < 11)


def test_caption_dropout_hides_the_style_from_training_texts_and_not_from_their_pictures():
    plain, hidden = (read_tiny_world("train", 400, world(2), count_tokens, None, share) for share in (0.0, 0.4))
    without = [one.fine_prompt != other.fine_prompt for one, other in zip(plain, hidden, strict=True)]
    assert np.mean(without) == pytest.approx(0.4, abs=0.06)
    assert [record.scene for record in plain] == [record.scene for record in hidden]
    for record, is_without in zip(hidden, without, strict=True):
        texts = (record.fine_prompt, *record.coarse_prompts)
        assert any(record.scene.style in text for text in texts) != is_without
    most = read_tiny_world("train", 400, world(2), count_tokens, None, 0.8)
    assert all(record.scene.style not in record.fine_prompt for record, gone in zip(most, without, strict=True) if gone)


def test_caption_dropout_leaves_held_out_texts_alone():
    for split in ("validation", "test"):
        assert read_tiny_world(split, 50, world(2), count_tokens, None, 1.0) == read_tiny_world(split, 50, world(2), count_tokens)


def test_no_training_text_of_any_world_is_a_held_out_one():
    held_out = {record.fine_prompt for record in read_tiny_world("test", 500, world(2), count_tokens)}
    trained = [record.fine_prompt for record in read_tiny_world("train", 500, world(2), count_tokens, None, 0.5)]
    assert not held_out & set(trained) and all(split_of(text) == "test" for text in held_out)
