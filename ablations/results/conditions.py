"""The conditions under which every evaluation prompt is drawn and scored: one row each. Imports no heavy library.

`coarse` and `fine` are the prompts as they are, `refined` the arm's own way of refining, `refined_shared_noise` its candidates drawn from
one image noise, so that what differs comes from the text, `rewrite` strategy 2 beside strategy 1. The controls should not help:
`control_step0` (the refiner before its first step), `control_t5_direct` (T5 reads the coarse text itself), `control_shuffled` (E_T reads
another prompt than the user's), `control_known_words` (words of the training prompts, drawn blindly, of equal length).

Beside them stand what a refiner is measured against: `fine_prefix` is the coarse prompt with the first `prompt_len` tokens of what the
fine prompt adds, the most that a prompt of this length can be expected to be; `fitting_styles` is the positive control of diversity, whose
candidates differ in style and all fit (tiny world only); `refined_may_stop` is refined again, but may end before `prompt_len` tokens.

`plug_in` is the encoder's other use: the coarse prompt drawn with the trained E_T in place of Stable Diffusion's own text encoder,
outright as in the paper, so that the empty prompt of guidance is read by the trained one too. Every other picture is drawn with the
original encoder. At step 0 the two are the same: the control of `plug_in` is `coarse` itself.

A row says everything that is to be known of its condition: it is drawn, scored, shown on the screen, tabulated, stands in the model card,
in `ablations.controls` and in forecasts by that alone. Rows are drawn in the order in which they were registered, those of plug-ins last.
Which arm has which, and with how many candidates, follows from what tables read: see `comparisons`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from ablations.runtime.errors import UserError
from ablations.runtime.open_table import OpenTable
from lightning_modules.settings import Refinement, RefineSettings

if TYPE_CHECKING:
    from ablations.config import EvalConfig
    from datamodules.tiny_world.grammar import SceneDescription
    from datamodules.tiny_world.worlds import World
    from lightning_modules.prompt_refiner import PromptRefinerModule

# The three that the suite is about, the one that others read diversity in, and the two other uses of the refiner.
COARSE, REFINED, FINE, SHARED_NOISE = "coarse", "refined", "fine", "refined_shared_noise"
PLUG_IN, REWRITE = "plug_in", "rewrite"
# What the texts of a condition may follow from, for forecasts.
TRAINING, ADAPTER, REFINING, REWRITING = DEPENDS_ON = ("training", "adapter", "refining", "rewriting")

_KNOWN_WORDS_TAG = 0x4B57


class Round(Protocol):
    """What a condition writes from: one candidate of every evaluation prompt. Sequences have an entry for each prompt, in one order.

    `coarse` and `fine` are the prompts (`fine` is "" where there is none); `seeds` the keys of their chance, as `module.refine` takes
    them; `candidate` counts from 0.
    `settings` says how the arm refines, `rewriting` how it would in strategy 2. `module` is the trained refiner, `untrained` the same
    before its first step (made when it is first asked for). `shuffled` has another prompt of the round in place of each, None where all
    are the same. `written[NAME]` is what another condition writes of the round. `scenes` are the tiny world's truths of the prompts, None
    for other data, and `world` that world; `known_phrases` what stands between commas in the training prompts, with the number of prompts.
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
    scenes: Sequence[SceneDescription | None]
    world: World | None

    @property
    def untrained(self) -> PromptRefinerModule: ...

    @property
    def known_phrases(self) -> Mapping[str, int]: ...


def always(config: EvalConfig) -> bool:
    """For a condition that every evaluated cell may have."""
    return True


@dataclass(frozen=True)
class Condition:
    """One condition.

    `name` stands in files, letters, digits and _ alone; `title` in tables. `when(config.eval)` says whether a cell can have it; `key` is
    the key of `config.eval` that switches it, if there is one: true = with all candidates, false = nowhere, null = where a table reads it
    (for `when` null is resolved). `write(round)` gives a `Refinement` for each prompt, or None where it cannot be had of these prompts.
    `is_control`: it should not help. `is_bound`: it is what a refiner could reach, not what one wrote. `compared`: the candidates of a
    prompt are compared with one another (diversity). `order` is its place in tables. `by_trained_encoder`: its pictures are drawn with
    the trained E_T. `shared_noise`: all candidates of a prompt are drawn from the noise of the first, and tables show its diversity alone.
    `note` is added to the notes of tables.
    `depends_on`: what its texts follow from besides the prompts, out of DEPENDS_ON, and `same_as` the condition whose texts they are where
    that is equal; `samples`: whether it writes tokens of its own. Both are for the forecast of time alone.
    """

    name: str
    title: str
    when: Callable[[EvalConfig], bool] = field(repr=False)
    write: Callable[[Round], Sequence[Refinement] | None] = field(repr=False)
    is_control: bool = False
    is_bound: bool = False
    compared: bool = False
    order: int = 80
    by_trained_encoder: bool = False
    shared_noise: bool = False
    note: str = ""
    depends_on: tuple[str, ...] = (TRAINING, REFINING)
    same_as: str = ""
    samples: bool = True
    key: str = ""

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
    return bool(config.rewrite_too) and config.mode != "rewrite"


def _shuffled(round: Round) -> Sequence[Refinement] | None:
    if round.shuffled is None:
        return None
    return round.module.refine(round.coarse, round.seeds, round.settings, read_instead=round.shuffled)


def _may_stop(round: Round) -> Sequence[Refinement]:
    return round.module.refine(round.coarse, round.seeds, replace(round.settings, exact_length=False))


