"""Prompts written round by round: the decoder goes on from a prompt, and what it wrote is joined to the user's own words.

Shapes in this file: B = prompts, S = text positions, H = T5's width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from lightning_modules.settings import Refinement, RefineSettings, TokenSampling
from lightning_modules.text_decoder import PromptDecoder, WrittenText


def write_rounds(
    decoder: PromptDecoder,
    prompts: Sequence[str],
    prompt_seeds: Sequence[Sequence[int]],
    settings: RefineSettings,
    read: Callable[[list[str]], tuple[Tensor, Tensor | None]],
) -> list[Refinement]:
    """One refinement a prompt, in rounds; row i draws its tokens from (*prompt_seeds[i], round) alone.

    `read` gives T5's encoder input (B, S, H) for the current texts, and the mask of what it may read of it (B, S), None for all. Raises
    ValueError unless there are as many seeds as prompts.
    """
    if len(prompts) != len(prompt_seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(prompt_seeds)} prompt seeds")
    if not prompts:
        return []
    rows = [Refinement(text, 0, False) for text in prompts]
    for number in range(settings.rounds if settings.mode == "extend" else 1):
        texts = [row.text for row in rows]
        new = _write_round(decoder, texts, *read(texts), [(*seed, number) for seed in prompt_seeds], settings)
        settings = replace(settings, rules=replace(settings.rules, new_word=False))  # the words of the next rounds are the refiner's
        rows = [_extended(row, written, settings) for row, written in zip(rows, new, strict=True)]
    return rows


def _write_round(
    decoder: PromptDecoder,
    texts: list[str],
    inputs_BSH: Tensor,
    mask_BS: Tensor | None,
    keys: list[tuple[int, ...]],
    settings: RefineSettings,
) -> list[WrittenText]:
    extend = settings.mode == "extend"
    return decoder.write(
        inputs_BSH,
        keys,
        max_new_tokens=settings.prompt_len if extend else settings.max_new_tokens,
        exact_length=extend and settings.exact_length,
        primers=texts if extend and settings.extend_by == "prime" else None,
        mask_BS=mask_BS,
        sampling=TokenSampling(settings.top_p, settings.top_k, settings.rules),
    )


def _extended(row: Refinement, written: WrittenText, settings: RefineSettings) -> Refinement:
    text = _joined(row.text, written.text, settings)
    return Refinement(text, row.num_new_tokens + written.num_tokens, written.truncated, (*row.rounds, text))


def _joined(prompt: str, written: str, settings: RefineSettings) -> str:
    """The refined prompt: the user's text verbatim and what was written after it, or, in mode rewrite, what was written alone."""
    if settings.mode == "rewrite":
        return written.strip()
    if settings.extend_by == "append":
        clause = prompt if not prompt.strip() or prompt.rstrip().endswith(",") else f"{prompt},"
        return clause + (" " if clause[-1:].strip() else "") + written.lstrip(" ,")
    # A piece that starts a word brings its space along: not where there is one, or nothing, before it.
    return prompt + (written if prompt[-1:].strip() else written.lstrip(" "))
