"""Baselines by language models that run here, through transformers: those of the catalogue, or a folder that stands in for one.

Tokens are sampled as the refiner's are: top-k, then top-p, then a draw keyed by the prompt alone, whatever the batch; those of a model
whose row says how its makers sample are sampled so, by an equally keyed draw.
Shapes: B = prompts at a time, T = tokens.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ablations.baselines.base import AnswerStore, Asked, Written
from ablations.baselines.chat import read_text
from ablations.baselines.hub_model import HubModel, MakersSampling
from ablations.building_cfp.sources import TEXT_MODEL_FILES, Source, fetch
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.foreign import is_file
from lightning_modules.settings import TokenSampling

_WEIGHT_FILES, _TOKENIZER_FILES = TEXT_MODEL_FILES[:2], TEXT_MODEL_FILES[2:]
_AT_ONCE = 32


@dataclass
class _Loaded:
    model: Any
    tokenizer: Any
    weights: str


class HubBaseline:
    """A language model of the catalogue.

    `source` is a folder or a hub id, or the model's own package; `tokenizer_source` that of the tokenizer where the model may come
    without one ("": it must have its own). What it wrote is kept in `store` by weights, settings, prompt and key. `check()` is called
    before each batch and may raise to stop.
    """

    def __init__(
        self,
        model: HubModel,
        source: str,
        tokenizer_source: str,
        store: AnswerStore,
        device: torch.device,
        *,
        sampling: TokenSampling | None = None,
        check: Callable[[], None] = lambda: None,
    ):
        self.name, self.title, self.about = model.name, model.title, model.about
        last = source.rstrip("/").rpartition("/")[2]
        if last and last not in (model.name, model.source.rpartition("/")[2]):
            self.about += f". Here with the weights of {last}"
        self._model, self._source, self._tokenizer_source = model, source, tokenizer_source
        self._store, self._device, self._sampling, self._check = store, device, sampling or TokenSampling(), check
        self._found: tuple[Source, Path] | None = None
        self._loaded: _Loaded | None = None

    def prepare(self) -> None:
        """Fetch the files. Raises UserError, in one line, where they cannot be had."""
        if self._found is not None:
            return
        if self._model.package is not None and self._source == self._model.source:
            folder = self._model.package.folder(self.name)
            self._found = Source(self._source, folder, None), folder
            return
        if not self._source:
            raise UserError(f"{self.name}: {self._model.not_on_hub}: give it by --model {self.name}=FOLDER")
        what, option = f"the model of {self.name}", f"--model {self.name}=FOLDER or --models FOLDER"
        # Promptist was published without a tokenizer; every other model must bring its own.
        source = fetch(self._source, what, option, _WEIGHT_FILES if self._tokenizer_source else TEXT_MODEL_FILES)
        tokenizer = source.folder
        if not any(is_file(source.folder / name) for name in _TOKENIZER_FILES[0]):
            tokenizer = fetch(self._tokenizer_source, f"the tokenizer of {self.name}", option, _TOKENIZER_FILES).folder
        self._found = source, tokenizer

    def _load(self) -> _Loaded:
        if self._loaded is not None:
            return self._loaded
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig
        from transformers.utils.logging import disable_progress_bar

        from lightning_modules.frozen_features import digest_of

        self.prepare()
        assert self._found is not None
        source, tokenizer_folder = self._found
        disable_progress_bar()
        packed = {"gguf_file": self._model.package.gguf_file} if source.name == self._model.source and self._model.package else {}
        kind = AutoModelForSeq2SeqLM if self._model.is_encoder_decoder else AutoModelForCausalLM
        # transformers shows a bar of its own over a GGUF file, whatever it was told about bars.
        quiet = contextlib.redirect_stderr(io.StringIO()) if packed else contextlib.nullcontext()
        try:
            with quiet:
                model = kind.from_pretrained(source.folder, dtype=self._model.dtype, **packed)
            model = model.eval().requires_grad_(False).to(self._device)
            tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, **packed)
        except Exception as error:  # libraries fail to read a file in many ways
            reason = f"{type(error).__name__}: {one_line(error)[:200]}"
            raise UserError(
                f"the model of {self.name}, {source.name} in {source.folder}, cannot be read ({reason}): fetch it again"
            ) from error
        if tokenizer.eos_token_id is None:
            raise UserError(f"the tokenizer of {self.name} in {tokenizer_folder} has no end token, so no text of it would end")
        if (self._model.instruction or self._model.messages) and not tokenizer.chat_template:
            raise UserError(f"the tokenizer of {self.name} in {tokenizer_folder} has no chat template: give an instruction-tuned model")
        # What a model's own settings say of sampling is replaced: all methods are sampled alike, or as the row says.
        model.generation_config = GenerationConfig(
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
            decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
        )
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._loaded = _Loaded(model, tokenizer, digest_of((), model))
        return self._loaded

    def write(self, seed: int, asked: Sequence[Asked]) -> list[Written]:
        loaded = self._load()
        digests = [self._digest(loaded, one) for one in asked]
        found = {digest: answer for digest in dict.fromkeys(digests) if (answer := self._store.get(digest)) is not None}
        missing = {digest: one for digest, one in zip(digests, asked, strict=True) if digest not in found}
        todo = list(missing.items())
        own = self._model.sampling
        at_once = 1 if own is not None and own.repetition_penalty != 1 else _AT_ONCE  # padding would be penalised, too
        for start in range(0, len(todo), at_once):
            self._check()
            part = todo[start : start + at_once]
            for (digest, _), answer in zip(part, self._generate(loaded, [one for _, one in part]), strict=True):
                self._store.put(digest, answer)
                found[digest] = answer
        return [self._written(one, found[digest]) for digest, one in zip(digests, asked, strict=True)]

    def _digest(self, loaded: _Loaded, asked: Asked) -> str:
        model = self._model
        settings = [model.template, model.max_new_tokens, self._sampling.top_p, self._sampling.top_k, str(self._device)]
        settings += [model.instruction] if model.instruction else []
        settings += [model.messages, model.chat_options, model.dtype, asdict(model.sampling)] if model.sampling else []
        return AnswerStore.digest([self.name, loaded.weights, settings, asked.coarse_prompt, asked.key])

    @torch.no_grad()
    def _generate(self, loaded: _Loaded, asked: Sequence[Asked]) -> list[dict]:
        """Raw texts: {"text", "tokens", "ended"}, or {"failure"} for a prompt that the model cannot read."""
        from transformers import LogitsProcessorList

        model, tokenizer = loaded.model, loaded.tokenizer
        encoded = self._encoded(tokenizer, [self._model.template.format(one.coarse_prompt) for one in asked])
        longest = getattr(model.config, "max_position_embeddings", None) or 10**9
        width = encoded.input_ids.shape[1]
        if width + self._model.max_new_tokens * (not self._model.is_encoder_decoder) > longest:
            if len(asked) > 1:  # one that is too long must not fail those beside it
                return [answer for one in asked for answer in self._generate(loaded, [one])]
            return [{"failure": f"the prompt has {width} tokens, more than the model can continue"}]
        end = tokenizer.eos_token_id
        output_BT = model.generate(
            input_ids=encoded.input_ids.to(self._device),
            attention_mask=encoded.attention_mask.to(self._device),
            max_new_tokens=self._model.max_new_tokens,
            suppress_tokens=self._not_text(model, tokenizer) or None,
            logits_processor=LogitsProcessorList(self._processors([one.key for one in asked])),
            do_sample=False,
            num_beams=1,
        )
        start = 1 if self._model.is_encoder_decoder else width
        answers = []
        for row in output_BT[:, start:].tolist():
            ended = end in row
            ids = row[: row.index(end)] if ended else row
            answers.append({"text": tokenizer.decode(ids, skip_special_tokens=True), "tokens": len(ids), "ended": ended})
        return answers

    def _processors(self, keys: Sequence[int]) -> list:
        """What makes of a model's logits those whose arg max is the token that is drawn."""
        from transformers import (
            MinPLogitsWarper,
            RepetitionPenaltyLogitsProcessor,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        from lightning_modules.text_decoder import KeyedGumbel

        own = self._model.sampling or MakersSampling(top_k=self._sampling.top_k, top_p=self._sampling.top_p)
        made: list = [RepetitionPenaltyLogitsProcessor(own.repetition_penalty)] if own.repetition_penalty != 1 else []
        if own.temperature == 0:
            return made
        made += [TemperatureLogitsWarper(own.temperature)] if own.temperature != 1 else []
        made += [TopKLogitsWarper(own.top_k)] if own.top_k > 0 else []
        made += [TopPLogitsWarper(own.top_p)] if own.top_p < 1 else []
        made += [MinPLogitsWarper(own.min_p)] if own.min_p > 0 else []
        return [*made, KeyedGumbel([(key,) for key in keys])]

    def _encoded(self, tokenizer, texts: Sequence[str]):
        model = self._model
        turns = model.messages or ((("system", model.instruction), ("user", "{}")) if model.instruction else ())
        if not turns:
            return tokenizer(texts, return_tensors="pt", padding=True)
        chats = [[{"role": role, "content": content.replace("{}", text)} for role, content in turns] for text in texts]
        told = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True, "padding": True}
        return tokenizer.apply_chat_template(chats, **told, **dict(model.chat_options))

    def _not_text(self, model, tokenizer) -> list[int]:
        """Ids that are no text: special marks, but those that an answer may be found by, and ids beyond the tokenizer's vocabulary (T5
        rounds its embedding up)."""
        special = {*(() if self._model.answer else tokenizer.all_special_ids), *range(len(tokenizer), model.config.vocab_size)} - {
            tokenizer.eos_token_id
        }
        return sorted(id_ for id_ in special if id_ < model.config.vocab_size)

    def _written(self, asked: Asked, answer: dict) -> Written:
        if "failure" in answer:
            return Written.failed(answer["failure"])
        if self._model.instruction:
            return read_text(answer["text"], answer["tokens"], not answer["ended"])
        found = answer["text"]
        if self._model.answer:
            matches = (re.search(pattern, found, re.DOTALL) for pattern in self._model.answer)
            found = next((match.group(1) for match in matches if match), None)
            if found is None:
                return Written.failed("its answer is not in the form that its makers look for")
        text = re.sub(r"\s+", " ", found)
        if not text.strip():
            return Written.failed("wrote no words")
        truncated = not answer["ended"] and text[-1].isalnum()
        repeats = text.strip().casefold().startswith(asked.coarse_prompt.strip().casefold())
        if self._model.answers == "prompt" or (self._model.is_encoder_decoder and repeats):
            return Written(text.strip(), answer["tokens"], truncated)
        # GPT-2 brings its space along; an encoder-decoder begins a text of its own.
        if self._model.is_encoder_decoder:
            text = text.strip() if asked.coarse_prompt[-1:].isspace() else f" {text.strip()}"
        return Written(asked.coarse_prompt + text.rstrip(), answer["tokens"], truncated)

    def close(self) -> None:
        self._loaded = None

    def cost(self) -> str:
        return ""
