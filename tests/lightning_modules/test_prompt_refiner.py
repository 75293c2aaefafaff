"""The module's claims about training: a term that is off does not exist, what is frozen stays frozen, chance is a function."""

from __future__ import annotations

import copy
import random
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_modules.backbones.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule
from lightning_modules.settings import AdapterSettings, LossSettings, OptimizerSettings, RefineSettings

ALL_ON = LossSettings(use_feature=True)
WITHOUT = {
    "l_mse": replace(ALL_ON, use_mse=False),
    "l_text": replace(ALL_ON, use_text=False),
    "l_clip": replace(ALL_ON, use_clip=False, use_afe=False),
    "l_feature": replace(ALL_ON, use_feature=False),
}
WEIGHTS = {"l_mse": 1.0, "l_text": 0.1, "l_clip": 0.1, "l_feature": 1.0}


def make_module(backbones: Backbones, losses: LossSettings = ALL_ON, seed: int = 0, **optimizer) -> PromptRefinerModule:
    return PromptRefinerModule(backbones, losses, OptimizerSettings(**{"warmup_steps": 1, "learning_rate": 1e-3, **optimizer}), seed)


def frozen_networks(backbones: Backbones) -> dict[str, nn.Module]:
    model = backbones.text_to_image
    return {
        "open_clip": backbones.clip_model,
        "frozen_text_encoder": backbones.text_encoder,
        "vae": model.vae,
        "unet": model.unet,
        "t5": backbones.decoder.t5,
    }


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
    expected, _ = module.clip_loss(text_BE, batch["image_pooled_BE"], batch["coarse_groups_B"])
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
    module = make_module(small_backbones, replace(ALL_ON, mse_weight=2.0, text_weight=0.5, clip_weight=0.25, feature_weight=3.0))
    terms, _ = module.compute_terms(make_batch())
    expected = 2 * terms["l_mse"] + 0.5 * terms["l_text"] + 0.25 * terms["l_clip"] + 3 * terms["l_feature"]
    assert module.total_loss(terms).item() == pytest.approx(expected.item(), rel=1e-6)
    assert module.training_step(make_batch()).item() == module.total_loss(terms).item()


@pytest.mark.parametrize(("term", "network"), [("mse", "unet"), ("text", "t5")])
def test_gradient_reaches_the_text_encoder_through_the_frozen_network(small_backbones, make_batch, term, network):
    losses = LossSettings(use_mse=term == "mse", use_text=term == "text", use_clip=False, use_afe=False)
    module = make_module(small_backbones, losses)
    module.training_step(make_batch()).backward()
    gradient = module.text_encoder.transformer.resblocks[0].mlp.c_fc.weight.grad
    assert gradient.abs().sum() > 0
    assert torch.isfinite(gradient).all()
    assert all(parameter.grad is None for parameter in frozen_networks(small_backbones)[network].parameters())
    # Stable Diffusion reads the last but one block: neither term can teach the last one.
    assert all(parameter.grad is None for parameter in module.text_encoder.transformer.resblocks[-1].parameters())


def test_frozen_networks_never_change_nor_get_a_gradient_while_the_refiner_learns(small_backbones, make_batch):
    frozen = frozen_networks(small_backbones)
    before = {name: copy.deepcopy(network.state_dict()) for name, network in frozen.items()}
    module = make_module(small_backbones)
    start = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    optimizer = module.configure_optimizers()["optimizer"]
    for epoch in range(3):
        optimizer.zero_grad()
        module.training_step(make_batch(epoch=epoch, bank=(4, 5))).backward()
        optimizer.step()
    for network_name, network in frozen.items():
        assert all(parameter.grad is None for parameter in network.parameters()), network_name
        assert all(torch.equal(value, before[network_name][name]) for name, value in network.state_dict().items()), network_name
    unmoved = {name for name, parameter in module.named_parameters() if torch.equal(parameter, start[name])}
    assert unmoved == set()


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
    for losses in (ALL_ON, WITHOUT["l_clip"], replace(ALL_ON, use_text=False, use_afe=False)):
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
    from lightning_modules import prompt_refiner

    module = make_module(small_backbones)
    keys = [[0, id_] for id_ in range(64)]
    noise = module._normal(keys, (16, 8, 8), prompt_refiner._NOISE_TAG)
    posterior = module._normal(keys, (16, 8, 8), prompt_refiner._POSTERIOR_TAG)
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
    module = make_module(small_backbones, LossSettings(use_text=False, use_clip=False, use_afe=False))
    batch = make_batch(ids=range(6))
    for epoch in range(60):
        batch["draw_seeds"][:, 0] = epoch
        module.compute_terms(batch)
    timesteps = torch.cat(drawn).float()
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999
    assert timesteps.mean().item() == pytest.approx(499.5, abs=3 * 1000 / np.sqrt(12 * 360))
    assert timesteps.std().item() == pytest.approx(1000 / np.sqrt(12), rel=0.1)


