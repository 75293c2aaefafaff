"""Which cells stand in which table: a layout varies some config keys, and everything else is held fixed.

Cells that differ in other keys too form families; each family is a table of its own, named by what sets it apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ablations.config import KEYS
from ablations.config.parsing import Scalar, show
from ablations.reporting.collect import FinishedCell, LeftOut
from ablations.results import comparisons
from ablations.results.comparisons import base_clip_weight, is_placebo
from ablations.results.conditions import is_shared_noise
from lightning_modules.terms import all_terms, terms_on

Settings = Mapping[str, Scalar]
PLACEBO, WITH, WITHOUT, UNIFORM, FROZEN = "placebo", "with", "without", "uniform", "frozen"
_AFE_LABELS = {
    WITH: "with AFE",
    WITHOUT: "without AFE",
    UNIFORM: "twin: uniform weights",
    FROZEN: "twin: frozen random weights",
    PLACEBO: "placebo",
}


@dataclass(frozen=True)
class Layout:
    """A kind of table that compares arms.

    `varies` gives the keys that its rows may differ in; `fits` says which arms it takes; `key` and `label` name an arm's row.
    `reference` is the key of the row that the others are compared with, `expected` those listed even where nobody ran them.
    `conditions` get a table each. `plots` are the columns (by key) that are drawn.
    """

    id: str
    title: str
    varies: Callable[[], tuple[str, ...]]
    fits: Callable[[Settings], bool]
    key: Callable[[Settings], str]
    label: Callable[[str], str]
    reference: str
    expected: tuple[str, ...]
    conditions: tuple[str, ...]
    plots: tuple[str, ...]


def loss_terms(settings: Settings) -> str:
    """The terms that are on, as in mse+text+clip+feature."""
    return "+".join(term.name for term in terms_on(settings))


def _all_switches() -> tuple[str, ...]:
    return tuple(f"use_{name}" for term in all_terms() for name in (term.name, *term.switches))


def _paper_terms(*without: str) -> str:
    return "+".join(term.name for term in all_terms() if term.on and term.name not in without)


def _is_extended(key: str) -> bool:
    """Whether a row of loss terms has one beyond the paper's: such rows come last."""
    return any(not term.on and term.name in key.split("+") for term in all_terms())


def _loss_key(settings: Settings) -> str:
    return PLACEBO if is_placebo(settings) and loss_terms(settings) == _paper_terms() else loss_terms(settings)


def _loss_label(key: str) -> str:
    if key == PLACEBO:
        return key
    on = key.split("+")
    missing = [term.in_words for term in all_terms() if term.on and term.name not in on]
    added = [term.in_words for term in all_terms() if not term.on and term.name in on]
    parts = [f"{word} {' and '.join(terms)}" for word, terms in (("without", missing), ("with", added)) if terms]
    return ", ".join(parts) or "full arm"


def is_full(settings: Settings) -> bool:
    """Whether every loss term of the paper is on, with AFE as it is learned, and further ones are off; a placebo is not it."""
    return loss_terms(settings) == _paper_terms() and _has_learned_afe(settings) and not is_placebo(settings)


def _has_learned_afe(settings: Settings) -> bool:
    return bool(settings["use_afe"]) and settings.get("afe.weights", "learned") == "learned"


def _afe_key(settings: Settings) -> str:
    if not settings["use_afe"]:
        return WITHOUT
    weights = str(settings.get("afe.weights", "learned"))
    return weights if weights != "learned" else PLACEBO if is_placebo(settings) else WITH


def _tabulated(comparison: comparisons.Comparison) -> tuple[str, ...]:
    """The conditions that have a table each: those that a comparison reads, but for shared noise, whose columns stand in others' tables."""
    return tuple(name for name in comparison.reads if not is_shared_noise(name))


LOSSES = Layout(
    id="losses",
    title="Loss terms",
    varies=_all_switches,
    # In the paper's table L_clip stands for L_clip with its AFE module; AFE alone has a table of its own.
    fits=lambda settings: settings["use_afe"] == settings["use_clip"] and (not settings["use_afe"] or _has_learned_afe(settings)),
    key=_loss_key,
    label=_loss_label,
    reference=_paper_terms(),
    expected=(_paper_terms(), _paper_terms("mse"), _paper_terms("clip"), _paper_terms("mse", "clip")),
    conditions=_tabulated(comparisons.LOSSES),
    plots=("style_fits", "qualities_fit", "style_fit_probability", "added_words_fit", "fidelity", "musiq-koniq", "musiq-ava"),
)
AFE = Layout(
    id="afe",
    title="Adaptive feature extraction (AFE)",
    varies=lambda: ("use_afe", "afe.weights"),
    fits=lambda settings: bool(settings["use_clip"]),
    key=_afe_key,
    label=lambda key: _AFE_LABELS.get(key, f"AFE with {key} weights"),
    reference=WITH,
    expected=(WITH, WITHOUT),
    conditions=_tabulated(comparisons.AFE),
    plots=(
        *("st_lpips@refined_shared_noise", "fitting_styles_drawn@refined_shared_noise", "distinct_fitting_styles"),
        *("clip_distance@refined_shared_noise", "style_fits", "qualities_fit", "fidelity"),
    ),
)
PROMPT_LENGTH = Layout(
    id="prompt_length",
    title="Prompt length",
    varies=lambda: ("prompt_len",),
    fits=lambda settings: settings["eval.mode"] == "extend" and not is_placebo(settings),
    key=lambda settings: str(settings["prompt_len"]),
    label=lambda key: f"length {key}",
    reference="6",
    expected=("6",),
    conditions=_tabulated(comparisons.PROMPT_LENGTH),
    plots=(
        "words_f1_of_ceiling",
        "words_f1",
        "added_words_fit",
        "added_words_recall",
        "phrases_cut",
        "fidelity",
        "musiq-koniq",
        "musiq-ava",
    ),
)
LAYOUTS = (LOSSES, AFE, PROMPT_LENGTH)


