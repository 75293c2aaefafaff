"""The metrics against values worked out by hand or by the packages themselves, and their refusal to score a failure."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from ablations.metrics import clip_score as clip
from ablations.metrics import diversity, image_quality
from ablations.metrics.base import Metric, MetricError
from ablations.metrics.register import all_metrics, metric_named, register
from ablations.runtime.errors import UserError


@pytest.fixture(scope="module")
def images_NHWC() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


# Register


def test_register_lists_every_metric_with_what_tables_need():
    metrics = all_metrics()
    assert {"piqe", "entropy", "clip_score", "st_lpips", "clip_distance", "vendi", "distinct_1", "distinct_2"} <= set(metrics)
    for name, metric in metrics.items():
        assert metric.name == name and metric.title and metric.licence and metric.needs
        assert metric.higher_is_better in (True, False, None)
    with pytest.raises(ValueError, match="nearest is 'st_lpips'"):
        metric_named("stlpips")
    with pytest.raises(UserError, match="two different metrics are called 'piqe': give the one of your plug-in another name"):
        register(Metric("piqe", "another", "image", True, (0, 1), ("images",), "none"))


def test_piqe_and_entropy_are_no_quality_measure_at_64_px_and_enter_no_verdict_there():
    for name in ("piqe", "entropy"):
        assert metric_named(name).note_at(64).startswith("not a quality measure at 64 px")
        assert metric_named(name).higher_is_better_at(64) is None
    assert metric_named("piqe").note_at(512) == ""
    assert metric_named("piqe").higher_is_better_at(512) is False
    assert metric_named("clip_score").higher_is_better_at(64) is True


def test_importing_metrics_loads_no_heavy_library():
    code = (
        "import sys; from ablations.metrics import base, clip_score, diversity, image_quality;"
        "print([m for m in ('torch', 'pyiqa', 'stlpips_pytorch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# Image quality


def test_piqe_and_entropy_equal_pyiqa_and_print_nothing(images_NHWC, capfd):
    scores, bits = image_quality.piqe(images_NHWC), image_quality.entropy(images_NHWC)
    assert capfd.readouterr() == ("", "")
    from pyiqa.archs.entropy_arch import entropy
    from pyiqa.archs.piqe_arch import piqe

    tensor_NCHW = torch.from_numpy(images_NHWC).permute(0, 3, 1, 2) / 255
    np.testing.assert_allclose(scores, piqe(tensor_NCHW)[0].numpy(), rtol=1e-6)
    np.testing.assert_allclose(bits, entropy(tensor_NCHW).numpy(), rtol=1e-6)
    assert scores.dtype == bits.dtype == np.float64 and scores.shape == bits.shape == (5,)


def test_entropy_of_known_pictures():
    flat, halves = np.full((64, 64, 3), 90, np.uint8), np.zeros((64, 64, 3), np.uint8)
    halves[:, 32:] = 255
    np.testing.assert_allclose(image_quality.entropy(np.stack([flat, halves])), [0.0, 1.0], atol=1e-6)


def test_piqe_gives_flat_pictures_and_black_ones_the_worst_score():
    np.testing.assert_array_equal(image_quality.piqe(np.stack([np.full((64, 64, 3), v, np.uint8) for v in (0, 90, 255)])), 100.0)


@pytest.mark.parametrize("score", [image_quality.piqe, image_quality.entropy])
def test_a_score_depends_neither_on_the_batch_nor_on_the_order(score, images_NHWC, monkeypatch):
    together = score(images_NHWC)
    np.testing.assert_allclose(np.concatenate([score(images_NHWC[i : i + 1]) for i in range(5)]), together, rtol=1e-6)
    np.testing.assert_allclose(score(images_NHWC[::-1])[::-1], together, rtol=1e-6)
    monkeypatch.setattr(image_quality, "_PIQE_PIXELS", 2 * 64 * 64)
    monkeypatch.setattr(image_quality, "_ENTROPY_PIXELS", 2 * 64 * 64)
    np.testing.assert_allclose(score(images_NHWC), together, rtol=1e-6)


def test_bad_pictures_are_refused_by_name(images_NHWC):
    with pytest.raises(MetricError, match="metric piqe: wants pictures of at least 16 px a side, got 8 x 64"):
        image_quality.piqe(images_NHWC[:, :, :8])
    with pytest.raises(MetricError, match="metric entropy: wants uint8 images"):
        image_quality.entropy(images_NHWC / 255)
    with pytest.raises(MetricError, match="metric piqe"):
        image_quality.piqe(images_NHWC[:0])


def test_a_score_that_is_not_finite_is_an_error_not_a_value(images_NHWC, monkeypatch):
    monkeypatch.setattr(image_quality, "_pyiqa_metric", lambda name, device: lambda x: torch.full((len(x),), math.nan))
    with pytest.raises(MetricError, match="metric piqe: gave nan for item 0 of 5"):
        image_quality.piqe(images_NHWC)


# Diversity


def test_st_lpips_equals_the_package_called_directly(images_NHWC):
    from stlpips_pytorch import stlpips

    model = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    tensor_NCHW = torch.from_numpy(images_NHWC).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        direct = [model(tensor_NCHW[i : i + 1], tensor_NCHW[j : j + 1]).item() for i, j in itertools.combinations(range(3), 2)]
    assert diversity.st_lpips(images_NHWC[:3]) == pytest.approx(np.mean(direct), rel=1e-5)
    assert min(direct) > 0.01


def test_st_lpips_of_equal_pictures_is_zero_and_order_is_free(images_NHWC):
    assert diversity.st_lpips(np.stack([images_NHWC[0]] * 3)) == 0.0
    assert diversity.st_lpips(images_NHWC[[2, 0, 1]]) == pytest.approx(diversity.st_lpips(images_NHWC[:3]), rel=1e-5)


def test_st_lpips_enlarges_pictures_below_64_px(images_NHWC):
    small = images_NHWC[:2, :32, :16]
    tensor_NCHW = torch.from_numpy(small).permute(0, 3, 1, 2) / 127.5 - 1
    large = torch.nn.functional.interpolate(tensor_NCHW, size=(128, 64), mode="bicubic", align_corners=False).clamp(-1, 1)
    from stlpips_pytorch import stlpips

    with torch.no_grad():
        direct = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)(large[:1], large[1:]).item()
    assert diversity.st_lpips(small) == pytest.approx(direct, rel=1e-5)


def test_clip_distance_by_hand():
    # Cosines: 0 (first, second), 0.6 (first, third), 0.8 (second, third).
    assert diversity.clip_distance([[1, 0], [0, 2], [3, 4]]) == pytest.approx(((1 - 0) + (1 - 0.6) + (1 - 0.8)) / 3, abs=1e-12)
    assert diversity.clip_distance(torch.tensor([[1.0, 0], [-1, 0]])) == pytest.approx(2.0)
    assert diversity.clip_distance([[0.3, 0.4]] * 4) == pytest.approx(0.0, abs=1e-12)


def test_vendi_counts_the_different_pictures():
    assert diversity.vendi([[0.3, 0.4, 0.5]] * 6) == pytest.approx(1.0, abs=1e-9)
    assert diversity.vendi(3.0 * np.eye(5)) == pytest.approx(5.0, abs=1e-9)
    # Two orthogonal pairs of equal pictures: eigenvalues 1/2 and 1/2.
    assert diversity.vendi([[1, 0], [1, 0], [0, 1], [0, 1]]) == pytest.approx(2.0, abs=1e-9)
    # Two pictures at cosine c: eigenvalues (1 + c) / 2 and (1 - c) / 2.
    assert diversity.vendi([[1, 0], [0.6, 0.8]]) == pytest.approx(math.exp(-(0.8 * math.log(0.8) + 0.2 * math.log(0.2))), abs=1e-9)


def test_embedding_metrics_do_not_depend_on_order_or_length():
    vectors = np.random.default_rng(0).standard_normal((6, 16))
    for metric in (diversity.clip_distance, diversity.vendi):
        assert metric(vectors[::-1] * 7) == pytest.approx(metric(vectors), rel=1e-12)


def test_distinct_n_by_hand():
    texts = ["a red cat", "A red dog, a red cat"]
    # Words: a red cat a red dog a red cat -> 4 of 9; pairs: a-red red-cat a-red red-dog dog-a a-red red-cat -> 4 of 7.
    assert diversity.distinct_n(texts, 1) == pytest.approx(4 / 9)
    assert diversity.distinct_n(texts, 2) == pytest.approx(4 / 7)
    assert diversity.distinct_n(["кошка", "γάτα"], 1) == 1.0
    assert diversity.distinct_n(texts[::-1], 2) == diversity.distinct_n(texts, 2)


def test_diversity_of_fewer_than_two_candidates_is_an_error_naming_the_metric(images_NHWC):
    for call, name in (
        (lambda: diversity.st_lpips(images_NHWC[:1]), "st_lpips"),
        (lambda: diversity.clip_distance([[1.0, 0]]), "clip_distance"),
        (lambda: diversity.vendi([[1.0, 0]]), "vendi"),
        (lambda: diversity.distinct_n(["a cat"], 1), "distinct_1"),
    ):
        with pytest.raises(MetricError, match=f"metric {name}: .* at least 2, got 1"):
            call()


def test_embeddings_and_texts_without_content_are_errors():
    for bad in ([[1.0, 0], [0, 0]], [[1.0, 0], [math.nan, 1]]):
        with pytest.raises(MetricError, match=r"metric vendi: embedding 1 \(of 2\) is zero or not finite"):
            diversity.vendi(bad)
    with pytest.raises(MetricError, match="metric distinct_2: no text has 2 words"):
        diversity.distinct_n(["cat", "dog"], 2)
    with pytest.raises(MetricError, match="wants a list of texts"):
        diversity.distinct_n("a cat", 1)


# CLIP score


class _TwoDimensionalClip:
    """Pictures point along their red and green; texts along the numbers that they spell."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode_image(self, images_NHWC):
        self.batches.append(len(images_NHWC))
        return torch.from_numpy(images_NHWC[:, 0, 0, :2].astype(np.float32)) + 1e-3

    def encode_text(self, texts):
        return np.array([[float(number) for number in text.split()] for text in texts])


