"""Evaluation of a cell, first half: refine the prompts, then draw every picture that is to be scored.

Conditions: `coarse` and `fine` (the prompts as they are), `refined` (the arm's own way of refining), `refined_shared_noise`
(its candidates drawn from one image noise, so that what differs comes from the text), `rewrite` (strategy 2 beside
strategy 1) and the controls, which should not help: `control_step0` (the refiner before its first step),
`control_t5_direct` (T5 reads the coarse text itself), `control_shuffled` (E_T reads another prompt than the user's).

`plug_in` is the encoder's other use: the coarse prompt drawn with the trained E_T in place of Stable Diffusion's own text
encoder, outright as in the paper, so that the empty prompt of guidance is read by the trained one too. Every other picture is
drawn with the original encoder. At step 0 the two are the same: the control of `plug_in` is `coarse` itself.

All draws are keyed: candidate c of prompt p samples its tokens from f(seed, p, c) and its picture from the image noise
f(seed, p, c), which is the same for every condition. So conditions, and arms at one seed, are paired picture by picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ablations.cfp_building.prompt_chunks import encode_in_chunks, pad
from ablations.config import EvalConfig
from ablations.reuse import PictureStore
from ablations.run_folder import whole_file
from datamodules.records import EvalPrompt
from lightning_modules.backbones import Backbones
from lightning_modules.frozen_features import digest_of
from lightning_modules.prompt_refiner import PromptRefinerModule, Refinement, RefineSettings
from lightning_modules.text_encoder import FineGrainedTextEncoder

PLUG_IN = "plug_in"
CONTROLS = ("control_step0", "control_t5_direct", "control_shuffled")
_PROMPT_TAG, _IMAGE_TAG = 0x50, 0x51


@dataclass(frozen=True)
class Drawing:
    """A picture to draw: the text it is drawn from, and the keys of its chance. `image` is a path within the run folder.

    `by_trained_encoder` says which text encoder tells the UNet about the text: the trained E_T, or the original one.
    """

    prompt_id: int
    condition: str
    candidate: int
    coarse: str
    text: str
    prompt_seed: int
    image_seed: int
    num_new_tokens: int = 0
    truncated: bool = False
    by_trained_encoder: bool = False

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
        if config.plug_in:
            written[PLUG_IN] = written["coarse"]
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
                        by_trained_encoder=condition == PLUG_IN,
                    )
                )
    return drawings


@torch.no_grad()
def draw_texts(
    backbones: Backbones,
    encoder: FineGrainedTextEncoder,
    texts: Sequence[str],
    image_seeds: Sequence[int],
    *,
    steps: int,
    guidance_scale: float,
    batch_size: int,
    num_chunks: int = 1,
) -> np.ndarray:
    """Pictures of texts, uint8 (len(texts), H, W, 3). `encoder` reads the texts and the empty prompt that guidance leads away from.

    Texts that need more positions than the encoder's are cut at `num_chunks` times as many, and encoded chunk by chunk.
    """
    model = backbones.text_to_image

    def states(prompts: Sequence[str]) -> torch.Tensor:
        if num_chunks == 1:
            return encoder(backbones.tokenize(list(prompts)).to(model.device)).states_BSD
        length = encoder.context_length
        ids_BS = torch.tensor([pad(backbones.token_ids(text), num_chunks * length, backbones.pad_id) for text in prompts])
        return encode_in_chunks(lambda chunk_BS: encoder(chunk_BS).states_BSD, ids_BS.to(model.device), length)

    return model.generate(states(texts), states([""]), image_seeds, steps=steps, guidance_scale=guidance_scale, batch_size=batch_size)


def draw(
    backbones: Backbones,
    drawings: Sequence[Drawing],
    config: EvalConfig,
    track: Callable[[Iterable, int, str], Iterable],
    check: Callable[[], None],
    trained: FineGrainedTextEncoder | None = None,
    store: PictureStore | None = None,
) -> np.ndarray:
    """The pictures, uint8 (len(drawings), H, W, 3), in order. Equal text at equal image noise, read by one encoder, is drawn once.

    `trained` is the E_T of the drawings by the trained encoder. `track(iterable, total, label)` shows progress, `check()` is called
    before each batch and may raise to stop. Pictures that are in `store` are not drawn, and those that are drawn go there. Batches
    are always full, so that a picture is the same whatever else is to be drawn: see `ablations.reuse`. Raises ValueError for a
    drawing by the trained encoder where there is none.
    """

    def key(drawing: Drawing) -> tuple[bool, str, int]:
        return drawing.by_trained_encoder, drawing.text, drawing.image_seed

    pictures: dict[tuple[bool, str, int], np.ndarray] = {}
    batches: list[tuple[int, list[tuple[bool, str, int]]]] = []
    encoders: dict[bool, str] = {}
    for by_trained in (False, True):
        wanted = list(dict.fromkeys(key(drawing) for drawing in drawings if drawing.by_trained_encoder == by_trained))
        if by_trained and wanted and trained is None:
            raise ValueError(f"{len(wanted)} pictures are to be drawn by the trained encoder, but none was handed in")
        encoders[by_trained] = digest_of(("trained",), trained) if store is not None and by_trained and wanted else "original"
        if store is not None:
            found = {entry: store.get(encoders[by_trained], *entry[1:]) for entry in wanted}
            pictures.update({entry: pixels for entry, pixels in found.items() if pixels is not None})
            wanted = [entry for entry in wanted if entry not in pictures]
        by_chunks: dict[int, list[tuple[bool, str, int]]] = {}
        for entry in wanted:
            chunks = backbones.num_chunks(entry[1]) if config.long_prompts == "chunk" else 1
            by_chunks.setdefault(chunks, []).append(entry)
        for chunks, alike in sorted(by_chunks.items()):
            batches += [(chunks, alike[start : start + config.batch_size]) for start in range(0, len(alike), config.batch_size)]
    for chunks, part in track(batches, len(batches), "drawing"):
        check()
        filled = part + part[-1:] * (config.batch_size - len(part))
        images = draw_texts(
            backbones,
            trained if part[0][0] else backbones.text_encoder,
            [text for _, text, _ in filled],
            [seed for *_, seed in filled],
            steps=config.steps,
            guidance_scale=config.guidance_scale,
            batch_size=config.batch_size,
            num_chunks=chunks,
        )
        for entry, pixels in zip(part, images, strict=False):  # the filler is left out
            pictures[entry] = pixels
            if store is not None:
                store.put(encoders[entry[0]], *entry[1:], pixels)
    return np.stack([pictures[key(drawing)] for drawing in drawings])


def read_drawings(prompts_jsonl: Path) -> tuple[list[Drawing], np.ndarray]:
    """The drawings of a finished cell and their pictures, as `plan_drawings` and `draw` gave them."""
    with open(prompts_jsonl, encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    pictures = []
    for line in lines:
        with Image.open(prompts_jsonl.parent / line.pop("image")) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    drawings = [Drawing(text=line.pop("refined"), by_trained_encoder=line["condition"] == PLUG_IN, **line) for line in lines]
    return drawings, np.stack(pictures)


def save_pictures(folder: Path, drawings: Sequence[Drawing], images: np.ndarray) -> None:
    """Write every picture as PNG, whole or not at all."""
    for drawing, pixels in zip(drawings, images, strict=True):
        with whole_file(folder / drawing.image, sync=False) as aside:
            Image.fromarray(pixels).save(aside, format="PNG")
