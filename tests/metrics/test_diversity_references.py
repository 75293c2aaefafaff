"""The diversity metrics equal their reference packages: stlpips-pytorch, vendi-score, sacrebleu, and scikit-learn's counts of n-grams."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from ablations.metrics import diversity
from ablations.metrics.base import MetricError
from ablations.metrics.register import metric_named

# Sets of candidates as the refiner writes them, and what tokenizers differ over: numbers, hyphens, entities, case, one word, no match.
SETS = {
    "candidates": [
        "a green tree, highly detailed, digital painting, artstation, sharp focus",
        "a green tree, oil on canvas, by claude monet, highly detailed",
        "a green tree in the fog, soft light, 8 k, sharp focus, digital painting",
    ],
    "equal": ["a red boat at sunset, watercolour"] * 4,
    "nothing shared": ["red boats sail home", "owls hunt at midnight", "quiet castles sleep under snow"],
    "punctuation": [
        "A cat (close-up), f/1.8, 3.5-inch lens -- 1,000 hairs & whiskers!",
        'a cat, "close up", f 1.8, 3.5 inch lens; 1,000 hairs &amp; whiskers.',
        "cat: close-up... 35mm lens, 4k-8k, it's [sharp] ~ 50%",
    ],
    "short": ["a cat", "a cat, sharp focus, 8k", "cat photo"],
    "not English": ["рыжая кошка на снегу", "рыжая кошка, масло", "рыжий кот на снегу, масло"],
}
IDS = list(SETS)


@pytest.fixture(params=IDS)
def texts(request) -> list[str]:
    return SETS[request.param]


def reference_bleu_mean(texts: list[str]) -> float:
    import sacrebleu

    scores = [sacrebleu.sentence_bleu(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)]
    return sum(scores) / len(scores)


def test_self_bleu_equals_sacrebleu_at_its_defaults(texts):
    assert diversity.self_bleu(texts) == pytest.approx(reference_bleu_mean(texts), abs=1e-9)


def test_bleu_tokens_are_those_of_sacrebleus_13a(texts):
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenizer = Tokenizer13a()
    for text in texts:
        assert diversity.bleu_tokens(text) == tokenizer(text).split()
    for character in map(chr, range(32, 127)):
        for text in (f"a{character}b", f"1{character}2", f"a{character}1", f"1{character}a", character * 2):
            assert diversity.bleu_tokens(text) == tokenizer(text.rstrip()).split(), text


def test_self_bleu_of_random_texts_equals_sacrebleu():
    rng = np.random.default_rng(3)
    for _ in range(40):
        words = rng.choice(["a", "red", "cat", "boat", "in", "snow", "oil", ",", "8k"], size=(int(rng.integers(2, 6)), 9))
        texts = [" ".join(row[: int(rng.integers(1, 10))]) for row in words]
        assert diversity.self_bleu(texts) == pytest.approx(reference_bleu_mean(texts), abs=1e-9)


def test_self_bleu_is_100_for_equal_texts_0_for_texts_without_a_common_word_and_lower_is_better():
    assert diversity.self_bleu(SETS["equal"]) == pytest.approx(100.0, abs=1e-9)
    assert diversity.self_bleu(SETS["nothing shared"]) == 0.0
    assert metric_named("self_bleu").higher_is_better is False and metric_named("self_bleu").range == (0.0, 100.0)


def ngram_counts(texts: list[str], n: int) -> np.ndarray:
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(token_pattern=r"\w+", ngram_range=(n, n)).fit_transform(texts).toarray()


def test_distinct_n_equals_the_counts_of_scikit_learn(texts):
    for n in (1, 2):
        counts_NG = ngram_counts(texts, n)
        assert diversity.distinct_n(texts, n) == pytest.approx(counts_NG.shape[1] / counts_NG.sum(), abs=1e-12)


@pytest.mark.parametrize("num_candidates, width", [(2, 3), (5, 16), (12, 6)])
def test_vendi_of_embeddings_equals_vendi_score(num_candidates, width):
    from vendi_score import vendi

    vectors_NE = np.random.default_rng(num_candidates).standard_normal((num_candidates, width)) + 0.5
    assert diversity.vendi(vectors_NE) == pytest.approx(float(vendi.score_X(vectors_NE)), abs=1e-9)
    if num_candidates > width:
        assert diversity.vendi(vectors_NE) == pytest.approx(float(vendi.score_dual(vectors_NE)), abs=1e-9)


def test_vendi_of_texts_equals_vendi_score_under_the_same_kernel(texts):
    from sklearn.preprocessing import normalize
    from vendi_score import vendi

    units = [normalize(ngram_counts(texts, n).astype(float)) for n in (1, 2)]
    kernel_NN = np.mean([unit_NG @ unit_NG.T for unit_NG in units], axis=0)
    assert diversity.vendi_texts(texts) == pytest.approx(float(vendi.score_K(kernel_NN)), abs=1e-9)


def test_vendi_of_texts_by_hand():
    assert diversity.vendi_texts(["a red cat"] * 3) == pytest.approx(1.0, abs=1e-9)
    assert diversity.vendi_texts(["a red cat", "one blue boat", "two old owls"]) == pytest.approx(3.0, abs=1e-9)
    # Words: cosine 2/3; pairs: a-red and red-cat against a-red and red-dog, 1/2; their mean is 7/12.
    same = 7 / 12
    eigenvalues = ((1 + same) / 2, (1 - same) / 2)
    expected = math.exp(-sum(value * math.log(value) for value in eigenvalues))
    assert diversity.vendi_texts(["a red cat", "a red dog"]) == pytest.approx(expected, abs=1e-9)


def test_the_two_vendi_scores_say_which_kernel_they_have():
    assert "kernel: cosine of CLIP image embeddings" in metric_named("vendi").note
    assert "counts of words and of word pairs" in metric_named("vendi_texts").note
    assert "Not comparable" in metric_named("vendi_texts").note


@pytest.mark.parametrize("height, width", [(64, 64), (96, 80)])
def test_st_lpips_equals_stlpips_pytorch(height, width):
    from stlpips_pytorch import stlpips

    rng = np.random.default_rng(11)
    smooth = np.linspace(0, 255, height * width * 3).reshape(1, height, width, 3)
    images_NHWC = np.clip(smooth + rng.normal(0, 60, (4, height, width, 3)) * np.array([0, 0.3, 1, 2])[:, None, None, None], 0, 255)
    images_NHWC = images_NHWC.astype(np.uint8)
    model = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    tensor_NCHW = torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        pairs = [model(tensor_NCHW[[i]], tensor_NCHW[[j]]).item() for i, j in itertools.combinations(range(4), 2)]
    assert min(pairs) > 0.01
    assert diversity.st_lpips(images_NHWC) == pytest.approx(np.mean(pairs), abs=1e-6)


def test_text_metrics_do_not_depend_on_the_order(texts):
    for metric in (diversity.self_bleu, diversity.vendi_texts):
        assert metric(texts[::-1]) == pytest.approx(metric(texts), rel=1e-12)


def test_texts_that_cannot_be_compared_are_errors_naming_the_metric():
    for metric, name in ((diversity.self_bleu, "self_bleu"), (diversity.vendi_texts, "vendi_texts")):
        with pytest.raises(MetricError, match=f"metric {name}: .* at least 2, got 1"):
            metric(["a cat"])
        with pytest.raises(MetricError, match=f"metric {name}: wants a list of texts"):
            metric("a cat")
    with pytest.raises(MetricError, match="metric self_bleu: text 1 has no word"):
        diversity.self_bleu(["a cat", " "])
    with pytest.raises(MetricError, match="metric vendi_texts: text 1 has fewer than 2 words"):
        diversity.vendi_texts(["a cat", "cat"])
