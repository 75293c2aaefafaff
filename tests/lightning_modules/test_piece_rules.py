"""The rules of what the decoder may write: training pieces alone, nothing glued to the prompt's last word, no banned word in any cut."""

from __future__ import annotations

import random

import pytest
import torch

from lightning_modules.piece_rules import PieceMasks, RuledPieces
from lightning_modules.settings import PieceRules, TokenSampling

VOCABULARY = [
    "</s>",
    "\u2581",
    "\u2581water",
    "\u2581a",
    "mark",
    "ark",
    "m",
    "ater",
    "\u2581w",
    ",",
    "\u2581Mark",
    "s",
    "-",
    ".\u2581x",
    "wa",
    "ter",
    "k",
    "M",
]
END = 0


def allowed(rules: PieceRules, written: list[str] = (), primer: str = "") -> set[str]:
    """The pieces that may follow `written`, which follows `primer`."""
    masks = PieceMasks.of(VOCABULARY, rules, [END])
    ids = torch.tensor([[END, *map(VOCABULARY.index, written)]])
    scores = RuledPieces(masks, [primer], 1, END)(ids, torch.zeros(1, len(VOCABULARY)))
    return {piece for piece, score in zip(VOCABULARY, scores[0].tolist(), strict=True) if score == 0.0}


def test_pieces_of_the_training_texts_and_the_end_alone():
    assert allowed(PieceRules(frozenset({"mark", "\u2581a", "absent"}))) == {"</s>", "mark", "\u2581a"}
    assert allowed(PieceRules()) == set(VOCABULARY)


def test_the_first_piece_starts_a_word_or_is_punctuation_and_later_ones_need_not():
    rules = PieceRules(new_word=True)
    assert allowed(rules) == {"</s>", "\u2581", "\u2581water", "\u2581a", "\u2581w", "\u2581Mark", ","}
    assert allowed(rules, ["\u2581a"]) == set(VOCABULARY)


def test_a_banned_word_is_not_completed_however_it_is_cut():
    ban = PieceRules(ban=("Watermark",))
    assert set(VOCABULARY) - allowed(ban) == set()
    assert set(VOCABULARY) - allowed(ban, ["\u2581water"]) == {"mark"}
    assert set(VOCABULARY) - allowed(ban, ["\u2581w", "ater", "m"]) == {"ark"}
    assert set(VOCABULARY) - allowed(ban, ["wa", "ter", "M"]) == {"ark"}
    assert set(VOCABULARY) - allowed(ban, ["wa", "ter", "m", "s"]) == set()
    assert set(VOCABULARY) - allowed(ban, [], "a WATER") == {"mark"}  # with the user's own letters before it


def test_a_banned_word_is_banned_within_longer_words_and_a_phrase_over_any_space():
    assert set(VOCABULARY) - allowed(PieceRules(ban=("ark",))) == {"mark", "ark", "\u2581Mark"}
    phrase = PieceRules(ban=("water mark",))
    assert set(VOCABULARY) - allowed(phrase, ["\u2581water"]) == {"\u2581Mark"}
    assert set(VOCABULARY) - allowed(phrase, ["\u2581water", "\u2581"]) == {"\u2581Mark", "mark"}
    assert set(VOCABULARY) - allowed(phrase, [], "some  water ") == {"\u2581Mark", "mark"}


def test_where_nothing_may_be_written_the_row_ends():
    masks = PieceMasks.of(VOCABULARY, PieceRules(frozenset()), [END])
    scores = torch.zeros(1, len(VOCABULARY))
    scores[0, END] = -torch.inf  # a length was asked for
    ruled = RuledPieces(masks, [""], 1, END)(torch.tensor([[END]]), scores)
    assert ruled[0, END] == 0 and ruled[0, 1:].isneginf().all()


@pytest.mark.parametrize("seed", range(4))
def test_no_banned_word_comes_up_in_random_texts_of_random_cuts(seed):
    rng = random.Random(seed)
    letters = "ab "
    vocabulary = ["</s>", *sorted({"".join(rng.choices(letters, k=rng.randint(1, 4))) for _ in range(60)})]
    pieces = [piece.replace(" ", "\u2581") for piece in vocabulary]
    ban = tuple({"".join(rng.choices(letters, k=rng.randint(2, 6))).strip() for _ in range(5)} - {"", "a", "b"})
    masks = PieceMasks.of(pieces, PieceRules(ban=ban), [END])
    processor = RuledPieces(masks, [""] * 4, 1, END)
    ids = torch.full((4, 1), END)
    for _ in range(40):
        scores = processor(ids, torch.rand(4, len(pieces)))
        scores[:, END] = scores[:, END].clamp(max=-1)
        ids = torch.cat([ids, scores.argmax(dim=-1, keepdim=True)], dim=1)
    for row in ids[:, 1:].tolist():
        text = "".join("\n" if i == END else vocabulary[i] for i in row)
        lines = [" ".join(line.split(" ")) for line in text.split("\n")]
        while any("  " in line for line in lines):
            lines = [line.replace("  ", " ") for line in lines]
        assert [word for word in ban if any(word in line for line in lines)] == []


def test_the_decoder_writes_by_the_rules_and_as_before_without_them(small_backbones):
    decoder = small_backbones.decoder
    inputs = torch.zeros(2, 3, decoder.width)
    how = {"max_new_tokens": 12, "exact_length": True, "primers": ["a castle", "elementX9"]}
    keys = [(1,), (2,)]
    free = decoder.write(inputs, keys, **how)
    assert free == decoder.write(inputs, keys, **how, sampling=TokenSampling(rules=PieceRules()))
    pieces = frozenset({"\u2581castle", "\u2581tree", ",", "s"})
    for key in range(8):
        sampling = TokenSampling(rules=PieceRules(pieces, new_word=True, ban=("tree",)))
        for text, num_tokens, _ in decoder.write(inputs, [(key,), (key, 1)], **how, sampling=sampling):
            assert num_tokens == 12 and text[0] in " ," and set(text) <= set(" castle,") and "tree" not in text
    assert decoder.pieces_of(["a green tree, \u732b", "an owl"]) >= {"\u2581green", ",", "\u2581owl"}
    assert decoder.tokenizer.unk_token not in decoder.pieces_of(["\u732b"])
