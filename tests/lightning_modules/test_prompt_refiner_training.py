"""The refiner in training: what is frozen stays frozen, what is trained learns, at the rate that the schedule says."""

from __future__ import annotations

import copy
import warnings

import pytest
import pytorch_lightning as pl
import torch

from helpers.refiner_modules import frozen_networks, make_module, with_terms
from lightning_modules.prompt_refiner import PromptRefinerModule
from lightning_modules.settings import OptimizerSettings


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


def test_one_batch_can_be_learned(small_backbones, make_batch):
    module = make_module(small_backbones, with_terms(mse=False))
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


def test_the_rate_warms_up_stays_and_decays_to_nothing_at_the_end():
    constant = OptimizerSettings(warmup_steps=4)
    assert [constant.rate_at(step, 0) for step in (0, 1, 3, 4, 10**6)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    decaying = OptimizerSettings(warmup_steps=4, decay_share=0.5)
    rates = [decaying.rate_at(step, 100) for step in (0, 3, 49, 50, 75, 99, 100, 101)]
    assert rates == pytest.approx([0.25, 1.0, 1.0, 1.0, 0.5, 0.02, 0.0, 0.0])


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
    logged = {"loss", "l_mse", "l_text", "l_clip", "l_feature", "clip_accuracy", "afe_entropy"}
    logged |= {"afe_cosine_to_pooled", "afe_cosine_to_mean_weights"}
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
