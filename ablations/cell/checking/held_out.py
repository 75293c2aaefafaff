"""What the manipulation checks read: held-out records, as the trained refiner reads them, with their pictures' frozen features.

Shapes: N = held-out records, V = feature vectors of a picture, E = joint-space width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.cell.loading.load import Loaded
from datamodules.records import text_group
from lightning_modules.adaptive_features import Pictures
from lightning_modules.losses import TextConversionLoss
from lightning_modules.training_step import Step


@dataclass(frozen=True)
class HeldOut:
    """Held-out records: E_T's pooled features of their coarse and fine prompts (N, E), numbers that are equal for equal prompts (N,),
    the pictures' features (None where a record has no picture), and L_text, the mean over all their tokens in nats.
    """

    coarse_NE: Tensor
    fine_NE: Tensor
    coarse_groups_N: Tensor
    fine_groups_N: Tensor
    pictures: Pictures | None
    text_loss: float


@torch.no_grad()
def read_held_out(loaded: Loaded, count: int) -> HeldOut:
    """Read the first `count` held-out records, or as many as a table has. Float32, outside autocast."""
    module, backbones = loaded.module, loaded.backbones
    encoder = module.encoders.get("image_vectors") or backbones.image_vector_encoder(1, "pooled")
    has_pictures = loaded.data.held_out_have_pictures(count)
    parts: list[tuple[Tensor, ...]] = []
    loss_sum, num_tokens = 0.0, 0
    for batch in loaded.data.held_out_batches(count, [encoder] if has_pictures else []):
        batch = {name: value.to(module.device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        step = Step(module, batch, alone=True)
        logits_BTV, labels_BT = step.written_tokens()
        tokens = int((labels_BT != -100).sum())
        loss_sum, num_tokens = loss_sum + tokens * float(TextConversionLoss()(logits_BTV, labels_BT)), num_tokens + tokens
        fine_BE = module.text_encoder(backbones.tokenize(batch["fine_prompts"]).to(module.device)).pooled_BE
        fine_groups_B = torch.tensor([text_group(text) for text in batch["fine_prompts"]], device=module.device)
        pictures = step.pictures(encoder) if has_pictures else ()
        parts.append((step.features.pooled_BE, fine_BE, batch["coarse_groups_B"], fine_groups_B, *pictures))
    coarse_NE, fine_NE, coarse_groups_N, fine_groups_N, *features = (torch.cat(column) for column in zip(*parts, strict=True))
    shown = Pictures(*features) if has_pictures else None
    return HeldOut(coarse_NE, fine_NE, coarse_groups_N, fine_groups_N, shown, loss_sum / num_tokens)
