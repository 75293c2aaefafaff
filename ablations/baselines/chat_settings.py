"""How chat models are asked: the endpoint, the instruction, prices. Imports no heavy library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ablations.baselines.endpoint import Patience
from ablations.runtime.errors import UserError

INSTRUCTION = (
    "You improve prompts for a text-to-image model. Rewrite the user's prompt so that the picture becomes better: keep its subject and "
    "meaning, and add words of style, light and quality that suit it. Answer with the improved prompt alone, on one line, in at most 60 "
    "words."
)


@dataclass(frozen=True)
class Prices:
    """Dollars for a million tokens read, and written."""

    read: float
    written: float


# An answer is cut there.
MAX_TOKENS = 120
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


@dataclass(frozen=True)
class ChatModel:
    """A model of the endpoint: `model` is what the server calls it, `name` what people read. `name` is never a path."""

    name: str
    model: str

    @property
    def slug(self) -> str:
        """As files and tables have it, after "chat-"."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-")


def chat_models(given: Sequence[str]) -> tuple[ChatModel, ...]:
    """What `--chat [NAME=]MODEL`, once or more, names. Without NAME it is the model's own, of a path the last folder's.

    Raises UserError for a name that is none, and for two models of one name.
    """
    found: dict[str, ChatModel] = {}
    for text in dict.fromkeys(given):
        name, equals, model = text.partition("=")
        if equals and not (_NAME.fullmatch(name) and model.strip()):
            raise UserError(f"--chat {text[:80]!r}: write NAME=MODEL, with NAME of at most 40 letters, digits, dots and dashes")
        if not equals:
            model = text
            is_path = text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text
            name = next((part for part in reversed(re.split(r"[/\\]", text)) if part.strip(".~ ")), "") if is_path else text
        one = ChatModel(name, model)
        if not one.slug:
            raise UserError(f"--chat {text[:80]!r} has no name that can be read: write NAME=MODEL")
        if one.slug in found:
            raise UserError(f"--chat: two models are called {name!r}: write NAME=MODEL to tell them apart")
        found[one.slug] = one
    return tuple(found.values())


@dataclass(frozen=True)
class ChatSettings:
    """The chat models to ask, and how. `key` is None where the environment variable is not set."""

    models: tuple[ChatModel, ...] = ()
    url: str = "https://api.openai.com/v1"
    key: str | None = field(default=None, repr=False)
    instruction: str = INSTRUCTION
    top_k: int | None = None
    prices: Prices | None = None
    patience: Patience = field(default_factory=Patience)
