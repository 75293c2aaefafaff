"""One cell of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ablations.config import Config
from ablations.config.parsing import Scalar, show
from ablations.results.run_folder import RunFolder


@dataclass(frozen=True)
class Cell:
    """A cell of a sweep: its place in it from 0, its config and folder, and the values of the swept keys."""

    number: int
    config: Config
    folder: RunFolder
    swept: Mapping[str, Scalar]

    @property
    def label(self) -> str:
        """The swept keys and their values, as one would type them."""
        return " ".join(f"{name}={show(value)}" for name, value in self.swept.items())

    @property
    def arm_label(self) -> str:
        """The same without the seed: what tells arms apart; the arm's folder where nothing else is swept."""
        words = [f"{name}={show(value)}" for name, value in self.swept.items() if name != "seed"]
        return " ".join(words) or self.folder.arm
