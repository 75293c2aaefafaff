"""A diffusers pipeline that refines a prompt and draws what comes of it. It needs torch, transformers and diffusers, and no other code.

    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(FOLDER, custom_pipeline=FOLDER, trust_remote_code=True)
    result = pipe("a lonely lighthouse", num_candidates=3)
    result.prompts, result.images

`python -m ablations.export --with-image-model` wrote this file out of the project's own code: equal seeds give the texts and the pictures
that the project gives, up to the rounding of another implementation of the same text encoder.
"""

from __future__ import annotations

import html
import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin, UNet2DConditionModel
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, T5ForConditionalGeneration

from ablations.refiner.candidates import CandidateWriter, RefinedPrompt, Wishes
from ablations.results.seen_words import SeenWords
from lightning_modules.picture_sampling import PictureSampler
from lightning_modules.prompt_writing import write_rounds
from lightning_modules.settings import Refinement, RefineSettings
from lightning_modules.text_decoder import PromptDecoder
from lightning_modules.text_encoder import text_mask


@dataclass(frozen=True)
class Options:
    """What is seldom given to a `PromptRefinerPipeline`, by name.

    `draw`: false for texts alone. `plug_in`: the trained text encoder tells the UNet about the text, and the original one otherwise.
    `num_inference_steps` and `guidance_scale` (1: none): None for the run's own. `negative_prompt` is what guidance leads away from.
    `generator`: a torch.Generator, or one for each picture, in place of the noise that comes from `seed`. `rounds`: how often mode
    extend goes on from its own result. `batch_size`: pictures at a time. `output_type`: "pil", or "np" for float32 from 0 to 1.

    `any_piece`, `distinct`, `keep`, `ban`, `unfinished`: see `Wishes`. Words are a list, or a text with commas between them.
    """

    draw: bool = True
    plug_in: bool = False
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    negative_prompt: str = ""
    generator: torch.Generator | Sequence[torch.Generator] | None = None
    rounds: int = 1
    batch_size: int | None = None
    output_type: str = "pil"
    return_dict: bool = True
    any_piece: bool = False
    distinct: bool = True
    keep: str | Sequence[str] = ()
    ban: str | Sequence[str] = ()
    unfinished: bool = False

    def __post_init__(self) -> None:
        if self.output_type not in ("pil", "np"):
            raise ValueError(f"output_type must be pil or np, not {self.output_type!r}")


@dataclass
class PromptRefinerOutput(BaseOutput):
    """`prompts`: what was written, `num_candidates` for each prompt, prompt by prompt; `images`: a picture of each, None without `draw`.

    `candidates` says of each where it comes from: coarse, refined, new_text, candidate, seed, prompt_seed, image_seed and more.
    """

    prompts: list[str]
    images: list[Image.Image] | np.ndarray | None
    candidates: list[RefinedPrompt]


class _Sampler(PictureSampler):
    """With whatever scheduler the pipeline has: people put another one in its place."""

    def new_scheduler(self) -> SchedulerMixin:
        return type(self.noise_scheduler).from_config(self.noise_scheduler.config)


