"""The image model of an export, and a pipeline of its own that refines and draws without this project.

unet/ vae/ scheduler/                the frozen image model, as diffusers saves it
original_text_encoder/               its own text encoder, before anything was trained
decoder/ decoder_tokenizer/          T5, frozen, as transformers saves it
adapter/                             A with the refiner's settings, and prompt_adapter.py, its class
pipeline.py                          `drawing_pipeline`, in one file
model_index.json                     what of it belongs to a StableDiffusionPipeline, and what to ours
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
from safetensors.torch import load_file

from ablations.config import KEYS
from ablations.refiner import drawing_pipeline, exported_refiner, prompt_adapter
from ablations.refiner.bundling import bundle
from ablations.refiner.prompt_adapter import PromptAdapter
from ablations.refiner.prompt_refiner import PromptRefiner
from ablations.results import seen_words
from ablations.results.seen_words import SeenWords
from ablations.runtime.files import write_atomically, write_json

PIPELINE = "pipeline.py"
# The names of our pipeline's arguments that are whole numbers, and the keys that say what they may be.
_NUMBERS = {
    "prompt_len": "prompt_len",
    "max_new_tokens": "eval.max_new_tokens",
    "rounds": "eval.rounds",
    "num_candidates": "eval.num_candidates",
    "seed": "seed",
}


def write_pipeline(directory: Path, refiner: PromptRefiner, seen: SeenWords | None) -> None:
    """Write the parts that are not there yet, their code, and the index; text encoder, tokenizer and A have been written."""
    model, decoder = refiner.backbones.text_to_image, refiner.backbones.decoder
    scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(model.noise_scheduler.config)
    for name, part in (("unet", model.unet), ("vae", model.vae), ("scheduler", scheduler)):
        part.save_pretrained(directory / name)
    exported_refiner.write_text_encoder(directory / "original_text_encoder", refiner.backbones.text_encoder)
    decoder.t5.save_pretrained(directory / "decoder")
    decoder.tokenizer.save_pretrained(directory / "decoder_tokenizer")
    _write_adapter(directory, refiner, seen)
    write_atomically(directory / PIPELINE, bundle(drawing_pipeline.__name__))
    write_json(directory / "model_index.json", _index(refiner, scheduler))


def _index(refiner: PromptRefiner, scheduler: diffusers.SchedulerMixin) -> dict[str, Any]:
    model, decoder = refiner.backbones.text_to_image, refiner.backbones.decoder
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__}
    index |= {name: [None, None] for name in ("safety_checker", "feature_extractor", "image_encoder")}
    for name, part in (("unet", model.unet), ("vae", model.vae), ("scheduler", scheduler)):
        index[name] = ["diffusers", type(part).__name__]
    index |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    ours = {
        "original_text_encoder": ["transformers", "CLIPTextModel"],
        "decoder": ["transformers", type(decoder.t5).__name__],
        "decoder_tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "adapter": [_file_name(prompt_adapter), PromptAdapter.__name__],
    }
    # StableDiffusionPipeline looks past what is named here, without a word; our pipeline takes it. As keys, because diffusers takes any
    # list in this file for a folder.
    return index | {"requires_safety_checker": False, "_use_default_values": dict.fromkeys(ours)} | ours


def _write_adapter(directory: Path, refiner: PromptRefiner, seen: SeenWords | None) -> None:
    """A as it has been written for PromptRefiner, which may be rounded, so that both refine alike."""
    own, settings = refiner.module.adapter, refiner.config.eval
    width, t5_width = own.layers[0].in_features, own.layers[2].out_features
    adapter = PromptAdapter(
        clip_width=width,
        t5_width=t5_width,
        output_relu=refiner.module.adapter_settings.output_relu,
        settings={
            "writing": {name: getattr(settings, name) for name in ("extend_by", "top_p", "top_k", "exact_length")},
            "drawing": {name: getattr(settings, name) for name in ("steps", "guidance_scale", "batch_size")},
            "mask_padding": refiner.module.adapter_settings.mask_padding,
            "seen": None if seen is None else seen_words.content(seen),
            "ranges": {name: [KEYS[key].option.least, KEYS[key].option.most] for name, key in _NUMBERS.items()},
        },
    )
    adapter.adapter.load_state_dict(load_file(directory / exported_refiner.ADAPTER))
    adapter.save_pretrained(directory / "adapter")
    write_atomically(directory / "adapter" / f"{_file_name(prompt_adapter)}.py", bundle(prompt_adapter.__name__))


def _file_name(module: Any) -> str:
    return module.__name__.rpartition(".")[2]
