"""Our refiner as one of the methods: strategy 1 appends prompt_len tokens, strategy 2 writes the whole prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.baselines.base import Asked, LoadedRefiner, Written
from ablations.baselines.register import REFERENCE, Method, register
from ablations.results.seen_words import read
from ablations.runtime.errors import UserError

if TYPE_CHECKING:
    from ablations.config import Config
    from lightning_modules.backbones.backbones import Backbones


def checked_checkpoint(checkpoint: Path, backbones: Backbones) -> dict:
    """A training's checkpoint. Raises UserError where it cannot be read or was made with other frozen networks."""
    from ablations.cell.training.checkpoints import read_checkpoint

    content = read_checkpoint(checkpoint)
    trained_on = content["made_from"]["weights"]
    if trained_on != backbones.digest:
        raise UserError(
            f"{checkpoint} was trained on frozen networks of digest {trained_on}, but those here have {backbones.digest}: "
            "get the networks that it was trained on, or train again"
        )
    return content


def load_refiner(config: Config, checkpoint: Path, backbones: Backbones) -> LoadedRefiner:
    """The trained refiner of a seed, on the backbones' device. Raises UserError as `checked_checkpoint` does."""
    from ablations.cell.loading.module import build_module

    content = checked_checkpoint(checkpoint, backbones)
    module = build_module(config, backbones)
    module.on_load_checkpoint(content)
    module.load_state_dict(content["state_dict"])
    return LoadedRefiner(module.to(backbones.text_to_image.device).eval().requires_grad_(False), read(checkpoint.parent.parent))


class TrainedRefiner:
    """A trained arm of the suite. `load(seed)` gives the module that was trained with a seed, and what that read; strategy 1 or 2."""

    def __init__(self, config: Config, load: Callable[[int], LoadedRefiner], strategy: int):
        assert strategy in (1, 2), strategy
        self._config, self._mode = config, "extend" if strategy == 1 else "rewrite"
        self._load, self._loaded = load, (-1, None)
        self.name = REFERENCE if strategy == 1 else "refiner_rewrite"
        self.title = f"our refiner, strategy {strategy}"
        self.about = (
            f"appends {config.prompt_len} tokens" + (f", {config.eval.rounds} times" if config.eval.rounds > 1 else "")
            if strategy == 1
            else f"writes the whole prompt, at most {config.eval.max_new_tokens} tokens"
        )

    def prepare(self) -> None:
        pass

    def write(self, seed: int, asked: Sequence[Asked]) -> list[Written]:
        from ablations.cell.refining.refine import refine_settings

        if self._loaded[0] != seed:
            self._loaded = seed, self._load(seed)
        assert self._loaded[1] is not None
        module, seen = self._loaded[1]
        settings = refine_settings(self._config.prompt_len, self._config.eval, self._mode, seen)
        written = module.refine([one.coarse_prompt for one in asked], [(one.key,) for one in asked], settings)
        return [
            Written(one.text, one.num_new_tokens, one.truncated) if one.text.strip() else Written.failed("wrote no words")
            for one in written
        ]

    def close(self) -> None:
        self._loaded = (-1, None)

    def cost(self) -> str:
        return ""


register(
    Method(
        REFERENCE,
        "our refiner, strategy 1",
        "our refiner, strategy 1: appends prompt_len tokens. What all others are compared with",
        lambda context: TrainedRefiner(context.config, context.load_refiner, 1),
        order=900,
    )
)
register(
    Method(
        "refiner_rewrite",
        "our refiner, strategy 2",
        "our refiner, strategy 2: writes the whole prompt",
        lambda context: TrainedRefiner(context.config, context.load_refiner, 2),
        order=910,
    )
)
