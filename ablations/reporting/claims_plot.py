"""The picture that the report opens with: every claim's difference with its interval, in units of the margin that was declared for it.

So everything that is compared stands on one axis: 0 is no difference, from -1 to 1 lies the band in which a difference is too small to
matter, and to the right is what the claim says. Colours are Okabe and Ito's, and every verdict has a shape of its own, so that the picture
can be read in grey and by colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablations.reporting.formats import MINUS
from ablations.runtime.escaping import html

CONTROL, PLACEBO, CLAIM = "control", "placebo", "claim"
HEADINGS = {
    CONTROL: "Positive controls: what must be found",
    PLACEBO: "Placebo: what must not be found",
    CLAIM: "Claims",
}
WIDTH = 1200
_PLOT_LEFT, _PLOT_RIGHT, _RAW, _VERDICT = 390, 720, 742, 978
_ROW, _HEAD, _TITLE, _TOP = 24, 40, 26, 62
# Margins to both sides of 0 that are shown; what lies beyond is an arrow at the edge.
LIMIT = 4.0
STYLE = """
.forest{--back:#fff;--ink:#1d2430;--soft:#5b6577;--rule:#dde1e8;--band:#edf0f5;--blue:#0072b2;--red:#c44e00;--green:#00795a;--grey:#6b7280;--pink:#a8487f;--amber:#9a6700}
@media (prefers-color-scheme:dark){
.forest{--back:#14181f;--ink:#e8ebf1;--soft:#a3adbd;--rule:#3a4353;--band:#232a35;--blue:#56b4e9;--red:#ff9d5c;--green:#3fc49a;--grey:#a3adbd;--pink:#e39cc6;--amber:#e6b04a}
}
.forest .paper{fill:var(--back)}
.forest text{font:13px system-ui,-apple-system,"Segoe UI",sans-serif;fill:var(--ink)}
.forest .group{font-weight:700;font-size:15px;fill:var(--soft)}
.forest .claim{font-weight:600;font-size:14px}
.forest .soft{fill:var(--soft);font-size:12px}
.forest .figures{font-size:12px;font-variant-numeric:tabular-nums}
.forest .band{fill:var(--band)}
.forest .rule{stroke:var(--rule)}
.forest .zero{stroke:var(--soft)}
.forest .seed{fill:var(--soft);opacity:.45}
.forest .mark{stroke-width:2.2;stroke-linecap:butt}
.forest .hollow{fill:var(--back)}
.forest .cell{fill:var(--back);stroke-width:2}
.forest .small{font-size:11px}
.forest .verdict{font-weight:600;font-size:12.5px}
"""
_COLOURS = {"blue", "red", "green", "grey", "pink", "amber"}
STYLE += "".join(
    f".forest .{c}{{stroke:var(--{c})}}.forest .fill-{c},.forest text.{c}{{fill:var(--{c});stroke:none}}\n" for c in sorted(_COLOURS)
)
_MEANINGS = {
    ("blue", "disc"): "as claimed, or found",
    ("green", "diamond"): "no difference that matters",
    ("grey", "ring"): "undecided",
    ("red", "square"): "the other way, or not as it must be",
    ("pink", "cross"): "treatment not delivered",
    ("amber", "triangle"): "no room for a difference",
}


@dataclass(frozen=True)
class ClaimLine:
    """One line of the picture: what is compared, and its difference in units of the margin, positive as the claim has it.

    `title` is the claim, `detail` the row, condition and endpoint; `figures` the difference in the endpoint's own units, `verdict` what
    came of it ("" where an earlier line has said so). Without a difference `mean` is None; without an interval `low` and `high` are.
    `by_seed` are the means of single seeds. `mark` is the verdict whose mark the line has ("": its own).
    """

    kind: str
    title: str
    detail: str
    verdict: str
    figures: str
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    by_seed: tuple[float, ...] = ()
    mark: str = ""


def look_of(verdict: str, kind: str = CLAIM) -> tuple[str, str]:
    """(colour, shape) of a verdict; shapes are disc, square, diamond, ring, cross and triangle."""
    if (kind, verdict) in ((CONTROL, "not found"), (PLACEBO, "found")):
        return "red", "square"
    looks = {
        "reproduced": ("blue", "disc"),
        "found": ("blue", "disc"),
        "contradicted": ("red", "square"),
        "no effect": ("green", "diamond"),
        "not found": ("green", "diamond"),
        "not delivered": ("pink", "cross"),
        "no room": ("amber", "triangle"),
    }
    return next((look for name, look in looks.items() if verdict.startswith(name)), ("grey", "ring"))


def claims_plot(lines: Sequence[ClaimLine]) -> tuple[str, int] | None:
    """Every line of the picture: (SVG elements, height). None where no line has a difference."""
    if not any(line.mean is not None for line in lines):
        return None
    parts, y, title = [], float(_TOP), ""
    for kind, heading in HEADINGS.items():
        own = [line for line in lines if line.kind == kind]
        if own:
            parts.append(_text(14, y + 28, heading, "group"))
            y += _HEAD
        for line in own:
            if line.title != title:
                title = line.title
                parts += [f'<line class="rule" x1="14" x2="{WIDTH - 14}" y1="{y:.1f}" y2="{y:.1f}"/>', _text(14, y + 18, title, "claim")]
                y += _TITLE
            parts.append(_line(line, y))
            y += _ROW
    bottom = y + 8
    return "".join([*_axis(bottom), *parts, *_legend(lines, bottom + 50)]), int(bottom + 74)


def svg(panel: tuple[str, int], label: str) -> str:
    """The picture as an SVG element for the page, with a name for those who cannot see it."""
    elements, height = panel
    quoted = html(label)
    return f'<svg class="forest" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{quoted}">{elements}</svg>'


def svg_file(panel: tuple[str, int]) -> str:
    """The picture as a file of its own, with its own colours."""
    elements, height = panel
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    back = '<rect class="paper" width="100%" height="100%"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" class="forest" {size}><style>{STYLE}</style>{back}{elements}</svg>\n'


def _x(value: float) -> float:
    middle, half = (_PLOT_LEFT + _PLOT_RIGHT) / 2, (_PLOT_RIGHT - _PLOT_LEFT) / 2
    return middle + max(-LIMIT, min(LIMIT, value)) / LIMIT * half


def _axis(bottom: float) -> list[str]:
    parts = [f'<rect class="band" x="{_x(-1):.1f}" y="{_TOP - 6}" width="{_x(1) - _x(-1):.1f}" height="{bottom - _TOP + 6:.1f}"/>']
    for tick in range(-int(LIMIT), int(LIMIT) + 1):
        kind = "rule" if tick else "zero"
        parts.append(f'<line class="{kind}" x1="{_x(tick):.1f}" x2="{_x(tick):.1f}" y1="{_TOP - 6}" y2="{bottom:.1f}"/>')
        parts.append(_text(_x(tick), bottom + 16, f"{tick:+d}".replace("-", MINUS) if tick else "0", "soft", "middle"))
    middle = _x(0)
    return [
        *parts,
        _text(middle - 8, 24, "\N{LEFTWARDS ARROW} the other way", "soft", "end"),
        _text(middle + 8, 24, "as claimed \N{RIGHTWARDS ARROW}", "soft"),
        _text(middle, 44, "too small to matter", "soft", "middle"),
        _text(middle, bottom + 32, "difference, in units of its margin", "soft", "middle"),
        _text(_RAW, 44, "difference [95% interval], margin", "soft"),
        _text(_VERDICT, 44, "verdict", "soft"),
    ]


def _line(line: ClaimLine, y: float) -> str:
    colour, shape = look_of(line.mark or line.verdict, line.kind)
    said, _ = look_of(line.verdict, line.kind)
    middle = y + 12
    hint = html(f"{line.title}: {line.detail}: {line.figures}: {line.verdict}")
    parts = [f"<g><title>{hint}</title>", _text(28, middle + 4, line.detail, "soft")]
    parts += [_text(_RAW, middle + 4, line.figures, "figures"), _text(_VERDICT, middle + 4, line.verdict, f"verdict {said}")]
    if line.mean is not None:
        if line.low is not None and line.high is not None:
            ends = f'x1="{_x(line.low):.1f}" x2="{_x(line.high):.1f}"'
            parts.append(f'<line class="mark {colour}" {ends} y1="{middle:.1f}" y2="{middle:.1f}"/>')
            parts += [_arrow(edge, middle, colour) for edge, is_out in ((-1, line.low < -LIMIT), (1, line.high > LIMIT)) if is_out]
        if abs(line.mean) > LIMIT:
            side = 1 if line.mean > 0 else -1
            far = f"{line.mean:+.0f}".replace("-", MINUS)
            end = line.low if side > 0 else line.high
            start = side * LIMIT if end is None else max(-LIMIT, min(LIMIT, end))
            parts.append(_text(_x(start) - 10 * side, middle + 4, far, f"figures {colour}", "end" if side > 0 else "start"))
        shown = [value for value in line.by_seed if abs(value) <= LIMIT]
        parts += [f'<circle class="seed" cx="{_x(value):.1f}" cy="{middle + 7:.1f}" r="2"/>' for value in shown]
        parts += [_mark(shape, _x(line.mean), middle, colour)] if abs(line.mean) <= LIMIT else []
    return "".join([*parts, "</g>"])


def _arrow(edge: int, y: float, colour: str) -> str:
    return f'<path class="fill-{colour}" d="M{_x(edge * LIMIT) + 7 * edge:.1f} {y:.1f}l{-9 * edge} -5v10z"/>'


def _mark(shape: str, x: float, y: float, colour: str) -> str:
    solid, hollow = f'class="fill-{colour}"', f'class="mark hollow {colour}"'
    return {
        "disc": f'<circle {solid} cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>',
        "ring": f'<circle {hollow} cx="{x:.1f}" cy="{y:.1f}" r="4.6"/>',
        "square": f'<rect {solid} x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10"/>',
        "diamond": f'<path {solid} d="M{x - 6.5:.1f} {y:.1f}l6.5 -6.5 6.5 6.5 -6.5 6.5z"/>',
        "triangle": f'<path {hollow} d="M{x - 5.5:.1f} {y + 4.5:.1f}h11l-5.5 -10z"/>',
        "cross": f'<path class="mark {colour}" d="M{x - 4.5:.1f} {y - 4.5:.1f}l9 9m0 -9l-9 9"/>',
    }[shape]


def _legend(lines: Sequence[ClaimLine], y: float) -> list[str]:
    """The marks that occur, with what they mean."""
    parts, x = [], 24.0
    drawn = dict.fromkeys(look_of(line.mark or line.verdict, line.kind) for line in lines if line.mean is not None)
    for colour, shape in (look for look in _MEANINGS if look in drawn):
        words = _MEANINGS[colour, shape]
        parts += [_mark(shape, x, y, colour), _text(x + 12, y + 4, words, "soft")]
        x += 34 + 6.2 * len(words)
    return [*parts, f'<circle class="seed" cx="{x:.1f}" cy="{y:.1f}" r="2"/>', _text(x + 10, y + 4, "one seed", "soft")]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "") -> str:
    attributes = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{html(text)}</text>'
