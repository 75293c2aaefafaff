"""The frozen text-to-image model: targets of L_mse, pictures by keyed noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from torch.nn import functional as F

from lightning_modules.losses import DiffusionNoiseLoss
from lightning_modules.text_to_image import TextToImage


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def states(small_backbones) -> torch.Tensor:
    with torch.no_grad():
        return small_backbones.text_encoder(small_backbones.tokenize(["a cat", "a red boat", "a castle", ""])).states_BSD


def with_prediction_type(model: TextToImage, kind: str) -> TextToImage:
    schedule = DDPMScheduler(num_train_timesteps=1000, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    schedule.register_to_config(prediction_type=kind)
    return TextToImage(model.vae, model.unet, schedule)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_l_mse_equals_plain_diffusers(small_backbones, states, kind):
    model = with_prediction_type(small_backbones.text_to_image, kind)
    latents, noise, timesteps = normal(3, 16, 8, 8, seed=0), normal(3, 16, 8, 8, seed=1), torch.tensor([0, 500, 999])
    plain = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=kind)
    with torch.no_grad():
        loss = DiffusionNoiseLoss()(*model.predict(latents, noise, timesteps, states[:3]))
        output = model.unet(plain.add_noise(latents, noise, timesteps), timesteps, encoder_hidden_states=states[:3]).sample
        alpha = plain.alphas_cumprod[timesteps].view(3, 1, 1, 1)
        target = noise if kind == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    assert loss.item() == pytest.approx(F.mse_loss(output, target).item(), rel=1e-6)


def test_an_unknown_prediction_type_is_refused(small_backbones, states):
    model = with_prediction_type(small_backbones.text_to_image, "sample")
    with pytest.raises(ValueError, match="epsilon and v_prediction, not 'sample'"):
        model.predict(torch.zeros(1, 16, 8, 8), torch.zeros(1, 16, 8, 8), torch.tensor([1]), states[:1])


def test_latents_are_drawn_from_the_posterior_and_then_scaled(small_backbones):
    model = small_backbones.text_to_image
    mean, logvar, draw = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), np.log(9.0)), torch.full((1, 1, 1, 1), 0.5)
    assert model.sample_latents(mean, logvar, draw).item() == pytest.approx(3.5 * model.scaling_factor, rel=1e-6)


def generate(backbones, states, seeds, steps=4, guidance_scale=3.0, batch_size=64) -> np.ndarray:
    return backbones.text_to_image.generate(
        states[: len(seeds)], states[3:], seeds, steps=steps, guidance_scale=guidance_scale, batch_size=batch_size
    )


def test_pictures_are_uint8_of_the_image_size(small_backbones, states):
    pictures = generate(small_backbones, states, [1, 2])
    assert (pictures.dtype, pictures.shape) == (np.uint8, (2, 64, 64, 3))
    assert pictures.std() > 1


def test_no_prompts_give_no_pictures(small_backbones, states):
    assert generate(small_backbones, states, []).shape == (0, 64, 64, 3)


def test_pictures_do_not_depend_on_the_batch_size(small_backbones, states):
    together = generate(small_backbones, states, [5, 6, 7]).astype(int)
    for batch_size in (1, 2):
        apart = generate(small_backbones, states, [5, 6, 7], batch_size=batch_size).astype(int)
        assert np.abs(together - apart).max() <= 1


def test_equal_seeds_share_all_noise_and_other_seeds_give_other_pictures(small_backbones, states):
    same_text = states[:1].expand(3, -1, -1)
    pictures = small_backbones.text_to_image.generate(same_text, states[3:], [8, 9, 8], steps=4, guidance_scale=3.0).astype(int)
    assert np.abs(pictures[0] - pictures[2]).max() <= 1
    assert np.abs(pictures[0] - pictures[1]).mean() > 5


def test_generation_reads_and_leaves_no_global_random_state(small_backbones, states):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = generate(small_backbones, states, [1])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert np.array_equal(generate(small_backbones, states, [1]), first)


@pytest.mark.parametrize(("guidance_scale", "rows"), [(3.0, 4), (1.0, 2), (0.0, 4)])
def test_steps_are_honoured_and_no_guidance_costs_no_second_pass(small_backbones, states, guidance_scale, rows):
    seen: list[int] = []
    hook = small_backbones.text_to_image.unet.register_forward_pre_hook(lambda _m, args: seen.append(len(args[0])))
    with hook:
        generate(small_backbones, states, [1, 2], steps=5, guidance_scale=guidance_scale)
    assert seen == [rows] * 5


def test_guidance_goes_from_the_empty_prompt_through_the_prompt(small_backbones, states):
    model = small_backbones.text_to_image
    no_guidance = generate(small_backbones, states, [4], guidance_scale=1.0).astype(int)
    assert np.abs(no_guidance - generate(small_backbones, states, [4], guidance_scale=1.0 + 1e-6).astype(int)).max() <= 1
    empty = model.generate(states[3:], states[3:], [4], steps=4, guidance_scale=1.0).astype(int)
    assert np.abs(empty - generate(small_backbones, states, [4], guidance_scale=0.0).astype(int)).max() <= 1
    assert np.abs(no_guidance - generate(small_backbones, states, [4], guidance_scale=9.0).astype(int)).max() > 1


def test_as_many_seeds_as_prompts_are_needed(small_backbones, states):
    with pytest.raises(ValueError, match="2 prompts but 1 image seeds"):
        small_backbones.text_to_image.generate(states[:2], states[3:], [1], steps=1, guidance_scale=1.0)
