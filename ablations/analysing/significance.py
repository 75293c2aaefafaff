"""Paired differences between the arms of anybody's scores, by the report's own statistics: intervals, equivalence, and what may fail."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from ablations.analysing.long_table import Asked, LongTable, read_long_table
from ablations.reporting.equivalence import equivalence
from ablations.reporting.evidence import Arm, Comparison, Scores
from ablations.reporting.measuring import Measured, measure
from ablations.reporting.pooling import Components, components_from, smallest_effect
from ablations.reporting.statistics import MIN_SEEDS, freedom_of_quantile, holm
from ablations.runtime.errors import UserError
from ablations.runtime.files import write_atomically, write_json

ALPHA = 0.05
ALL = "all"


@dataclass(frozen=True)
class Judging:
    """How arms are compared. `margins` by metric, "all" for the others; `lower` and `higher` name the metrics of which less, or more, is
    better ("all": every one). `pooled`: the arms were made in one way, so that their spread may be estimated together. `over_all`: Holm's
    correction runs over all metrics and arms, not over the arms of each metric."""

    reference: str | None
    margins: Mapping[str, float]
    lower: tuple[str, ...] = ()
    higher: tuple[str, ...] = ()
    pooled: bool = False
    over_all: bool = False


@dataclass(frozen=True)
class Compared:
    """An arm beside the reference in one metric, in the metric's units; None for what there is not.

    `difference` is arm minus reference with its 95% interval [low, high]; `p_holm` is corrected for the comparisons beside it. `better` is
    "higher", "lower" or "". With a `margin`, [equivalence_low, equivalence_high] is the 90% interval, `p_equivalence` the larger of the
    two one-sided p of TOST, `p_inferior` that of "worse by the margin or more". `smallest_effect` is the true difference that as many
    seeds and units find with a chance of 80%. `pooled_arms` counts the arms whose spread is behind the interval (None: its own).
    """

    metric: str
    arm: str
    reference: str
    mean: float
    reference_mean: float
    difference: float
    low: float
    high: float
    standard_error: float
    degrees_of_freedom: float
    p_value: float
    p_holm: float
    seeds: int
    units: int
    candidates: int
    pooled_arms: int | None
    better: str
    smallest_effect: float | None
    margin: float | None = None
    equivalence_low: float | None = None
    equivalence_high: float | None = None
    p_equivalence: float | None = None
    p_inferior: float | None = None
    says: str = ""

    @property
    def is_different(self) -> bool:
        return self.p_holm < ALPHA

    @property
    def is_equivalent(self) -> bool:
        return self.p_equivalence is not None and self.p_equivalence < ALPHA

    @property
    def side(self) -> str:
        """ "better", "worse", or, where neither direction is better, "higher" or "lower"; of the difference as it is measured."""
        above = "higher" if self.difference > 0 else "lower"
        return above if not self.better else "better" if above == self.better else "worse"


@dataclass(frozen=True)
class Failure:
    """A reason to exit with 1. `needs` names what it cannot do without: "margin", "better" (which direction is better), or nothing."""

    fails: Callable[[Compared], bool]
    needs: tuple[str, ...] = ()


# What --fail-if knows, by the word.
FAILURES: dict[str, Failure] = {
    "worse": Failure(lambda c: c.is_different and c.side == "worse", ("better",)),
    "different": Failure(lambda c: c.is_different),
    "not-better": Failure(lambda c: not (c.is_different and c.side == "better"), ("better",)),
    "not-equivalent": Failure(lambda c: not c.is_equivalent, ("margin",)),
    "maybe-worse": Failure(lambda c: c.p_inferior is None or c.p_inferior >= ALPHA, ("margin", "better")),
}


@dataclass(frozen=True)
class Findings:
    """All comparisons of a table, those that fail with the reason, and what has to be said of them."""

    table: LongTable
    reference: str
    compared: tuple[Compared, ...]
    failed: tuple[tuple[str, Compared], ...]
    notes: tuple[str, ...]


def findings_of(paths: Sequence[Path], asked: Asked, judging: Judging, fail_if: Sequence[str] = ()) -> Findings:
    """Read a table of one or more files, compare every arm with the reference in every metric, and say what fails.

    Raises UserError for what cannot be read, a reference that is not there, a reason to fail that lacks its margin or direction, and, where
    there is one, an arm that shares no two values with the reference: what cannot be compared has not passed.
    """
    table = read_long_table(paths, asked)
    reference = _reference(table, judging.reference, paths[0])
    compared: list[Compared] = []
    gaps: list[str] = []
    for metric, scores in table.scores.items():
        compared += _compared(metric, scores, reference, judging)
        there = {each.arm for each in compared if each.metric == metric}
        lacking = [arm for arm in _arms(table) if arm not in there and arm != reference]
        if lacking:
            names = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
            gaps.append(f"{metric}: no two values of equal seed and unit in {reference} and {names}")
    if gaps and (fail_if or not compared):
        raise UserError(f"{gaps[0][:180]}: nothing to compare, so nothing has passed; choose with --arms or --where")
    if judging.over_all:
        compared = _corrected(compared)
    for word in fail_if:
        _require_needs(word, compared)
    failed = tuple((word, each) for word in fail_if for each in compared if FAILURES[word].fails(each))
    return Findings(table, reference, tuple(compared), failed, (*table.notes, *gaps, *_notes(table, compared, judging.pooled)))


def _arms(table: LongTable) -> list[str]:
    return list(dict.fromkeys(arm for scores in table.scores.values() for arm in scores))


def _reference(table: LongTable, name: str | None, path: Path) -> str:
    arms = _arms(table)
    shown = ", ".join(arms[:8]) + (", ..." if len(arms) > 8 else "")
    if name is None or name not in arms:
        what = "which arm are the others compared with?" if name is None else f"--reference {name}: no arm of {path} is called that;"
        raise UserError(f"{what} name one with --reference; there are {shown}"[:290])
    if len(arms) < 2:
        raise UserError(f"{path} has one arm only, {name}: there is nothing to compare it with")
    return name


def _compared(metric: str, scores: Mapping[str, Scores], reference: str, judging: Judging) -> list[Compared]:
    """The arms of one metric beside the reference, corrected for their number."""
    arms = {name: Arm(name, name, {metric: own}, own.seeds) for name, own in scores.items()}
    measured = measure(Comparison("", "", reference, arms, poolable=judging.pooled), metric)
    margin = judging.margins.get(metric, judging.margins.get(ALL))
    better = _better(metric, judging)
    found = [_one(metric, name, reference, own, (scores, better, margin)) for name, own in measured.items()]
    return found if judging.over_all else _corrected(found)


def _one(metric: str, name: str, reference: str, own: Measured, of: tuple[Mapping[str, Scores], str, float | None]) -> Compared:
    scores, better, margin = of
    num_seeds, num_units = own.paired.shape
    estimate = own.estimate
    low, high = (float(end) for end in estimate.interval())
    components = Components(0.0, 0.0, float(own.paired.var(ddof=1)))
    if own.squares is not None:
        components = components_from(own.squares, num_seeds, num_units)
    tost = equivalence(estimate, margin) if margin else None
    inferior = {"higher": lambda: estimate.p_above(-(margin or 0)), "lower": lambda: estimate.p_below(margin or 0)}.get(better)
    return Compared(
        metric=metric,
        arm=name,
        reference=reference,
        mean=scores[name].mean,
        reference_mean=scores[reference].mean,
        difference=float(estimate.mean),
        low=low,
        high=high,
        standard_error=float(estimate.error),
        degrees_of_freedom=freedom_of_quantile(float(estimate.quantile())),
        p_value=float(estimate.p_value()),
        p_holm=float(estimate.p_value()),
        seeds=num_seeds,
        units=num_units,
        candidates=own.candidates,
        pooled_arms=own.pooled_arms,
        better=better,
        smallest_effect=smallest_effect(components, num_seeds, num_units, own.pooled_arms) if estimate.error > 0 else None,
        margin=margin,
        equivalence_low=tost.low if tost else None,
        equivalence_high=tost.high if tost else None,
        p_equivalence=tost.p_value if tost else None,
        p_inferior=float(inferior()) if inferior and margin else None,
    )


def _better(metric: str, judging: Judging) -> str:
    """Which direction is better: as asked for, else as the metric of this name was registered, else higher."""
    for word, names in (("lower", judging.lower), ("higher", judging.higher)):
        if metric in names:
            return word
    if ALL in judging.lower or ALL in judging.higher:
        return "lower" if ALL in judging.lower else "higher"
    from ablations.metrics.register import all_metrics

    known = all_metrics().get(metric)
    return "higher" if known is None else {True: "higher", False: "lower", None: ""}[known.higher_is_better]


def _corrected(compared: Sequence[Compared]) -> list[Compared]:
    """With Holm's correction over all of them, and what each then says."""
    p_holm = holm([each.p_value for each in compared]) if compared else []
    return [_saying(replace(each, p_holm=float(own))) for each, own in zip(compared, p_holm, strict=True)]


