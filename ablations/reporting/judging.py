"""Verdicts: what the evidence says about each claim. What is judged stands in claims.yaml, how in docs/statistics.md.

For every claim and setting, in this order: not measured; not delivered; undecided without assay sensitivity (the positive control was not
found, or the placebo was); undecided before the registered seeds are in. Then no effect larger than the margin; reproduced or
contradicted, after Holm's correction over everything that is judged; no room; undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ablations.reporting import assay
from ablations.reporting.assay import Outcome
from ablations.reporting.best_of_many import Best, best_of
from ablations.reporting.claims import NOT_BEST, Claim, Setting, load_claims, margins
from ablations.reporting.evidence import Comparison, Endpoint, Evidence
from ablations.reporting.findings import ALPHA, NOT_OTHERS, STATES, Finding, Measurements, findings_of
from ablations.reporting.formats import TIMES, figure, p_text
from ablations.reporting.statistics import MIN_SEEDS, holm

REPRODUCED, CONTRADICTED, NO_EFFECT, UNDECIDED = "reproduced", "contradicted", "no effect larger than the margin", "undecided"
NOT_DELIVERED, NO_ROOM, NOT_MEASURED = "not delivered", "no room", "not measured"
VERDICTS = (REPRODUCED, CONTRADICTED, NO_EFFECT, UNDECIDED, NOT_DELIVERED, NO_ROOM, NOT_MEASURED)
TINY_SCOPE = "about the tiny world and claims nothing about Stable Diffusion 2.1"
_NEEDED = {"losses": "with other loss terms", "afe": "with and without AFE", "prompt_length": "of other lengths"}


@dataclass(frozen=True)
class Verdict:
    """What the evidence says about a claim in one setting.

    `line` gives the figures that decide it in words, `reason` why it is not judged or not decided ("" where it is), `scope` what it is
    about. `p_value` is the claim's own p (None where there is none), `p_holm` the same corrected for all that is judged, None for a verdict
    that needs no correction. `check`, `control` and `placebo` are how these came out; `marks` what a reader must know beside the verdict;
    `table` the slug of the table with the figures.
    """

    claim: Claim
    setting: Setting
    is_primary: bool
    verdict: str
    line: str
    scope: str
    reason: str = ""
    table: str = ""
    family: str = ""
    findings: tuple[Finding, ...] = ()
    p_value: float | None = None
    p_holm: float | None = None
    check: Outcome | None = None
    control: Outcome | None = None
    placebo: Outcome | None = None
    best: Mapping[str, Best] = field(default_factory=dict)
    marks: tuple[str, ...] = ()

    @property
    def condition(self) -> str:
        return self.setting.condition


@dataclass(frozen=True)
class _Case:
    """A claim in one setting and comparison, with what it would be judged by."""

    claim: Claim
    setting: Setting
    comparison: Comparison | None
    findings: tuple[Finding, ...] = ()
    best: Mapping[str, Best] = field(default_factory=dict)
    check: Outcome | None = None
    control: Outcome | None = None
    placebo: Outcome | None = None
    missing: str = ""

    @property
    def is_primary(self) -> bool:
        return self.setting is self.claim.settings[0]

    @property
    def p_reproduced(self) -> float:
        """Every comparison must lie on the claimed side, so that the largest p counts (an intersection-union test)."""
        if self.best:
            return max(best.p_only_best(self._reference) for best in self.best.values())
        return max((finding.p_supports for finding in self.findings), default=1.0)

    @property
    def p_contradicted(self) -> float:
        """One comparison on the other side is enough, so that the smallest p counts, times their number (Bonferroni)."""
        if self.best:
            return min(1.0, len(self.best) * min(best.p_not_best(self._reference) for best in self.best.values()))
        is_one_row = len({finding.row for finding in self.findings}) == 1
        if is_one_row and any(finding.state == "supports" for finding in self.findings):
            return 1.0
        tested = [finding.p_opposes for finding in self.findings if finding.is_tested]
        return min(1.0, len(tested) * min(tested)) if tested else 1.0

    @property
    def p_none(self) -> float:
        """Every endpoint of a row must lie within its margin. A claim about several rows has no effect where one row has none, so that the
        smallest of the rows counts, times their number; with the best of many all of them must."""
        by_row: dict[str, list[float]] = {}
        for finding in self.findings:
            by_row.setdefault(finding.row, []).append(finding.p_none)
        each = [max(values) for values in by_row.values()]
        if not each:
            return 1.0
        return max(each) if self.best else min(1.0, len(each) * min(each))

    @property
    def p_effect(self) -> float:
        return min(self.p_reproduced, self.p_contradicted)

    @property
    def has_room(self) -> bool:
        return all(finding.has_room for finding in self.findings)

    @property
    def _reference(self) -> str:
        assert self.comparison is not None
        return self.comparison.reference

    @property
    def why_not_judged(self) -> tuple[str, str]:
        """(verdict, reason) where no test can be made of it, else ("", "")."""
        if self.comparison is None or all(finding.state == "not measured" for finding in self.findings):
            return NOT_MEASURED, self.missing
        if self.check is not None and self.check.state == assay.FAILED:
            return NOT_DELIVERED, self.check.text
        if not any(finding.is_tested for finding in self.findings):
            return UNDECIDED, f"fewer than {MIN_SEEDS} seeds"
        if self.control is not None and self.control.state != assay.FOUND:
            return UNDECIDED, f"no assay sensitivity: the positive control was {self.control.state} ({self.control.text})"
        if self.placebo is not None and self.placebo.state == assay.FOUND:
            return UNDECIDED, f"no assay sensitivity: the placebo shows a difference ({self.placebo.text})"
        return (UNDECIDED, self.missing) if self.missing else ("", "")


def judge(evidence: Evidence, say_what_would_decide: bool = True, is_aside: Callable[[str, str], bool] | None = None) -> list[Verdict]:
    """A verdict for every claim and setting, the primary one first, and for every family where a claim's table has several.

    `say_what_would_decide`: whether what is undecided says the seeds and prompts that it would take, which is most of the time spent.
    `is_aside` tells of a table and family whether it is another reading of the method, which stands beside the one that is shown.

    Verdicts that an effect is there are corrected for all of them together (Holm): the chance that a study without any effect shows one is
    at most 5%. "No effect" has that chance for each claim by itself. Another reading is corrected as if it were the one that is shown.
    """
    measurements = Measurements(evidence)
    placebo = assay.placebo_outcomes(measurements, load_claims(), margins(evidence.profile))
    cases = [
        _case(claim, setting, comparison, measurements, placebo)
        for claim in load_claims()
        for setting in claim.settings
        for comparison in (evidence.of(claim.table, setting.condition) or [None])
    ]
    corrected = _corrected([case for case in cases if not case.why_not_judged[0]], is_aside or (lambda table, family: False))
    return [_verdict(case, corrected.get(id(case)), evidence, say_what_would_decide) for case in cases]


def _corrected(judged: Sequence[_Case], is_aside: Callable[[str, str], bool]) -> dict[int, float]:
    """Holm's p of every case, by its id: of those that are shown together, and of each other reading in the place of the shown one."""
    families: dict[tuple[str, str], list[_Case]] = {}
    shown = []
    for case in judged:
        name = (case.claim.table, case.comparison.family if case.comparison else "")
        (families.setdefault(name, []) if is_aside(*name) else shown).append(case)
    found = _holm_of(shown)
    for (table, _), own in families.items():
        together = _holm_of([*own, *(case for case in shown if case.claim.table != table)])
        found |= {id(case): together[id(case)] for case in own}
    return found


