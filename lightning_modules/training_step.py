"""What a loss term may read of one training step: the batch, E_T's features of it, the frozen networks' answers, and keyed chance.

Shapes in this file: B = batch, C = latent channels, H W = latent height and width, S = text positions, D = text width, T = target tokens,
V = T5's vocabulary, K = feature vectors of an image, E = joint-space width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn import functional as F

from lightning_modules import step_chance
from lightning_modules.adaptive_features import AdaptiveFeatures, Pictures, Reading
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.frozen_features import ImageVectorEncoder, LatentEncoder
from lightning_modules.frozen_precision import outside_autocast
from lightning_modules.process_groups import gathered
from lightning_modules.text_encoder import FineGrainedTextEncoder, TextFeatures


class Trained(Protocol):
    """What a step wants of the module that is trained: `prompt_refiner.PromptRefinerModule` is one.

    `encoders` are those of the frozen picture features, by name; `batch_group` are the processes that share each batch's records out, None
    for this one alone.
    """

    backbones: Backbones
    text_encoder: FineGrainedTextEncoder
    adapter: nn.Module
    afe: Reading | None
    encoders: Mapping[str, LatentEncoder | ImageVectorEncoder]
    seed: int

    @property
    def device(self) -> torch.device: ...

    @property
    def batch_group(self) -> ProcessGroup | None: ...

    def decoder_mask(self, tokens_BS: Tensor) -> Tensor | None: ...


class Step:
    """One training step of `module` on `batch` (`datamodules.batches` says what a batch holds).

    What only some terms want is computed when it is asked for, so that a term that is off costs nothing. `watched` takes figures to log
    beside the losses, detached scalars by name. `alone`: this process reads the whole batch by itself, whatever the others do; `seed`
    keys its chance in place of the module's.
    """

    def __init__(self, module: Trained, batch: dict, alone: bool = False, seed: int | None = None):
        self.module, self.batch = module, batch
        self._alone, self._seed = alone, module.seed if seed is None else seed
        self.backbones = module.backbones
        self.watched: dict[str, Tensor] = {}

    @cached_property
    def features(self) -> TextFeatures:
        """E_T(T_C): the states (B, S, D) that UNet and adapter read, and the pooled joint feature (B, E)."""
        return self.module.text_encoder(self.batch["text_tokens_BS"])

    def noise_prediction(self) -> tuple[Tensor, Tensor]:
        """The frozen UNet's prediction for the noised fine picture, told E_T(T_C), and what it should be; both (B, C, H, W)."""
        model = self.backbones.text_to_image
        mean_BCHW, logvar_BCHW = self._picture_features("latents", ("latent_mean_BCHW", "latent_logvar_BCHW"))
        drawn = self._chance(tuple(mean_BCHW.shape[1:]))
        latents_BCHW = model.sample_latents(mean_BCHW, logvar_BCHW, drawn["posterior_draw_BCHW"])
        return model.predict(latents_BCHW, drawn["noise_BCHW"], drawn["timesteps_B"], self.features.states_BSD)

    def written_tokens(self) -> tuple[Tensor, Tensor]:
        """The frozen T5's logits (B, T, V) for the fine prompt, given A(E_T(T_C)), and its tokens (B, T) with padding as -100."""
        labels_BT = self.batch["target_tokens_BT"].masked_fill(~self.batch["target_mask_BT"], -100)
        adapted_BSH = self.module.adapter(self.features.states_BSD)
        mask_BS = self.module.decoder_mask(self.batch["text_tokens_BS"])
        return self.backbones.decoder.logits(adapted_BSH, labels_BT, mask_BS), labels_BT

    def pictures(self, encoder: ImageVectorEncoder | None = None) -> Pictures:
        """The fine pictures' features, of all processes: the vectors that AFE's reading reads, (B, V, E), and the pooled feature, (B, E).

        Without AFE, and for a reading of the pooled feature, that is the only vector. `encoder` makes them where they are not cached; the
        module's own by default.
        """
        if "image_pooled_BE" in self.batch:
            pooled_BE, vectors_BVE = self.batch["image_pooled_BE"], self.batch.get("image_vectors_BKE")
        else:
            features = (encoder or self.module.encoders["image_vectors"]).encode(self.batch["images_BCHW"])
            pooled_BE, vectors_BVE = features["image_pooled"], features.get("image_vectors")
        return Pictures.of(self.gathered(pooled_BE), None if vectors_BVE is None else self.gathered(vectors_BVE))

    def bank(self) -> Pictures | None:
        """Further pictures' features (N, V, E) and (N, E), the same in every process; None where the batch has none."""
        if "bank_pooled_NE" not in self.batch:
            return None
        return Pictures.of(self.batch["bank_pooled_NE"], self.batch.get("bank_vectors_NKE"))

    @torch.no_grad()
    def watch_afe(self, pictures: Pictures, own: AdaptiveFeatures) -> None:
        """Log what AFE made of the batch's pictures: see `readings` for what the figures say."""
        afe = self.module.afe
        mean_weights = own.weights_BK.mean(dim=0, keepdim=True).expand_as(own.weights_BK)
        with_mean_weights_BE = afe.combine(pictures.vectors_MVE, mean_weights)
        self.watched["afe_entropy"] = own.entropy()
        if afe.class_token_first:
            self.watched["afe_class_token_mass"] = own.class_token_mass()
        for name, other_BE in (("pooled", pictures.pooled_ME), ("mean_weights", with_mean_weights_BE)):
            self.watched[f"afe_cosine_to_{name}"] = F.cosine_similarity(own.representation_BE, other_BE, dim=-1).mean()

    def fine_pooled(self) -> Tensor:
        """The frozen text encoder's pooled joint feature of the fine prompt, (B, E)."""
        with torch.no_grad(), outside_autocast(self.module.device):
            tokens_BS = self.backbones.tokenize(self.batch["fine_prompts"]).to(self.module.device)
            return self.backbones.text_encoder(tokens_BS).pooled_BE

    def normal(self, shape: tuple[int, ...], tag: int) -> Tensor:
        """Standard normal draws (B, *shape); each row is a function of seed, epoch, record id and `tag`."""
        return step_chance.normal(self._keys, shape, tag).to(self.module.device)

    def _chance(self, latent_shape: tuple[int, int, int]) -> Mapping[str, Tensor]:
        """What the batch brings of it, or the same drawn here; a step with a seed of its own draws its own."""
        if "noise_BCHW" in self.batch and self._seed == self.module.seed:
            return self.batch
        draw = step_chance.StepChance(self._seed, latent_shape, self.backbones.text_to_image.num_timesteps)
        return {name: value.to(self.module.device) for name, value in draw(self.batch["draw_seeds"]).items()}

    def gathered(self, tensor: Tensor) -> Tensor:
        """A tensor (B, ...) of this process as that of the whole batch, where several processes share it; gradients flow back."""
        group = self.module.batch_group
        return tensor if self._alone or group is None else gathered(tensor, group)

    @property
    def _keys(self) -> list[tuple[int, ...]]:
        return [(self._seed, *key) for key in self.batch["draw_seeds"].tolist()]

    def _picture_features(self, encoder: str, names: Sequence[str]) -> tuple[Tensor, ...]:
        """Frozen features out of the batch, or of its pictures where they are not cached."""
        if names[0] in self.batch:
            return tuple(self.batch[name] for name in names)
        return tuple(self.module.encoders[encoder].encode(self.batch["images_BCHW"]).values())
