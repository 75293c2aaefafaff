"""The terms of the loss: one that is off does not exist, and each is computed from what it names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from helpers.refiner_modules import ALL_ON, WITHOUT, frozen_networks, make_module, with_terms
from lightning_modules import training_step
from lightning_modules.prompt_refiner import PromptRefinerModule

WEIGHTS = {"l_mse": 1.0, "l_text": 0.1, "l_clip": 0.1, "l_feature": 1.0}


def calls_of_a_step(module: PromptRefinerModule, batch: dict) -> dict[str, int]:
    """How often one step runs each network; the image tower and the VAE are counted where their encoding begins."""
    backbones = module.backbones
    watched = {
        "unet": backbones.text_to_image.unet,
        "t5": backbones.decoder.t5,
        "image_tower": backbones.clip_model.visual.conv1,
        "vae": backbones.text_to_image.vae.encoder,
        "frozen_text_encoder": backbones.text_encoder,
        "text_encoder": module.text_encoder,
        "adapter": module.adapter,
    }
    if module.afe is not None:
        watched["afe"] = module.afe
    counts = dict.fromkeys([*watched, "afe"], 0)

    def count(name):
        def hook(*_):
            counts[name] += 1

        return hook

    hooks = [network.register_forward_pre_hook(count(name)) for name, network in watched.items()]
    try:
        module.total_loss(module.compute_terms(batch)[0]).backward()
    finally:
        for hook in hooks:
            hook.remove()
    return counts


def test_with_all_terms_on_every_network_runs_once(small_backbones, make_batch):
    counts = calls_of_a_step(make_module(small_backbones), make_batch(cached=False))
    assert counts == dict.fromkeys(counts, 1)


@pytest.mark.parametrize(
    ("term", "idle"),
    [
        ("l_mse", {"unet", "vae"}),
        ("l_text", {"t5", "adapter"}),
        ("l_clip", {"image_tower", "afe"}),
        ("l_feature", {"frozen_text_encoder"}),
    ],
)
def test_an_arm_without_a_term_never_calls_its_networks_and_calls_all_others(small_backbones, make_batch, term, idle):
    counts = calls_of_a_step(make_module(small_backbones, WITHOUT[term]), make_batch(cached=False))
    assert {name for name, count in counts.items() if count == 0} == idle


def test_without_afe_only_afe_is_not_called_and_the_towers_own_feature_is_used(small_backbones, make_batch):
    module = make_module(small_backbones, replace(ALL_ON, use_afe=False))
    batch = make_batch()
    assert {name for name, count in calls_of_a_step(module, make_batch(cached=False)).items() if count == 0} == {"afe"}
    terms, watched = module.compute_terms(batch)
    text_BE = module.text_encoder(batch["text_tokens_BS"]).pooled_BE
    expected, _ = module.loss_terms["clip"](text_BE, batch["image_pooled_BE"], batch["coarse_groups_B"])
    assert terms["l_clip"].item() == expected.item()
    assert set(watched) == {"clip_accuracy"}
    batch["image_vectors_BKE"] = torch.full_like(batch["image_vectors_BKE"], torch.nan)
    assert module.compute_terms(batch)[0]["l_clip"].item() == expected.item()


def test_cached_features_are_used_instead_of_the_encoders(small_backbones, make_batch):
    counts = calls_of_a_step(make_module(small_backbones), make_batch())
    assert (counts["vae"], counts["image_tower"]) == (0, 0)


def gradients(module: PromptRefinerModule, loss: torch.Tensor) -> dict[str, torch.Tensor | None]:
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True))


@pytest.mark.parametrize("term", list(WITHOUT))
def test_switching_a_term_off_leaves_the_gradients_of_the_others_and_nothing_else(small_backbones, make_batch, term):
    batch = make_batch(bank=(4, 5))
    whole = make_module(small_backbones)
    terms, _ = whole.compute_terms(batch)
    expected = gradients(whole, sum(WEIGHTS[name] * value for name, value in terms.items() if name != term))
    without = make_module(small_backbones, WITHOUT[term])
    remaining, _ = without.compute_terms(batch)
    assert {name: value.item() for name, value in remaining.items()} == {n: v.item() for n, v in terms.items() if n != term}
    found = gradients(without, without.total_loss(remaining))
    for name, gradient in found.items():
        assert (gradient is None) == (expected[name] is None), name
        if gradient is not None:
            assert (gradient - expected[name]).norm() <= 1e-6 * max(1.0, expected[name].norm().item()), name
    assert all(value is None for name, value in expected.items() if name not in found)


def test_switching_afe_off_changes_l_clip_alone(small_backbones, make_batch):
    batch = make_batch()
    with_afe, _ = make_module(small_backbones).compute_terms(batch)
    without, _ = make_module(small_backbones, replace(ALL_ON, use_afe=False)).compute_terms(batch)
    assert {name for name in with_afe if with_afe[name].item() != without[name].item()} == {"l_clip"}


def test_the_total_is_the_weighted_sum_of_the_terms(small_backbones, make_batch):
    module = make_module(small_backbones, with_terms(mse=2.0, text=0.5, clip=0.25, feature=3.0))
    terms, _ = module.compute_terms(make_batch())
    expected = 2 * terms["l_mse"] + 0.5 * terms["l_text"] + 0.25 * terms["l_clip"] + 3 * terms["l_feature"]
    assert module.total_loss(terms).item() == pytest.approx(expected.item(), rel=1e-6)
    assert module.training_step(make_batch()).item() == module.total_loss(terms).item()


@pytest.mark.parametrize(("term", "network"), [("mse", "unet"), ("text", "t5")])
def test_gradient_reaches_the_text_encoder_through_the_frozen_network(small_backbones, make_batch, term, network):
    losses = with_terms(mse=term == "mse", text=term == "text", clip=False)
    module = make_module(small_backbones, losses)
    module.training_step(make_batch()).backward()
    gradient = module.text_encoder.transformer.resblocks[0].mlp.c_fc.weight.grad
    assert gradient.abs().sum() > 0
    assert torch.isfinite(gradient).all()
    assert all(parameter.grad is None for parameter in frozen_networks(small_backbones)[network].parameters())
    # Stable Diffusion reads the last but one block: neither term can teach the last one.
    assert all(parameter.grad is None for parameter in module.text_encoder.transformer.resblocks[-1].parameters())


def test_mixed_precision_gives_the_same_terms_nearly(small_backbones, make_batch):
    module = make_module(small_backbones)
    plain = module.compute_terms(make_batch())[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = module.compute_terms(make_batch(cached=False))[0]
    for name, value in plain.items():
        assert mixed[name].dtype == torch.float32
        assert mixed[name].item() == pytest.approx(value.item(), rel=0.05), name


def test_padding_of_the_targets_does_not_count(small_backbones, make_batch):
    module, batch, padded = make_module(small_backbones), make_batch(), make_batch()
    padding = torch.full((4, 9), small_backbones.decoder.tokenizer.pad_token_id)
    padded["target_tokens_BT"] = torch.cat([batch["target_tokens_BT"], padding], dim=1)
    padded["target_mask_BT"] = torch.cat([batch["target_mask_BT"], torch.zeros_like(padding, dtype=torch.bool)], dim=1)
    expected, found = (module.compute_terms(b)[0]["l_text"].item() for b in (batch, padded))
    assert found == pytest.approx(expected, abs=1e-5)


def test_cached_and_uncached_features_give_the_same_terms(small_backbones, make_batch):
    module = make_module(small_backbones)
    cached, uncached = module.compute_terms(make_batch())[0], module.compute_terms(make_batch(cached=False))[0]
    assert {name: value.item() for name, value in cached.items()} == {name: value.item() for name, value in uncached.items()}


def test_the_bank_is_read_through_afe_as_the_batch_is(small_backbones, make_batch):
    module = make_module(small_backbones)
    nn.init.normal_(module.afe.values_KEE)
    batch = make_batch(bank=(4, 5))
    text = module.text_encoder(batch["text_tokens_BS"]).pooled_BE
    images, bank = (module.afe(batch[name]).representation_BE for name in ("image_vectors_BKE", "bank_vectors_NKE"))
    expected, accuracy = module.loss_terms["clip"](text, images, batch["coarse_groups_B"], bank, batch["bank_groups_N"])
    terms, watched = module.compute_terms(batch)
    assert terms["l_clip"].item() == expected.item()
    assert watched["clip_accuracy"].item() == accuracy.item()
    # The watched figures are the batch's own, whatever the bank holds.
    assert watched["afe_entropy"].item() == module.afe(batch["image_vectors_BKE"]).entropy().item()


def test_negatives_gathered_from_two_devices_give_the_loss_of_the_whole_batch(small_backbones, make_batch, monkeypatch):
    losses = with_terms(mse=False, text=False)
    whole = make_module(small_backbones, losses)
    expected = whole.compute_terms(make_batch(ids=(0, 1, 2, 3)))[0]["l_clip"]
    other = make_batch(ids=(2, 3))
    module = make_module(small_backbones, losses)
    with torch.no_grad():
        text_BE = module.text_encoder(other["text_tokens_BS"]).pooled_BE
    others = [other["image_pooled_BE"], other["image_vectors_BKE"], text_BE, other["coarse_groups_B"]]
    module.batch_group = "both"
    monkeypatch.setattr(training_step, "gathered", lambda value, group: torch.cat([value, others.pop(0)]))
    assert module.compute_terms(make_batch(ids=(0, 1)))[0]["l_clip"].item() == pytest.approx(expected.item(), abs=1e-6)


def test_openclips_own_scale_is_taken_where_none_is_given(small_backbones):
    assert make_module(small_backbones, replace(ALL_ON, clip_scale=None)).loss_terms["clip"].scale == pytest.approx(1 / 0.07, rel=1e-5)
    assert make_module(small_backbones).loss_terms["clip"].scale == 10.0


def test_the_data_module_is_told_which_features_an_arm_needs(small_backbones):
    def names(losses):
        return [encoder.name for encoder in make_module(small_backbones, losses).feature_encoders]

    assert names(ALL_ON) == ["latents", "image_vectors"]
    assert names(WITHOUT["l_mse"]) == ["image_vectors"]
    assert names(WITHOUT["l_clip"]) == ["latents"]
    assert names(with_terms(feature=True, clip=False, mse=False)) == []


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"mse": False, "text": False, "clip": False}, "at least one of use_mse"),
        ({"clip": False, "use_afe": True}, "use_afe=true needs use_clip=true"),
    ],
)
def test_impossible_switches_are_refused(switches, message):
    with pytest.raises(ValueError, match=message):
        with_terms(**switches)


@pytest.mark.parametrize(("term", "feature"), [("l_mse", "latent_mean_BCHW"), ("l_clip", "image_vectors_BKE")])
def test_a_term_that_is_not_finite_stops_training_and_is_named(small_backbones, make_batch, term, feature):
    batch = make_batch()
    batch[feature] = torch.full_like(batch[feature], torch.nan)
    with pytest.raises(FloatingPointError, match=f"{term} is nan at step 0"):
        make_module(small_backbones).training_step(batch)
