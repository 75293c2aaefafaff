"""Settings of the prompt refiner: losses, adapter, optimiser, and how prompts are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class LossSettings:
    """Which terms are on and what they weigh. The weight of L_text is the authors'; those of L_clip and L_feature are not published."""

    use_mse: bool = True
    use_text: bool = True
    use_clip: bool = True
    use_afe: bool = True
    use_feature: bool = False
    mse_weight: float = 1.0
    text_weight: float = 0.1
    clip_weight: float = 0.1
    feature_weight: float = 1.0
    clip_scale: float | None = 10.0
    afe_hidden: int = 64
    afe_temperature: float = 1.0
    afe_grid: int = 4

    def __post_init__(self) -> None:
        if not (self.use_mse or self.use_text or self.use_clip or self.use_feature):
            raise ValueError("at least one of use_mse, use_text, use_clip and use_feature must be on")
        if self.use_afe and not self.use_clip:
            raise ValueError("use_afe=true needs use_clip=true: AFE acts only through L_clip")


@dataclass(frozen=True)
class AdapterSettings:
    """A's shape and start; the defaults are the authors' (their script).

    `match_scale` scales A's output at step 0 to the root mean square of T5's embeddings: see `DomainAdapter.match_scale`.
    `mask_padding` hides the positions after the end token from T5; the authors let it read all 77.
    """

    output_relu: bool = True
    match_scale: bool = False
    mask_padding: bool = False


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with linear warm-up and a constant rate, as the authors train.

    A and N start from nothing while E_T starts pre-trained: `new_parts_lr_scale` multiplies their rate (1: as the authors).
    Over the last `decay_share` of the training the rate falls linearly to 0 (0: constant, as the authors).
    """

    learning_rate: float = 5e-5
    new_parts_lr_scale: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    eps: float = 1e-8
    warmup_steps: int = 1000
    decay_share: float = 0.0

    def rate_at(self, step: int, total_steps: int) -> float:
        """The factor on the learning rate for step `step`, counted from 0, of `total_steps` (read only where there is a decay)."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return min(warm, max(0, total_steps - step) / (self.decay_share * total_steps)) if self.decay_share else warm


@dataclass(frozen=True)
class RefineSettings:
    """How prompts are written. `mode="extend"` is strategy 1 (prompt_len new tokens a round), "rewrite" strategy 2.

    `extend_by="prime"` lets the decoder continue the prompt's own tokens; "append" writes unprimed and appends.
    """

    prompt_len: int = 6
    mode: Literal["extend", "rewrite"] = "extend"
    extend_by: Literal["prime", "append"] = "prime"
    rounds: int = 1
    max_new_tokens: int = 50
    top_p: float = 0.95
    top_k: int = 50


@dataclass(frozen=True)
class Refinement:
    """One candidate: the refined prompt, how many tokens were written, and whether it ends within a word."""

    text: str
    num_new_tokens: int
    truncated: bool
    rounds: tuple[str, ...] = field(default=())
