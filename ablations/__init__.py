"""The experiments: everything that a user runs. `from ablations import PromptRefiner` gives the refiner for Python."""

from __future__ import annotations

import sys

__all__ = ["PromptRefiner"]


def __getattr__(name: str) -> object:
    """Imports PromptRefiner on first use: every command imports this package, and most must not load torch."""
    if name == "PromptRefiner":
        from ablations.refiner.prompt_refiner import PromptRefiner

        return PromptRefiner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _is_starting_a_command() -> bool:
    """Whether Python is looking for a module of this package to run, as in `python -m ablations.run`, or runs `uf-fgtg`."""
    if sys.argv[:1] != ["-m"]:
        return "".join(sys.argv[:1]).endswith("uf-fgtg")
    words = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    return any(word.removeprefix("-m").split(".")[0] == __name__ for word in words[-2:])


if _is_starting_a_command():
    from ablations.runtime import early_signals

    early_signals.install()