def _fine_prefix(round: Round) -> Sequence[Refinement] | None:
    """Where the coarse prompt is no prefix of the fine one, the fine prompt's own first tokens are appended."""
    if not all(round.fine):
        return None
    cut, count = round.module.backbones.decoder.first_tokens, round.settings.prompt_len * round.settings.rounds
    found = []
    for coarse, fine in zip(round.coarse, round.fine, strict=True):
        whole = fine if fine.startswith(coarse) else f"{coarse}{_gap(coarse)}{fine}"
        added = cut(whole, len(coarse), count)
        found.append(Refinement(coarse + added.text, added.num_tokens, added.truncated))
    return found


def _gap(coarse: str) -> str:
    return " " if coarse.rstrip().endswith(",") else ", "


def _known_words(round: Round) -> Sequence[Refinement] | None:
    """Phrases of the training prompts, drawn in proportion to their frequency and without replacement, whatever the prompt says."""
    import numpy as np

    phrases, counts = list(round.known_phrases), list(round.known_phrases.values())
    if not phrases:
        return None
    logarithms = np.log(np.array(counts, dtype=np.float64))
    cut, count = round.module.backbones.decoder.first_tokens, round.settings.prompt_len * round.settings.rounds
    found = []
    for coarse, seed in zip(round.coarse, round.seeds, strict=True):
        # The order of log p + Gumbel noise is that of draws without replacement. A phrase has a token at least.
        order = np.argsort(-(logarithms + np.random.default_rng([*seed, _KNOWN_WORDS_TAG]).gumbel(size=len(phrases))), kind="stable")
        whole = coarse + _gap(coarse) + ", ".join(phrases[i] for i in order[:count])
        added = cut(whole, len(coarse), count)
        found.append(Refinement(coarse + added.text, added.num_tokens, added.truncated))
    return found


def _fitting_styles(round: Round) -> Sequence[Refinement] | None:
    """What the picture shows, the scene's most likely fitting style (the second most for candidate 1, and so on), all fitting qualities."""
    if round.world is None:
        return None
    texts = []
    for coarse, scene in zip(round.coarse, round.scenes, strict=True):
        if scene is None:
            return None
        styles = round.world.fitting_styles[scene.scene]
        ranked = sorted(styles, key=lambda style: (-styles[style], style))
        qualities = round.world.fitting_qualities[scene.subject]
        texts.append(", ".join([coarse.partition(",")[0], ranked[round.candidate % len(ranked)], *qualities]))
    return as_they_are(texts)


def _extends(config: EvalConfig) -> bool:
    return config.mode == "extend"


def _coarse(round: Round) -> Sequence[Refinement]:
    return as_they_are(round.coarse)


def _fine(round: Round) -> Sequence[Refinement] | None:
    return as_they_are(round.fine) if all(round.fine) else None  # a list of evaluation prompts has none


register(Condition(COARSE, "coarse prompt", always, _coarse, compared=True, order=0, depends_on=(), samples=False))
register(Condition(FINE, "fine prompt", always, _fine, is_bound=True, order=100, depends_on=(), samples=False))
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
        PLUG_IN,
        "coarse prompt, drawn with the trained E_T",
        lambda config: bool(config.plug_in),
        _coarse,
        compared=True,
        order=10,
        by_trained_encoder=True,
        depends_on=(TRAINING,),
        samples=False,
        key="plug_in",
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
        same_as=REFINED,
        samples=False,
    )
)
register(
    Condition(
        REWRITE,
        "rewritten prompt",
        _rewrite_too,
        lambda round: round.module.refine(round.coarse, round.seeds, round.rewriting),
        compared=True,
        order=40,
        depends_on=(TRAINING, REWRITING),
        same_as=REFINED,
        key="rewrite_too",
    )
)
register(
    Condition(
        "control_step0",
        "control: refiner at step 0",
        lambda config: bool(config.controls),
        lambda round: round.untrained.refine(round.coarse, round.seeds, round.settings),
        is_control=True,
        order=50,
        key="controls",
        depends_on=(ADAPTER, REFINING),
    )
)
register(
    Condition(
        "control_t5_direct",
        "control: T5 reads the coarse prompt",
        lambda config: bool(config.controls),
        lambda round: round.module.refine_by_decoder_alone(round.coarse, round.seeds, round.settings),
        is_control=True,
        order=60,
        key="controls",
        depends_on=(REFINING,),
    )
)
register(
    Condition(
        "control_shuffled",
        "control: E_T reads another prompt",
        lambda config: bool(config.controls),
        _shuffled,
        is_control=True,
        order=70,
        key="controls",
    )
)
register(
    Condition(
        "control_known_words",
        "control: known words, drawn blindly",
        lambda config: bool(config.controls) and _extends(config),
        _known_words,
        is_control=True,
        order=75,
        note="phrases of the training prompts in proportion to their frequency, as many tokens as the refiner writes",
        depends_on=(REFINING,),
        samples=False,
        key="controls",
    )
)
register(
    Condition(
        "fine_prefix",
        "fine prompt, cut at the refined prompt's length",
        _extends,
        _fine_prefix,
        is_bound=True,
        order=95,
        note="the coarse prompt and as many tokens of what the fine prompt adds as the refiner writes: the ceiling of this length",
        depends_on=(REFINING,),
        samples=False,
    )
)
register(
    Condition(
        "fitting_styles",
        "fine prompts in different fitting styles, shared image noise",
        lambda config: config.num_candidates > 1,
        _fitting_styles,
        is_bound=True,
        compared=True,
        order=35,
        shared_noise=True,
        note="the positive control of diversity: candidates differ in style, and every style suits the scene",
        depends_on=(),
        samples=False,
    )
)
register(
    Condition(
        "refined_may_stop",
        "refined prompt that may end earlier",
        lambda config: _extends(config) and config.exact_length,
        _may_stop,
        order=25,
    )
)