def _saying(each: Compared) -> Compared:
    within = f"no difference larger than {each.margin:g}" if each.is_equivalent else ""
    found = f"{each.side}, by less than {each.margin:g}" if within else each.side
    return replace(each, says=found if each.is_different else within or "undecided")


def _require_needs(word: str, compared: Sequence[Compared]) -> None:
    for each in compared:
        if "margin" in FAILURES[word].needs and each.margin is None:
            raise UserError(f"--fail-if {word} needs a margin of {each.metric}: give --margin {each.metric}=0.02, say, or one for all")
        if "better" in FAILURES[word].needs and not each.better:
            raise UserError(
                f"--fail-if {word}: of {each.metric} neither direction is better; say --lower-is-better {each.metric} or "
                f"--higher-is-better {each.metric}, or leave it out with --where"
            )


def _notes(table: LongTable, compared: Sequence[Compared], is_asked: bool) -> list[str]:
    """`is_asked`: whether arms may be pooled."""
    seeds = {each.seeds for each in compared}
    notes = []
    if seeds == {1}:
        notes.append("one seed: the intervals are for new units alone, and another seed may say something else")
    elif min(seeds) < MIN_SEEDS:
        notes.append(f"{min(seeds)} seeds in some comparison: so few do not tell how much seeds differ; the report asks for {MIN_SEEDS}")
    if len(table.seeds) > 1 and min(seeds) < len(table.seeds):
        notes.append(f"some arms lack some of the {len(table.seeds)} seeds: their differences are over the seeds that both have")
    if any(each.standard_error == 0 for each in compared):
        notes.append("where every difference is equal there is no spread to estimate an interval from")
    pooled = {each.pooled_arms for each in compared} - {None}
    if is_asked and not pooled:
        notes.append("nothing was pooled: the spread of the reference differs from the others', or too few arms are alike")
    if pooled:
        notes.append(f"intervals rest on the spread that {'/'.join(map(str, sorted(pooled)))} arms share, where a test allows it")  # type: ignore[type-var]
    return notes


