"""The numbers that networks compute with: frozen ones outside mixed precision, T5 never in float16, and what is done about overflows."""

from __future__ import annotations

import math
import warnings

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision

from ablations.cell.loading import device
from ablations.cell.loading.device import device_of, ready, require_precision
from ablations.config import parse, train_id
from ablations.runtime.errors import UserError
from helpers.refiner_modules import make_module, with_terms
from lightning_modules.backbones.loading import BackboneChoice, load_backbones
from lightning_modules.finite_terms import MOST_IN_A_ROW, FiniteTerms


def matmul_dtypes(network: torch.nn.Module, call) -> set[torch.dtype]:
    """The dtypes in which the linear layers and convolutions of a network give their results while `call()` runs."""
    seen: set[torch.dtype] = set()
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda _layer, _inputs, output: seen.add(output.dtype)) for layer in layers]
    call()
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("frozen", ["float32", "bfloat16"])
def test_under_mixed_precision_what_is_trained_computes_in_half_and_what_is_frozen_in_its_own_precision(make_batch, frozen):
    backbones = load_backbones(BackboneChoice("tiny", init="random", frozen_dtype=frozen, vae_dtype="float32"))
    module, batch = make_module(backbones), make_batch((0, 1), cached=False)
    own = {"float32": torch.float32, "bfloat16": torch.bfloat16}[frozen]
    model = backbones.text_to_image

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            module.compute_terms(batch)

    for network in (model.unet, backbones.decoder.t5, backbones.clip_model.visual):
        assert matmul_dtypes(network, step) == {own}
    assert matmul_dtypes(model.vae, step) == {torch.float32}
    assert matmul_dtypes(module.text_encoder.transformer.resblocks[0].mlp, step) == {torch.bfloat16}
    assert matmul_dtypes(module.adapter, step) == {torch.bfloat16}
    assert matmul_dtypes(backbones.text_encoder.transformer.resblocks[0].mlp, step) == {torch.float32}


def test_an_activation_of_80000_in_t5_stays_finite_in_a_step_in_float16():
    backbones = load_backbones(BackboneChoice("tiny", init="random", frozen_dtype="float16"))
    decoder = backbones.decoder
    assert decoder.t5.dtype == torch.float32
    adapted_BSH = torch.randn(2, 5, decoder.width, generator=torch.Generator().manual_seed(0)).half().requires_grad_()
    largest: list[float] = []

    def inject(_layer, _inputs, output):
        injected = output * (80_000.0 / output.abs().max())
        largest.append(injected.abs().max().item())
        return injected

    labels_BT, last_layer = torch.tensor([[5, 6, 1], [7, 8, 1]]), decoder.t5.encoder.block[0].layer[-1].DenseReluDense.wo
    with last_layer.register_forward_hook(inject), torch.autocast("cpu", dtype=torch.float16):
        logits_BTV = decoder.logits(adapted_BSH, labels_BT)
    assert largest == [pytest.approx(80_000.0)]
    assert largest[0] > torch.finfo(torch.float16).max
    assert (logits_BTV.dtype, torch.isfinite(logits_BTV).all().item()) == (torch.float32, True)
    logits_BTV.sum().backward()
    assert torch.isfinite(adapted_BSH.grad).all()


def test_the_vae_has_a_precision_of_its_own_which_is_the_others_unless_it_is_said():
    dtypes = {}
    for vae in (None, "float32"):
        loaded = load_backbones(BackboneChoice("tiny", init="random", frozen_dtype="bfloat16", vae_dtype=vae))
        dtypes[vae] = (loaded.text_to_image.vae.dtype, loaded.text_to_image.unet.dtype)
    assert dtypes == {None: (torch.bfloat16, torch.bfloat16), "float32": (torch.float32, torch.bfloat16)}
    paper = parse(["profile=paper"])
    assert (paper.backbones.frozen_dtype, paper.backbones.vae_dtype, paper.train.precision) == ("bfloat16", "float32", "bf16-mixed")
    assert train_id(parse(["backbones.vae_dtype=bfloat16"])) != train_id(parse([]))
    with pytest.raises(ValueError, match=r"backbones.vae_dtype=int8 is unknown"):
        load_backbones(BackboneChoice("tiny", init="random", vae_dtype="int8"))


# Terms that are not finite


