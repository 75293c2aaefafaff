"""The experiments: everything that a user runs. `from ablations import PromptRefiner` gives the refiner for Python."""

from __future__ import annotations

__all__ = ["PromptRefiner"]


def __getattr__(name: str) -> object:
    """Imports PromptRefiner on first use: every command imports this package, and most must not load torch."""
    if name == "PromptRefiner":
        from ablations.refiner.prompt_refiner import PromptRefiner

        return PromptRefiner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