def _pictures(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.array(colours, np.uint8)[:, None, None, :].repeat(4, 1).repeat(4, 2)


def test_clip_score_is_100_times_the_cosine_and_never_negative():
    images = _pictures((255, 0, 0), (255, 0, 0), (150, 200, 0), (255, 0, 0))
    scores = clip.clip_score(_TwoDimensionalClip(), images, ["2 0", "0 1", "5 0", "-1 0"])
    np.testing.assert_allclose(scores, [100.0, 0.0, 60.0, 0.0], atol=1e-3)
    assert scores.dtype == np.float64


def test_clip_score_does_not_depend_on_the_batch_size():
    images, texts = _pictures(*[(10 * i, 50, 0) for i in range(7)]), [f"{i} 1" for i in range(7)]
    encoder = _TwoDimensionalClip()
    np.testing.assert_array_equal(clip.clip_score(encoder, images, texts, batch_size=3), clip.clip_score(encoder, images, texts))
    assert encoder.batches == [3, 3, 1, 7]


def test_clip_score_refuses_what_does_not_match():
    encoder = _TwoDimensionalClip()
    with pytest.raises(MetricError, match="metric clip_score: 2 images but 1 texts"):
        clip.clip_score(encoder, _pictures((1, 2, 3), (1, 2, 3)), ["1 0"])
    with pytest.raises(MetricError, match="metric clip_score: embedding 0"):
        clip.clip_score(encoder, _pictures((1, 2, 3)), ["0 0"])
    with pytest.raises(MetricError, match="do not match"):
        clip.clip_score_of_embeddings(np.eye(3), np.eye(2))