def _holm_of(cases: Sequence[_Case]) -> dict[int, float]:
    return dict(zip(map(id, cases), holm([case.p_effect for case in cases]) if cases else [], strict=True))


def _case(
    claim: Claim,
    setting: Setting,
    comparison: Comparison | None,
    measurements: Measurements,
    placebo: Mapping[tuple[str, str, str], Outcome],
) -> _Case:
    if comparison is None:
        missing = f"no finished arms {_NEEDED.get(claim.table, 'with refined prompts')} and all else equal"
        return _Case(claim, setting, None, missing=missing)
    evidence = measurements.evidence
    limits = margins(evidence.profile)
    findings = tuple(findings_of(claim, setting, comparison, measurements, limits))
    names = setting.endpoints.get(evidence.profile, ())
    best = _best(comparison, names, evidence) if claim.row_is == NOT_BEST else {}
    missing = _interim(claim, comparison, evidence, findings) or ("" if findings else "no row to compare")
    if all(finding.state == "not measured" for finding in findings):
        missing = "; ".join(dict.fromkeys(f"{finding.label}: {finding.figures}" for finding in findings)) or "no row to compare"
    elif claim.row_is == NOT_BEST and not missing:
        failed = sum(finding.failed for finding in findings)
        missing = f"{failed} seeds failed, and the best of many needs all" if failed else "" if best else "the arms share too few seeds"
    return _Case(
        claim,
        setting,
        comparison,
        findings,
        best,
        check=assay.manipulation_check(claim, comparison),
        control=assay.positive_control(setting, measurements, comparison.family, limits),
        placebo=assay.placebo_of(placebo, claim, setting, names),
        missing=missing,
    )


