"""A loss term from outside the package: E_T's states are kept near the frozen encoder's states of the same coarse prompt.

    python -m ablations.run plugins=plugin_loss use_anchor=true loss.anchor_weight=0.5

The row gives the config keys `use_anchor` and `loss.anchor_weight`, the column l_anchor in metrics.csv and W&B, `anchor` in the arm's
name and "with L_anchor" in the tables. Switched off, nothing of it is computed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.terms import Term, register
from lightning_modules.training_step import Step


class AnchorLoss(nn.Module):
    """L_anchor = mean (E_T(T_C) - E_frozen(T_C))^2 over all positions and features."""

    def of(self, step: Step) -> Tensor:
        """The loss of a training step, a scalar. `Step` has what a term may read: features, logits, predictions, pictures' features."""
        with torch.no_grad():
            frozen_BSD = step.backbones.text_encoder(step.batch["text_tokens_BS"]).states_BSD
        return F.mse_loss(step.features.states_BSD.float(), frozen_BSD.float())


register(Term("anchor", title="L_anchor", loss=AnchorLoss, help="L_anchor: text features stay near the frozen encoder's", weight=0.5))
