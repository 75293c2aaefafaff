"""The bounds of the comparison: the coarse prompt as it is, and the fine prompt as it is."""

from __future__ import annotations

from collections.abc import Sequence

from ablations.baselines.base import Asked, Written
from ablations.baselines.register import Method, register


class GivenPrompt:
    """The coarse or the fine prompt, unchanged: its candidates differ in image noise alone."""

    def __init__(self, which: str):
        assert which in ("coarse", "fine"), which
        self.name = which
        self.title = f"{which} prompt"
        bound = "lower" if which == "coarse" else "upper"
        self.about = f"the {which} prompt as it is: the {bound} bound"

    def prepare(self) -> None:
        pass

    def write(self, seed: int, asked: Sequence[Asked]) -> list[Written]:
        texts = [one.coarse_prompt if self.name == "coarse" else one.fine_prompt for one in asked]
        return [Written(text) if text else Written.failed("the source has prompts alone, and no fine ones") for text in texts]

    def close(self) -> None:
        pass

    def cost(self) -> str:
        return ""


register(Method("coarse", "coarse prompt", "the coarse prompt as it is: the lower bound", lambda context: GivenPrompt("coarse"), order=0))
register(
    Method(
        "fine",
        "fine prompt",
        "the fine prompt that the coarse one was made of: the upper bound",
        lambda context: GivenPrompt("fine"),
        order=1000,
    )
)
