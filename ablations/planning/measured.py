"""Variance components by condition and endpoint, with where they were measured: from an output folder, or from a file.

components.yaml beside this file is what the package ships; `ablations.plan FILE --power --from DIR --keep FILE` writes such a file. It
holds variances and the seconds that the cells took, no mean and no difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ablations.planning.contrasts import Contrast
from ablations.reporting.collect import FinishedCell
from ablations.reporting.pooling import Components
from ablations.results.registration import now
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.files import write_atomically

SHIPPED = Path(__file__).parent / "components.yaml"
# What a set of components is of: all arms alike, or one row of one table, as in "losses: mse+clip".
EVERY_ARM = "every arm"
_HEAD = """\
# Variances of a paired difference between two arms (or of two conditions of an arm), by condition and endpoint, and what cells took:
# what `python -m ablations.plan FILE --power` reads where it is not told another folder. Made by
#     python -m ablations.plan FILE --power --from DIR --keep THIS_FILE
# It holds no mean and no difference of any arm, on purpose: it is read before claims are registered. `five_percent` is 5% of what the fine
# prompts reach, which no arm decides.
"""


@dataclass(frozen=True)
class Measured:
    """Components of one endpoint in one condition, and what they were estimated from.

    `of` is EVERY_ARM or a row that spreads otherwise. `num_prompts` is 1 for a value per seed, `num_candidates` 0 for a value of all
    candidates of a prompt together. `of_texts`: of all held-out prompts, without pictures. `five_percent` is 5% of the fine prompts' own
    value, None where they have none. `pooled_arms`: of a row that was measured as the report measures it, how many arms shared the spread
    there (None: the row had its own).
    """

    condition: str
    endpoint: str
    of: str
    components: Components
    num_arms: int
    num_seeds: int
    num_prompts: int
    num_candidates: int
    of_texts: bool = False
    five_percent: float | None = None
    pooled_arms: int | None = None


@dataclass(frozen=True)
class Origin:
    """Where components were measured. `where` is a word for it (the folder's name, no path); prompts of equal text are counted each."""

    where: str
    made: str
    profile: str
    data: str
    weights: str
    code_revision: str
    seeds: tuple[int, ...]
    num_prompts: int
    num_text_prompts: int
    arms: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{self.where} ({len(self.arms)} arms, {len(self.seeds)} seeds x {self.num_prompts} prompts, {self.made[:10]})"


@dataclass(frozen=True)
class Found:
    """Components for a comparison, and in words where they come from."""

    measured: Measured
    source: str
    is_pooled: bool


@dataclass(frozen=True)
class ComponentsFile:
    """All components that are known, and the seconds of the cells by part: see `costs.py`."""

    origin: Origin
    measured: tuple[Measured, ...]
    costs: Mapping[str, Any]

    def distinct(self, measured: Measured, num_prompts: int) -> int:
        """How many of so many prompts have a text of their own, at the share that was measured: prompts of equal text are one unit."""
        asked = self.origin.num_text_prompts if measured.of_texts else self.origin.num_prompts
        return max(2, round(num_prompts * min(1.0, measured.num_prompts / max(1, asked))))

    def of(self, contrast: Contrast) -> Found | None:
        """The components of a comparison: the row's where it was measured or spreads otherwise, else those of every arm; None where none
        fit."""
        here = [m for m in self.measured if (m.condition, m.endpoint) == (contrast.read_in, contrast.metric)]
        own = next((m for m in here if m.of == contrast.row_id), None)
        if own is not None:
            shared = f"{own.pooled_arms} arms pooled" if own.pooled_arms else "this row's own"
            return Found(own, f"{self.origin.text}, {shared}", own.pooled_arms is not None)
        pooled = next((m for m in here if m.of == EVERY_ARM), None)
        # Two conditions of an arm differ in other ways than two arms do.
        if pooled is None or contrast.is_of_conditions:
            return None
        return Found(pooled, f"{self.origin.text}, {pooled.num_arms} arms pooled", True)


def write_components(path: Path, content: ComponentsFile) -> None:
    """Write components.yaml, whole or not at all; an earlier one is replaced."""
    rows = [
        {**asdict(each), "components": _rounded(asdict(each.components)), "five_percent": _short(each.five_percent)}
        for each in content.measured
    ]
    plain = {"origin": {**asdict(content.origin)}, "costs": dict(content.costs), "measured": rows}
    text = yaml.safe_dump(_plain(plain), sort_keys=False, width=10_000, allow_unicode=True, default_flow_style=None)
    write_atomically(path, _HEAD + text)


def read_components(path: Path = SHIPPED) -> ComponentsFile:
    """Components from a file. Raises UserError in one line for a file that is not there or holds none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        origin = content["origin"]
        measured = tuple(Measured(**{**each, "components": Components(**each["components"])}) for each in content["measured"])
        origin = Origin(**{**origin, "seeds": tuple(origin["seeds"]), "arms": tuple(origin["arms"])})
        return ComponentsFile(origin, measured, content["costs"])
    except FileNotFoundError as error:
        raise UserError(f"there are no components in {str(path)!r}: --power --from DIR --keep FILE writes them") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"{path} holds no variance components ({one_line(error)}): --power --from DIR --keep FILE writes them") from error


def origin_of(folder: Path, cells: Sequence[FinishedCell], seeds: Sequence[int]) -> Origin:
    """Of the finished cells of a folder."""
    first = cells[0]
    return Origin(
        where=folder.resolve().name,
        made=now(),
        profile=first.profile,
        data=first.data_digest,
        weights=first.weights_digest,
        code_revision=", ".join(sorted({cell.code_revision for cell in cells})),
        seeds=tuple(seeds),
        num_prompts=int(first.settings["eval.num_prompts"]),
        num_text_prompts=int(max(first.settings.get("eval.text_prompts", 0), first.settings["eval.num_prompts"])),
        arms=tuple(sorted({cell.arm for cell in cells})),
    )


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _rounded(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _short(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
