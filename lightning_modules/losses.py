"""The three losses of UF-FGTG and the optional feature term, one small class each.

`forward` is the formula; `of(step)` hands it what it reads of a training step. `terms.py` says what each weighs and trains.

Shapes in this file: B = batch, N = bank size, C = latent channels, H W = latent height and width, S = text positions,
D = text width, T = target tokens, V = T5's vocabulary, E = joint-space width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.adaptive_features import forcing_term, representations
from lightning_modules.training_step import Step

if TYPE_CHECKING:
    from lightning_modules.backbones.backbones import Backbones
    from lightning_modules.settings import LossSettings


class DiffusionNoiseLoss(nn.Module):
    """L_mse: how well the frozen UNet denoises the fine image when told the coarse prompt's features.

    L_mse = E_{t, eps} || target - eps_theta(z_t, t, E_T(T_C)) ||^2        (UF-FGTG, image-related loss)

    The target is the noise where the UNet predicts noise (Stable Diffusion 2.1-base) and the velocity where it predicts
    that (2.1, and the tiny UNet). Mean over all elements; uniform timesteps, no SNR weighting, as the authors do.
    """

    def forward(self, prediction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        return F.mse_loss(prediction_BCHW.float(), target_BCHW.float())

    def of(self, step: Step) -> Tensor:
        return self(*step.noise_prediction())


class TextConversionLoss(nn.Module):
    """L_text: T5's cross-entropy on the fine prompt, given the adapted coarse features.

    L_text = - mean over target tokens of log p(T_F[i] | T_F[<i], A(E_T(T_C)))        (text feature conversion loss)

    Padding (label -100) does not count. The mean is over tokens, as in transformers. `token_share` is for a batch that several
    processes share: its tokens here over the mean of the processes, so that the mean of their losses is that of the whole batch.
    """

    def forward(self, logits_BTV: Tensor, labels_BT: Tensor, token_share: float = 1.0) -> Tensor:
        return F.cross_entropy(logits_BTV.float().flatten(0, 1), labels_BT.flatten(), ignore_index=-100) * token_share

    def of(self, step: Step) -> Tensor:
        return self(*step.written_tokens(), step.batch.get("target_token_share", 1.0))


class ClipContrastiveLoss(nn.Module):
    """L_clip: symmetric InfoNCE between image representations and E_T(T_C)'s pooled features. Reconstructed.

    L_clip = 1/2 [ mean_i -log softmax_j(s t_i . v_j)[i] + mean_i -log softmax_j(s v_i . t_j)[i] ]

    with unit vectors t, v and scale s. Images of a bank join the first term's candidates. Pairs that share a coarse prompt
    are not one another's negatives. Fewer than two candidates is an error: the loss would be zero and teach nothing.

    `forcing` adds so many times AFE's counterfactual term (`adaptive_features.forcing_term`), which is watched as afe_forcing; none of it
    is computed at 0 and under uniform weights, which it cannot move.
    """

    def __init__(self, scale: float, forcing: float = 0.0):
        super().__init__()
        self.scale, self.forcing = scale, forcing

    @classmethod
    def build(cls, settings: LossSettings, backbones: Backbones) -> ClipContrastiveLoss:
        """With the settings' scale, or OpenCLIP's own, frozen, where they have none."""
        forced = settings.use_afe and settings.afe.weights != "uniform"
        scale = float(backbones.clip_model.logit_scale.exp()) if settings.clip_scale is None else settings.clip_scale
        return cls(scale, settings.afe.forcing if forced else 0.0)

    def of(self, step: Step) -> Tensor:
        """The loss over the batch of all processes and, where the batch has one, a bank of further images."""
        afe, pictures, bank = step.module.afe, step.pictures(), step.bank()
        text_BE, groups_B = step.gathered(step.features.pooled_BE), step.gathered(step.batch["coarse_groups_B"])
        own = None if afe is None else afe(pictures.vectors_MVE, text_BE)
        images_BE = representations(afe, pictures, text_BE) if own is None or afe.asks_text else own.representation_BE
        bank_NE = None if bank is None else representations(afe, bank, text_BE)
        loss, step.watched["clip_accuracy"] = self(text_BE, images_BE, groups_B, bank_NE, step.batch.get("bank_groups_N"))
        if own is not None:
            step.watch_afe(pictures, own)
        if self.forcing:
            others_MVE = pictures.vectors_MVE if bank is None else torch.cat([pictures.vectors_MVE, bank.vectors_MVE])
            forced = forcing_term(afe, own.representation_BE, pictures.vectors_MVE, others_MVE, text_BE, self.scale)
            step.watched["afe_forcing"] = forced
            loss = loss + self.forcing * forced
        return loss

    def logits(self, text_BE: Tensor, images_ME: Tensor, text_groups_B: Tensor, image_groups_M: Tensor) -> Tensor:
        """Scaled cosines (B, M), M >= B; the first B images belong to the texts, other pairs of one group are -inf.

        Images may be (B, M, E), as each text reads them.
        """
        text_BE, images_ME = F.normalize(text_BE.float(), dim=-1), F.normalize(images_ME.float(), dim=-1)
        if images_ME.dim() == 3:
            logits_BM = self.scale * torch.einsum("be,bme->bm", text_BE, images_ME)
        else:
            logits_BM = self.scale * text_BE @ images_ME.T
        own = torch.eye(*logits_BM.shape, dtype=torch.bool, device=logits_BM.device)
        return logits_BM.masked_fill((text_groups_B[:, None] == image_groups_M[None]) & ~own, float("-inf"))

    def forward(
        self,
        text_BE: Tensor,
        images_BE: Tensor,
        groups_B: Tensor,
        bank_NE: Tensor | None = None,
        bank_groups_N: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the loss and the accuracy of finding the own image, both scalars. Raises ValueError below two candidates.

        Images and bank may be (B, B, E) and (B, N, E), as each text reads them.
        """
        candidates_ME = images_BE if bank_NE is None else torch.cat([images_BE, bank_NE], dim=-2)
        candidate_groups_M = groups_B if bank_groups_N is None else torch.cat([groups_B, bank_groups_N])
        if candidates_ME.shape[-2] < 2:
            raise ValueError("L_clip needs at least two candidates: raise train.batch_size or set loss.clip_bank")
        to_images_BM = self.logits(text_BE, candidates_ME, groups_B, candidate_groups_M)
        own_B = torch.arange(len(text_BE), device=text_BE.device)
        loss = F.cross_entropy(to_images_BM, own_B)
        if len(text_BE) > 1:
            loss = (loss + F.cross_entropy(to_images_BM[:, : len(text_BE)].T, own_B)) / 2
        return loss, (to_images_BM.argmax(dim=-1) == own_B).float().mean()


class FeatureMatchingLoss(nn.Module):
    """The optional feature term: E_T(T_C) drawn towards the frozen encoder's features of T_F. Reconstructed; off by default.

    L_feature = mean_i 1 - cos(E_T(T_C)_i, E_frozen(T_F)_i)        over the pooled joint-space features
    """

    def forward(self, pooled_BE: Tensor, frozen_fine_BE: Tensor) -> Tensor:
        return (1 - F.cosine_similarity(pooled_BE.float(), frozen_fine_BE.float(), dim=-1)).mean()

    def of(self, step: Step) -> Tensor:
        return self(step.features.pooled_BE, step.fine_pooled())
