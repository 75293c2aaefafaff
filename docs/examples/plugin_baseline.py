"""A baseline of one's own: the coarse prompt's words in capitals. A method of `python -m ablations.compare` like any other.

python -m ablations.compare --methods coarse,capitals --plugins plugin_baseline
"""

from __future__ import annotations

from collections.abc import Sequence

from ablations.baselines.base import Asked, Written
from ablations.baselines.register import Context, Method, register


class Capitals:
    """Writes every word in capitals, and fails where there is nothing to change."""

    name, title, about = "capitals", "capitals", "the coarse prompt in capitals"

    def __init__(self, context: Context) -> None:
        """The context has the arm's config, the training prompts, a token counter and more: see `Context`."""
        self._count_tokens = context.count_tokens

    def prepare(self) -> None:
        """Where files or a network are needed, get them here, and raise a UserError where they cannot be had."""

    def write(self, seed: int, asked: Sequence[Asked]) -> list[Written]:
        """One result for each prompt. All chance must follow from `Asked.key`; here there is none."""
        return [self._write(one.coarse_prompt) for one in asked]

    def _write(self, coarse: str) -> Written:
        text = coarse.upper()
        if text == coarse:
            return Written.failed("there is no small letter")  # counted and shown, never replaced by the coarse prompt
        return Written(text, num_new_tokens=self._count_tokens(text))

    def close(self) -> None:
        """Let go of what takes memory."""

    def cost(self) -> str:
        """What was used up, in words; nothing here."""
        return ""


register(Method(Capitals.name, Capitals.title, Capitals.about, build=Capitals))
