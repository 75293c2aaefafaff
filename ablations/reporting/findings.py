"""What one comparison of arms says at the endpoints of a claim: differences with every p that a verdict may need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ablations.reporting.claims import BETTER, Claim, Setting
from ablations.reporting.equivalence import equivalence
from ablations.reporting.evidence import Arm, Comparison, Endpoint, Evidence
from ablations.reporting.formats import figure, sample_size
from ablations.reporting.measuring import Measured, measure
from ablations.reporting.pooling import components_from, size_to_decide
from ablations.reporting.statistics import MIN_SEEDS, estimate_means

ALPHA = 0.05
# Rows that stand in a table beside what a claim is about: no claim about "every other row" means them.
NOT_OTHERS = ("placebo", "uniform", "frozen")
# What a row says about a claim at an endpoint, before any correction, and how it is put for several rows at once.
STATES = {
    "supports": "as claimed",
    "opposes": "the other way",
    "none": "no effect larger than the margin",
    "open": "not separated",
    "few seeds": "too few seeds",
    "not measured": "not measured",
}


@dataclass(frozen=True)
class Finding:
    """One row and endpoint of a claim.

    `mean`, `low`, `high`: row minus reference with its 95% interval, and `narrow` the 90% interval that equivalence is read from, in the
    endpoint's units; None where there is none. `claimed` is the sign that the claim gives the difference. `p_supports`, `p_opposes`: two-
    sided p of the difference where it lies on the claimed side, and on the other one, else 1; `p_none` that of equivalence; all with failed
    seeds counted against what they say. `has_room`: whether there is as much room as the margin for what the claim says.
    """

    row: str
    label: str
    endpoint: Endpoint
    state: str
    claimed: int
    margin: float | None = None
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    narrow: tuple[float, float] | None = None
    p_supports: float = 1.0
    p_opposes: float = 1.0
    p_none: float = 1.0
    num_seeds: int = 0
    num_prompts: int = 0
    num_candidates: int = 0
    failed: int = 0
    by_seed: tuple[float, ...] = ()
    has_room: bool = True
    measured: Measured | None = field(default=None, repr=False, compare=False)

    @property
    def size(self) -> str:
        """N as seeds x prompts x candidates; "" where nothing was measured."""
        return sample_size(self.num_seeds, self.num_prompts, self.num_candidates) if self.num_seeds else ""

    @property
    def is_tested(self) -> bool:
        return self.state in ("supports", "opposes", "none", "open")

    @property
    def figures(self) -> str:
        """As in "Fidelity -0.034 [-0.056, -0.012]", or why there is no such thing."""
        if self.mean is None:
            return f"{self.endpoint.heading} not measured"
        digits = self.endpoint.digits
        text = f"{self.endpoint.heading} {figure(self.mean, digits, signed=True)}"
        if self.low is None:
            return f"{text}, no interval below {MIN_SEEDS} seeds"
        return f"{text} [{figure(self.low, digits, True)}, {figure(self.high, digits, True)}]"

    @property
    def bound(self) -> str:
        """What the 95% interval bounds in any case, as in "at most 0.042 worse"; "" without an interval."""
        if self.low is None or self.high is None:
            return ""
        ends = {"higher": max(self.high, 0.0), "lower": max(-self.low, 0.0)}
        words = {"higher": "better", "lower": "worse"} if self.endpoint.higher_is_better else {"higher": "worse", "lower": "better"}
        worse, better = (next(ends[side] for side in ends if words[side] == word) for word in ("worse", "better"))
        digits = self.endpoint.digits
        return f"at most {figure(worse, digits)} worse and {figure(better, digits)} better"

    @property
    def size_needed(self) -> tuple[int, int] | None:
        """The (seeds, prompts) that would decide; None where it is not known, or beyond reach."""
        own = self.measured
        if own is None or own.squares is None or not self.margin:
            return None
        components = components_from(own.squares, *own.paired.shape)
        return size_to_decide(components, self.margin, self.num_prompts, 1, own.pooled_arms)

    @property
    def text(self) -> str:
        return f"{self.label}: {self.figures}{self.size and f' (N = {self.size})'}"


class Measurements:
    """`measure` of one study's evidence, by its plan, each comparison and metric once."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self._found: dict[tuple, dict[str, Measured]] = {}

    def of(self, comparison: Comparison, metric: str) -> dict[str, Measured]:
        """Every row's difference from the comparison's reference, by row key."""
        key = (comparison.table, comparison.condition, comparison.family, comparison.reference, *comparison.arms, metric)
        if key not in self._found:
            plan = self.evidence.plan_of(comparison)
            self._found[key] = measure(comparison, metric, plan.seeds if plan else None)
        return self._found[key]


