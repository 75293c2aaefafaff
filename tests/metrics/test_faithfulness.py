"""Faithfulness: what counts as kept of the coarse prompt, by hand; sentence embeddings by the frozen tower and by a model of the user's."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from ablations.metrics import faithfulness
from ablations.metrics.base import MetricError
from ablations.metrics.faithfulness import SentenceEncoder, content_words, content_words_kept, sentence_similarity, text_scores
from ablations.metrics.register import metric_named
from ablations.runtime.errors import UserError

WORDS = ("[PAD]", "[UNK]", "a", "cat", "dog", "in", "snow", "red", "boat", "painting", ",")


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    """A BERT of two small layers with a tokenizer of whole words, saved as a sentence encoder is."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16)
    fast.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
        BertModel(config).save_pretrained(folder)
    return folder


def test_content_words_are_the_different_words_without_stop_words():
    assert content_words("The cat and a red Cat in the snow") == ["cat", "red", "snow"]
    assert content_words("of the and") == []
    # What says where or how many changes the picture.
    assert content_words("two owls above no trees") == ["two", "owls", "above", "no", "trees"]


def test_the_share_of_content_words_kept_by_hand():
    assert content_words_kept("a cat in the snow", "a cat in the snow, oil painting") == 1.0
    assert content_words_kept("a cat in the snow", "CAT portrait, sharp focus") == 0.5
    assert content_words_kept("a cat in the snow", "a dog in the rain") == 0.0
    assert content_words_kept("a close-up of a cat", "close view, a cat") == pytest.approx(2 / 3)
    # Another form of the word counts as lost.
    assert content_words_kept("a cat", "cats") == 0.0
    with pytest.raises(MetricError, match="metric content_words_kept: the coarse prompt 'of the' has no content word"):
        content_words_kept("of the", "of the sea")


def test_sentence_similarity_is_the_cosine_of_each_pair():
    found = sentence_similarity([[1, 0], [2, 0], [3, 4]], torch.tensor([[5.0, 0], [0, 1], [-3, -4]]))
    np.testing.assert_allclose(found, [1.0, 0.0, -1.0], atol=1e-12)
    with pytest.raises(MetricError, match=r"metric sentence_similarity: .* do not match"):
        sentence_similarity(np.eye(2), np.eye(3))
    with pytest.raises(MetricError, match="metric sentence_similarity: embedding 0"):
        sentence_similarity([[0.0, 0]], [[1.0, 0]])


def test_faithfulness_is_registered_with_its_direction_and_encoder():
    for name in ("clip_score_coarse", "sentence_similarity", "content_words_kept"):
        assert metric_named(name).higher_is_better is True and metric_named(name).per == "image"
    assert "original, frozen text encoder" in metric_named("sentence_similarity").note


def test_text_scores_encode_each_text_once_and_have_no_value_where_there_is_none():
    asked: list[str] = []

    def encode(texts):
        asked.extend(texts)
        return [[1.0, len(text)] for text in texts]

    scores = text_scores(["a cat", "of the", "a cat"], ["a cat", "of the sea", "a dog"], encode)
    assert asked == ["a cat", "of the", "of the sea", "a dog"]
    assert scores["content_words_kept"] == [1.0, None, 0.0]
    cosine = (1 + 6 * 10) / np.sqrt((1 + 36) * (1 + 100))
    np.testing.assert_allclose(scores["sentence_similarity"], [1.0, cosine, 1.0], atol=1e-12)
    # Without an encoder there is no similarity, rather than a made-up one.
    assert text_scores(["a cat"], ["a dog"], None) == {"content_words_kept": [0.0]}


def test_a_sentence_encoder_averages_the_last_states_over_the_texts_own_tokens(encoder_folder):
    from transformers import AutoModel, AutoTokenizer

    texts = ["a cat in snow", "boat", "a red boat in snow , a painting"] * 7  # more than one batch
    embeddings_NE = SentenceEncoder(str(encoder_folder))(texts)
    tokenizer, model = AutoTokenizer.from_pretrained(encoder_folder), AutoModel.from_pretrained(encoder_folder).eval()
    assert embeddings_NE.shape == (21, 24)
    with torch.inference_mode():
        for text, embedding in zip(texts, embeddings_NE, strict=True):
            alone = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0).numpy()
            np.testing.assert_allclose(embedding, alone, atol=1e-5)


def test_a_text_longer_than_the_encoder_reads_is_cut_not_an_error(encoder_folder):
    encoder = SentenceEncoder(str(encoder_folder))
    long, cut = "cat " * 40, "cat " * 16
    np.testing.assert_allclose(encoder([long]), encoder([cut]), atol=1e-6)


def test_an_encoder_that_is_not_there_is_an_error_of_one_line_with_the_remedy(tmp_path, encoder_folder):
    for name, why in ((str(tmp_path / "nowhere"), "there is no such folder"), (str(tmp_path), "has no config.json, model.safetensors")):
        with pytest.raises(UserError, match=r"eval\.sentence_encoder=.* Remedy: a folder with config\.json") as caught:
            SentenceEncoder(name)
        assert "\n" not in str(caught.value) and why in str(caught.value)
        with pytest.raises(UserError):
            faithfulness.sentences_by(name)
        assert why in faithfulness.sentences_by(name, "skip").problem and faithfulness.sentences_by(name, "skip").encode is None
    damaged = tmp_path / "damaged"
    shutil.copytree(encoder_folder, damaged)
    (damaged / "config.json").write_text("{")
    with pytest.raises(UserError, match="metric sentence_similarity cannot be computed"):
        SentenceEncoder(str(damaged))
    assert faithfulness.load_sentence_encoder(str(encoder_folder)) is faithfulness.load_sentence_encoder(str(encoder_folder))
