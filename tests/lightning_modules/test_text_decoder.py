"""D_E writes prompts: lengths, keys, primers, and what it must never write."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from lightning_modules.settings import TokenSampling
from lightning_modules.text_decoder import KeyedGumbel, PromptDecoder


def inputs(rows: int, seed: int = 0) -> torch.Tensor:
    """Encoder inputs (rows, 9, 128), row i the same however many rows there are."""
    return torch.stack([torch.randn(9, 128, generator=torch.Generator().manual_seed(1000 * seed + row)) for row in range(rows)])


def write(decoder: PromptDecoder, rows: int = 4, **options):
    options = {"max_new_tokens": 6, "exact_length": True, **options}
    sampled = {name: options.pop(name) for name in ("top_p", "top_k") if name in options}
    return decoder.write(inputs(rows), [(row,) for row in range(rows)], sampling=TokenSampling(**sampled), **options)


@pytest.fixture
def decoder(small_backbones) -> PromptDecoder:
    return small_backbones.decoder


@pytest.mark.parametrize("length", [1, 6, 30])
def test_exact_length_is_that_many_tokens_in_every_row(decoder, length):
    assert [written.num_tokens for written in write(decoder, max_new_tokens=length)] == [length] * 4


def test_a_rewritten_prompt_may_end_by_itself_and_is_never_longer_than_asked(decoder):
    lengths = [written.num_tokens for written in write(decoder, rows=24, max_new_tokens=40, exact_length=False, top_k=0, top_p=1.0)]
    assert max(lengths) == 40
    assert 1 <= min(lengths) < 40


def test_the_same_keys_write_the_same_and_other_keys_write_otherwise(decoder):
    first, again = write(decoder, rows=2), write(decoder, rows=2)
    other = decoder.write(inputs(2), [(5,), (6,)], max_new_tokens=6, exact_length=True)
    assert first == again
    assert [written.text for written in first] != [written.text for written in other]


def test_a_rows_text_depends_neither_on_the_other_rows_nor_on_their_order(decoder):
    primers = ["a cat", "a red boat in the snow at noon, oil painting", "", "a castle"]
    keys = [(0, 11), (0, 12), (3, 13), (1, 14)]
    options = {"max_new_tokens": 12, "exact_length": True}
    together = decoder.write(inputs(4), keys, primers=primers, **options)
    for row in range(4):
        assert decoder.write(inputs(4)[row : row + 1], [keys[row]], primers=[primers[row]], **options) == [together[row]]
    order = [2, 0, 3, 1]
    shuffled = decoder.write(inputs(4)[order], [keys[i] for i in order], primers=[primers[i] for i in order], **options)
    assert shuffled == [together[i] for i in order]


def test_rows_that_end_early_do_not_disturb_the_others(decoder):
    options = {"max_new_tokens": 40, "exact_length": False, "sampling": TokenSampling(top_k=0, top_p=1.0)}
    together = decoder.write(inputs(12), [(row,) for row in range(12)], **options)
    assert len({written.num_tokens for written in together}) > 1
    for row in (0, 5, 11):
        assert decoder.write(inputs(12)[row : row + 1], [(row,)], **options) == [together[row]]


def greedy_by_hand(decoder: PromptDecoder, encoder_inputs: torch.Tensor, primer: str, length: int) -> list[str]:
    ids = [0, *decoder.tokenizer(primer).input_ids[:-1]]
    banned = [*decoder.tokenizer.all_special_ids, *(i for t, i in decoder.tokenizer.get_vocab().items() if t.startswith("<extra_id_"))]
    start = len(ids)
    for _ in range(length):
        with torch.no_grad():
            logits = decoder.t5(inputs_embeds=encoder_inputs, decoder_input_ids=torch.tensor([ids])).logits[0, -1]
        logits[banned] = -torch.inf
        ids.append(int(logits.argmax()))
    return decoder.tokenizer.convert_ids_to_tokens(ids[start:])


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}])
def test_the_narrowest_sampling_is_greedy_decoding_of_the_primed_t5(decoder, options):
    primers = ["a cat", "a red boat in the snow"]
    texts = [written.text for written in write(decoder, rows=2, primers=primers, **options)]
    by_hand = ["".join(greedy_by_hand(decoder, inputs(2)[i : i + 1], primers[i], 6)) for i in range(2)]
    assert texts == [re.sub("\u2581+", " ", pieces) for pieces in by_hand]


def test_top_k_zero_and_top_p_one_keep_every_token(decoder, monkeypatch):
    seen: list[int] = []
    monkeypatch.setattr(KeyedGumbel, "__call__", lambda _self, _ids, scores: seen.append(int(scores.isfinite().sum(-1).min())) or scores)
    write(decoder, rows=1, max_new_tokens=1, top_k=0, top_p=1.0)
    write(decoder, rows=1, max_new_tokens=1, top_k=50, top_p=1.0)
    text_tokens = sum(not token.startswith("<extra_id_") for token in decoder.tokenizer.get_vocab()) - 3
    # The first token may not be the end; the second, which tells whether a word was cut, may.
    assert seen == [text_tokens, text_tokens + 1, 50, 50]


def test_the_keyed_draw_follows_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0])
    draws = KeyedGumbel([(row,) for row in range(4000)])(None, logits.expand(4000, 3)).argmax(-1)
    shares = torch.bincount(draws, minlength=3) / 4000
    assert torch.allclose(shares, logits.softmax(-1), atol=0.03)


def test_the_keyed_draw_reads_and_leaves_no_global_random_state(decoder):
    torch.manual_seed(1)
    np.random.seed(1)
    first, state = write(decoder), torch.get_rng_state()
    torch.manual_seed(2)
    np.random.seed(2)
    assert write(decoder) == first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_sentinels_padding_and_the_unknown_mark_are_never_written(decoder):
    # About one token in six of this vocabulary is not text: 16 x 40 draws would meet one.
    texts = [written.text for written in write(decoder, rows=16, max_new_tokens=40, top_k=0, top_p=1.0)]
    assert not any(mark in text for text in texts for mark in ("<extra_id_", "<pad>", "<unk>", "</s>"))


def test_ids_beyond_the_tokenizers_vocabulary_are_never_written(decoder):
    size = len(decoder.tokenizer)
    torch.manual_seed(0)
    config = T5Config(vocab_size=2 * size, d_model=128, d_kv=16, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    wide = PromptDecoder(T5ForConditionalGeneration(config), decoder.tokenizer)
    assert [written.num_tokens for written in write(wide, max_new_tokens=30, top_k=0, top_p=1.0)] == [30] * 4


def test_a_word_cut_at_the_end_is_marked_truncated_and_only_such_a_word(decoder):
    def ids(*pieces: str) -> list[int]:
        return decoder.tokenizer.convert_tokens_to_ids(list(pieces))

    vocabulary = decoder.tokenizer.get_vocab()
    assert all(piece in vocabulary for piece in ("\u2581cat", "\u2581in", ",", "a", "\u2581"))
    cases = [
        (ids("\u2581in", "\u2581cat", "a"), (" in cat", 2, True)),
        (ids("\u2581in", "\u2581cat", "\u2581in"), (" in cat", 2, False)),
        (ids("\u2581in", "\u2581cat", ","), (" in cat", 2, False)),
        (ids("\u2581in", ",", "a"), (" in,", 2, False)),
        ([*ids("\u2581in", "\u2581cat"), 1], (" in cat", 2, False)),
        ([*ids("\u2581in"), 1, 0], (" in", 1, False)),
        ([*ids("\u2581", "\u2581cat"), 1], (" cat", 2, False)),
        ([1, 0, 0], ("", 0, False)),
    ]
    for tokens, expected in cases:
        assert tuple(decoder._cut(tokens, 2)) == expected


def test_texts_are_embedded_as_t5_reads_them_with_padding_masked(decoder):
    embedded, mask = decoder.embed(["a cat", "a red boat in the snow"])
    ids = decoder.tokenizer(["a cat"]).input_ids[0]
    assert mask[0].sum() == len(ids)
    assert torch.equal(embedded[0, : len(ids)], decoder.t5.shared(torch.tensor(ids)))
    alone_embedded, alone_mask = decoder.embed(["a cat"])
    alone = decoder.write(alone_embedded, [(1,)], max_new_tokens=8, exact_length=True, mask_BS=alone_mask)
    together = decoder.write(embedded, [(1,), (2,)], max_new_tokens=8, exact_length=True, mask_BS=mask)
    assert together[0] == alone[0]
