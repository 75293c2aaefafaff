"""A training step two ways, on the same networks and the same losses (L_mse + L_text): ours, and the authors' plain loop.

The authors' loop (their training script): every step encodes the pictures with the VAE, the prompts with the text encoder, runs the UNet
forward and backward to the text states, and T5 on targets that are padded to 256 tokens; nothing is cached, everything is within
autocast, and AdamW is torch's default. Ours reads the pictures' latents from the feature cache, pads targets to the longest of the batch,
keeps frozen networks outside autocast and runs AdamW in one kernel. Neither has data to load.

Shapes in this file: B = batch, S = text positions, T = target tokens, C H W = latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ablations.benchmarking.sizes import Size
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule
from lightning_modules.settings import LossSettings, OptimizerSettings
from lightning_modules.terms import term_weights

_PROMPT = "a lonely lighthouse on a cliff above the sea"


@dataclass
class Steps:
    """Both steps, ready to be called, on one device; `ours()` and `authors()` take one whole step each and return the loss."""

    ours: Callable[[], float]
    authors: Callable[[], float]
    module: PromptRefinerModule


def steps_of(size: Size, backbones: Backbones, device: torch.device, mixed: torch.dtype | None) -> Steps:
    """The two steps of a size. `mixed` is what autocast computes in; None: no autocast."""
    losses = LossSettings(weights=term_weights(clip=False), use_afe=False)
    ours, theirs = (PromptRefinerModule(backbones, losses, OptimizerSettings(), seed=0) for _ in range(2))
    backbones.to(device)
    return Steps(_ours(size, ours.to(device), device, mixed), _authors(size, theirs.to(device), device, mixed), ours)


def _ours(size: Size, module: PromptRefinerModule, device: torch.device, mixed: torch.dtype | None) -> Callable[[], float]:
    optimizer = _adamw(module, fused=device.type in ("cpu", "cuda"))
    batch = _cached_batch(size, module, device)

    def step() -> float:
        with torch.autocast(device.type, dtype=mixed or torch.bfloat16, enabled=mixed is not None):
            terms, _ = module.compute_terms(batch)
            loss = module.total_loss(terms)
        return _update(loss, module, optimizer)

    return step


def _cached_batch(size: Size, module: PromptRefinerModule, device: torch.device) -> dict:
    """What the data module hands over: latents out of the cache, targets as long as the longest of the batch, chance drawn beforehand."""
    latents = module.encoders["latents"].shapes()
    draw_seeds = torch.tensor([[0, i] for i in range(size.batch_size)])
    batch = {
        "ids_B": draw_seeds[:, 1],
        "draw_seeds": draw_seeds,
        "latent_mean_BCHW": torch.randn(size.batch_size, *latents["latent_mean"]),
        "latent_logvar_BCHW": torch.full((size.batch_size, *latents["latent_logvar"]), -10.0),
        "text_tokens_BS": module.backbones.tokenize([_PROMPT] * size.batch_size),
        "target_tokens_BT": _targets(size, module.backbones, size.target_tokens),
        "target_mask_BT": torch.ones(size.batch_size, size.target_tokens, dtype=torch.bool),
        **module.step_chance(draw_seeds),
    }
    return {name: value if name == "draw_seeds" else value.to(device) for name, value in batch.items()}


def _targets(size: Size, backbones: Backbones, length: int) -> Tensor:
    """Made-up targets, int64 (B, length); what they say changes no time."""
    return torch.randint(5, len(backbones.decoder.tokenizer) - 1, (size.batch_size, length), generator=torch.Generator().manual_seed(0))


def _authors(size: Size, module: PromptRefinerModule, device: torch.device, mixed: torch.dtype | None) -> Callable[[], float]:
    optimizer = _adamw(module, fused=None)
    backbones, side = module.backbones, module.backbones.text_to_image.image_size
    model, t5, weights = backbones.text_to_image, backbones.decoder.t5, module.losses.weights
    images_BCHW = torch.rand(size.batch_size, 3, side, side, device=device) * 2 - 1
    tokens_BS = backbones.tokenize([_PROMPT] * size.batch_size).to(device)
    labels_BT = torch.full((size.batch_size, size.authors_target_tokens), -100, device=device)
    labels_BT[:, : size.target_tokens] = _targets(size, backbones, size.target_tokens).to(device)

    def step() -> float:
        with torch.autocast(device.type, dtype=mixed or torch.bfloat16, enabled=mixed is not None):
            with torch.no_grad():
                latents_BCHW = model.vae.encode(images_BCHW.to(model.vae.dtype)).latent_dist.sample() * model.scaling_factor
            noise_BCHW = torch.randn_like(latents_BCHW)
            timesteps_B = torch.randint(0, model.num_timesteps, (size.batch_size,), device=device)
            noisy_BCHW = model.noise_scheduler.add_noise(latents_BCHW, noise_BCHW, timesteps_B)
            states_BSD = module.text_encoder(tokens_BS).states_BSD
            predicted_BCHW = model.unet(noisy_BCHW.to(model.unet.dtype), timesteps_B, states_BSD.to(model.unet.dtype)).sample
            mse = F.mse_loss(predicted_BCHW.float(), noise_BCHW.float())
            text = t5(inputs_embeds=module.adapter(states_BSD).to(t5.dtype), labels=labels_BT).loss
        return _update(weights["mse"] * mse + weights["text"] * text.float(), module, optimizer)

    return step


def _adamw(module: PromptRefinerModule, fused: bool | None) -> torch.optim.AdamW:
    parameters = [*module.text_encoder.parameters(), *module.adapter.parameters()]
    return torch.optim.AdamW(parameters, lr=1e-5, fused=fused)


def _update(loss: Tensor, module: PromptRefinerModule, optimizer: torch.optim.Optimizer) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()
    return loss.item()
