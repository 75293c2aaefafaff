"""AFE, and the frozen picture features that it reads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_modules.adaptive_features import AdaptiveFeatures
from lightning_modules.frozen_features import digest_of
from lightning_modules.readings.class_and_patches import ClassAndPatches
from lightning_modules.settings import AFESettings


def a_trained_afe(temperature: float = 1.0) -> ClassAndPatches:
    torch.manual_seed(0)
    afe = ClassAndPatches(8, AFESettings(hidden=16, temperature=temperature))
    nn.init.normal_(afe.dynamic_weights[-1].weight)
    return afe


def some_vectors() -> torch.Tensor:
    return torch.randn(5, 17, 8, generator=torch.Generator().manual_seed(1))


def some_images(rows: int = 3) -> torch.Tensor:
    return torch.rand(rows, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1


def test_the_weights_sum_to_one_and_weigh_the_vectors():
    vectors = some_vectors()
    adaptive = a_trained_afe()(vectors)
    assert torch.allclose(adaptive.weights_BK.sum(-1), torch.ones(5), atol=1e-6)
    assert adaptive.weights_BK.std() > 1e-3
    by_hand = torch.einsum("bk,bke->be", adaptive.weights_BK, vectors)
    assert torch.allclose(adaptive.representation_BE, by_hand, atol=1e-6)


def test_it_starts_with_equal_weights_and_so_with_the_mean_vector():
    vectors = some_vectors()
    adaptive = ClassAndPatches(8, AFESettings())(vectors)
    assert torch.equal(adaptive.weights_BK, torch.full((5, 17), 1 / 17))
    assert torch.allclose(adaptive.representation_BE, vectors.mean(1), atol=1e-6)
    assert adaptive.entropy().item() == pytest.approx(math.log(17), abs=1e-5)
    assert adaptive.class_token_mass().item() == pytest.approx(1 / 17, abs=1e-6)


def test_gradient_reaches_the_dynamic_weights_from_the_first_step():
    afe = ClassAndPatches(8, AFESettings())
    afe(some_vectors()).representation_BE.square().sum().backward()
    assert afe.dynamic_weights[-1].weight.grad.abs().sum() > 0


def test_a_low_temperature_sharpens_the_weights():
    vectors = some_vectors()
    entropies = [a_trained_afe(temperature)(vectors).entropy().item() for temperature in (0.05, 0.5, 1.0, 10.0)]
    assert entropies == sorted(entropies)
    assert entropies[0] < 0.5 * entropies[-1]


def test_entropy_and_class_token_mass_of_a_known_case():
    adaptive = AdaptiveFeatures(torch.zeros(2, 1), torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    assert adaptive.entropy().item() == pytest.approx(math.log(2) / 2, abs=1e-6)
    assert adaptive.class_token_mass().item() == pytest.approx(0.75)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="temperature must be positive"):
        ClassAndPatches(8, AFESettings(temperature=0.0))


@pytest.mark.parametrize("grid", [1, 2, 4, 8])
def test_a_picture_has_one_vector_for_the_class_token_and_one_for_each_cell(small_backbones, grid):
    encoder = small_backbones.image_vector_encoder(grid)
    features = encoder.encode(some_images())
    assert {name: tuple(value.shape[1:]) for name, value in features.items()} == encoder.shapes()
    assert encoder.shapes() == {"image_vectors": (1 + grid * grid, 128), "image_pooled": (128,)}


def test_the_first_vector_and_the_pooled_feature_are_the_towers_own(small_backbones):
    images = some_images()
    features = small_backbones.image_vector_encoder(4).encode(images)
    expected = small_backbones.clip_model.encode_image(images)  # mean and deviation of the tiny OpenCLIP are 0.5: [-1, 1] as it is
    assert torch.allclose(features["image_pooled"], expected, atol=1e-5)
    assert torch.allclose(features["image_vectors"][:, 0], expected, atol=1e-5)


def test_patch_vectors_are_means_of_projected_patch_tokens(small_backbones):
    images = some_images(2)
    finest = small_backbones.image_vector_encoder(8).encode(images)["image_vectors"][:, 1:].unflatten(1, (8, 8))
    coarser = small_backbones.image_vector_encoder(4).encode(images)["image_vectors"][:, 1:].unflatten(1, (4, 4))
    assert torch.allclose(coarser[:, 1, 2], finest[:, 2:4, 4:6].mean((1, 2)), atol=1e-5)
    seen: list[torch.Tensor] = []
    tower = small_backbones.clip_model.visual
    with tower.transformer.resblocks[-1].register_forward_hook(lambda _m, _i, output: seen.append(output)), torch.no_grad():
        small_backbones.clip_model.encode_image(images)
    by_hand = tower.ln_post(seen[0])[:, 1:] @ tower.proj
    assert torch.allclose(finest.flatten(1, 2), by_hand, atol=1e-5)


def test_pictures_of_another_size_are_resized_for_the_tower(small_backbones):
    encoder = small_backbones.image_vector_encoder(2)
    assert encoder.preprocess(torch.zeros(1, 3, 100, 100)).shape == (1, 3, 64, 64)
    assert torch.allclose(encoder.preprocess(torch.full((1, 3, 100, 100), 0.5)), torch.full((1, 3, 64, 64), 0.5), atol=1e-5)


def test_a_grid_finer_than_the_patches_is_refused(small_backbones):
    with pytest.raises(ValueError, match=r"afe\.grid is 9.*8 x 8"):
        small_backbones.image_vector_encoder(9)


def test_mixed_precision_does_not_change_frozen_features(small_backbones):
    images = some_images()
    for encoder in (small_backbones.latent_encoder(), small_backbones.image_vector_encoder(4)):
        plain = encoder.encode(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = encoder.encode(images)
        for name, value in plain.items():
            assert torch.equal(mixed[name], value), name


def test_latents_are_the_unscaled_posterior_of_the_vae(small_backbones):
    images = some_images(2)
    encoder = small_backbones.latent_encoder()
    features = encoder.encode(images)
    with torch.no_grad():
        posterior = small_backbones.text_to_image.vae.encode(images).latent_dist
    assert torch.equal(features["latent_mean"], posterior.mean)
    assert torch.equal(features["latent_logvar"], posterior.logvar)
    assert {name: tuple(value.shape[1:]) for name, value in features.items()} == encoder.shapes()


def a_known_module() -> nn.Module:
    module = nn.Linear(3, 2)
    module.load_state_dict({"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)})
    return module


def test_a_digest_is_the_same_in_every_process_and_another_for_other_weights_or_settings():
    assert digest_of(("a", 1), a_known_module()) == "5055ee0d28ebb43e"
    changed = a_known_module()
    with torch.no_grad():
        changed.weight[1, 2] += 1e-6
    digests = {digest_of(("a", 1), a_known_module()), digest_of(("a", 2), a_known_module()), digest_of(("a", 1), changed)}
    digests.add(digest_of(("a", 1), a_known_module().half()))
    assert len(digests) == 4


def test_a_digest_takes_scalars_and_low_precision():
    module = nn.BatchNorm1d(2).bfloat16()
    assert digest_of((), module) != digest_of((), nn.BatchNorm1d(2))


def test_feature_digests_tell_grids_apart(small_backbones):
    assert small_backbones.image_vector_encoder(2).digest != small_backbones.image_vector_encoder(4).digest
    assert small_backbones.image_vector_encoder(4).digest == small_backbones.image_vector_encoder(4).digest
