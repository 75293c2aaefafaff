"""Manipulation checks: figures of known cases, kept with the training, and validation that a training does not feel."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from ablations.cell.checking import check as checking
from ablations.cell.checking.figures import afe_figures, represented, retrieval, text_image_figures
from ablations.cell.checking.held_out import HeldOut, read_held_out
from ablations.cell.checking.noise_gap import mse_gap_closed
from ablations.cell.loading.data import build_data
from ablations.cell.loading.module import build_module
from ablations.config import parse
from lightning_modules.adaptive_features import Pictures, Reading
from lightning_modules.readings import reading_named
from lightning_modules.settings import AFESettings

WIDTH = 8


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def held_out(vectors: torch.Tensor, text: torch.Tensor | None = None, groups: list[int] | None = None) -> HeldOut:
    """Pictures whose last vector is the pooled feature, with texts that equal it unless others are given."""
    pooled = vectors[:, -1]
    text = pooled if text is None else text
    numbers = torch.tensor(groups or list(range(len(vectors))))
    return HeldOut(text, text, numbers, numbers, Pictures(vectors, pooled), 0.0)


class Choosing(Reading):
    """Weighs two vectors by the first number of the first one: its own logits, no parameters."""

    def __init__(self, weights: str = "learned"):
        super().__init__(AFESettings(weights=weights))

    def logits(self, vectors_BVE, text_BE):
        return torch.stack([vectors_BVE[:, 0, 0], torch.zeros(len(vectors_BVE))], dim=1)

    def combine(self, vectors_BVE, weights_BK):
        return (weights_BK[..., None] * vectors_BVE).sum(1)


def test_figures_of_equal_weights_are_those_of_weights_that_are_not_dynamic():
    found = afe_figures(Choosing("uniform"), held_out(normal(20, 2, WIDTH)))
    assert found["afe_entropy_share"] == pytest.approx(1, abs=1e-6)
    assert found["afe_cosine_to_mean_weights"] == pytest.approx(1, abs=1e-6)
    assert found["afe_retrieval_coarse"] == found["afe_retrieval_coarse_mean_weights"] == found["afe_retrieval_coarse_other_weights"]


def test_figures_by_hand():
    vectors = normal(12, 2, WIDTH)
    weights = torch.sigmoid(vectors[:, 0, 0])
    own = weights[:, None] * vectors[:, 0] + (1 - weights)[:, None] * vectors[:, 1]
    mean = weights.mean() * vectors[:, 0] + (1 - weights.mean()) * vectors[:, 1]
    found = afe_figures(Choosing(), held_out(vectors))
    shares = torch.stack([weights, 1 - weights], dim=1)
    assert found["afe_entropy_share"] == pytest.approx((-(shares * shares.log()).sum(1).mean() / math.log(2)).item(), abs=1e-6)
    assert found["afe_cosine_to_pooled"] == pytest.approx(F.cosine_similarity(own, vectors[:, 1]).mean().item(), abs=1e-6)
    assert found["afe_cosine_to_mean_weights"] == pytest.approx(F.cosine_similarity(own, mean).mean().item(), abs=1e-6)
    others = weights.roll(-1)[:, None]
    swapped = others * vectors[:, 0] + (1 - others) * vectors[:, 1]
    by_hand = F.cosine_similarity(vectors[:, 1][:, None], swapped[None], dim=-1).argmax(1) == torch.arange(12)
    assert found["afe_retrieval_coarse_other_weights"] == pytest.approx(by_hand.float().mean().item())


def test_a_collapsed_reading_is_seen():
    """All weight on the pooled feature: cosine 1 to no AFE, entropy 0."""
    vectors = normal(10, 2, WIDTH)
    vectors[:, 0, 0] = -100
    found = afe_figures(Choosing(), held_out(vectors))
    assert found["afe_cosine_to_pooled"] == pytest.approx(1, abs=1e-6) and found["afe_entropy_share"] < 1e-6


def test_a_picture_of_an_equal_prompt_counts_as_found():
    text = torch.eye(3, WIDTH)
    pictures = text[[1, 0, 2]]
    parts = [(slice(None), pictures)]
    assert retrieval(text, torch.tensor([0, 1, 2]), iter(parts), torch.tensor([0, 1, 2])) == pytest.approx(1 / 3)
    assert retrieval(text, torch.tensor([5, 5, 2]), iter(parts), torch.tensor([5, 5, 2])) == 1


def test_a_reading_that_asks_the_text_is_read_pair_by_pair():
    torch.manual_seed(0)
    reading = reading_named("text_query")(WIDTH, AFESettings("text_query", grid=2))
    vectors, text = normal(11, 5, WIDTH), normal(11, WIDTH, seed=1)
    with torch.no_grad():
        parts = list(represented(reading, Pictures(vectors, vectors[:, 0]), text))
        by_hand = torch.stack([reading(vectors, t.expand(11, -1)).representation_BE for t in text])
    assert torch.allclose(torch.cat([images for _, images in parts]), by_hand, atol=1e-5)
    assert len(parts) == 2
    assert set(afe_figures(reading, held_out(vectors, text))) == set(afe_figures(Choosing(), held_out(vectors[:, :2])))


def test_in_batch_accuracy_is_counted_in_full_groups_of_64():
    pooled = F.normalize(normal(140, WIDTH), dim=-1)
    text = pooled.clone()
    text[:32] = text[:32].roll(1, dims=0)  # none of the first half of the first group finds its own
    text[128:] = -pooled[128:]  # an incomplete group, which does not count
    found = text_image_figures(None, held_out(pooled[:, None], text))
    assert found["clip_accuracy"] == pytest.approx((0.5 + 1) / 2)
    assert found["pooled_retrieval_coarse"] == pytest.approx(96 / 140, abs=0.02)


@pytest.fixture(scope="module")
def loaded(small_backbones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checks")
    settings = ["backbones.init=random", "data.num_train=64", "data.num_validation=8", f"output_dir={folder}"]
    config = parse([*settings, "afe.reading=layers", "trainer.progress=none"])
    module = build_module(config, small_backbones)
    data = build_data(config, module, lambda line: None)
    data.setup("fit")
    return SimpleNamespace(module=module, backbones=small_backbones, data=data, config=config)


def test_the_gap_is_0_for_the_frozen_encoder_and_1_for_one_that_reads_the_fine_prompt(loaded, monkeypatch):
    frozen = loaded.backbones.text_encoder
    assert mse_gap_closed(loaded.module.text_encoder, loaded.backbones, loaded.data, 4) in (None, pytest.approx(0, abs=1e-5))
    errors = {"coarse": 0.7, "fine": 0.2, "trained": 0.3}
    asked = iter(["coarse", "fine", "trained"])
    monkeypatch.setattr("ablations.cell.checking.noise_gap._errors", lambda *_: torch.full((4,), errors[next(asked)]))
    assert mse_gap_closed(frozen, loaded.backbones, loaded.data, 4) == pytest.approx(0.8)


def test_held_out_records_are_read_with_middle_coarse_prompts_and_cached_or_not_the_same(loaded, tmp_path):
    cached = read_held_out(loaded, 6)
    settings = {"data.cache": "false", "loss.clip_bank": "0", "output_dir": tmp_path, "data.encode_batch_size": "6"}
    words = [f"{name}={value}" for name, value in settings.items()]
    config = parse(["backbones.init=random", "data.num_train=64", "data.num_validation=8", "afe.reading=layers", *words])
    data = build_data(config, loaded.module, lambda line: None)
    plain = read_held_out(SimpleNamespace(module=loaded.module, backbones=loaded.backbones, data=data), 6)
    assert torch.allclose(cached.pictures.vectors_MVE, plain.pictures.vectors_MVE, atol=1e-5)
    assert cached.text_loss == pytest.approx(plain.text_loss, abs=1e-5)
    batch = next(data.held_out_batches(6, []))
    assert batch["coarse_prompts"] == [record.coarse_prompts[1] for record in loaded.data.validation_records[:6]]
    tokens = loaded.backbones.tokenize(batch["coarse_prompts"])
    assert torch.allclose(cached.coarse_NE, loaded.module.text_encoder(tokens).pooled_BE, atol=1e-5)


def test_kept_checks_are_taken_only_where_they_were_made_from_the_same(tmp_path):
    path = tmp_path / "checks.json"
    path.write_text(json.dumps({"made_from": {"code": "a"}, "checks": {"text_loss": 1.0}}))
    assert checking._kept(path, {"code": "a"}) == {"text_loss": 1.0}
    assert checking._kept(path, {"code": "b"}) is None
    path.write_text("{")
    assert checking._kept(path, {"code": "a"}) is None
