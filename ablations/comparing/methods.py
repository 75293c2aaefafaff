"""The methods of a comparison as objects, each built by its own row."""

from __future__ import annotations

from ablations.baselines.base import Baseline
from ablations.baselines.chat import build_chat
from ablations.baselines.register import Context, all_methods
from ablations.comparing.plan import CHAT, Comparison
from ablations.runtime.errors import UserError


def make_methods(comparison: Comparison, context: Context) -> list[Baseline]:
    """The comparison's methods, in the table's order. Raises UserError where one was built under another name than its row's."""
    known = all_methods()
    made = []
    for name in comparison.methods:
        if name.startswith(CHAT):
            model = next(model for model in comparison.chat.models if model.name == name.removeprefix(CHAT))
            made.append(build_chat(context, model))
            continue
        method = known[name].build(context)
        if method.name != name:
            raise UserError(f"method {name}: what it builds is called {method.name!r}; its name must be the row's")
        made.append(method)
    return made


def reads_data(name: str) -> bool:
    """Whether a method reads the training prompts, so that it cannot be prepared before they were read."""
    known = all_methods()
    return name in known and known[name].reads_data
