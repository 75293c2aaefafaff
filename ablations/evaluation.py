"""Evaluation of a cell, first half: refine the prompts, then draw every picture that is to be scored.

Conditions: `coarse` and `fine` (the prompts as they are), `refined` (the arm's own way of refining), `refined_shared_noise`
(its candidates drawn from one image noise, so that what differs comes from the text), `rewrite` (strategy 2 beside
strategy 1) and the controls, which should not help: `control_step0` (the refiner before its first step),
`control_t5_direct` (T5 reads the coarse text itself), `control_shuffled` (E_T reads another prompt than the user's).

All draws are keyed: candidate c of prompt p samples its tokens from f(seed, p, c) and its picture from the image noise
f(seed, p, c), which is the same for every condition. So conditions, and arms at one seed, are paired picture by picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ablations.config import EvalConfig
from ablations.run_folder import whole_file
from datamodules.records import EvalPrompt
from lightning_modules.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule, Refinement, RefineSettings

CONTROLS = ("control_step0", "control_t5_direct", "control_shuffled")
_PROMPT_TAG, _IMAGE_TAG = 0x50, 0x51


@dataclass(frozen=True)
class Drawing:
    """A picture to draw: the text it is drawn from, and the keys of its chance. `image` is a path within the run folder."""

    prompt_id: int
    condition: str
    candidate: int
    coarse: str
    text: str
    prompt_seed: int
    image_seed: int
    num_new_tokens: int = 0
    truncated: bool = False

    @property
    def image(self) -> str:
        return f"images/{self.prompt_id:04d}-{self.condition}-{self.candidate}.png"


def _key(*parts: int) -> int:
    """A 63-bit seed that is a function of the integers alone."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def prompt_seed(seed: int, prompt_id: int, candidate: int) -> int:
    """The key of a candidate's token sampling."""
    return _key(seed, prompt_id, candidate, _PROMPT_TAG)


def image_seed(seed: int, prompt_id: int, candidate: int) -> int:
    """The key of a candidate's image noise; the same for every condition."""
    return _key(seed, prompt_id, candidate, _IMAGE_TAG)


def refine_settings(prompt_len: int, config: EvalConfig, mode: str | None = None) -> RefineSettings:
    """How the arm refines, or how it would in another mode."""
    return RefineSettings(
        prompt_len=prompt_len,
        mode=mode or config.mode,
        extend_by=config.extend_by,
        rounds=config.rounds,
        max_new_tokens=config.max_new_tokens,
        top_p=config.top_p,
        top_k=config.top_k,
    )


def shuffled_prompts(coarse: Sequence[str]) -> list[str] | None:
    """For each prompt the next one, cyclically, that is another text; None where all prompts are the same."""
    if len(set(coarse)) < 2:
        return None
    twice = [*coarse, *coarse]
    return [next(other for other in twice[i + 1 :] if other != text) for i, text in enumerate(coarse)]


def plan_drawings(
    module: PromptRefinerModule,
    untrained: Callable[[], PromptRefinerModule],
    prompts: Sequence[EvalPrompt],
    prompt_len: int,
    config: EvalConfig,
    seed: int,
) -> list[Drawing]:
    """Refine every prompt under every condition. `untrained` gives the same refiner at step 0 (called only for controls)."""
    coarse = [prompt.coarse_prompt for prompt in prompts]
    settings = refine_settings(prompt_len, config)
    if config.controls:
        step0 = untrained()
        shuffled = shuffled_prompts(coarse)
    drawings: list[Drawing] = []
    for candidate in range(config.num_candidates):
        keys = [prompt_seed(seed, prompt.prompt_id, candidate) for prompt in prompts]
        seeds = [(key,) for key in keys]
        refined = module.refine(coarse, seeds, settings)
        written: dict[str, list[Refinement]] = {
            "coarse": [Refinement(text, 0, False) for text in coarse],
            "fine": [Refinement(prompt.fine_prompt, 0, False) for prompt in prompts],
            "refined": refined,
        }
        if config.num_candidates > 1:
            written["refined_shared_noise"] = refined
        if config.rewrite_too and config.mode != "rewrite":
            written["rewrite"] = module.refine(coarse, seeds, refine_settings(prompt_len, config, "rewrite"))
        if config.controls:
            written["control_step0"] = step0.refine(coarse, seeds, settings)
            written["control_t5_direct"] = module.refine_by_decoder_alone(coarse, seeds, settings)
            if shuffled is not None:
                written["control_shuffled"] = module.refine(coarse, seeds, settings, read_instead=shuffled)
        for condition, refinements in written.items():
            noise_candidate = 0 if condition == "refined_shared_noise" else candidate
            for prompt, key, refinement in zip(prompts, keys, refinements, strict=True):
                drawings.append(
                    Drawing(
                        prompt_id=prompt.prompt_id,
                        condition=condition,
                        candidate=candidate,
                        coarse=prompt.coarse_prompt,
                        text=refinement.text,
                        prompt_seed=key,
                        image_seed=image_seed(seed, prompt.prompt_id, noise_candidate),
                        num_new_tokens=refinement.num_new_tokens,
                        truncated=refinement.truncated,
                    )
                )
    return drawings


@torch.no_grad()
def draw(
    backbones: Backbones,
    drawings: Sequence[Drawing],
    config: EvalConfig,
    track: Callable[[Iterable, int, str], Iterable],
    check: Callable[[], None],
) -> np.ndarray:
    """The pictures, uint8 (len(drawings), H, W, 3), in order. Equal text at equal image noise is drawn once.

    `track(iterable, total, label)` shows progress, `check()` is called before each batch and may raise to stop.
    """
    model, encoder, device = backbones.text_to_image, backbones.text_encoder, backbones.text_to_image.device
    wanted = list(dict.fromkeys((drawing.text, drawing.image_seed) for drawing in drawings))
    empty = encoder(backbones.tokenize([""]).to(device)).states_BSD
    pictures: dict[tuple[str, int], np.ndarray] = {}
    starts = range(0, len(wanted), config.batch_size)
    for start in track(starts, len(starts), "drawing"):
        check()
        part = wanted[start : start + config.batch_size]
        states = encoder(backbones.tokenize([text for text, _ in part]).to(device)).states_BSD
        images = model.generate(
            states,
            empty,
            [seed for _, seed in part],
            steps=config.steps,
            guidance_scale=config.guidance_scale,
            batch_size=config.batch_size,
        )
        pictures.update(zip(part, images, strict=True))
    return np.stack([pictures[drawing.text, drawing.image_seed] for drawing in drawings])


def save_pictures(folder: Path, drawings: Sequence[Drawing], images: np.ndarray) -> None:
    """Write every picture as PNG, whole or not at all."""
    for drawing, pixels in zip(drawings, images, strict=True):
        with whole_file(folder / drawing.image, sync=False) as aside:
            Image.fromarray(pixels).save(aside, format="PNG")
