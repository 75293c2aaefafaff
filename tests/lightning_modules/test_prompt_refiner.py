"""The module's claims about what it holds and about chance: its weights, draws and padding are functions of seed and record."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.refiner_modules import ALL_ON, WITHOUT, make_module, with_terms
from lightning_modules import step_chance
from lightning_modules.prompt_refiner import PromptRefinerModule
from lightning_modules.settings import AdapterSettings, OptimizerSettings, RefineSettings
from lightning_modules.training_step import Step


def test_the_module_holds_only_what_is_trained(small_backbones):
    module = make_module(small_backbones)
    assert {name.split(".")[0] for name in module.state_dict()} == {"text_encoder", "adapter", "afe"}
    assert all(parameter.requires_grad for parameter in module.parameters())
    without_afe = make_module(small_backbones, replace(ALL_ON, use_afe=False))
    assert {name.split(".")[0] for name in without_afe.state_dict()} == {"text_encoder", "adapter"}


def test_arms_start_from_the_same_weights_at_one_seed_and_the_adapter_from_others_at_another(small_backbones):
    whole, part, other = make_module(small_backbones), make_module(small_backbones, WITHOUT["l_clip"]), make_module(small_backbones, seed=1)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in part.state_dict().items())
    assert not torch.equal(other.adapter.layers[0].weight, whole.adapter.layers[0].weight)
    assert torch.equal(other.text_encoder.text_projection, whole.text_encoder.text_projection)


@pytest.fixture
def predicted(small_backbones, monkeypatch) -> list[tuple[torch.Tensor, ...]]:
    """The (latents, noise, timesteps) of every call of TextToImage.predict."""
    calls: list[tuple[torch.Tensor, ...]] = []
    original = small_backbones.text_to_image.predict

    def spy(latents, noise, timesteps, states):
        calls.append((latents, noise, timesteps))
        return original(latents, noise, timesteps, states)

    monkeypatch.setattr(small_backbones.text_to_image, "predict", spy)
    return calls


def test_arms_at_one_seed_see_the_same_latents_noise_and_timesteps(small_backbones, make_batch, predicted):
    for losses in (ALL_ON, WITHOUT["l_clip"], with_terms(use_afe=False, feature=True, text=False)):
        make_module(small_backbones, losses).compute_terms(make_batch(epoch=2))
    for call in predicted[1:]:
        assert all(torch.equal(value, first) for value, first in zip(call, predicted[0], strict=True))
    make_module(small_backbones, seed=1).compute_terms(make_batch(epoch=2))
    make_module(small_backbones).compute_terms(make_batch(epoch=3))
    for call in predicted[-2:]:
        assert not any(torch.equal(value, first) for value, first in zip(call, predicted[0], strict=True))


def test_the_draw_of_a_record_does_not_depend_on_the_batch_around_it(small_backbones, make_batch, predicted):
    module = make_module(small_backbones, WITHOUT["l_clip"])
    module.compute_terms(make_batch(ids=(0, 3, 5)))
    module.compute_terms(make_batch(ids=(5, 1)))
    (_, noise, timesteps), (_, other_noise, other_timesteps) = predicted
    assert torch.equal(noise[2], other_noise[0])
    assert timesteps[2] == other_timesteps[0]
    assert len({int(t) for t in (*timesteps, other_timesteps[1])}) == 4
    assert not torch.equal(noise[0], noise[1])


def test_noise_and_the_posterior_draw_are_independent_standard_normals(small_backbones):
    step = Step(make_module(small_backbones), {"draw_seeds": torch.tensor([[0, id_] for id_ in range(64)])})
    noise, posterior = (step.normal((16, 8, 8), tag) for tag in (step_chance.NOISE, step_chance.POSTERIOR))
    for draw in (noise, posterior):
        assert draw.mean().item() == pytest.approx(0, abs=0.02)
        assert draw.std().item() == pytest.approx(1, abs=0.02)
    assert (noise * posterior).mean().item() == pytest.approx(0, abs=0.02)


def test_timesteps_are_uniform_over_the_schedule(small_backbones, make_batch, monkeypatch):
    drawn: list[torch.Tensor] = []

    def no_unet(latents, noise, timesteps, states):
        drawn.append(timesteps)
        return noise, noise

    monkeypatch.setattr(small_backbones.text_to_image, "predict", no_unet)
    module = make_module(small_backbones, with_terms(text=False, clip=False))
    batch = make_batch(ids=range(6))
    for epoch in range(60):
        batch["draw_seeds"][:, 0] = epoch
        module.compute_terms(batch)
    timesteps = torch.cat(drawn).float()
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999
    assert timesteps.mean().item() == pytest.approx(499.5, abs=3 * 1000 / np.sqrt(12 * 360))
    assert timesteps.std().item() == pytest.approx(1000 / np.sqrt(12), rel=0.1)


def test_training_reads_and_leaves_no_global_random_state(small_backbones, make_batch):
    batch, losses = make_batch(bank=(4, 5)), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        module = make_module(small_backbones)
        losses.append(module.training_step(batch).item())
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.array_equal(np.random.get_state()[1], states[1])
        assert random.getstate() == states[2]
    assert losses[0] == losses[1]


def test_a_checkpoint_of_another_arm_is_refused_by_name(small_backbones):
    whole, part = make_module(small_backbones), make_module(small_backbones, replace(ALL_ON, use_afe=False))
    with pytest.raises(ValueError, match=r"missing \['afe\.dynamic_weights\."):
        whole.on_load_checkpoint({"state_dict": part.state_dict()})
    with pytest.raises(ValueError, match=r"missing \[\], unexpected \['afe\."):
        part.on_load_checkpoint({"state_dict": whole.state_dict()})


def test_the_adapter_starts_at_the_scale_of_t5s_embeddings_where_asked(small_backbones):
    def output_rms(adapter: AdapterSettings) -> float:
        module = PromptRefinerModule(small_backbones, ALL_ON, OptimizerSettings(), 0, adapter)
        with torch.no_grad():
            states = module.text_encoder(small_backbones.tokenize(["a picture"])).states_BSD
            return module.adapter(states).pow(2).mean().sqrt().item()

    wanted = small_backbones.decoder.embedding_rms
    assert output_rms(AdapterSettings(match_scale=True)) == pytest.approx(wanted, rel=1e-4)
    assert output_rms(AdapterSettings()) < 0.7 * wanted


def test_masked_padding_is_not_read_by_t5_in_training_nor_in_writing(small_backbones, make_batch):
    """Noise at the positions after the end token changes nothing where they are masked, and something where they are not."""
    batch = make_batch()
    prompts, seeds = ["a cat in the snow", "a red boat"], [(1,), (2,)]

    def text_loss_and_words(mask_padding: bool, noise: float) -> tuple[float, list[str]]:
        module = PromptRefinerModule(
            small_backbones,
            WITHOUT["l_mse"],
            OptimizerSettings(),
            0,
            AdapterSettings(match_scale=True, mask_padding=mask_padding),
        )

        def add_noise(adapter, inputs, output_BSH):
            generator = torch.Generator().manual_seed(0)
            noise_BSH = noise * torch.randn(output_BSH.shape, generator=generator)
            return output_BSH + noise_BSH * (torch.arange(77) > 20)[None, :, None]

        module.adapter.register_forward_hook(add_noise)
        with torch.no_grad():
            loss = module.compute_terms(batch)[0]["l_text"].item()
        return loss, [row.text for row in module.refine(prompts, seeds, RefineSettings(mode="rewrite", max_new_tokens=12))]

    assert text_loss_and_words(True, 0.0) == text_loss_and_words(True, 3.0)
    assert text_loss_and_words(False, 0.0)[0] != text_loss_and_words(False, 3.0)[0]
