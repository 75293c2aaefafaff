"""The methods that can be compared, by name, each declared by the file that writes it. Imports no heavy library, as the command line does.

A plug-in module adds one by `register(Method(...))`; it is then asked for by its name, as in --methods coarse,mine.
"""

from __future__ import annotations

import importlib
import pkgutil
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ablations.baselines.base import AnswerStore, Baseline, LoadedRefiner
from ablations.runtime.errors import UserError
from ablations.runtime.open_table import OpenTable
from lightning_modules.settings import TokenSampling

if TYPE_CHECKING:
    import torch

    from ablations.baselines.chat_settings import ChatSettings
    from ablations.config import Config

# What all others are compared with.
REFERENCE = "refiner"
# Modules that declare no method; one of them imports heavy libraries.
_WITHOUT_METHODS = {"base", "chat", "chat_settings", "endpoint", "hub", "hub_model", "register"}


@dataclass(frozen=True)
class Context:
    """What a method may be built of. The callables are not to be called before the method is used.

    `config` is the arm's, `device` where networks run. `sources` says where models come from, by the method's name: a folder or a hub id.
    `num_modifiers` and `chat` are as the command line has them. `train_prompts()` gives the training prompts, `count_tokens(text)` counts
    as the refiner's decoder does, `load_refiner(seed)` loads the trained refiner. `answers(kind)` keeps answers of a kind from one call of
    the command to the next. `say` tells the user; `check` is to be called now and then, and may raise to stop.
    """

    config: Config
    device: torch.device
    sources: Mapping[str, str]
    num_modifiers: int | None
    chat: ChatSettings
    train_prompts: Callable[[], Iterable[str]]
    count_tokens: Callable[[str], int]
    load_refiner: Callable[[int], LoadedRefiner]
    answers: Callable[[str], AnswerStore]
    say: Callable[[str], None]
    check: Callable[[], None]

    @property
    def sampling(self) -> TokenSampling:
        """By which all methods sample."""
        return TokenSampling(self.config.eval.top_p, self.config.eval.top_k)


@dataclass(frozen=True)
class Method:
    """A method that can be compared: `name` on the command line and in files, `title` in tables, `about` in one line of help.

    `build(context)` makes the `Baseline`, whose name is the method's. `needs_download`: it is compared only where it is asked for.
    `reads_data`: it reads the training prompts, so that it is prepared after they were read. `source`: the hub id that its model comes
    from, if --model and --models say nothing ("": it has none); `takes_model`: it has one all the same, which must be given. `in_all`:
    it is one of those that --methods all stands for. `order` is its place in the table.
    """

    name: str
    title: str
    about: str
    build: Callable[[Context], Baseline] = field(repr=False)
    needs_download: bool = False
    reads_data: bool = False
    source: str = ""
    takes_model: bool = False
    in_all: bool = True
    order: int = 300

    def __post_init__(self) -> None:
        if not self.title or not self.about:
            raise UserError(f"method {self.name}: give it a title and a line about it, which tables and help show")
        if not callable(self.build):
            raise UserError(f"method {self.name}: build must be a function of a Context")


_METHODS: dict[str, Method] = {}
_TABLE = OpenTable("method", _METHODS)


def register(method: Method) -> Method:
    """Enters a method and returns it. Raises UserError for a name that is taken; the same method again is harmless."""
    if method.name == "all":
        raise UserError("a method cannot be called 'all': --methods all stands for all of them")
    return _TABLE.register(method)


def all_methods() -> dict[str, Method]:
    """Every method by name, in the order of the table: those of this package, and what plug-ins registered."""
    package = importlib.import_module(__package__)
    for module in sorted({module.name for module in pkgutil.iter_modules(package.__path__)} - _WITHOUT_METHODS):
        importlib.import_module(f"{__package__}.{module}")
    methods = sorted(_TABLE.entries().values(), key=lambda method: method.order)
    return {method.name: method for method in methods}


def describe_methods() -> str:
    """A paragraph of help for each method, * marking those that need no download."""
    lines = []
    for method in all_methods().values():
        mark = f"{method.name}{'' if method.needs_download else ' *'}"
        lines += textwrap.wrap(method.about, 140, initial_indent=f"  {mark:<18} ", subsequent_indent=" " * 21, break_on_hyphens=False)
    return "\n".join(lines)
