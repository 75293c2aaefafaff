"""The conditions under which every evaluation prompt is drawn and scored: one row each. Imports no heavy library.

`coarse` and `fine` are the prompts as they are, `refined` the arm's own way of refining, `refined_shared_noise` its candidates drawn from
one image noise, so that what differs comes from the text, `rewrite` strategy 2 beside strategy 1. The controls should not help:
`control_step0` (the refiner before its first step), `control_t5_direct` (T5 reads the coarse text itself), `control_shuffled` (E_T reads
another prompt than the user's).

`plug_in` is the encoder's other use: the coarse prompt drawn with the trained E_T in place of Stable Diffusion's own text encoder,
outright as in the paper, so that the empty prompt of guidance is read by the trained one too. Every other picture is drawn with the
original encoder. At step 0 the two are the same: the control of `plug_in` is `coarse` itself.

A row says everything that is to be known of its condition: it is drawn, scored, shown on the screen, tabulated, stands in the model card,
in `ablations.controls` and in forecasts by that alone. Rows are drawn in the order in which they were registered, those of plug-ins last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ablations.runtime.errors import UserError
from ablations.runtime.open_table import OpenTable
from lightning_modules.settings import Refinement, RefineSettings

if TYPE_CHECKING:
    from ablations.config import EvalConfig
    from lightning_modules.prompt_refiner import PromptRefinerModule

# The three that the suite is about, and the one that others read diversity in.
COARSE, REFINED, FINE, SHARED_NOISE = "coarse", "refined", "fine", "refined_shared_noise"
# What the texts of a condition may follow from, for forecasts.
TRAINING, ADAPTER, REFINING, REWRITING = DEPENDS_ON = ("training", "adapter", "refining", "rewriting")


class Round(Protocol):
    """What a condition writes from: one candidate of every evaluation prompt. Sequences have an entry for each prompt, in one order.

    `coarse` and `fine` are the prompts; `seeds` the keys of their chance, as `module.refine` takes them; `candidate` counts from 0.
    `settings` says how the arm refines, `rewriting` how it would in strategy 2. `module` is the trained refiner, `untrained` the same
    before its first step (made when it is first asked for). `shuffled` has another prompt of the round in place of each, None where all
    are the same. `written` holds what the conditions before this one wrote, by name.
    """

    coarse: Sequence[str]
    fine: Sequence[str]
    seeds: Sequence[tuple[int, ...]]
    candidate: int
    settings: RefineSettings
    rewriting: RefineSettings
    module: PromptRefinerModule
    shuffled: Sequence[str] | None
    written: Mapping[str, Sequence[Refinement]]

    @property
    def untrained(self) -> PromptRefinerModule: ...


def always(config: EvalConfig) -> bool:
    """For a condition that every evaluated cell has."""
    return True


@dataclass(frozen=True)
class Condition:
    """One condition.

    `name` stands in files, letters, digits and _ alone; `title` in tables. `when(config.eval)` says whether a cell has it. `write(round)`
    gives a `Refinement` for each prompt, or None where it cannot be had of these prompts.
    `is_control`: it should not help. `compared`: the candidates of a prompt are compared with one another (diversity). `order` is its
    place in tables. `by_trained_encoder`: its pictures are drawn with the trained E_T. `shared_noise`: all candidates of a prompt are
    drawn from the noise of the first, and tables show its diversity alone. `note` is added to the notes of tables.
    `depends_on`: what its texts follow from besides the prompts, out of DEPENDS_ON, and `same_as` the condition whose texts they are where
    that is equal; `samples`: whether it writes tokens of its own. Both are for the forecast of time alone.
    """

    name: str
    title: str
    when: Callable[[EvalConfig], bool] = field(repr=False)
    write: Callable[[Round], Sequence[Refinement] | None] = field(repr=False)
    is_control: bool = False
    compared: bool = False
    order: int = 80
    by_trained_encoder: bool = False
    shared_noise: bool = False
    note: str = ""
    depends_on: tuple[str, ...] = (TRAINING, REFINING)
    same_as: str = ""
    samples: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.replace("_", "").isalnum() or not self.name.isascii():
            raise UserError(f"a condition cannot be called {self.name!r}: its name stands in files, take letters, digits and _ alone")
        if not self.title:
            raise UserError(f"condition {self.name}: give it a title, which stands in tables")
        if not callable(self.when) or not callable(self.write):
            raise UserError(f"condition {self.name}: `when` and `write` must be functions")
        if unknown := set(self.depends_on) - set(DEPENDS_ON):
            raise UserError(f"condition {self.name}: depends_on may hold {', '.join(DEPENDS_ON)}, not {', '.join(sorted(unknown))}")


_CONDITIONS: dict[str, Condition] = {}
_TABLE = OpenTable("condition", _CONDITIONS)


def register(condition: Condition) -> Condition:
    """Enters a condition and returns it. Raises UserError for a name that is taken; the same condition again is harmless."""
    return _TABLE.register(condition)


def all_conditions() -> dict[str, Condition]:
    """Every condition by name, in the order in which they are drawn."""
    return _TABLE.entries()


def in_tables() -> list[Condition]:
    """Every condition, in the order in which tables show them."""
    return sorted(all_conditions().values(), key=lambda condition: condition.order)


def conditions_of(config: EvalConfig) -> list[Condition]:
    """Those that a cell has, in the order in which they are drawn."""
    return [condition for condition in all_conditions().values() if condition.when(config)]


def controls() -> list[str]:
    """The names of the controls, in the order of tables."""
    return [condition.name for condition in in_tables() if condition.is_control]


def is_shared_noise(name: str) -> bool:
    """Whether the candidates of a condition are drawn from one noise; of one that nobody registered: no."""
    known = all_conditions().get(name)
    return known is not None and known.shared_noise


def as_they_are(texts: Sequence[str]) -> list[Refinement]:
    """Texts that are drawn as they are: no token was written."""
    return [Refinement(text, 0, False) for text in texts]


def _rewrite_too(config: EvalConfig) -> bool:
    return config.rewrite_too and config.mode != "rewrite"


def _shuffled(round: Round) -> Sequence[Refinement] | None:
    if round.shuffled is None:
        return None
    return round.module.refine(round.coarse, round.seeds, round.settings, read_instead=round.shuffled)


register(Condition(COARSE, "coarse prompt", always, lambda round: as_they_are(round.coarse), compared=True, order=0, depends_on=()))
register(Condition(FINE, "fine prompt", always, lambda round: as_they_are(round.fine), order=100, depends_on=()))
register(
    Condition(
        REFINED,
        "refined prompt",
        always,
        lambda round: round.module.refine(round.coarse, round.seeds, round.settings),
        compared=True,
        order=20,
    )
)
register(
    Condition(
        "plug_in",
        "coarse prompt, drawn with the trained E_T",
        lambda config: config.plug_in,
        lambda round: round.written[COARSE],
        compared=True,
        order=10,
        by_trained_encoder=True,
        depends_on=(TRAINING,),
        samples=False,
    )
)
register(
    Condition(
        SHARED_NOISE,
        "refined prompt, shared image noise",
        lambda config: config.num_candidates > 1,
        lambda round: round.written[REFINED],
        compared=True,
        order=30,
        shared_noise=True,
        samples=False,
    )
)
register(
    Condition(
        "rewrite",
        "rewritten prompt",
        _rewrite_too,
        lambda round: round.module.refine(round.coarse, round.seeds, round.rewriting),
        compared=True,
        order=40,
        depends_on=(TRAINING, REWRITING),
        same_as=REFINED,
    )
)
register(
    Condition(
        "control_step0",
        "control: refiner at step 0",
        lambda config: config.controls,
        lambda round: round.untrained.refine(round.coarse, round.seeds, round.settings),
        is_control=True,
        order=50,
        depends_on=(ADAPTER, REFINING),
    )
)
register(
    Condition(
        "control_t5_direct",
        "control: T5 reads the coarse prompt",
        lambda config: config.controls,
        lambda round: round.module.refine_by_decoder_alone(round.coarse, round.seeds, round.settings),
        is_control=True,
        order=60,
        depends_on=(REFINING,),
    )
)
register(
    Condition(
        "control_shuffled",
        "control: E_T reads another prompt",
        lambda config: config.controls,
        _shuffled,
        is_control=True,
        order=70,
    )
)