def test_mixed_precision_gives_the_same_terms_nearly(small_backbones, make_batch):
    module = make_module(small_backbones)
    plain = module.compute_terms(make_batch())[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = module.compute_terms(make_batch(cached=False))[0]
    for name, value in plain.items():
        assert mixed[name].dtype == torch.float32
        assert mixed[name].item() == pytest.approx(value.item(), rel=0.05), name


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


def test_padding_of_the_targets_does_not_count(small_backbones, make_batch):
    module, batch, padded = make_module(small_backbones), make_batch(), make_batch()
    padding = torch.full((4, 9), small_backbones.decoder.tokenizer.pad_token_id)
    padded["target_tokens_BT"] = torch.cat([batch["target_tokens_BT"], padding], dim=1)
    padded["target_mask_BT"] = torch.cat([batch["target_mask_BT"], torch.zeros_like(padding, dtype=torch.bool)], dim=1)
    expected, found = (module.compute_terms(b)[0]["l_text"].item() for b in (batch, padded))
    assert found == pytest.approx(expected, abs=1e-5)


def test_one_batch_can_be_learned(small_backbones, make_batch):
    module = make_module(small_backbones, LossSettings(use_mse=False))
    batch, optimizer = make_batch(), module.configure_optimizers()["optimizer"]
    first = module.compute_terms(batch)[0]
    for _ in range(30):
        optimizer.zero_grad()
        module.training_step(batch).backward()
        optimizer.step()
    terms, watched = module.compute_terms(batch)
    assert terms["l_clip"].item() < 0.5 * first["l_clip"].item()
    assert terms["l_text"].item() < 0.95 * first["l_text"].item()
    assert watched["clip_accuracy"].item() == 1.0


def test_cached_and_uncached_features_give_the_same_terms(small_backbones, make_batch):
    module = make_module(small_backbones)
    cached, uncached = module.compute_terms(make_batch())[0], module.compute_terms(make_batch(cached=False))[0]
    assert {name: value.item() for name, value in cached.items()} == {name: value.item() for name, value in uncached.items()}


def test_the_bank_is_read_through_afe_as_the_batch_is(small_backbones, make_batch):
    module = make_module(small_backbones)
    nn.init.normal_(module.afe.dynamic_weights[-1].weight)
    batch = make_batch(bank=(4, 5))
    text = module.text_encoder(batch["text_tokens_BS"]).pooled_BE
    images, bank = (module.afe(batch[name]).representation_BE for name in ("image_vectors_BKE", "bank_vectors_NKE"))
    expected, accuracy = module.clip_loss(text, images, batch["coarse_groups_B"], bank, batch["bank_groups_N"])
    terms, watched = module.compute_terms(batch)
    assert terms["l_clip"].item() == expected.item()
    assert watched["clip_accuracy"].item() == accuracy.item()
    # The watched figures are the batch's own, whatever the bank holds.
    assert watched["afe_entropy"].item() == module.afe(batch["image_vectors_BKE"]).entropy().item()


def test_negatives_gathered_from_two_devices_give_the_loss_of_the_whole_batch(small_backbones, make_batch, monkeypatch):
    losses = LossSettings(use_mse=False, use_text=False)
    whole = make_module(small_backbones, losses)
    expected = whole.compute_terms(make_batch(ids=(0, 1, 2, 3)))[0]["l_clip"]
    other = make_batch(ids=(2, 3))
    module = make_module(small_backbones, losses)
    with torch.no_grad():
        gathered = [module.text_encoder(other["text_tokens_BS"]).pooled_BE, module.afe(other["image_vectors_BKE"]).representation_BE]
    gathered.append(other["coarse_groups_B"])
    monkeypatch.setattr(module, "_trainer", SimpleNamespace(world_size=2))
    monkeypatch.setattr(module, "all_gather", lambda value, sync_grads=False: torch.stack([value, gathered.pop(0)]))
    assert module.compute_terms(make_batch(ids=(0, 1)))[0]["l_clip"].item() == pytest.approx(expected.item(), abs=1e-6)


def test_openclips_own_scale_is_taken_where_none_is_given(small_backbones):
    assert make_module(small_backbones, replace(ALL_ON, clip_scale=None)).clip_loss.scale == pytest.approx(1 / 0.07, rel=1e-5)
    assert make_module(small_backbones).clip_loss.scale == 10.0


def test_the_data_module_is_told_which_features_an_arm_needs(small_backbones):
    def names(losses):
        return [encoder.name for encoder in make_module(small_backbones, losses).feature_encoders]

    assert names(ALL_ON) == ["latents", "image_vectors"]
    assert names(WITHOUT["l_mse"]) == ["image_vectors"]
    assert names(WITHOUT["l_clip"]) == ["latents"]
    assert names(replace(WITHOUT["l_clip"], use_mse=False)) == []


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"use_mse": False, "use_text": False, "use_clip": False, "use_afe": False}, "at least one of use_mse"),
        ({"use_clip": False}, "use_afe=true needs use_clip=true"),
    ],
)
def test_impossible_switches_are_refused(switches, message):
    with pytest.raises(ValueError, match=message):
        LossSettings(**switches)


