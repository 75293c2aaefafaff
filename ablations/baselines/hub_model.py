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
class MakersSampling:
    """How a model's makers sample it, where the comparison samples it so: in the order of the fields that follow the penalty.

    `temperature` 0 takes the likeliest token: every candidate is then the same text. `top_k` 0, `top_p` 1, `min_p` 0 and
    `repetition_penalty` 1 change nothing. A penalty sees the prompt's tokens too, so that prompts are then written one by one.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class HubModel:
    """A published language model, as the comparison uses it.

    `source` is its hub id. `template` is what it reads, {} being the coarse prompt. `answers` says what its text is: "continuation" of
    the coarse prompt, or the whole "prompt". `tokenizer_of` names the model whose tokenizer it uses, where it has none of its own.
    `instruction`: it is a chat model, which is told so by its own chat template before it reads the prompt, and whose text is read as an
    endpoint's answer is. `package`: its weights come in a Python package, and `source` is that package's name.

    What its makers fix: `messages`, (role, text) in turn with {} for the coarse prompt, which the model's own chat template makes into
    what it reads, with `chat_options`; `answer`, patterns whose first group is the prompt in what it wrote, of which the first that is
    found counts, while a text without any has failed; `sampling`, in place of that of all methods. `not_on_hub` says why `source` is ""
    and the model must be given as a folder.
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
    messages: tuple[tuple[str, str], ...] = ()
    chat_options: tuple[tuple[str, bool], ...] = ()
    answer: tuple[str, ...] = ()
    sampling: MakersSampling | None = None
    dtype: str = "float32"
    not_on_hub: str = ""
