"""Every reading of AFE and its twins: what it reads, how it starts, what is trained, and what the forcing term asks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.refiner_modules import make_module, with_terms
from lightning_modules.adaptive_features import Pictures, Reading, forcing_term, representations
from lightning_modules.readings import reading_named, reading_names
from lightning_modules.ridge import ridge_regression
from lightning_modules.settings import AFESettings

WIDTH, GRID = 8, 2
VECTORS = {"class_and_patches": 1 + GRID**2, "layers": 4, "pooled": 1}
READINGS = ("class_and_patches", "experts", "layers", "patches", "position_values", "text_query")


def a_reading(name: str, weights: str = "learned", seed: int = 0, **settings) -> Reading:
    torch.manual_seed(seed)
    return reading_named(name)(WIDTH, AFESettings(name, hidden=16, grid=GRID, weights=weights, **settings))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def vectors_of(reading: Reading, rows: int = 5, seed: int = 1) -> torch.Tensor:
    return normal(rows, VECTORS[reading.reads], WIDTH, seed=seed)


def with_reading(name: str, weights: str = "learned", forcing: float = 0.0):
    return replace(with_terms(mse=False, text=False), afe=AFESettings(name, weights=weights, forcing=forcing))


def test_these_are_the_readings_of_the_package():
    assert reading_names()[: len(READINGS)] == READINGS


@pytest.mark.parametrize("name", READINGS)
def test_weights_sum_to_one_and_combine_gives_the_representation_of_forward(name):
    reading = a_reading(name)
    vectors, text = vectors_of(reading), normal(5, WIDTH)
    adaptive = reading(vectors, text)
    assert torch.allclose(adaptive.weights_BK.sum(-1), torch.ones(adaptive.weights_BK.shape[:-1]), atol=1e-6)
    assert adaptive.representation_BE.shape == (5, WIDTH)
    assert torch.equal(reading.combine(vectors, adaptive.weights_BK), adaptive.representation_BE)


@pytest.mark.parametrize("name", ["class_and_patches", "experts", "layers", "patches"])
def test_a_network_that_weighs_starts_with_equal_weights(name):
    reading = a_reading(name)
    weights = reading.weights(vectors_of(reading), None)
    assert torch.equal(weights, torch.full_like(weights, 1 / weights.shape[-1]))


def test_layers_of_equal_weights_start_as_the_mean_class_token():
    reading = a_reading("layers")
    vectors = vectors_of(reading)
    assert torch.allclose(reading(vectors).representation_BE, vectors.mean(1), atol=1e-6)


def test_experts_start_as_rotations_that_differ():
    projections = a_reading("experts").projections_KEE
    assert torch.allclose(projections @ projections.mT, torch.eye(WIDTH).expand(4, WIDTH, WIDTH), atol=1e-5)
    assert (projections[0] - projections[1]).norm() > 1


def test_heads_of_position_values_weigh_their_own_part_of_the_values():
    reading = a_reading("position_values")
    nn.init.normal_(reading.values_KEE)
    vectors = vectors_of(reading)
    weights = reading.weights(vectors)
    assert weights.shape == (5, 4, GRID**2)
    values = torch.stack([vectors[:, 1 + k] @ reading.values_KEE[k] for k in range(GRID**2)], dim=1)
    parts = [(weights[:, h, :, None] * values[:, :, 2 * h : 2 * h + 2]).sum(1) for h in range(4)]
    assert torch.allclose(reading(vectors).representation_BE, torch.cat(parts, dim=1), atol=1e-5)
    assert reading.dynamic_weights.log_factor.exp().item() == pytest.approx(5.0)


@pytest.mark.parametrize("name", ["patches", "position_values", "text_query"])
def test_readings_of_patches_start_near_the_pooled_feature(name):
    """Patches that hold the pooled feature, each in its own way and with noise, on pictures that were not fitted."""
    pooled, ways = normal(600, WIDTH), normal(GRID**2, WIDTH, WIDTH, seed=3)
    patches = torch.einsum("ne,ked->nkd", pooled, ways) + 0.1 * normal(600, GRID**2, WIDTH, seed=4)
    vectors = torch.cat([pooled[:, None], patches], dim=1)
    reading = a_reading(name, weights="uniform")

    def nearness() -> float:
        found = reading(vectors[500:], pooled[500:]).representation_BE
        return F.cosine_similarity(found, pooled[500:]).mean().item()

    before = nearness()
    reading.start(vectors[:500], pooled[:500])
    assert before < 0.5 and nearness() > 0.97


def test_ridge_regression_is_the_closed_form_at_a_strength_that_leaves_noise_alone():
    inputs, true = normal(60, 5), normal(5, 3, seed=1)
    assert torch.allclose(ridge_regression(inputs, inputs @ true), true, atol=1e-4)
    many, noise = normal(40, 200, seed=2), normal(40, 3, seed=3)
    assert ridge_regression(many, noise).norm() < 0.5 * torch.linalg.lstsq(many, noise).solution.norm()


@pytest.mark.parametrize("name", READINGS)
def test_the_uniform_twin_has_the_same_parameters_and_start_and_equal_weights(name):
    learned, uniform = a_reading(name), a_reading(name, "uniform")
    assert learned.state_dict().keys() == uniform.state_dict().keys()
    assert all(torch.equal(value, uniform.state_dict()[key]) for key, value in learned.state_dict().items())
    weights = uniform.weights(vectors_of(uniform), normal(5, WIDTH))
    assert torch.equal(weights, torch.full_like(weights, 1 / weights.shape[-1]))


@pytest.mark.parametrize("name", READINGS)
def test_the_frozen_twin_is_sharp_and_prefers_nothing_on_average(name):
    reading = a_reading(name, "frozen")
    vectors, text = vectors_of(reading, rows=2000), normal(2000, WIDTH)
    reading.start(vectors, text)
    weights = reading(vectors, text).weights_BK
    largest = math.log(weights.shape[-1])
    share = reading(vectors, text).entropy().item() / largest
    assert 0.4 < share < 0.75
    mean = weights.mean(0)
    assert (-(mean * mean.log()).sum(-1) / largest).min() > 0.97


@pytest.mark.parametrize("weights", ["uniform", "frozen"])
@pytest.mark.parametrize("name", READINGS)
def test_a_twin_trains_all_but_the_network_that_weighs_and_says_so(small_backbones, make_batch, name, weights):
    module = make_module(small_backbones, with_reading(name, weights))
    batch = make_batch(bank=(4, 5), reads=module.afe.reads)
    module.total_loss(module.compute_terms(batch)[0]).backward()
    untrained = {id(parameter) for parameter in module.parameters_without_gradient()}
    for parameter_name, parameter in module.afe.named_parameters():
        weighs = parameter_name.startswith("dynamic_weights.")
        assert (parameter.grad is None) == weighs == (id(parameter) in untrained), parameter_name


@pytest.mark.parametrize("name", READINGS)
def test_every_parameter_of_a_learned_reading_has_a_gradient_within_two_steps(small_backbones, make_batch, name):
    module = make_module(small_backbones, with_reading(name, forcing=0.3))
    batch = make_batch(bank=(4, 5), reads=module.afe.reads)
    optimizer = torch.optim.SGD(module.afe.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        module.total_loss(module.compute_terms(batch)[0]).backward()
        optimizer.step()
    assert module.afe.untrained_parameters() == []
    assert all(parameter.grad is not None for parameter in module.afe.parameters())
    assert any(parameter.grad.abs().sum() > 0 for parameter in module.afe.dynamic_weights.parameters())


def test_the_text_query_is_compared_pair_by_pair_as_by_hand(small_backbones, make_batch):
    module = make_module(small_backbones, with_reading("text_query"))
    batch = make_batch(ids=(0, 1, 2), bank=(4,))
    text = module.text_encoder(batch["text_tokens_BS"]).pooled_BE
    vectors = torch.cat([batch["image_vectors_BKE"], batch["bank_vectors_NKE"]])
    by_hand = torch.stack([torch.stack([module.afe(v[None], t[None]).representation_BE[0] for v in vectors]) for t in text])
    found = representations(module.afe, Pictures(vectors, vectors[:, 0]), text)
    assert torch.allclose(found, by_hand, atol=1e-6)
    logits = 10 * F.cosine_similarity(text[:, None], by_hand, dim=-1)
    own = torch.arange(3)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits[:, :3].T, own)) / 2
    assert module.compute_terms(batch)[0]["l_clip"].item() == pytest.approx(expected.item(), abs=1e-5)
    assert (by_hand[0, 0] - by_hand[1, 0]).abs().max() > 1e-5


def test_the_text_query_without_a_text_is_an_error():
    reading = a_reading("text_query")
    with pytest.raises(ValueError, match="weighs a picture for a text"):
        reading(vectors_of(reading))


def test_the_forcing_term_by_hand_and_its_place_in_l_clip(small_backbones, make_batch):
    module = make_module(small_backbones, with_reading("layers", forcing=0.3))
    plain = make_module(small_backbones, with_reading("layers"))
    for one in (module, plain):
        torch.manual_seed(5)
        nn.init.normal_(one.afe.dynamic_weights[-1].weight)
    batch = make_batch(bank=(4, 5), reads="layers")
    terms, watched = module.compute_terms(batch)
    contrast, seen = plain.compute_terms(batch)
    assert terms["l_clip"].item() == pytest.approx(contrast["l_clip"].item() + 0.3 * watched["afe_forcing"].item(), abs=1e-6)
    assert "afe_forcing" not in seen
    text = module.text_encoder(batch["text_tokens_BS"]).pooled_BE
    pictures = torch.cat([batch["image_vectors_BKE"], batch["bank_vectors_NKE"]])
    margins = []
    for i in range(4):
        own, other = (module.afe.weights(pictures[[j]]) for j in (i, i + 1))
        cosines = [F.cosine_similarity(text[[i]], module.afe.combine(pictures[[i]], w)) for w in (own, other)]
        margins.append(cosines[0] - cosines[1])
    assert watched["afe_forcing"].item() == pytest.approx(F.softplus(-10 * torch.cat(margins)).mean().item(), abs=1e-6)


def test_the_forcing_term_is_log_2_where_weights_do_not_differ_and_is_not_computed_for_the_uniform_twin(small_backbones, make_batch):
    reading = a_reading("layers")
    vectors, text = vectors_of(reading), normal(5, WIDTH)
    found = forcing_term(reading, reading(vectors).representation_BE, vectors, vectors, text, 10.0)
    assert found.item() == pytest.approx(math.log(2), abs=1e-6)
    module = make_module(small_backbones, with_reading("layers", "uniform", forcing=0.3))
    assert "afe_forcing" not in module.compute_terms(make_batch(reads="layers"))[1]


def test_what_is_watched_tells_a_dead_reading_from_a_living_one(small_backbones, make_batch):
    dead = make_module(small_backbones, with_reading("class_and_patches"))
    nn.init.zeros_(dead.afe.dynamic_weights[0].weight)
    _, watched = dead.compute_terms(make_batch())
    assert watched["afe_cosine_to_mean_weights"].item() == pytest.approx(1, abs=1e-6)
    alive = make_module(small_backbones, with_reading("position_values"))
    nn.init.normal_(alive.afe.values_KEE)
    _, watched = alive.compute_terms(make_batch())
    assert watched["afe_cosine_to_mean_weights"].item() < 0.98 and watched["afe_cosine_to_pooled"].item() < 0.5


@pytest.mark.parametrize(("reads", "vectors"), [("layers", 4), ("pooled", 0)])
def test_only_what_a_reading_reads_is_encoded(small_backbones, reads, vectors):
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    full, encoder = small_backbones.image_vector_encoder(4), small_backbones.image_vector_encoder(4, reads)
    features = encoder.encode(images)
    assert {name: tuple(value.shape[1:]) for name, value in features.items()} == encoder.shapes()
    assert ("image_vectors" in features) == bool(vectors) and encoder.digest != full.digest
    assert torch.equal(features["image_pooled"], full.encode(images)["image_pooled"])
    if vectors:
        assert features["image_vectors"].shape[1] == 4
        assert torch.equal(features["image_vectors"][:, -1], full.encode(images)["image_vectors"][:, 0])


def test_without_afe_the_pooled_feature_alone_is_encoded(small_backbones):
    module = make_module(small_backbones, replace(with_terms(), use_afe=False))
    assert module.encoders["image_vectors"].shapes() == {"image_pooled": (128,)}


def test_the_encoder_of_class_and_patches_is_what_it_was(small_backbones):
    encoder = small_backbones.image_vector_encoder(4)
    assert encoder.digest == small_backbones.image_vector_encoder(4, "class_and_patches").digest == "5ba201a2f0c43426"
    assert encoder.shapes() == {"image_vectors": (17, 128), "image_pooled": (128,)}
