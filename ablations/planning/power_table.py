"""What designs can decide, on the screen and as CSV: variances, half-widths, chances and minutes; never a mean or a difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ablations.planning.chances import ENOUGH
from ablations.planning.designs import Design
from ablations.planning.measured import ComponentsFile
from ablations.planning.power import Line, Power
from ablations.runtime.escaping import csv_text

if TYPE_CHECKING:
    from rich.table import Table

    from ablations.runtime.console import Console

CSV_COLUMNS = (
    *("claim", "table", "row", "condition", "endpoint", "decides_claim", "seeds", "prompts", "candidates", "margin", "half_width"),
    *("power_margin", "power_5_percent", "chance_no_effect", "minutes", "seed", "prompt", "seed_prompt", "candidate", "measured_in"),
)


def show_power(power: Power, console: Console) -> None:
    """The sweep's own design by contrast, then all designs by claim, then the cheapest design of each claim."""
    # What is timed for the minutes says so before the first table.
    for table in [_all_designs(power), _own_design(power)][::-1]:
        console.table(table)
    for line in cheapest_lines(power):
        console.say(line)
    missing = sorted({f"{line.contrast.metric} in {line.contrast.read_in}" for line in _own_lines(power) if line.found is None})
    if missing:
        console.say(f"no variance was measured of {len(missing)}, so nothing is predicted of them: {', '.join(missing)}")
    console.say(f"variances: {power.components.origin.text}; a claim counts as decided at a chance of {ENOUGH:.0%}")


def _own_lines(power: Power) -> list[Line]:
    return power.lines([power.plan.design])


def _own_design(power: Power) -> Table:
    from rich.table import Table

    design, texts = power.plan.design, power.plan.text_prompts
    title = f"the sweep's own design: {design} (seeds x prompts x candidates), {texts} prompts for texts"
    titles = ("claim", "row", "condition", "endpoint", "+-95%", "margin", "finds it", "finds 5%", '"no effect"', "from")
    table = Table(*titles, title=title, title_justify="left")
    for line in _own_lines(power):
        c, found = line.contrast, line.chances
        row = [c.claim, c.row, c.condition if c.is_primary else f"({c.condition})", c.endpoint]
        row += [_number(found and found.half_width), _number(c.margin)]
        row += [_percent(found and found.power), _percent(found and found.power_of_five), _percent(found and found.equivalence)]
        table.add_row(*row, "-" if line.found is None else "pooled" if line.found.is_pooled else "its own")
    return table


def _all_designs(power: Power) -> Table:
    from rich.table import Table

    title = "chance that a claim is decided, whichever is true: a difference of the margin found, none recognised as none"
    table = Table("N", "sweep", *power.claims, title=title, title_justify="left")
    for design in power.designs:
        own = " <" if design == power.plan.design else ""
        minutes = power.minutes.of(design, list(power.plan.arms))
        table.add_row(f"{design}{own}", _minutes(minutes), *(_percent(power.claim(name, design).chance) for name in power.claims))
    return table


def cheapest_lines(power: Power) -> list[str]:
    """For each claim the cheapest design that decides it, in words."""
    lines = []
    for name in power.claims:
        best = power.cheapest(name)
        if best is None:
            lines.append(f"{name}: none of these designs decides it; it needs {power.needs(name)}")
        else:
            minutes = "" if best.minutes is None else f", {_minutes(best.minutes)} for its arms alone"
            lines.append(f"{name}: {best.design} (seeds x prompts x candidates) decides it{minutes}")
    return lines


def components_table(components: ComponentsFile) -> Table:
    """The variances as standard deviations, so that they read in units of the score."""
    from rich.table import Table

    title = "standard deviations of a paired difference, by what it varies with"
    titles = ("condition", "endpoint", "of", "seed", "prompt", "seed x prompt", "candidate", "arms", "seeds x prompts x candidates")
    table = Table(*titles, title=title, title_justify="left")
    for m in components.measured:
        c = m.components
        spreads = [f"{variance**0.5:.4f}" for variance in (c.seed, c.prompt, c.rest, c.candidate)]
        table.add_row(m.condition, m.endpoint, m.of, *spreads, str(m.num_arms), f"{m.num_seeds} x {m.num_prompts} x {m.num_candidates}")
    return table


def as_csv(power: Power, designs: Sequence[Design]) -> str:
    """A line for each contrast and design."""
    rows = []
    for line in power.lines(designs):
        c, d, found = line.contrast, line.design, line.chances
        minutes = power.minutes.of(d, power.plan.labels_of(c))
        row = [c.claim, c.table, c.row, c.condition, c.endpoint, c.is_primary, d.seeds, d.prompts, d.candidates, c.margin]
        row += [found.half_width, found.power, found.power_of_five, found.equivalence] if found else [None] * 4
        parts = line.found.measured.components if line.found else None
        row += [minutes, *([parts.seed, parts.prompt, parts.rest, parts.candidate] if parts else [None] * 4)]
        row += [line.found.source if line.found else ""]
        rows.append([_short(value) for value in row])
    return csv_text(CSV_COLUMNS, rows)


def _short(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _minutes(value: float | None) -> str:
    from datamodules.progress import duration

    return "-" if value is None else duration(60 * value)
