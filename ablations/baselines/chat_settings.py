"""How chat models are asked: the endpoint, the instruction, prices. Imports no heavy library."""

from __future__ import annotations

from dataclasses import dataclass, field

from ablations.baselines.endpoint import Patience

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


@dataclass(frozen=True)
class ChatSettings:
    """The chat models to ask, by name, and how. `key` is None where the environment variable is not set."""

    models: tuple[str, ...] = ()
    url: str = "https://api.openai.com/v1"
    key: str | None = field(default=None, repr=False)
    instruction: str = INSTRUCTION
    top_k: int | None = None
    prices: Prices | None = None
    patience: Patience = field(default_factory=Patience)
