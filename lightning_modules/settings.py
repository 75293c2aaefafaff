"""Settings of the prompt refiner: losses, adapter, optimiser, and how prompts are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lightning_modules.readings import DEFAULT_READING
from lightning_modules.terms import Term, all_terms, term_weights


@dataclass(frozen=True)
class AFESettings:
    """Adaptive feature extraction: its reading (see `readings`), the width of the network that weighs, the softmax's temperature, the grid.

    Patch tokens are pooled to `grid` x `grid` vectors. `weights` are "learned" or those of a twin, "uniform" or "frozen"
    (`adaptive_features.Reading`). `forcing` weighs the counterfactual term within L_clip (`adaptive_features.forcing_term`); 0: none.
    """

    reading: str = DEFAULT_READING
    hidden: int = 64
    temperature: float = 1.0
    grid: int = 4
    weights: Literal["learned", "uniform", "frozen"] = "learned"
    forcing: float = 0.0


@dataclass(frozen=True)
class LossSettings:
    """The loss terms that are on with their weights, {name: weight}, in the table's order (`terms.term_weights` makes it), and details.

    The weight of L_text is the authors'; those of L_clip and L_feature are not published. `clip_scale` is the scale of L_clip's logits,
    None for OpenCLIP's own. Raises ValueError where nothing is on, and for AFE without L_clip.
    """

    weights: Mapping[str, float] = field(default_factory=term_weights)
    use_afe: bool = True
    afe: AFESettings = AFESettings()
    clip_scale: float | None = 10.0

    def __post_init__(self) -> None:
        if not self.weights:
            raise ValueError(f"at least one of {', '.join(f'use_{term.name}' for term in all_terms())} must be on")
        if self.use_afe and "clip" not in self.weights:
            raise ValueError("use_afe=true needs use_clip=true: AFE acts only through L_clip")

    def terms(self) -> list[Term]:
        """The terms that are on, in order."""
        return [term for term in all_terms() if term.name in self.weights]


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
class PieceRules:
    """Which pieces of the decoder's vocabulary may be written, likely or not; see `piece_rules`.

    `pieces`: these alone, as the vocabulary writes them; None: any. `new_word`: the first piece starts a word or is punctuation, so that
    nothing is glued to the prompt's last word. `ban`: words and phrases that are never written, not within longer words either.
    """

    pieces: frozenset[str] | None = None
    new_word: bool = False
    ban: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenSampling:
    """Which tokens may be drawn: what `rules` allow, of it the `top_k` most likely (0: all), the fewest that add up to `top_p`."""

    top_p: float = 0.95
    top_k: int = 50
    rules: PieceRules = PieceRules()


@dataclass(frozen=True)
class RefineSettings:
    """How prompts are written. `mode="extend"` is strategy 1 (prompt_len new tokens a round), "rewrite" strategy 2.

    `extend_by="prime"` lets the decoder continue the prompt's own tokens; "append" writes unprimed and appends. Without `exact_length`
    a round of strategy 1 may end before `prompt_len` tokens. Of `rules`, `new_word` holds where the prompt itself is
    continued: in the first round, and primed.
    """

    prompt_len: int = 6
    mode: Literal["extend", "rewrite"] = "extend"
    extend_by: Literal["prime", "append"] = "prime"
    rounds: int = 1
    max_new_tokens: int = 50
    top_p: float = 0.95
    top_k: int = 50
    exact_length: bool = True
    rules: PieceRules = PieceRules()


@dataclass(frozen=True)
class Refinement:
    """One candidate: the refined prompt, how many tokens were written, and whether it ends within a word."""

    text: str
    num_new_tokens: int
    truncated: bool
    rounds: tuple[str, ...] = field(default=())
