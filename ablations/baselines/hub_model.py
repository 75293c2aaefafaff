"""What is said of a published language model. Imports no heavy library."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from ablations.runtime.errors import UserError


@dataclass(frozen=True)
class PackagedWeights:
    """A GGUF file, weights and tokenizer in one, that lies in an installed package. `extra` is the extra of this project that brings it."""

    module: str
    gguf_file: str
    extra: str

    def folder(self, name: str) -> Path:
        """The folder that holds the file. Raises UserError where it, or what reads it, is not installed; imports no module of it."""
        spec = importlib.util.find_spec(self.module)
        folder = Path(spec.origin).parent if spec is not None and spec.origin is not None else None
        if folder is None or not (folder / self.gguf_file).is_file() or importlib.util.find_spec("gguf") is None:
            raise UserError(
                f"{name} needs the packages {self.module.replace('_', '-')} and gguf: uv run --extra {self.extra} brings them "
                f"(docs/comparing.md); or give a folder or a hub id by --model {name}=SOURCE"
            )
        return folder


@dataclass(frozen=True)
class HubModel:
    """A published language model, as the comparison uses it.

    `source` is its hub id. `template` is what it reads, {} being the coarse prompt. `answers` says what its text is: "continuation" of
    the coarse prompt, or the whole "prompt". `tokenizer_of` names the model whose tokenizer it uses, where it has none of its own.
    `instruction`: it is a chat model, which is told so by its own chat template before it reads the prompt, and whose text is read as an
    endpoint's answer is. `package`: its weights come in a Python package, and `source` is that package's name.
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
    instruction: str = ""
    package: PackagedWeights | None = None
