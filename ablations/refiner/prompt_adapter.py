"""A, the domain adapter, as a part of a diffusers pipeline: its weights, and the settings that its refiner writes and draws with.

`python -m ablations.export --with-image-model` wrote this file out of the project's own code.
"""

from __future__ import annotations

from typing import Any

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from lightning_modules.domain_adapter import DomainAdapter


class PromptAdapter(ModelMixin, ConfigMixin):
    """From the text encoder's states (B, S, D) to what T5 reads (B, S, H).

    `settings` are those of the run that trained it: how texts are written, how pictures are drawn, and what the numbers that a user
    gives may be.
    """

    @register_to_config
    def __init__(self, clip_width: int, t5_width: int, output_relu: bool, settings: dict[str, Any]):
        super().__init__()
        self.adapter = DomainAdapter(clip_width, t5_width, output_relu)

    def forward(self, states_BSD: Tensor) -> Tensor:
        return self.adapter(states_BSD.to(self.dtype))
