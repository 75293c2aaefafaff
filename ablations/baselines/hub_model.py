"""What is said of a published language model. Imports no heavy library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HubModel:
    """A published language model, as the comparison uses it.

    `source` is its hub id. `template` is what it reads, {} being the coarse prompt. `answers` says what its text is: "continuation" of
    the coarse prompt, or the whole "prompt". `tokenizer_of` names the model whose tokenizer it uses, where it has none of its own.
    """

    name: str
    title: str
    source: str
    is_encoder_decoder: bool
    template: str
    max_new_tokens: int
    answers: str
    about: str
    tokenizer_of: str = ""
