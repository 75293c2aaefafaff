"""D_E, the text decoder: a frozen T5 that reads adapted CLIP features and writes prompts.

Shapes in this file: B = rows, S = text positions, H = T5's width, T = tokens, V = vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LogitsProcessor, LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from lightning_modules.frozen_precision import in_precision_of, outside_autocast
from lightning_modules.piece_rules import PieceMasks, RuledPieces
from lightning_modules.settings import PieceRules, TokenSampling

_SAMPLING_TAG = 0x7E47
_TEXTS_AT_ONCE, _RULES_KEPT = 1024, 4


class WrittenText(NamedTuple):
    """`text` is decoded from `num_tokens` new tokens; `truncated` says that it ends within a word."""

    text: str
    num_tokens: int
    truncated: bool


class KeyedGumbel(LogitsProcessor):
    """Adds Gumbel noise keyed by row, so that the arg max is a sample: the draw depends on the row's key alone.

    Row i draws from `numpy.random.default_rng([*keys[i], tag])`, one vector of V values a token, whatever the batch.
    """

    def __init__(self, keys: Sequence[Sequence[int]]):
        self._generators = [np.random.default_rng([*key, _SAMPLING_TAG]) for key in keys]

    def __call__(self, input_ids: Tensor, scores_BV: Tensor) -> Tensor:
        noise = np.stack([rng.gumbel(size=scores_BV.shape[-1]) for rng in self._generators])
        return scores_BV + torch.from_numpy(noise).to(scores_BV)


class PromptDecoder:
    """The frozen T5 and its tokenizer. Deliberately no nn.Module: its weights belong to no checkpoint and no optimiser."""

    def __init__(self, t5: nn.Module, tokenizer):
        self.t5 = t5.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        # Everything that is not text: sentinels, padding, the unknown mark, and the ids beyond the tokenizer's vocabulary (T5
        # rounds its embedding up). The end token is handled by the lengths.
        special = {*tokenizer.all_special_ids, *(i for token, i in tokenizer.get_vocab().items() if token.startswith("<extra_id_"))}
        special |= set(range(len(tokenizer), t5.config.vocab_size))
        self._suppressed = sorted(special - {tokenizer.eos_token_id})
        self._masks: dict[PieceRules, PieceMasks] = {}  # the latest: most prompts of a process are under the same rules

    @property
    def width(self) -> int:
        """H."""
        return self.t5.config.d_model

    @property
    def embedding_rms(self) -> float:
        """Root mean square of T5's input embeddings, over the tokens of its vocabulary."""
        weight_VH = self.t5.get_input_embeddings().weight[: len(self.tokenizer)].float().cpu()  # there it is the same for every device
        return weight_VH.pow(2).mean().sqrt().item()

    def to(self, device: torch.device) -> PromptDecoder:
        self.t5.to(device)
        return self

    def pieces_of(self, texts: Sequence[str]) -> set[str]:
        """The pieces that texts are cut into, as the vocabulary writes them; those that are no text (the unknown mark) are left out."""
        found: set[int] = set()
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            for ids in self.tokenizer(list(texts[start : start + _TEXTS_AT_ONCE]), add_special_tokens=False).input_ids:
                found.update(ids)
        return set(self.tokenizer.convert_ids_to_tokens(sorted(found - set(self._suppressed))))

    def embed(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """T5's own input embeddings of texts (B, S, H) and their mask (B, S): how the control "T5 alone" reads a prompt."""
        encoded = self.tokenizer(list(texts), padding=True, return_tensors="pt").to(self.t5.device)
        return self.t5.get_input_embeddings()(encoded.input_ids), encoded.attention_mask

    def logits(self, adapted_BSH: Tensor, labels_BT: Tensor, mask_BS: Tensor | None = None) -> Tensor:
        """Teacher-forced logits (B, T, V) of the labels; the gradient reaches `adapted_BSH` through encoder and decoder.

        Where `mask_BS` is 0 a position is not read; None: all are.
        """
        previous_BT = self.t5.prepare_decoder_input_ids_from_labels(labels_BT)
        inputs_BSH = in_precision_of(self.t5, adapted_BSH)
        with outside_autocast(inputs_BSH.device):  # in float16 T5 overflows
            return self.t5(inputs_embeds=inputs_BSH, attention_mask=mask_BS, decoder_input_ids=previous_BT, use_cache=False).logits

    @torch.no_grad()
    def log_probabilities(
        self, inputs_BSH: Tensor, primers: Sequence[str], phrases: Sequence[str], mask_BS: Tensor | None = None
    ) -> np.ndarray:
        """The natural log of the probability that each phrase comes right after its row's primer: float64 (B, number of phrases).

        A product over the phrase's tokens, of the model's own distribution: no top-k, no top-p, no sampling. Phrases start a word.
        """
        eos = self.tokenizer.eos_token_id
        begins = [len(ids) - (ids[-1] == eos) for ids in self.tokenizer(list(primers)).input_ids]
        with outside_autocast(inputs_BSH.device):
            read = self.t5.get_encoder()(inputs_embeds=in_precision_of(self.t5, inputs_BSH), attention_mask=mask_BS)
        columns = []
        for phrase in phrases:
            texts = [f"{primer.rstrip()} {phrase}" for primer in primers]
            rows = [[i for i in ids if i != eos] for ids in self.tokenizer(texts).input_ids]
            width = max(map(len, rows))
            labels_BT = torch.tensor([row + [eos] * (width - len(row)) for row in rows], device=inputs_BSH.device)
            previous_BT = self.t5.prepare_decoder_input_ids_from_labels(labels_BT)
            with outside_autocast(inputs_BSH.device):
                written = self.t5(encoder_outputs=read, attention_mask=mask_BS, decoder_input_ids=previous_BT, use_cache=False)
            of_token_BT = written.logits.double().log_softmax(-1).gather(-1, labels_BT[..., None])[..., 0]
            columns.append([float(of_token_BT[r, begins[r] : len(row)].sum()) for r, row in enumerate(rows)])
        return np.array(columns).T

    @torch.no_grad()
    def write(
        self,
        inputs_BSH: Tensor,
        keys: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        exact_length: bool,
        primers: Sequence[str] | None = None,
        mask_BS: Tensor | None = None,
        sampling: TokenSampling | None = None,
    ) -> list[WrittenText]:
        """Sample a text a row: what the rules allow, of it top-k, then top-p, then a keyed draw.

        With `primers`, the decoder continues each primer's own tokens (left-padded, so that the rows may differ in length)
        and only the new tokens are returned. `exact_length` forbids the end token before `max_new_tokens` tokens.
        """
        sampling = sampling or TokenSampling()
        warpers: list[LogitsProcessor] = [TopKLogitsWarper(sampling.top_k)] if sampling.top_k > 0 else []
        warpers += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
        eos, start = self.tokenizer.eos_token_id, self.t5.config.decoder_start_token_id
        prefixes = [[start] for _ in keys]
        if primers is not None:
            prefixes = [[start, *(i for i in ids if i != eos)] for ids in self.tokenizer(list(primers)).input_ids]
        width = max(map(len, prefixes))
        if sampling.rules != PieceRules():
            masks = self._masks_of(sampling.rules if primers is not None else replace(sampling.rules, new_word=False))
            warpers.insert(0, RuledPieces(masks, primers if primers is not None else [""] * len(keys), width, eos))
        device = inputs_BSH.device
        prefix_BT = torch.tensor([[start] * (width - len(p)) + p for p in prefixes], device=device)
        prefix_mask_BT = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prefixes], device=device)
        # One token more than asked for: it tells whether the last word would have gone on.
        output = self.t5.generate(
            inputs_embeds=in_precision_of(self.t5, inputs_BSH),
            attention_mask=torch.ones(inputs_BSH.shape[:2], dtype=torch.long, device=device) if mask_BS is None else mask_BS,
            decoder_input_ids=prefix_BT,
            decoder_attention_mask=prefix_mask_BT,
            max_new_tokens=max_new_tokens + 1,
            min_new_tokens=max_new_tokens if exact_length else 1,
            suppress_tokens=self._suppressed,
            logits_processor=LogitsProcessorList([*warpers, KeyedGumbel(keys)]),
            do_sample=False,
            num_beams=1,
        )
        return [self._cut(row[width:].tolist(), max_new_tokens) for row in output]

    def _masks_of(self, rules: PieceRules) -> PieceMasks:
        if rules not in self._masks:
            size = self.t5.config.vocab_size
            known = self.tokenizer.convert_ids_to_tokens(list(range(min(size, len(self.tokenizer)))))
            vocabulary = [*known, *[""] * (size - len(known))]
            if len(self._masks) >= _RULES_KEPT:
                del self._masks[next(iter(self._masks))]
            self._masks[rules] = PieceMasks.of(vocabulary, rules, [self.tokenizer.eos_token_id])
        return self._masks[rules]

    def first_tokens(self, text: str, start: int, count: int) -> WrittenText:
        """The first `count` tokens of `text` from character `start` on, verbatim; all there are where it ends before."""
        offsets = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False).offset_mapping
        ends = [end for _, end in offsets if end > start][:count]
        end = ends[-1] if ends else start
        truncated = text[end - 1 : end].isalnum() and text[end : end + 1].isalnum()
        return WrittenText(text[start:end], len(ends), truncated)

    def _cut(self, ids: list[int], max_new_tokens: int) -> WrittenText:
        if self.tokenizer.eos_token_id in ids:
            ids = ids[: ids.index(self.tokenizer.eos_token_id)]
        kept = ids[:max_new_tokens]
        following = self.tokenizer.convert_ids_to_tokens(ids[max_new_tokens : max_new_tokens + 1])
        last = self.tokenizer.convert_ids_to_tokens(kept[-1:])
        truncated = bool(following) and following[0][:1].isalnum() and last[0][-1:].isalnum()
        # SentencePiece marks the start of a word by U+2581; joining pieces keeps "word," together as it was written. The mark is
        # also a piece of its own, so that two may follow one another.
        text = re.sub("\u2581+", " ", "".join(self.tokenizer.convert_ids_to_tokens(kept)))
        return WrittenText(text, len(kept), truncated)