@dataclass(frozen=True)
class Family:
    """The arms of one table: cells by row key and seed. `fixed` are the keys that all of them share, `name` what sets them apart
    from other families of the layout ("" where there is no other). `begun` counts the seeds of a row that were begun."""

    layout: Layout
    rows: Mapping[str, Mapping[int, FinishedCell]]
    fixed: Settings
    name: str
    begun: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_cells(self) -> int:
        return sum(len(cells) for cells in self.rows.values())

    def ordered_keys(self) -> list[str]:
        """Row keys: lengths by size; else the expected ones first, then the others."""
        if self.layout is PROMPT_LENGTH:
            return sorted({*self.rows, *self.begun, *self.layout.expected}, key=int)
        last = (UNIFORM, FROZEN, PLACEBO)
        place = {key: number for number, key in enumerate(last, start=1)}
        others = sorted({*self.rows, *self.begun} - set(self.layout.expected), key=lambda key: (place.get(key, 0), _is_extended(key), key))
        return [*self.layout.expected, *others]


def families(layout: Layout, cells: Iterable[FinishedCell], unfinished: Iterable[LeftOut] = ()) -> list[Family]:
    """The families of a layout with at least two arms, those with the most cells first.

    An arm in which some keys are idle (the weight of a term that is off, say) stands in every family that differs from it in these alone.
    """
    groups: dict[tuple, dict[str, dict[int, FinishedCell]]] = {}
    for cell in cells:
        if layout.fits(cell.settings):
            of_seed = groups.setdefault(_fixed(layout, cell.settings), {}).setdefault(layout.key(cell.settings), {})
            # Two sweeps may have run it, of which one asked for fewer conditions.
            if cell.seed not in of_seed or len(cell.conditions) > len(of_seed[cell.seed].conditions):
                of_seed[cell.seed] = cell
    chosen = {fixed: rows for fixed in groups if len(rows := _with_borrowed(layout, fixed, groups)) > 1}
    names = differing([dict(fixed) for fixed in chosen])
    stopped = Counter((_fixed(layout, item.settings), layout.key(item.settings)) for item in unfinished if layout.fits(item.settings))
    found = []
    for (fixed, rows), name in zip(chosen.items(), names, strict=True):
        begun = {key: len(rows.get(key, ())) + stopped[fixed, key] for key in {*rows, *(key for own, key in stopped if own == fixed)}}
        found.append(Family(layout, rows, dict(fixed), name, begun))
    return sorted(found, key=lambda family: (-family.num_cells, family.name))


def _fixed(layout: Layout, settings: Settings) -> tuple[tuple[str, Scalar], ...]:
    varied = {*layout.varies(), *(name for name, key in KEYS.items() if key.option.only_adds)}
    same = {**settings, "loss.clip_weight": base_clip_weight(settings)}
    return tuple((key, value) for key, value in same.items() if key not in varied)


def _with_borrowed(layout: Layout, fixed: tuple, groups: Mapping[tuple, Mapping[str, dict[int, FinishedCell]]]) -> dict:
    """The rows of a group, and those that it lacks of groups from which it differs in keys alone that are idle there."""
    rows = dict(groups[fixed])
    mine, own_idle = dict(fixed), [_idle_in(cells) for cells in rows.values()]
    for other, lent in groups.items():
        apart = {key for key, value in other if mine.get(key) != value}
        if not apart or all(apart <= idle for idle in own_idle):  # it is the group itself, or means the same to every row of it
            continue
        rows = {key: cells for key, cells in lent.items() if apart <= _idle_in(cells)} | rows
    return rows


def _idle_in(cells: Mapping[int, FinishedCell]) -> frozenset[str]:
    return _idle(next(iter(cells.values())).settings)


def _idle(settings: Settings) -> frozenset[str]:
    """The keys that mean nothing for an arm, since what they belong to is off."""
    idle = [f"loss.{term.name}_" for term in all_terms() if not settings.get(f"use_{term.name}")]
    idle += [] if settings["use_clip"] else ["loss.hard_negatives"]
    idle += [] if settings["use_clip"] and settings["use_afe"] else ["afe."]
    return frozenset(key for key in settings if key.startswith(tuple(idle)))


def differing(settings: list[Settings]) -> list[str]:
    """For each of some settings the keys in which they differ, as in "prompt_len=6, eval.rounds=1"; "" where they do not."""
    keys = [key for key in KEYS if len({repr(one.get(key)) for one in settings}) > 1]
    return [", ".join(f"{key}={show(one.get(key))}" for key in keys) for one in settings]


def held_fixed(fixed: Settings) -> str:
    """What a table holds fixed, in words: the values that differ from the profile's defaults, and that all others are the defaults.

    Only keys that the table does not vary are in `fixed`.
    """
    profile = str(fixed["profile"])
    # null resolves to the value of use_clip
    defaults = {key: KEYS[key].profile_default(profile) for key in fixed} | {"use_afe": fixed.get("use_clip", True)}
    changed = [f"{key}={show(value)}" for key, value in fixed.items() if value != defaults[key]]
    return f"{', '.join(changed)}; all else as in profile={profile}" if changed else f"everything as in profile={profile}"
