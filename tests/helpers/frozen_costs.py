"""What the frozen UNet costs a micro-batch at full size, counted on fake tensors of a CUDA device: no weights, no GPU, no arithmetic.

Operators (launches: what only looks at memory differently is left out) and bytes that the forward pass saves for the backward one, batch 16
at 512 px. `python -m helpers.frozen_costs FROZEN AUTOCAST [within]` prints both as JSON, by the names of torch's dtypes; `within`: the
frozen network runs within autocast. A process of its own: fake CUDA tensors do not stand beside another pretend device.
"""

from __future__ import annotations

import json
import sys

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_modules import text_to_image
from lightning_modules.backbones.random_paper import ARCHITECTURES
from lightning_modules.text_to_image import TextToImage

BATCH = 16
_NO_LAUNCH = ("prim::device", "aten::_unsafe_view", "aten::detach", "aten::empty_like")


class _OnCuda(TorchFunctionMode):
    """Attention by the kernels that a CUDA device takes; fake tensors would take the many operators of the fallback."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not torch.nn.functional.scaled_dot_product_attention:
            return function(*args, **kwargs)
        query, key, value = [*args, *(kwargs[name] for name in ("query", "key", "value") if name in kwargs)][:3]
        if torch.is_autocast_enabled("cuda"):
            query, key, value = (each.to(torch.get_autocast_dtype("cuda")) for each in (query, key, value))
        if query.dtype == torch.float32:
            return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[0]
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]


class _Launches(TorchDispatchMode):
    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += not function.is_view and function._schema.name not in _NO_LAUNCH
        return function(*args, **(kwargs or {}))


class _Vae(torch.nn.Module):
    """Of the VAE, a prediction reads one number."""

    config = type("config", (), {"scaling_factor": 0.18215})


def cost(frozen: torch.dtype, autocast: torch.dtype) -> tuple[int, float]:
    """Operators and saved gigabytes of `TextToImage.predict` in a step under autocast."""
    architecture = json.loads((ARCHITECTURES / "stable-diffusion-2-1-base.json").read_text())
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            torch.set_default_dtype(frozen)
            try:
                unet = UNet2DConditionModel(**architecture["unet"])
            finally:
                torch.set_default_dtype(torch.float32)
            latents_BCHW, timesteps_B = torch.empty(BATCH, 4, 64, 64), torch.zeros(BATCH, dtype=torch.long)
            states_BSD = torch.empty(BATCH, 77, 1024, dtype=autocast, requires_grad=True)
        model = TextToImage(_Vae(), unet, DDPMScheduler.from_config(architecture["scheduler"]))
        weights = {parameter.untyped_storage()._cdata for parameter in unet.parameters()}
        saved: dict[int, tuple[int, torch.Tensor]] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                saved[storage._cdata] = (storage.nbytes(), tensor)  # the tensor, so that its storage's number stays its own
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _Launches() as launches, _OnCuda():
            _under_autocast(autocast, lambda: model.predict(latents_BCHW, latents_BCHW, timesteps_B, states_BSD))
    return launches.number, sum(size for size, _ in saved.values()) / 1e9


def _under_autocast(dtype: torch.dtype, call) -> None:
    """As Lightning does it on CUDA; `torch.autocast` itself wants to see the device."""
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_dtype("cuda", dtype)
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_cache_enabled(False)
    try:
        call()
    finally:
        torch.set_autocast_cache_enabled(True)
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)


if __name__ == "__main__":
    if "within" in sys.argv:
        text_to_image.outside_autocast = lambda device: torch.autocast("cpu", enabled=False)
    print(json.dumps(cost(*(getattr(torch, name) for name in sys.argv[1:3]))))
