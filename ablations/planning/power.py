"""`ablations.plan FILE --power`: what designs can decide of each claim, in how many minutes, and which is the cheapest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ablations.config import Config, to_flat_dict
from ablations.config.parsing import Scalar
from ablations.planning.chances import ENOUGH, Chances, Sizes, chances_of
from ablations.planning.contrasts import Contrast, RowKey, contrasts_of, row_keys
from ablations.planning.designs import Design, Minutes, all_designs, candidates_read, in_design
from ablations.planning.measured import ComponentsFile, Found
from ablations.reporting.layouts import LOSSES
from ablations.reporting.pooling import FEWEST_POOLED, seeds_to_decide
from ablations.reporting.statistics import MIN_SEEDS


@dataclass(frozen=True)
class Plan:
    """A sweep as it is planned: a config of each arm by its label, its own design, and how many held-out prompts are refined as texts."""

    arms: Mapping[str, Config]
    design: Design
    text_prompts: int

    @property
    def profile(self) -> str:
        return next(iter(self.arms.values())).profile

    @cached_property
    def settings(self) -> Mapping[str, Mapping[str, Scalar]]:
        """The keys of each arm, by its label."""
        return {label: to_flat_dict(config) for label, config in self.arms.items()}

    @cached_property
    def _rows(self) -> dict[str, dict[str, RowKey]]:
        return {}

    def rows(self, table: str) -> Mapping[str, RowKey]:
        """The row of a table that each arm is, by its label, of those that stand in it."""
        if table not in self._rows:
            keys = {label: row_keys(table, settings) for label, settings in self.settings.items()}
            self._rows[table] = {label: key for label, key in keys.items() if key.row}
        return self._rows[table]

    def labels_of(self, contrast: Contrast) -> list[str]:
        """The arms that a contrast takes: its row's and the reference's, or of a contrast of conditions the arm that has them."""
        keys = self.rows(LOSSES.id if contrast.is_of_conditions else contrast.table)
        references = [label for label, key in keys.items() if key.is_reference][:1]
        rows = [] if contrast.is_of_conditions else [label for label, key in keys.items() if key.row == contrast.row][:1]
        return [*references, *rows]


@dataclass(frozen=True)
class Line:
    """A contrast in a design: None for `chances` where no variance was measured, and below 3 seeds, which give no interval."""

    contrast: Contrast
    design: Design
    found: Found | None
    chances: Chances | None


@dataclass(frozen=True)
class ClaimDesign:
    """A claim in a design, in one of its settings.

    `chance` is the least over its contrasts of the chance that it is decided, None where one of them has no variance or no margin.
    `minutes` are of the arms that the claim takes.
    """

    claim: str
    design: Design
    chance: float | None
    minutes: float | None

    @property
    def decides(self) -> bool:
        return self.chance is not None and self.chance >= ENOUGH


class Power:
    """What designs can say of every contrast of a plan."""

    def __init__(self, plan: Plan, components: ComponentsFile, minutes: Minutes):
        self.plan, self.components, self.minutes = plan, components, minutes
        self.contrasts = contrasts_of(list(plan.settings.values()), plan.profile)
        self.claims = tuple(dict.fromkeys(contrast.claim for contrast in self.contrasts))
        self._known: dict[tuple[Contrast, Design], Line] = {}

    @property
    def designs(self) -> list[Design]:
        """Those that are always shown, and the sweep's own."""
        return sorted({*all_designs(), self.plan.design})

    def line(self, contrast: Contrast, design: Design) -> Line:
        key = (contrast, design)
        if key not in self._known:
            found = self.components.of(contrast)
            chances = None
            if found is not None and design.seeds >= MIN_SEEDS:
                chances = chances_of(found.measured, self.sizes(contrast, design, found), contrast.margin)
            self._known[key] = Line(contrast, design, found, chances)
        return self._known[key]

    def sizes(self, contrast: Contrast, design: Design, found: Found) -> Sizes:
        """What a contrast is judged on in a design."""
        m = found.measured
        prompts = max(self.plan.text_prompts, design.prompts) if m.of_texts else design.prompts
        configs = [in_design(self.plan.arms[label], design) for label in self.plan.labels_of(contrast)]
        candidates = candidates_read(configs, (contrast.read_in, contrast.reference_in), m.of_texts) if m.num_candidates else 1
        return Sizes(design.seeds, self.components.distinct(m, prompts), candidates, self._pooled(contrast, found))

    def _pooled(self, contrast: Contrast, found: Found) -> int | None:
        """Arms of one spread are pooled: those that the report pooled, where the row was measured there; else those of the contrast's table
        in this sweep that spread alike."""
        if not found.is_pooled or found.measured.pooled_arms:
            return found.measured.pooled_arms
        apart = {m.of for m in self.components.measured if (m.condition, m.endpoint) == (contrast.read_in, contrast.metric)}
        rows = {key.row for key in self.plan.rows(contrast.table).values()}
        alike = sum(f"{contrast.table}: {row}" not in apart for row in rows)
        return alike if alike >= FEWEST_POOLED else None

    def lines(self, designs: Sequence[Design]) -> list[Line]:
        return [self.line(contrast, design) for contrast in self.contrasts for design in designs]

    @property
    def settings(self) -> tuple[tuple[str, int], ...]:
        """(claim, number of its setting) of all that is judged."""
        return tuple(dict.fromkeys((contrast.claim, contrast.setting) for contrast in self.contrasts))

    def of_setting(self, name: str, setting: int) -> list[Contrast]:
        return [contrast for contrast in self.contrasts if (contrast.claim, contrast.setting) == (name, setting)]

    def claim(self, name: str, design: Design, setting: int = 0) -> ClaimDesign:
        """A claim in a design, in one of its settings."""
        own = self.of_setting(name, setting)
        chances = [line.chances.decides if line.chances else None for line in (self.line(contrast, design) for contrast in own)]
        least = None if not chances or None in chances else min(chance for chance in chances if chance is not None)
        taken = {label for contrast in own for label in self.plan.labels_of(contrast)}
        labels = [label for label in self.plan.arms if label in taken]
        return ClaimDesign(name, design, least, self.minutes.of(design, labels))

    def cheapest(self, name: str) -> ClaimDesign | None:
        """The cheapest of the designs that decide a claim; None where none does."""
        deciding = [found for design in self.designs if (found := self.claim(name, design)).decides]
        return min(deciding, key=lambda found: (found.minutes or 0.0, found.design), default=None)

    def needs(self, name: str, setting: int = 0) -> str:
        """The N that would decide a claim, in words."""
        lines = [self.line(contrast, self.plan.design) for contrast in self.of_setting(name, setting)]
        if unknown := [line.contrast for line in lines if line.found is None]:
            return f"a variance first: none was measured of {unknown[0].metric} in {unknown[0].read_in}"
        if any(line.contrast.margin is None for line in lines):
            return "a margin first: none is declared"
        deciding = [d for d in self.designs if (c := self.claim(name, d, setting)).chance is not None and c.decides]
        if deciding:
            best = min(deciding, key=lambda d: (self.claim(name, d, setting).minutes or 0.0, d))
            return f"{best} (seeds x prompts x candidates)"
        design = self.plan.design
        counts = [self._seeds(line, design) for line in lines]
        if None in counts:
            return f"more than 40 seeds with {design.prompts} prompts x {design.candidates}"
        return f"{max(count for count in counts if count is not None)} seeds x {design.prompts} prompts x {design.candidates} candidates"

    def _seeds(self, line: Line, design: Design) -> int | None:
        assert line.found is not None and line.contrast.margin is not None
        sizes = self.sizes(line.contrast, design, line.found)
        m, margin = line.found.measured, line.contrast.margin
        if m.num_prompts == 1:
            enough = (n for n in range(3, 41) if (chances_of(m, replace(sizes, seeds=n), margin).decides or 0.0) >= ENOUGH)
            return next(enough, None)
        return seeds_to_decide(m.components, margin, max(2, sizes.prompts), sizes.candidates, sizes.pooled_arms, ENOUGH)
