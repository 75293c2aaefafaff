"""The stage `images`: a fine image for each fine prompt, with a seed that is a function of (seed, prompt id).

Prompts of equal token length are drawn together. Euler ancestral, classifier-free guidance against the empty prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ablations.building_cfp.folder import SAMPLER, BuildFolder
from ablations.building_cfp.ledger import Shard
from ablations.building_cfp.models import ImageModel, load_stable_diffusion, load_tiny
from ablations.building_cfp.prompts import Prompt
from ablations.building_cfp.stages import Stage
from ablations.runtime.files import whole_file
from lightning_modules.prompt_chunks import encode_in_chunks, pad, padded_length

_FINE_IMAGE_TAG = 0x52
_PRECISIONS = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
# Bytes of a PNG per byte of pixels: photographs and paintings take 0.5 to 0.7.
_PNG_SHARE = 0.65


def fine_image_seed(seed: int, prompt_id: int) -> int:
    """The key of a fine image's noise, 63 bits: a function of the build's seed and the prompt's id alone."""
    return int(np.random.SeedSequence((seed, prompt_id, _FINE_IMAGE_TAG)).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class DrawingSettings:
    """How the fine images are drawn. `precision` None is 16-mixed on a CUDA device, as the authors drew, and 32-true elsewhere."""

    profile: str
    image_model: str
    seed: int
    steps: int
    guidance_scale: float
    precision: str | None
    batch_size: int
    device: torch.device


class ImagesStage(Stage):
    """Draws the fine images, PNG."""

    name, unit = "images", "images"

    def __init__(self, folder: BuildFolder, settings: DrawingSettings):
        super().__init__(folder)
        self._settings = settings
        self._precision = settings.precision or ("16-mixed" if settings.device.type == "cuda" else "32-true")
        self._model: ImageModel | None = None

    @property
    def model(self) -> ImageModel:
        assert self._model is not None, "load() comes first"
        return self._model

    def asked(self) -> dict[str, object]:
        settings = self._settings
        return {
            "profile": settings.profile,
            "seed": settings.seed,
            "steps": settings.steps,
            "guidance_scale": settings.guidance_scale,
            "sampler": SAMPLER,
            "negative_prompt": "",
            "precision": self._precision,
        }

    def load(self) -> dict[str, object]:
        settings = self._settings
        self._model = (
            load_tiny(settings.device) if settings.profile == "tiny" else load_stable_diffusion(settings.image_model, settings.device)
        )
        size = self.model.text_to_image.image_size
        chunks = f"{self.model.context_length} tokens, " + ("padded" if self.model.pad_chunks else "not padded")
        found = {"model": self.model.name, "commit": self.model.commit, "weights": self.model.weights}
        return {**self.asked(), **found, "height": size, "width": size, "prompt_chunks": chunks}

    def bytes_each(self) -> float:
        return 3 * self.model.text_to_image.image_size**2 * _PNG_SHARE

    def groups(self, prompts: Sequence[Prompt]) -> list[list[Prompt]]:
        by_length: dict[int, list[Prompt]] = {}
        for prompt in prompts:
            by_length.setdefault(self._length(self.model.token_ids(prompt.text)), []).append(prompt)
        size = self._settings.batch_size
        groups = [same[i : i + size] for same in by_length.values() for i in range(0, len(same), size)]
        return sorted(groups, key=lambda group: group[0].id)

    def _length(self, ids: Sequence[int]) -> int:
        return padded_length(len(ids), self.model.context_length) if self.model.pad_chunks else len(ids)

    def make(self, group: Sequence[Prompt], wanted: set[int]) -> list[dict]:
        images = self._draw([prompt.text for prompt in group], [fine_image_seed(self._settings.seed, prompt.id) for prompt in group])
        return [self._keep(prompt.id, image) for prompt, image in zip(group, images, strict=True) if prompt.id in wanted]

    def _draw(self, texts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Pictures, uint8 (B, H, W, 3), of prompts with equal token lengths."""
        model = self.model
        ids = [model.token_ids(text) for text in texts]
        length = self._length(ids[0])
        dtype = _PRECISIONS[self._precision]
        with torch.autocast(self._settings.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            states_BSD, empty_1SD = (
                encode_in_chunks(model.encode, torch.tensor([pad(each, length, model.pad_id) for each in batch]), model.context_length)
                for batch in (ids, [model.token_ids("")])
            )
            return model.text_to_image.generate(
                states_BSD,
                empty_1SD,
                seeds,
                steps=self._settings.steps,
                guidance_scale=self._settings.guidance_scale,
                batch_size=len(texts),
            )

    def _keep(self, prompt_id: int, image: np.ndarray) -> dict:
        entry = {"id": prompt_id, "seed": fine_image_seed(self._settings.seed, prompt_id)}
        if (image == image[0, 0]).all():
            # What half precision that overflowed looks like; as a fine image it would teach nothing.
            return {**entry, "bad": "blank_image", "detail": f"every pixel is {tuple(int(v) for v in image[0, 0])}"}
        path = self.folder.image(prompt_id)
        with whole_file(path) as aside:
            Image.fromarray(image).save(aside, "PNG")
        return {**entry, "image": path.relative_to(self.folder.path).as_posix(), "bytes": path.stat().st_size}

    def is_done(self, entry: dict) -> bool:
        return "bad" in entry or self.folder.has_image(entry)

    def bytes_of(self, entry: dict) -> float:
        return entry.get("bytes", 0.0)

    def clean_up(self, shard: Shard) -> None:
        # The name of a half-written file ends with that of its image, so that other shards' are left alone.
        for partial in self.folder.path.glob("images/*/.partial-*.png"):
            number = partial.stem.rpartition("-")[2]
            if number.isdigit() and shard.owns(int(number)):
                with suppress(OSError):
                    partial.unlink()
