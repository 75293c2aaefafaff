"""Numbers as the report writes them."""

from __future__ import annotations

MINUS, TIMES, ABSENT = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"


def figure(value: float | None, digits: int, signed: bool = False) -> str:
    """A number with its decimals, a true minus sign, and a sign where asked for; a dash for None."""
    if value is None:
        return ABSENT
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:  # no minus before 0.000
        text = f"{0:.{digits}f}"
    return text.replace("-", MINUS)


def p_text(p_value: float | None) -> str:
    """As in "p = 0.012"; "p < 0.001" below that, "" for None."""
    if p_value is None:
        return ""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def sample_size(*counts: int) -> str:
    """As in 5 x 16 x 3, with a true multiplication sign."""
    return f" {TIMES} ".join(map(str, counts))
