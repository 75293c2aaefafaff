"""What a training gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trained:
    """A finished training: its steps in all, and the seconds that this process spent; `reused`: another arm's was taken."""

    steps: int
    seconds: float
    reused: bool