def rows_of(claim: Claim, comparison: Comparison) -> tuple[str, ...]:
    """The keys of the rows that a claim is about."""
    others = (key for key in comparison.arms if key != comparison.reference and key not in NOT_OTHERS)
    return claim.rows if claim.rows is not None else tuple(others)


def findings_of(
    claim: Claim, setting: Setting, comparison: Comparison, measurements: Measurements, margins: Mapping[str, float]
) -> list[Finding]:
    """A finding for every row and endpoint of a claim in a setting: rows in their order, endpoints within."""
    evidence = measurements.evidence
    plan = evidence.plan_of(comparison)
    names = setting.endpoints.get(evidence.profile, ())
    endpoints = {name: evidence.endpoints.get(name, Endpoint(name, name)) for name in names}
    measured = {name: measurements.of(comparison, name) for name in names}
    found = []
    for key in rows_of(claim, comparison):
        for name in names:
            claimed = (1 if claim.row_is == BETTER else -1) * (1 if endpoints[name].higher_is_better else -1)
            blank = Finding(key, _label(comparison, key), endpoints[name], "not measured", claimed, margins.get(name))
            own = measured[name].get(key)
            found.append(blank if own is None else _finding(blank, own, comparison, plan.seeds if plan else None))
    return found


def _label(comparison: Comparison, key: str) -> str:
    return comparison.arms[key].label if key in comparison.arms else key


def _finding(blank: Finding, own: Measured, comparison: Comparison, planned: Sequence[int] | None) -> Finding:
    arm, reference = comparison.arms[blank.row], comparison.arms[comparison.reference]
    num_seeds, num_prompts = own.paired.shape
    by_seed = tuple(float(value) for value in own.paired.mean(axis=1))
    sizes = {"num_seeds": num_seeds, "num_prompts": num_prompts, "num_candidates": own.candidates, "by_seed": by_seed}
    mean = float(own.paired.mean())
    if num_seeds < MIN_SEEDS:
        return replace(blank, state="few seeds", mean=mean, **sizes)
    failed = num_failed(arm, reference, own.seeds, planned)
    low, high = (float(end) for end in own.estimate.interval())
    p_supports, p_opposes, p_none = _p_values(blank, own, failed)
    narrow = tuple(float(end) for end in own.estimate.interval(0.90))
    if blank.margin is not None and p_none < ALPHA:
        state = "none"
    else:
        state = "supports" if p_supports < ALPHA else "opposes" if p_opposes < ALPHA else "open"
    return replace(
        blank,
        **sizes,
        state=state,
        mean=mean,
        low=low,
        high=high,
        narrow=narrow,
        p_supports=p_supports,
        p_opposes=p_opposes,
        p_none=p_none,
        failed=failed,
        has_room=_has_room(blank, arm, reference),
        measured=own,
    )


def num_failed(arm: Arm, reference: Arm, seeds: Sequence[int], planned: Sequence[int] | None) -> int:
    """How many seeds of two arms failed in one of them and so are missing from their comparison; of planned ones, where there is a plan."""
    failed = {*arm.failed, *reference.failed} - set(seeds)
    return len(failed if planned is None else failed & set(planned))


def _p_values(blank: Finding, own: Measured, failed: int) -> tuple[float, float, float]:
    """p of support, of the opposite and of equivalence. A failed seed counts against each of them: as one without any effect for the first
    two, as one with an effect as large as the margin for the third."""
    two_sided, none = own.estimate, own.estimate
    if failed:
        two_sided = estimate_means(_with_failed(own.paired, failed, 0.0))
        away = (blank.margin or 0.0) * (1 if own.paired.mean() >= 0 else -1)
        none = estimate_means(_with_failed(own.paired, failed, away))
    p_value, is_claimed = float(two_sided.p_value()), float(own.estimate.mean) * blank.claimed > 0
    p_none = equivalence(none, blank.margin).p_value if blank.margin else 1.0
    return (p_value, 1.0, p_none) if is_claimed else (1.0, p_value, p_none)


def _with_failed(paired: np.ndarray, failed: int, mean: float) -> np.ndarray:
    """The differences with seeds added that have a given mean and, between prompts, the pattern of the others."""
    pattern = paired.mean(axis=0) - paired.mean() + mean
    return np.concatenate([paired, np.repeat(pattern[None], failed, axis=0)])


def _has_room(blank: Finding, arm: Arm, reference: Arm) -> bool:
    """Whether the arm that the claim has below can be below, and the one above above, by the margin."""
    endpoint = blank.endpoint
    scores = [one.scores[endpoint.name].mean for one in (arm, reference)]
    lower, upper = scores if blank.claimed < 0 else scores[::-1]
    margin = blank.margin or 0.0
    below_ceiling = endpoint.ceiling is None or endpoint.ceiling - lower >= margin
    return below_ceiling and (endpoint.floor is None or upper - endpoint.floor >= margin)