def test_terms_are_looked_at_once_an_optimiser_step_and_the_first_bad_one_is_named():
    finite = FiniteTerms()
    finite.note({"l_mse": torch.tensor(1.0), "l_text": torch.tensor(2.0)})
    finite.check(0)
    finite.note({"l_mse": torch.tensor(1.0), "l_text": torch.tensor(math.inf)})
    finite.note({"l_mse": torch.tensor(math.nan), "l_text": torch.tensor(2.0)})
    with pytest.raises(FloatingPointError, match=r"^loss term l_text is inf at step 7: training stops before the update$"):
        finite.check(7)


def test_in_float16_a_step_that_is_not_finite_is_skipped_and_counted_and_only_a_row_of_them_stops():
    finite = FiniteTerms()

    def step(number: int, value: float) -> None:
        finite.note({"l_text": torch.tensor(value)})
        finite.check(number, may_skip=True)

    for number in range(MOST_IN_A_ROW - 1):
        step(number, math.inf)
    step(MOST_IN_A_ROW, 1.0)
    for number in range(MOST_IN_A_ROW - 1):
        step(number, math.nan)
    assert finite.skipped == 2 * (MOST_IN_A_ROW - 1)
    with pytest.raises(FloatingPointError, match=rf"l_text is inf at step 99: .*, the {MOST_IN_A_ROW}th in a row; train.precision=bf16"):
        step(99, math.inf)


def fit_in_float16(module: pl.LightningModule, batches: list[dict], **options) -> pl.Trainer:
    """As on a GPU with train.precision=16-mixed, where Lightning would take bfloat16 on a CPU."""
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=16.0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, gradient_clip_val=1.0, plugins=[precision], **options,
        )  # fmt: skip
        trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    return trainer


def test_a_training_in_float16_leaves_one_overflow_behind_and_goes_on(small_backbones, make_batch):
    module = make_module(small_backbones, with_terms(mse=False, text=False))
    batches = [make_batch((0, 1, 2), epoch=epoch) for epoch in range(3)]
    batches[1]["image_vectors_BKE"] = torch.full_like(batches[1]["image_vectors_BKE"], torch.inf)
    weights: list[torch.Tensor] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
            weights.append(module.text_encoder.token_embedding.weight.detach().clone())

    trainer = fit_in_float16(module, batches, callbacks=[Watch()])
    assert (trainer.global_step, module.finite.skipped) == (3, 1)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())


# Devices


def test_the_paper_profile_without_a_gpu_is_refused_unless_the_cpu_was_asked_for(monkeypatch):
    monkeypatch.setattr(device, "kinds", lambda: ("cpu",))
    with pytest.raises(UserError, match=r"profile=paper is for a GPU, but torch sees none here \(.+\): .*trainer.accelerator=cpu") as error:
        device_of(parse(["profile=paper"]))
    assert "\n" not in str(error.value)
    for arguments in (["profile=paper", "trainer.accelerator=cpu"], ["profile=paper", "backbones.init=random"], []):
        assert device_of(parse(arguments)) == torch.device("cpu")


@pytest.mark.parametrize(("asked", "called"), [("cuda", "CUDA device"), ("gpu", "CUDA device"), ("mps", "Apple GPU")])
def test_a_kind_of_device_that_is_not_here_is_said_in_one_line(monkeypatch, asked, called):
    monkeypatch.setattr(device, "kinds", lambda: ("cpu",))
    with pytest.raises(UserError, match=f"trainer.accelerator={asked}, but torch sees no {called}: use auto or cpu"):
        device_of(parse([f"trainer.accelerator={asked}"]))


def test_float32_matmuls_are_tf32_on_a_cuda_device_alone():
    try:
        ready(torch.device("cuda"))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        ready(torch.device("cpu"))
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_authors_float16_is_still_to_be_had():
    config = parse(["profile=paper", "train.precision=16-mixed", "backbones.frozen_dtype=float16"])
    require_precision(config, torch.device("cuda"))
    with pytest.raises(UserError, match="vae_dtype=float16 needs a CUDA GPU"):
        require_precision(parse(["backbones.vae_dtype=float16"]), torch.device("cpu"))


@pytest.mark.parametrize(("device", "fused"), [("cpu", True), ("cuda", True), ("mps", None)])
def test_adamw_is_one_kernel_where_torch_has_one(small_backbones, monkeypatch, device, fused):
    module = make_module(small_backbones)
    asked = {}
    monkeypatch.setattr(type(module), "device", property(lambda self: torch.device(device)))
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, **options: asked.update(options) or torch.optim.SGD(groups))
    module.configure_optimizers()
    assert asked["fused"] is fused