def show(findings: Findings) -> None:
    """Print the comparisons as a table, with N and notes below."""
    import sys

    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "arm", "means", "difference", "95% interval", "p (Holm)", "finds", "says", title_justify="left")
    table.title = f"arms against {findings.reference}"
    digits_of = {
        each.metric: max(_digits(other) for other in findings.compared if other.metric == each.metric) for each in findings.compared
    }
    for each in findings.compared:
        digits = digits_of[each.metric]
        interval = f"[{each.low:+.{digits}f}, {each.high:+.{digits}f}]"
        p_value = "< 0.001" if each.p_holm < 0.001 else f"{each.p_holm:.3f}"
        finds = "" if each.smallest_effect is None else f"{each.smallest_effect:.{digits}f}"
        arrow = {"higher": " \N{UPWARDS ARROW}", "lower": " \N{DOWNWARDS ARROW}", "": ""}[each.better]
        means = f"{each.mean:.{digits}f} {each.reference_mean:.{digits}f}"
        table.add_row(each.metric + arrow, each.arm, means, f"{each.difference:+.{digits}f}", interval, p_value, finds, each.says)
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)
    sizes = sorted({f"{each.seeds} seeds x {each.units} units x {each.candidates}" for each in findings.compared})
    columns = ", ".join(f"{what}: {name}" for what, name in findings.table.columns.keys.items())
    print(f"N = {'; '.join(sizes[:4])}{'; ...' if len(sizes) > 4 else ''} ({columns})")
    print("finds: the smallest true difference that this N finds with a chance of 80%; arrows say which direction is better")
    for note in findings.notes:
        print(f"note: {note}")
    for word, each in findings.failed:
        print(f"failed ({word}): {each.metric} of {each.arm}: {each.difference:+.{digits_of[each.metric]}f}, {each.says}")


def _digits(each: Compared) -> int:
    """Decimals that show the standard error in two digits, 2 to 6."""
    return 3 if not each.standard_error > 0 else min(max(1 - math.floor(math.log10(each.standard_error)), 2), 6)


def write(findings: Findings, path: Path) -> None:
    """Write the comparisons as CSV or JSON, by the file's ending. Raises UserError for another one, RunFolderError where it cannot be
    written."""
    rows = [asdict(each) for each in findings.compared]
    if path.suffix == ".json":
        failed = [{"because": word, "metric": each.metric, "arm": each.arm} for word, each in findings.failed]
        columns = findings.table.columns.keys
        write_json(path, {"reference": findings.reference, "columns": columns, "compared": rows, "failed": failed, "notes": findings.notes})
        return
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, [field.name for field in fields(Compared)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, stream.getvalue())
