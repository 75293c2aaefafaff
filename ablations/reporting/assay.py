"""Assay sensitivity: was the treatment there, could an effect have been seen, and was none seen where there is none?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ablations.reporting.claims import Check, Claim, Setting
from ablations.reporting.evidence import Arm, Comparison, Endpoint
from ablations.reporting.findings import ALPHA, Measurements
from ablations.reporting.formats import figure
from ablations.reporting.statistics import MIN_SEEDS, holm

PLACEBO = "placebo"
PASSED, FAILED, NOT_CHECKED = "passed", "failed", "not measured"
FOUND, NOT_FOUND = "found", "not found"


@dataclass(frozen=True)
class Outcome:
    """How a check or a control came out: one of the words above, and the figures in words.

    Of a control with figures: `mean`, `low`, `high` of the difference at its least certain endpoint, signed so that better is positive.
    """

    state: str
    text: str
    endpoint: str = ""
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    p_value: float = 1.0


def manipulation_check(claim: Claim, comparison: Comparison) -> Outcome:
    """Whether every check of a claim holds in every finished seed of the treated arm, the reference.

    "passed" with nothing said where a claim has no check; "not measured" where a measure is missing in every seed.
    """
    treated = comparison.arms.get(comparison.reference)
    row = comparison.arms.get(claim.rows[0]) if claim.rows else None
    if not claim.checks:
        return Outcome(PASSED, "")
    if treated is None:
        return Outcome(NOT_CHECKED, "the treated arm was not run")
    results = [_checked(check, treated, row) for check in claim.checks]
    failed = [text for is_kept, text in results if is_kept is False]
    if failed:
        return Outcome(FAILED, "; ".join(failed))
    unknown = [text for is_kept, text in results if is_kept is None]
    if unknown:
        return Outcome(NOT_CHECKED, "; ".join(unknown))
    return Outcome(PASSED, "; ".join(text for _, text in results))


def _checked(check: Check, treated: Arm, row: Arm | None) -> tuple[bool | None, str]:
    """Whether a check holds in every seed (None where it was measured in none), and its figures in words."""
    seeds = [seed for seed in treated.seeds if check.measure in treated.checks.get(seed, {})]
    from_row = bool(check.of) or check.above_row_by is not None or check.below_row_by is not None
    if from_row:
        seeds = [seed for seed in seeds if row is not None and (check.of or check.measure) in row.checks.get(seed, {})]
    if not seeds:
        return None, f"{check.measure} not measured" + (" in both arms" if from_row else "")
    values = [treated.checks[seed][check.measure] for seed in seeds]
    others = [row.checks[seed][check.of or check.measure] for seed in seeds] if from_row and row is not None else [0.0] * len(seeds)
    kept = [_keeps(check, *each) for each in zip(values, others, strict=True)]
    span = figure(min(values), 3) if len(values) == 1 else f"{figure(min(values), 3)} to {figure(max(values), 3)}"
    wanted = _wanted(check)
    held = "" if all(kept) else f", kept to in {sum(kept)} of {len(kept)} seeds"
    return all(kept), f"{check.measure} {span} (wanted: {wanted}{held})"


def _keeps(check: Check, value: float, other: float) -> bool:
    return (
        (check.at_least is None or value >= check.at_least)
        and (check.at_most is None or value <= check.at_most)
        and (not check.of or value >= check.times * other)
        and (check.above_row_by is None or value - other >= check.above_row_by)
        and (check.below_row_by is None or other - value >= check.below_row_by)
    )


def _wanted(check: Check) -> str:
    parts = [f"at least {check.at_least:g}"] if check.at_least is not None else []
    parts += [f"at most {check.at_most:g}"] if check.at_most is not None else []
    parts += [f"at least {check.times:g} x {check.of} of the arm without"] if check.of else []
    parts += [f"{check.above_row_by:g} above the arm without"] if check.above_row_by is not None else []
    parts += [f"{check.below_row_by:g} below the arm without"] if check.below_row_by is not None else []
    return ", ".join(parts)


def positive_control(setting: Setting, measurements: Measurements, family: str, margins: Mapping[str, float]) -> Outcome:
    """Whether the difference that must be there is found at every endpoint: p < 0.05 each, on its side; which needs no correction."""
    control, evidence = setting.positive_control, measurements.evidence
    candidates = evidence.of(control.table, control.condition or setting.condition)
    # Another reading of the method may have been run without the control's arms: then it is that of the reading that was.
    has_both = [c for c in candidates if {control.better, control.than} <= set(c.arms)]
    ordered = sorted(has_both, key=lambda c: (c.family != family, not c.is_planned)) or candidates
    comparison = ordered[0] if ordered else None
    names = (control.endpoints or setting.endpoints).get(evidence.profile, ())
    what = f"{_label(comparison, control.better)} against {_label(comparison, control.than)}"
    if comparison is None or control.better not in comparison.arms or control.than not in comparison.arms:
        return Outcome(NOT_CHECKED, f"{what}: not run")
    pair = {key: comparison.arms[key] for key in (control.better, control.than)}
    paired = replace(comparison, reference=control.than, arms=pair, poolable=False)
    outcomes = [_difference(paired, control.better, name, measurements, margins) for name in names]
    if not outcomes or any(outcome.state == NOT_CHECKED for outcome in outcomes):
        missing = next((outcome.text for outcome in outcomes if outcome.state == NOT_CHECKED), "no endpoint")
        return Outcome(NOT_CHECKED, f"{what}: {missing}")
    state = FOUND if all(outcome.state == FOUND for outcome in outcomes) else NOT_FOUND
    weakest = max(outcomes, key=lambda outcome: outcome.p_value)
    return replace(weakest, state=state, text=f"{what}: " + "; ".join(outcome.text for outcome in outcomes))


def _label(comparison: Comparison | None, key: str) -> str:
    return comparison.arms[key].label if comparison is not None and key in comparison.arms else key


def _difference(comparison: Comparison, key: str, metric: str, measurements: Measurements, margins: Mapping[str, float]) -> Outcome:
    """A row's difference from the reference at an endpoint, "found" where it is better."""
    endpoint = measurements.evidence.endpoints.get(metric, Endpoint(metric, metric))
    own = measurements.of(comparison, metric).get(key)
    if own is None or len(own.seeds) < MIN_SEEDS:
        return Outcome(NOT_CHECKED, f"{endpoint.heading} not measured" + ("" if own is None else f" in {MIN_SEEDS} seeds"), metric)
    sign = 1 if endpoint.higher_is_better else -1
    ends = sorted(sign * float(end) for end in own.estimate.interval())
    mean, p_value = sign * float(own.estimate.mean), float(own.estimate.p_value())
    text = f"{endpoint.heading} {figure(sign * mean, endpoint.digits, True)}"
    low, high = (figure(end, endpoint.digits, True) for end in sorted(sign * end for end in ends))
    state = FOUND if mean > 0 and p_value < ALPHA else NOT_FOUND
    p_value = p_value if mean > 0 else 1.0
    return Outcome(state, f"{text} [{low}, {high}]", metric, mean, ends[0], ends[1], margins.get(metric), p_value)


