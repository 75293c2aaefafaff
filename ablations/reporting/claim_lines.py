"""Verdicts as lines of the picture of the claims: positive controls and the placebo first, then every claim where it is judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ablations.reporting.assay import Outcome
from ablations.reporting.claims_plot import CLAIM, CONTROL, PLACEBO, ClaimLine
from ablations.reporting.findings import Finding
from ablations.reporting.formats import ABSENT, figure
from ablations.reporting.judging import NOT_MEASURED, Verdict
from ablations.results.conditions import all_conditions

# Where a claim is judged, in a few words; other conditions have their titles.
WHERE = {
    "refined": "refined prompts",
    "rewrite": "rewritten prompts",
    "plug_in": "drawn with the trained E_T",
    "refined_shared_noise": "refined prompts at one image noise",
}
# The marks of single rows, by what each says; verdicts that judge nothing have their own.
_MARKS = {"supports": "reproduced", "opposes": "contradicted", "none": "no effect", "open": "undecided", "few seeds": "undecided"}


def where(condition: str) -> str:
    """A condition in a few words."""
    known = all_conditions().get(condition)
    return WHERE.get(condition, known.title if known else condition)


def claim_lines(verdicts: Sequence[Verdict]) -> list[ClaimLine]:
    """The picture's lines, in its order; what was not measured is no line."""
    claims = [line for verdict in verdicts if verdict.verdict != NOT_MEASURED for line in _of_claim(verdict)]
    return [*_controls(verdicts), *_placebos(verdicts), *claims]


def _controls(verdicts: Iterable[Verdict]) -> list[ClaimLine]:
    """Every positive control once: several claims may have one in common."""
    found: dict[tuple[str, str], ClaimLine] = {}
    for verdict in verdicts:
        if verdict.control is not None:
            # The rows' labels may have colons of their own; figures have none.
            what, _, _ = verdict.control.text.partition(" [")[0].rpartition(": ")
            condition = verdict.setting.positive_control.condition or verdict.condition
            place = "" if verdict.setting.positive_control.table == "conditions" else where(condition)
            line = _outcome(CONTROL, what, place, verdict.control, verdict)
            found.setdefault((line.title, line.detail), line)
    return sorted(found.values(), key=lambda line: line.title)


def _placebos(verdicts: Iterable[Verdict]) -> list[ClaimLine]:
    found: dict[str, ClaimLine] = {}
    for verdict in verdicts:
        if verdict.placebo is not None and verdict.placebo.mean is not None:
            line = _outcome(PLACEBO, "weight of L_clip changed in the fifth digit", where(verdict.condition), verdict.placebo, verdict)
            found.setdefault(line.detail, line)
    return list(found.values())


def _outcome(kind: str, title: str, place: str, outcome: Outcome, verdict: Verdict) -> ClaimLine:
    heading = outcome.endpoint and _heading(outcome.endpoint, verdict)
    detail = " · ".join(part for part in (place, heading) if part)
    if outcome.mean is None or not outcome.margin:
        return ClaimLine(kind, title, detail, outcome.state, ABSENT)
    digits = 2 if abs(outcome.mean) >= 10 else 3
    figures = _figures(outcome.mean, outcome.low, outcome.high, outcome.margin, digits)
    ends = [None if end is None else end / outcome.margin for end in (outcome.low, outcome.high)]
    return ClaimLine(kind, title, detail, outcome.state, figures, outcome.mean / outcome.margin, *ends)


def _heading(metric: str, verdict: Verdict) -> str:
    from ablations.reporting.columns import heading_of

    return next((f.endpoint.heading for f in verdict.findings if f.endpoint.name == metric), heading_of(metric))


def _of_claim(verdict: Verdict) -> list[ClaimLine]:
    place = where(verdict.condition)
    if verdict.best:
        return _best(verdict, place)
    if not verdict.findings or all(finding.mean is None for finding in verdict.findings):
        return [ClaimLine(CLAIM, verdict.claim.title, place, verdict.verdict, ABSENT)]
    several = len({finding.row for finding in verdict.findings}) > 1
    lines = [_finding(finding, verdict, f"{finding.label} · " if several else "", place) for finding in verdict.findings]
    # The verdict is said once, beside the first line that it is made of.
    return [lines[0], *(ClaimLine(**{**vars(line), "verdict": ""}) for line in lines[1:])]


def _finding(finding: Finding, verdict: Verdict, row: str, place: str) -> ClaimLine:
    detail = f"{row}{place} · {finding.endpoint.heading}"
    judged = verdict.verdict if verdict.verdict in ("not delivered", "no room") else _MARKS.get(finding.state, "undecided")
    said = said_of(verdict)
    if finding.mean is None:
        return ClaimLine(CLAIM, verdict.claim.title, detail, said, ABSENT)
    figures = _figures(finding.mean, finding.low, finding.high, finding.margin, finding.endpoint.digits)
    if not finding.margin:
        return ClaimLine(CLAIM, verdict.claim.title, detail, said, figures)
    ends = [None if end is None else finding.claimed * end / finding.margin for end in (finding.low, finding.high)]
    low, high = sorted(end for end in ends if end is not None) if None not in ends else (None, None)
    scaled = tuple(finding.claimed * value / finding.margin for value in finding.by_seed)
    mean = finding.claimed * finding.mean / finding.margin
    return ClaimLine(CLAIM, verdict.claim.title, detail, said, figures, mean, low, high, scaled, judged)


def said_of(verdict: Verdict) -> str:
    """The verdict's word, with the margin where it names one: of one endpoint its own."""
    margins = {f"{finding.margin:g}" for finding in verdict.findings if finding.margin}
    return verdict.verdict.replace("the margin", margins.pop()) if len(margins) == 1 else verdict.verdict


def _best(verdict: Verdict, place: str) -> list[ClaimLine]:
    """Of the best of many: the reference minus the best other arm; the simultaneous interval ends at 0 where one is ruled out."""
    lines = []
    for metric, best in verdict.best.items():
        endpoint = next(finding.endpoint for finding in verdict.findings if finding.endpoint.name == metric)
        margin = next(finding.margin for finding in verdict.findings if finding.endpoint.name == metric)
        reference = next(key for key in best.low if key not in {finding.row for finding in verdict.findings})
        low, high = best.low[reference], best.high[reference]
        figures = _figures(None, low, high, margin, endpoint.digits)
        middle = None if not margin else (low + high) / 2 / margin
        ends = (None, None) if not margin else (low / margin, high / margin)
        detail = f"against the best other · {place} · {endpoint.heading}"
        lines.append(ClaimLine(CLAIM, verdict.claim.title, detail, said_of(verdict), figures, middle, *ends, (), verdict.verdict))
    return lines


def _figures(mean: float | None, low: float | None, high: float | None, margin: float | None, digits: int) -> str:
    parts = [] if mean is None else [figure(mean, digits, signed=True)]
    parts += [] if low is None or high is None else [f"[{figure(low, digits, True)}, {figure(high, digits, True)}]"]
    return " ".join(parts) + (f", \N{PLUS-MINUS SIGN}{margin:g}" if margin else "")