def _best(comparison: Comparison, names: Sequence[str], evidence: Evidence) -> dict[str, Best]:
    """Which arm may be the best, by endpoint, over the planned seeds and the prompts that all arms have; {} where these are too few."""
    found, plan = {}, evidence.plan_of(comparison)
    for name in names:
        arms = {key: arm.scores[name] for key, arm in comparison.arms.items() if name in arm.scores and key not in NOT_OTHERS}
        if comparison.reference not in arms or len(arms) < 2:
            continue
        seeds = set.intersection(*(set(own.seeds) for own in arms.values()))
        seeds &= set(plan.seeds) if plan else seeds
        prompts = set.intersection(*(set(own.prompts) for own in arms.values()))
        if len(seeds) < MIN_SEEDS or len(prompts) < 2:
            continue
        order = tuple(sorted(seeds)), tuple(prompt for prompt in arms[comparison.reference].prompts if prompt in prompts)
        endpoint = evidence.endpoints.get(name, Endpoint(name, name))
        found[name] = best_of({key: own.at(*order) for key, own in arms.items()}, endpoint.higher_is_better)
    return found if len(found) == len(names) else {}


def _interim(claim: Claim, comparison: Comparison, evidence: Evidence, findings: Sequence[Finding]) -> str:
    """Why it is too early to judge by the plan; "" where it is not, or nothing was planned."""
    plan = evidence.plan_of(comparison)
    if plan is None:
        return ""
    rows = {comparison.reference, *(finding.row for finding in findings if finding.state != "not measured")}
    waiting = {seed for key in rows for seed in plan.seeds if seed not in comparison.arms[key].seeds + comparison.arms[key].failed}
    done = len(plan.seeds) - len(waiting)
    return f"a look before the plan was carried out: {done} of {len(plan.seeds)} registered seeds are in" if waiting else ""


def _verdict(case: _Case, p_holm: float | None, evidence: Evidence, say_what_would_decide: bool) -> Verdict:
    verdict, reason = case.why_not_judged
    p_value = None
    if not verdict:
        assert p_holm is not None
        if case.p_none < ALPHA and case.has_room:
            verdict, p_value, p_holm = NO_EFFECT, case.p_none, None
        elif p_holm < ALPHA:
            verdict = REPRODUCED if case.p_reproduced <= case.p_contradicted else CONTRADICTED
            p_value = case.p_effect
        elif not case.has_room:
            verdict, reason = NO_ROOM, _no_room(case)
            p_value = case.p_effect
        else:
            verdict, p_value = UNDECIDED, case.p_effect
            reason = _needed(case, p_holm) if say_what_would_decide else ""
    return Verdict(
        claim=case.claim,
        setting=case.setting,
        is_primary=case.is_primary,
        verdict=verdict,
        line=_line(case, verdict, reason, p_value, p_holm),
        scope=TINY_SCOPE if evidence.profile == "tiny" else f"about profile={evidence.profile}",
        reason=reason,
        table=case.comparison.slug if case.comparison else "",
        family=case.comparison.family if case.comparison else "",
        findings=case.findings,
        p_value=p_value,
        p_holm=p_holm if p_value is not None else None,
        check=case.check,
        control=case.control,
        placebo=case.placebo,
        best=case.best,
        marks=_marks(case, evidence) if case.comparison else (),
    )


def _no_room(case: _Case) -> str:
    first = next(finding for finding in case.findings if not finding.has_room)
    return f"{first.endpoint.heading} leaves {first.label} less room than its margin of {first.margin:g}"


def _needed(case: _Case, p_holm: float) -> str:
    """What the data bound all the same, and how many seeds would decide."""
    mixed = {finding.state for finding in case.findings}
    if "supports" in mixed and mixed & {"none", "opposes"} and "open" not in mixed:
        return "the comparisons disagree, and more seeds would not change that"
    if case.p_effect < ALPHA <= p_holm:
        return f"an effect by itself (p = {case.p_effect:.3f}), not after Holm's correction for all that is judged"
    sizes = [finding.size_needed for finding in case.findings if finding.state == "open"]
    if not sizes:
        return ""
    if None in sizes:
        return "no number of seeds and prompts within reach would decide" if case.findings[0].num_prompts > 1 else ""
    seeds, prompts = (max(size[i] for size in sizes if size) for i in (0, 1))
    return f"{seeds} seeds {TIMES} {prompts} prompts would decide"


