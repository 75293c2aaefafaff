"""Stage 4: the tiny T5, trained on broad captions: whole, shuffled and span-corrupted.

Fine prompts are a small share of what it reads, and the other captions use style and quality words at random: it learns to
write every word, but hardly which of them suit what.
"""

from __future__ import annotations

import numpy as np
import torch

from ablations.pretraining.data import draw_captions
from ablations.pretraining.loop import Bench, Schedule, train
from datamodules.tiny_world.grammar import FILLERS, QUALITIES, SCENES, STYLES, TIMES, draw_split

BATCH = 64
FINE_SHARE = 0.04
TASKS = {"span_corruption": 0.7, "shuffled": 0.2, "whole": 0.1}
_PHRASES = [tuple(phrase.split()) for phrase in (*SCENES.values(), *TIMES.values(), *STYLES, *QUALITIES, *FILLERS) if " " in phrase]


def words_of(text: str) -> list[str]:
    """The text's words, with commas as words of their own: each is one T5 piece."""
    return text.replace(",", " ,").split()


def encode_words(words: list[str], tokenizer) -> list[int]:
    """Piece ids of words and sentinels with the end token: for whole captions just what the tokenizer gives."""
    pieces = [word if word == "," or word.startswith("<") else f"▁{word}" for word in words]
    return [*tokenizer.convert_tokens_to_ids(pieces), tokenizer.eos_token_id]


def corrupt_spans(words: list[str], rng: np.random.Generator, rate: float = 0.3) -> tuple[list[str], list[str], np.ndarray]:
    """Replace spans of one to three words by sentinels; returns (input, target, mask of hidden words (len(words),))."""
    hidden = np.zeros(len(words), dtype=bool)
    while hidden.mean() < rate:
        start = int(rng.integers(len(words)))
        hidden[start : start + int(rng.integers(1, 4))] = True
    source, target, sentinel = [], [], 0
    for i, word in enumerate(words):
        if hidden[i]:
            if i == 0 or not hidden[i - 1]:
                source.append(f"<extra_id_{sentinel}>")
                target.append(f"<extra_id_{sentinel}>")
                sentinel += 1
            target.append(word)
        else:
            source.append(word)
    return source, target, hidden


def inferable_words(words: list[str], hidden: np.ndarray) -> np.ndarray:
    """Which hidden words follow from the visible ones: bool (len(words),).

    A hidden word follows where it is part of a set phrase ("sharp focus", "in the desert") of which other words are
    visible, and those occur together in no other phrase of the language.
    """
    follows = np.zeros(len(words), dtype=bool)
    for start in range(len(words)):
        for phrase in _PHRASES:
            if tuple(words[start : start + len(phrase)]) != phrase:
                continue
            span = slice(start, start + len(phrase))
            visible = {word for word, gone in zip(phrase, hidden[span], strict=True) if not gone}
            if visible and sum(visible <= set(other) for other in _PHRASES) == 1:
                follows[span] |= hidden[span]
    return follows


def _example(words: list[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
    task = rng.choice(list(TASKS), p=list(TASKS.values()))
    if task == "span_corruption":
        return corrupt_spans(words, rng)[:2]
    if task == "shuffled":
        return [words[i] for i in rng.permutation(len(words))], words
    return words, words


def _pad(rows: list[list[int]], fill: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])


def train_t5(model, tokenizer, schedule: Schedule, bench: Bench, count: int = 40000) -> dict:
    """Train on `count` captions; `tokenizer` is the Hugging Face fast tokenizer."""
    model.to(bench.device)
    texts = [words_of(caption.text) for caption in draw_captions(count, bench.seed + 1, fine_share=FINE_SHARE, fine=bench.corpus.fine)]

    def loss_of_step(step: int):
        rng = np.random.default_rng([bench.seed, 4, step])
        examples = [_example(texts[row], rng) for row in rng.choice(len(texts), BATCH, replace=False)]
        sources = _pad([encode_words(source, tokenizer) for source, _ in examples], tokenizer.pad_token_id).to(bench.device)
        labels = _pad([encode_words(target, tokenizer) for _, target in examples], -100).to(bench.device)
        output = model(input_ids=sources, attention_mask=sources != tokenizer.pad_token_id, labels=labels)
        return output.loss, {}

    return train("t5", model, loss_of_step, schedule, bench.directory)


@torch.no_grad()
def t5_quality(model, tokenizer, device: torch.device, count: int = 512) -> dict[str, float]:
    """Share of the inferable hidden words that T5 names, given the target words before them, on held-out fine prompts."""
    rng = np.random.default_rng([0, 5])
    right = total = 0
    for caption in draw_split("test", count, seed=3):
        words = words_of(caption.text)
        source, target, hidden = corrupt_spans(words, rng)
        follows = inferable_words(words, hidden)
        labels = torch.tensor([encode_words(target, tokenizer)], device=device)
        inputs = torch.tensor([encode_words(source, tokenizer)], device=device)
        guesses = model(input_ids=inputs, labels=labels).logits.argmax(-1)[0]
        hidden_index = iter(np.flatnonzero(hidden))
        for position, word in enumerate(target):
            if not word.startswith("<extra_id_") and follows[next(hidden_index)]:
                total += 1
                right += int(guesses[position] == labels[0, position])
    return {"t5_inferable_accuracy": right / total, "words": total, "prompts": count}
