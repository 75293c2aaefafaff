"""The models of the stages: a text-to-image model with its text encoder, a summariser, a text classifier; all frozen, in float32.

Weights are safetensors, or pickles that are loaded with weights_only=True.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.building_cfp.sources import STABLE_DIFFUSION_FILES, TEXT_MODEL_FILES, Source, fetch
from ablations.runtime.errors import UserError, one_line
from lightning_modules.frozen_features import digest_of
from lightning_modules.text_to_image import TextToImage


@contextmanager
def _readable(source: Source, what: str) -> Iterator[None]:
    """Turns the many ways in which libraries fail to read a file into one line, and keeps their own bars off the terminal."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)[:60]}"
        raise UserError(f"{what} {source.name} in {source.folder} cannot be read ({reason}): fetch it again") from error


@dataclass
class TextModel:
    """A transformers model with its tokenizer, frozen, and what is recorded of it."""

    source: Source
    model: torch.nn.Module
    tokenizer: object
    device: torch.device

    @property
    def max_tokens(self) -> int:
        """The longest text that it reads, in tokens. Tokenizers without a limit of their own have an astronomical one."""
        limits = [getattr(self.tokenizer, "model_max_length", 10**9), getattr(self.model.config, "max_position_embeddings", 10**9)]
        return min(limit if limit < 10**6 else 512 for limit in limits)

    def record(self) -> dict:
        return {"model": self.source.name, "commit": self.source.commit, "weights": digest_of((), self.model)}

    def tokenize(self, texts: list[str]) -> dict[str, Tensor]:
        """Padded ids and mask, on the model's device, cut at `max_tokens`."""
        encoded = self.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=self.max_tokens)  # type: ignore[operator]
        return {name: value.to(self.device) for name, value in encoded.items()}


def load_summarizer(name: str, device: torch.device) -> TextModel:
    """A sequence-to-sequence model, such as distilled BART."""
    from transformers import AutoModelForSeq2SeqLM

    return _load_text_model(name, device, "the summariser", "--summarizer", AutoModelForSeq2SeqLM)


def load_classifier(name: str, device: torch.device) -> TextModel:
    """A text classifier."""
    from transformers import AutoModelForSequenceClassification

    return _load_text_model(name, device, "the NSFW text classifier", "--classifier", AutoModelForSequenceClassification)


def _load_text_model(name: str, device: torch.device, what: str, option: str, kind: type) -> TextModel:
    from transformers import AutoTokenizer

    source = fetch(name, what, option, TEXT_MODEL_FILES)
    with _readable(source, what):
        model = kind.from_pretrained(source.folder, dtype=torch.float32).eval().requires_grad_(False).to(device)  # type: ignore[attr-defined]
        return TextModel(source, model, AutoTokenizer.from_pretrained(source.folder), device)


@dataclass
class ImageModel:
    """A text-to-image model with its own text encoder. `encode` maps int64 ids (B, S) to states (B, S, D), S <= `context_length`.

    `token_ids` gives a text's ids with start and end mark, however many. `pad_chunks`: its UNet was trained on padded prompts.
    """

    name: str
    commit: str | None
    text_to_image: TextToImage
    token_ids: Callable[[str], list[int]]
    encode: Callable[[Tensor], Tensor]
    context_length: int
    pad_id: int
    weights: str
    pad_chunks: bool


def load_stable_diffusion(name: str, device: torch.device) -> ImageModel:
    """Stable Diffusion as diffusers saves it, with the text encoder and tokenizer that lie beside its UNet, in float32."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    what = "the text-to-image model"
    source = fetch(name, what, "--image-model", STABLE_DIFFUSION_FILES)
    with _readable(source, what):
        options = {"use_safetensors": True, "torch_dtype": torch.float32}
        vae = AutoencoderKL.from_pretrained(source.folder, subfolder="vae", **options)
        unet = UNet2DConditionModel.from_pretrained(source.folder, subfolder="unet", **options)
        scheduler = DDPMScheduler.from_pretrained(source.folder, subfolder="scheduler")
        encoder = CLIPTextModel.from_pretrained(source.folder, subfolder="text_encoder", dtype=torch.float32).eval().requires_grad_(False)
        tokenizer = CLIPTokenizer.from_pretrained(source.folder, subfolder="tokenizer")
    # Private entries say how the config came about, not what it is.
    schedule = sorted((key, str(value)) for key, value in scheduler.config.items() if not key.startswith("_"))
    weights = digest_of((schedule,), vae, unet, encoder)
    encoder.to(device)
    return ImageModel(
        name=source.name,
        commit=source.commit,
        text_to_image=TextToImage(vae, unet, scheduler).to(device),
        token_ids=lambda text: tokenizer(text, truncation=False, verbose=False).input_ids,
        encode=lambda ids_BS: encoder(ids_BS.to(device)).last_hidden_state,
        context_length=encoder.config.max_position_embeddings,
        pad_id=tokenizer.pad_token_id,
        weights=weights,
        pad_chunks=False,
    )


def load_tiny(device: torch.device) -> ImageModel:
    """The embedded tiny text-to-image model."""
    from lightning_modules.backbones.tiny import load_tiny_backbones

    try:
        backbones = load_tiny_backbones()
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error)) from error
    backbones.to(device)
    tokenizer, encoder = backbones.tokenize, backbones.text_encoder
    return ImageModel(
        name="tiny",
        commit=None,
        text_to_image=backbones.text_to_image,
        token_ids=lambda text: [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id],  # type: ignore[attr-defined]
        encode=lambda ids_BS: encoder(ids_BS.to(device)).states_BSD,
        context_length=encoder.context_length,
        pad_id=0,
        weights=backbones.digest,
        pad_chunks=True,
    )
