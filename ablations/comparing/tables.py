"""The main table: methods as rows, metrics as columns, paired differences from our refiner; and what follows for each other method.

The statistics are those of the report (crossed seeds and prompts, Holm's correction over the rows): see `ablations.reporting.tables`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ablations.baselines.register import REFERENCE
from ablations.comparing.results import MethodResult, Results
from ablations.config import KEYS, to_flat_dict
from ablations.metrics.register import all_metrics
from ablations.reporting.collect import FinishedCell, Section
from ablations.reporting.columns import DIVERSITY, Column
from ablations.reporting.layouts import held_fixed
from ablations.reporting.rows import Entry
from ablations.reporting.tables import Heading, ReportTable, table_of_rows

# What decides, fixed before any result was looked at. Diversity at the candidates' own noise is what a user sees; at one noise for all
# candidates it comes from the text alone. Both must be higher.
DIVERSITY_ENDPOINTS = ("st_lpips", "st_lpips@refined_shared_noise")
FIDELITY_ENDPOINTS = {"tiny": ("fidelity",), "paper": ("musiq-koniq", "musiq-ava")}
FAITHFULNESS_ENDPOINTS = ("subject_kept", "clip_score_coarse", "sentence_similarity", "content_words_kept")
# Not worse: the interval of our refiner minus the other ends above minus so many points, of 100 at the metric's upper bound.
MARGIN_POINTS = 2.0
BETTER, WORSE, UNDECIDED, NOT_WORSE = "better", "worse", "undecided", "not worse"


@dataclass(frozen=True)
class DuelFinding:
    """Our refiner minus another method in one metric, in the metric's units. `low` and `high` are None below 3 seeds."""

    column: Column
    mean: float
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class Duel:
    """Our refiner against another method: diversity, fidelity and faithfulness. `wins`: more diverse in every endpoint, and not worse in
    any other one."""

    method: str
    title: str
    diversity: tuple[DuelFinding, ...]
    others: tuple[DuelFinding, ...]

    @property
    def wins(self) -> bool:
        more_diverse = bool(self.diversity) and all(finding.verdict == BETTER for finding in self.diversity)
        return more_diverse and bool(self.others) and all(finding.verdict == NOT_WORSE for finding in self.others)

    @property
    def verdict(self) -> str:
        """In words, with what is missing for a win."""
        if self.wins:
            return "more diverse, fidelity and faithfulness not worse"
        findings = [*self.diversity, *self.others]
        short = [f"{f.column.heading}: {f.verdict}" for f in findings if f.verdict not in (BETTER, NOT_WORSE)]
        return "no win (" + ("; ".join(short) if short else "not measured") + ")"


def _cells(method: MethodResult, results: Results) -> dict[int, FinishedCell]:
    comparison = results.comparison
    cells = {}
    for seed, unit in method.units.items():
        settings = {name: value for name, value in to_flat_dict(comparison.configs[seed]).items() if KEYS[name].option.kind != "run"}
        cells[seed] = FinishedCell(
            folder=comparison.to,
            arm=comparison.arm,
            seed=seed,
            profile=comparison.config.profile,
            settings=settings,
            data_digest=results.data_digest,
            weights_digest=results.weights_digest,
            code_revision="",
            timings={},
            scores=unit.scores,
            unavailable=results.unavailable,
        )
    return cells


def main_table(results: Results) -> ReportTable:
    """The table of all methods against our refiner."""
    comparison = results.comparison
    cells = {method.name: _cells(method, results) for method in results.methods}
    section = Section(
        comparison.config.profile,
        results.data_digest,
        results.weights_digest,
        tuple(cell for by_seed in cells.values() for cell in by_seed.values()),
    )
    labels = {}
    for method in results.methods:
        labels[method.name] = method.title + (f" ({method.num_failed} of {method.num_asked} failed)" if method.num_failed else "")
    settings = {
        name: value
        for name, value in cells[REFERENCE][comparison.seeds[0]].settings.items()
        if name not in ("seed", "eval.num_prompts", "eval.num_candidates")
    }
    failed = [method for method in results.methods if method.num_failed]
    notes = [f"Not available: {name}: {why}" for name, why in results.unavailable.items()]
    notes += [
        _what_is_read(results),
        "CLIP score is read against the prompt that a picture was drawn from; CLIP score, coarse, against the user's words.",
    ]
    if failed:
        names = ", ".join(f"{method.title} {method.num_failed} of {method.num_asked}" for method in failed)
        notes.append(
            f"Failed, and neither drawn nor scored: {names}. Their means are over what they wrote, diversity over prompts with no failure."
        )
    heading = Heading("comparison", "Comparison with other ways to write prompts", REFERENCE, held_fixed(settings), notes)
    return table_of_rows(section, heading, labels, {name: (by_seed, "refined") for name, by_seed in cells.items()})


def _what_is_read(results: Results) -> str:
    """What every method reads, as a note of the table has it."""
    config = results.comparison.config
    if not any(prompt.fine_prompt for prompt in results.prompts):
        listed = config.eval.prompts or config.data.test_source or ""
        return f"Every method reads the prompts of {Path(listed).name} as they are, and is drawn at the same image noise."
    if config.eval.coarse_length == "middle":
        return "Every method reads the coarse prompt of middle length (6 to 10 tokens) and is drawn at the same image noise."
    return f"Every method reads the coarse prompt of length {config.eval.coarse_length}."


def duels(table: ReportTable, results: Results) -> list[Duel]:
    """Our refiner against every method that writes prompts, but its own strategies and the bounds."""
    fidelity = FIDELITY_ENDPOINTS.get(results.comparison.config.profile, ())
    found = []
    for method in results.methods:
        if method.name in ("coarse", "fine") or method.name.startswith(REFERENCE):
            continue
        row = table.row(method.name)
        findings = {
            column.key: _finding(column, row.entries[column.key])
            for column in table.columns
            if row is not None and column.key in row.entries and row.entries[column.key].difference_mean is not None
        }
        found.append(
            Duel(
                method.name,
                method.title,
                tuple(findings[key] for key in DIVERSITY_ENDPOINTS if key in findings),
                tuple(findings[key] for key in (*fidelity, *FAITHFULNESS_ENDPOINTS) if key in findings),
            )
        )
    return found


def _finding(column: Column, entry: Entry) -> DuelFinding:
    assert entry.difference_mean is not None
    difference = entry.difference
    if difference is None:
        return DuelFinding(column, -entry.difference_mean, None, None, UNDECIDED + ", fewer than 3 seeds")
    # The table has row minus reference; here it is our refiner minus the row.
    mean, low, high = -difference.mean, -difference.high, -difference.low
    if column.block == DIVERSITY:
        return DuelFinding(column, mean, low, high, BETTER if low > 0 else WORSE if high < 0 else UNDECIDED)
    metric = all_metrics().get(column.metric)
    margin = MARGIN_POINTS / 100 * (metric.points if metric is not None else 1.0)
    return DuelFinding(column, mean, low, high, NOT_WORSE if low > -margin else WORSE if high < -margin else UNDECIDED)