def _marks(case: _Case, evidence: Evidence) -> tuple[str, ...]:
    """What a reader must know beside the verdict: failed seeds, seeds beyond the plan, what was not checked."""
    assert case.comparison is not None
    arms, found = case.comparison.arms, []
    for key in dict.fromkeys([case.comparison.reference, *(finding.row for finding in case.findings)]):
        if key in arms and arms[key].failed:
            total = len(arms[key].seeds) + len(arms[key].failed)
            found.append(f"{len(arms[key].seeds)} of {total} seeds of {arms[key].label} finished")
    if any(finding.failed for finding in case.findings):
        found.append("failed seeds count against what is said")
    plan = evidence.plan_of(case.comparison)
    if plan is not None:
        beyond = {seed for key in {case.comparison.reference} for seed in arms[key].seeds if seed not in plan.seeds}
        found += [f"{len(beyond)} seeds beyond the registered ones are left out"] if beyond else []
    found += ["manipulation check not measured"] if case.check is not None and case.check.state == assay.NOT_CHECKED else []
    found += ["no placebo was run"] if case.placebo is not None and case.placebo.state == assay.NOT_CHECKED else []
    return tuple(found)


def _line(case: _Case, verdict: str, reason: str, p_value: float | None, p_holm: float | None) -> str:
    """The verdict's figures in words: those of one row, or how several stand and the one that decides; then p, then the reason."""
    if verdict == NOT_MEASURED or case.comparison is None:
        return reason
    parts = [_figures(case, verdict)]
    if p_value is not None:
        corrected = "" if p_holm is None else f", Holm {p_text(p_holm)}"
        parts.append(f"{p_text(p_value)}{corrected}")
    if verdict == UNDECIDED and len({finding.row for finding in case.findings}) == 1:
        parts += [f"{finding.endpoint.heading} {finding.bound}" for finding in case.findings if finding.bound]
    line = "; ".join([*parts, *([reason] if reason else [])])
    return f"{line} [{case.comparison.family}]" if case.comparison.family and case.claim.table != "conditions" else line


def _figures(case: _Case, verdict: str) -> str:
    findings = case.findings
    if case.best:
        return "; ".join(_best_in_words(case, name, best) for name, best in case.best.items())
    rows = list(dict.fromkeys(finding.row for finding in findings))
    if verdict == NO_EFFECT:
        worst = {row: max(finding.p_none for finding in findings if finding.row == row) for row in rows}
        row = min(worst, key=lambda key: worst[key])
        within = [f"{f.figures} within {_band(f)}" for f in findings if f.row == row]
        return f"{next(f.label for f in findings if f.row == row)}: {', '.join(within)}{_sizes(findings)}"
    if len(rows) == 1:
        return f"{findings[0].label}: {', '.join(finding.figures for finding in findings)}{_sizes(findings)}"
    standing = []
    for state, words in STATES.items():
        members = list(dict.fromkeys(finding.label for finding in findings if finding.state == state))
        standing += [f"{words}: {', '.join(members)}"] if members else []
    decisive = _decisive(findings, verdict)
    return f"{'; '.join(standing)}. {'Decisive' if decisive.is_tested else 'First'}: {decisive.text}"


def _decisive(findings: Sequence[Finding], verdict: str) -> Finding:
    """What contradicts most certainly; else what stands in the way: the first that could not be judged, or the least certain."""
    if verdict == CONTRADICTED:
        return min(findings, key=lambda finding: finding.p_opposes)
    order = ("supports", "none", "open", "opposes", "few seeds", "not measured")
    return max(findings, key=lambda finding: (order.index(finding.state), finding.p_supports))


def _best_in_words(case: _Case, name: str, best: Best) -> str:
    findings = [finding for finding in case.findings if finding.endpoint.name == name]
    assert case.comparison is not None
    arms = case.comparison.arms
    reference = arms[case.comparison.reference]
    may = ", ".join(arms[key].label for key in best.may_be_best)
    low, high = best.low[reference.key], best.high[reference.key]
    digits = findings[0].endpoint.digits
    interval = f"{reference.label} minus the best other [{figure(low, digits, True)}, {figure(high, digits, True)}]"
    return f"{findings[0].endpoint.heading}: may be best: {may}; {interval}{_sizes(findings)}"


def _band(finding: Finding) -> str:
    return f"\N{PLUS-MINUS SIGN}{finding.margin:g}"


def _sizes(findings: Sequence[Finding]) -> str:
    sizes = " or ".join(dict.fromkeys(finding.size for finding in findings if finding.size))
    return f" (N = {sizes})" if sizes else ""