class PromptRefinerPipeline(DiffusionPipeline):
    """UF-FGTG's prompt refiner and the image model that it was made for.

    `text_encoder` is E_T, which reads what is refined, `original_text_encoder` the image model's own; both read `tokenizer`'s ids.
    `adapter` maps E_T's states to what `decoder`, a T5, writes from.
    """

    model_cpu_offload_seq = "original_text_encoder->unet->vae"
    _exclude_from_cpu_offload = ("text_encoder", "adapter", "decoder")  # T5 writes by `generate`, which such hooks do not see

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        original_text_encoder: CLIPTextModel,
        adapter: torch.nn.Module,
        decoder: T5ForConditionalGeneration,
        decoder_tokenizer: CLIPTokenizer,
    ):
        super().__init__()
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler, text_encoder=text_encoder, tokenizer=tokenizer)
        self.register_modules(
            original_text_encoder=original_text_encoder, adapter=adapter, decoder=decoder, decoder_tokenizer=decoder_tokenizer
        )
        self._writer: PromptDecoder | None = None

    @classmethod
    def extract_init_dict(cls, config_dict, **kwargs):
        """The index tells StableDiffusionPipeline to look past the parts that are the refiner's; here they are taken."""
        return super().extract_init_dict({key: value for key, value in config_dict.items() if key != "_use_default_values"}, **kwargs)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        num_candidates: int = 3,
        prompt_len: int = 6,
        mode: str = "extend",
        seed: int = 0,
        max_new_tokens: int = 50,
        **options,
    ) -> PromptRefinerOutput | tuple:
        """Refine a prompt, or each of a list, and draw what comes of it.

        Args:
            prompt_len: tokens that a round appends in mode extend. The prompt itself stays as it is.
            mode: "extend", or "rewrite" for a prompt that is written anew, of at most `max_new_tokens` tokens.
            seed: equal seeds give equal texts and equal noise.
            options: see `Options`.

        Raises ValueError, in one line, for an empty prompt, one of more than 512 tokens that is to be extended, and a value out of range.
        """
        more = Options(**options)
        wishes = Wishes.of(more.any_piece, more.distinct, more.keep, more.ban, more.unfinished)
        settings = self._settings(prompt_len, mode, max_new_tokens, more.rounds)
        self._check("num_candidates", num_candidates)
        self._check("seed", seed)
        writer = CandidateWriter(self._write, self._decoder(), self._seen())
        found = [one for of_text in writer.refine(prompt, num_candidates, seed, settings, wishes) for one in of_text]
        prompts = [one.refined for one in found]
        images = self._draw(prompts, [one.image_seed for one in found], more) if more.draw else None
        if not more.return_dict:
            return prompts, images, found
        return PromptRefinerOutput(prompts=prompts, images=images, candidates=found)

    def _settings(self, prompt_len: int, mode: str, max_new_tokens: int, rounds: int) -> RefineSettings:
        if mode not in ("extend", "rewrite"):
            raise ValueError(f"mode must be extend or rewrite, not {mode!r}")
        given = {"prompt_len": prompt_len, "max_new_tokens": max_new_tokens, "rounds": rounds}
        for name, value in given.items():
            self._check(name, value)
        return RefineSettings(mode=mode, **given, **self.adapter.config.settings["writing"])

    def _check(self, name: str, value: object) -> None:
        """Raises ValueError for what is no whole number in its range."""
        least, most = self.adapter.config.settings["ranges"][name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
            raise ValueError(
                f"{name} must be an integer {f'of at least {least}' if most is None else f'from {least} to {most}'}, not {value!r}"
            )

    def _seen(self) -> SeenWords | None:
        seen = self.adapter.config.settings.get("seen")
        return None if seen is None else SeenWords(**seen | {name: frozenset(seen[name]) for name in ("words", "pieces")})

    def _decoder(self) -> PromptDecoder:
        if self._writer is None or self._writer.t5 is not self.decoder:
            self._writer = PromptDecoder(self.decoder, self.decoder_tokenizer)
        return self._writer

    def _write(self, prompts: Sequence[str], keys: Sequence[Sequence[int]], settings: RefineSettings) -> list[Refinement]:
        return write_rounds(self._decoder(), prompts, keys, settings, self._read)

    def _read(self, texts: list[str]) -> tuple[Tensor, Tensor | None]:
        """What T5 is told of texts, (B, S, H), and the mask of what it may read, None for all."""
        ids_BS = self._ids(texts, self.text_encoder.device)
        mask_BS = text_mask(ids_BS) if self.adapter.config.settings["mask_padding"] else None
        return self.adapter(self.text_encoder(ids_BS).last_hidden_state), mask_BS

    def _ids(self, texts: Sequence[str], device: torch.device) -> Tensor:
        cleaned = [clean(text) for text in texts]
        return self.tokenizer(cleaned, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)

    def _draw(self, texts: Sequence[str], image_seeds: Sequence[int], how: Options) -> list[Image.Image] | np.ndarray:
        own = self.adapter.config.settings["drawing"]
        encoder = self.text_encoder if how.plug_in else self.original_text_encoder
        noise: Sequence = image_seeds
        if how.generator is not None:
            noise = [how.generator] * len(texts) if isinstance(how.generator, torch.Generator) else list(how.generator)
            if len(noise) != len(texts):
                raise ValueError(f"{len(texts)} pictures but {len(noise)} generators: give one each, or one for all")

        def states(some: Sequence[str]) -> Tensor:
            return encoder(self._ids(some, self._execution_device)).last_hidden_state

        pictures = _Sampler(self.vae, self.unet, self.scheduler).generate(
            states(texts),
            states([how.negative_prompt]),
            noise,
            steps=own["steps"] if how.num_inference_steps is None else how.num_inference_steps,
            guidance_scale=own["guidance_scale"] if how.guidance_scale is None else how.guidance_scale,
            batch_size=how.batch_size or own["batch_size"],
        )
        return pictures.astype(np.float32) / 255 if how.output_type == "np" else [Image.fromarray(pixels) for pixels in pictures]


def clean(text: str) -> str:
    """The text as OpenCLIP's tokenizer cleans it: broken Unicode mended, HTML's entities read. Without ftfy the mending is left out."""
    if not text.isascii():
        if importlib.util.find_spec("ftfy") is None:
            logging.getLogger(__name__).warning("a prompt is not plain ASCII: pip install ftfy, or curly quotes are read differently")
        else:
            text = importlib.import_module("ftfy").fix_text(text)
    return html.unescape(html.unescape(text)).strip()