def placebo_outcomes(
    measurements: Measurements, claims: Iterable[Claim], margins: Mapping[str, float]
) -> dict[tuple[str, str, str], Outcome]:
    """By (table, condition, metric): whether the placebo shows a difference, after Holm's correction for all that it is compared in.

    Nothing is there for what the placebo was not scored in. One placebo stands in every table of arms that lists it.
    """
    evidence = measurements.evidence
    wanted: dict[tuple[str, str, str], Comparison] = {}
    for claim in claims:
        for setting in claim.settings:
            for comparison in evidence.of(claim.table, setting.condition):
                if PLACEBO in comparison.arms:
                    for name in setting.endpoints.get(evidence.profile, ()):
                        wanted.setdefault((claim.table, setting.condition, name), comparison)
    found = {key: _placebo(comparison, key[2], measurements, margins) for key, comparison in wanted.items()}
    tested = {key: outcome for key, outcome in found.items() if outcome.state != NOT_CHECKED}
    corrected = holm([outcome.p_value for outcome in tested.values()]) if tested else []
    for (key, outcome), p_value in zip(tested.items(), corrected, strict=True):
        found[key] = replace(outcome, state=FOUND if p_value < ALPHA else NOT_FOUND, p_value=float(p_value))
    return found


def _placebo(comparison: Comparison, metric: str, measurements: Measurements, margins: Mapping[str, float]) -> Outcome:
    outcome = _difference(comparison, PLACEBO, metric, measurements, margins)
    if outcome.state == NOT_CHECKED:
        return outcome
    own = measurements.of(comparison, metric)[PLACEBO]
    return replace(outcome, text=f"placebo: {outcome.text}", p_value=float(own.estimate.p_value()))


def placebo_of(outcomes: Mapping[tuple[str, str, str], Outcome], claim: Claim, setting: Setting, names: Sequence[str]) -> Outcome:
    """How the placebo came out at a setting's endpoints; that of another table in the same condition where the claim's has none."""
    own = []
    for name in names:
        keys = [(claim.table, setting.condition, name)]
        keys += [key for key in outcomes if key[1:] == (setting.condition, name) and key not in keys]
        own += [outcomes[key] for key in keys if key in outcomes and outcomes[key].state != NOT_CHECKED][:1]
    if not own:
        return Outcome(NOT_CHECKED, "no placebo was run")
    state = FOUND if any(outcome.state == FOUND for outcome in own) else NOT_FOUND
    least = min(own, key=lambda outcome: outcome.p_value)
    return replace(least, state=state, text="; ".join(outcome.text for outcome in own))
