"""What a refined prompt adds to the user's: which of the tiny world's words, which of them suit, which phrases were cut."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from datamodules.tiny_world.grammar import QUALITIES, STYLES, SceneDescription
from datamodules.tiny_world.worlds import World

KNOWN = frozenset((*STYLES, *QUALITIES))
# What is left of a known phrase of two words where it was cut: "oil", "sharp".
CUT = frozenset(word.split()[0] for word in KNOWN if " " in word) - KNOWN


def added_phrases(coarse: str, text: str) -> list[str]:
    """The phrases between commas that `text` has beyond the coarse prompt: after it, where it goes on, else after its own head."""
    rest = text[len(coarse) :] if text.startswith(coarse) else text.partition(",")[2]
    return [phrase for part in rest.split(",") if (phrase := " ".join(part.split()))]


@dataclass(frozen=True)
class AddedWords:
    """The added phrases of a prompt of `scene`, whose truth is the world's."""

    phrases: tuple[str, ...]
    scene: SceneDescription
    world: World

    @classmethod
    def of(cls, coarse: str, text: str, scene: SceneDescription, world: World) -> AddedWords:
        return cls(tuple(added_phrases(coarse, text)), scene, world)

    @cached_property
    def known(self) -> list[str]:
        """The known words among them, in order, repeats included."""
        return [phrase for phrase in self.phrases if phrase in KNOWN]

    @cached_property
    def style(self) -> str | None:
        """The first style word, which is the prompt's: a second one says something else."""
        return next((word for word in self.known if word in STYLES), None)

    @cached_property
    def fitting(self) -> set[str]:
        """The words that suit: the prompt's style, where it suits the scene, and the quality words that suit the subject."""
        assert self.scene.scene is not None
        style = {self.style} & set(self.world.fitting_styles[self.scene.scene])
        return style | (set(self.known) & set(self.world.fitting_qualities[self.scene.subject]))

    @property
    def fit(self) -> float:
        """Share of the known words that suit; 0 where there is none."""
        return len(self.fitting) / len(self.known) if self.known else 0.0

    @property
    def cut(self) -> float:
        """Share of the phrases that are the beginning of a known one; 0 where there is none."""
        return sum(phrase in CUT for phrase in self.phrases) / max(1, len(self.phrases))

    def recall(self, fine: AddedWords) -> float | None:
        """Fitting words over the number of them in the fine prompt, at most 1; None where that has none."""
        return min(1.0, len(self.fitting) / len(fine.fitting)) if fine.fitting else None

    def f1(self, fine: AddedWords) -> float | None:
        """Harmonic mean of recall and of the share of all phrases that fit; None where there is no recall."""
        recall = self.recall(fine)
        precision = len(self.fitting) / max(1, len(self.phrases))
        if recall is None:
            return None
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