@pytest.mark.parametrize(("term", "feature"), [("l_mse", "latent_mean_BCHW"), ("l_clip", "image_vectors_BKE")])
def test_a_term_that_is_not_finite_stops_training_and_is_named(small_backbones, make_batch, term, feature):
    batch = make_batch()
    batch[feature] = torch.full_like(batch[feature], torch.nan)
    with pytest.raises(FloatingPointError, match=f"{term} is nan at step 0"):
        make_module(small_backbones).training_step(batch)


def test_the_learning_rate_rises_linearly_and_then_stays(small_backbones):
    configured = make_module(small_backbones, warmup_steps=4, learning_rate=0.4).configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert {optimizer.defaults[key] for key in ("eps", "weight_decay")} == {1e-8, 1e-2}


def fit(module: PromptRefinerModule, batches: list[dict], **options) -> pl.Trainer:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
            **options,
        )
        trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    return trainer


def test_a_trainer_fits_it_logs_every_term_and_saves_nothing_frozen(small_backbones, make_batch, tmp_path):
    module = make_module(small_backbones)
    trainer = fit(module, [make_batch(epoch=0), make_batch(epoch=1)])
    assert trainer.global_step == 2
    logged = {"loss", "l_mse", "l_text", "l_clip", "l_feature", "clip_accuracy", "afe_entropy", "afe_class_token_mass"}
    assert set(trainer.logged_metrics) == {f"train/{name}" for name in logged}
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(saved["state_dict"]) == set(module.state_dict())
    fresh = make_module(small_backbones, seed=5)
    fresh.on_load_checkpoint(saved)
    fresh.load_state_dict(saved["state_dict"])
    assert fresh.compute_terms(make_batch())[0]["l_text"].item() == module.compute_terms(make_batch())[0]["l_text"].item()


def test_no_update_is_made_with_a_term_that_is_not_finite(small_backbones, make_batch):
    module, bad = make_module(small_backbones), make_batch(epoch=1)
    bad["latent_mean_BCHW"] = torch.full_like(bad["latent_mean_BCHW"], torch.inf)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(FloatingPointError, match=r"l_mse is (nan|inf) at step 0"):
        fit(module, [bad])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_checkpoint_of_another_arm_is_refused_by_name(small_backbones):
    whole, part = make_module(small_backbones), make_module(small_backbones, replace(ALL_ON, use_afe=False))
    with pytest.raises(ValueError, match=r"missing \['afe\.dynamic_weights\.0\.bias'"):
        whole.on_load_checkpoint({"state_dict": part.state_dict()})
    with pytest.raises(ValueError, match=r"missing \[\], unexpected \['afe\."):
        part.on_load_checkpoint({"state_dict": whole.state_dict()})


def test_the_rate_warms_up_stays_and_decays_to_nothing_at_the_end():
    constant = OptimizerSettings(warmup_steps=4)
    assert [constant.rate_at(step, 0) for step in (0, 1, 3, 4, 10**6)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    decaying = OptimizerSettings(warmup_steps=4, decay_share=0.5)
    rates = [decaying.rate_at(step, 100) for step in (0, 3, 49, 50, 75, 99, 100, 101)]
    assert rates == pytest.approx([0.25, 1.0, 1.0, 1.0, 0.5, 0.02, 0.0, 0.0])


def test_the_decay_ends_where_the_trainer_ends(small_backbones, make_batch):
    module = make_module(small_backbones, decay_share=1.0)
    rates = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_index):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = pl.Trainer(
        accelerator="cpu", max_steps=4, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Watch()],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        trainer.fit(module, torch.utils.data.DataLoader([make_batch()] * 4, batch_size=None))
    assert rates == pytest.approx([1e-3, 0.75e-3, 0.5e-3, 0.25e-3])


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
            replace(ALL_ON, use_mse=False),
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
