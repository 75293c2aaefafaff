"""`python -m ablations.controls OUTPUT_DIR/ARM`: does the refiner help, and because it was trained?

Reads the scores of an arm's finished seeds and prints, for each metric, the refined prompts against the coarse ones and
against every control, as a paired difference with its 95% interval: paired by (seed, prompt), candidates averaged,
prompts with equal text taken as one unit.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ablations.analysing.controls import compare, compared_metrics, compared_pairs, scores_of_arm
from ablations.runtime.errors import UserError, one_line


def main(argv: list[str] | None = None) -> int:
    """Print the comparisons; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) != 1 or argv[0] in ("--help", "-h"):
        print(__doc__)
        return 0 if argv and argv[0] in ("--help", "-h") else 2
    try:
        scores = scores_of_arm(Path(argv[0]))
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "comparison", "means", "difference", "95% interval", title=Path(argv[0]).name, title_justify="left")
    notes, sizes = set(), set()
    for metric in compared_metrics():
        for condition, against in compared_pairs(scores.condition):
            found = compare(scores, metric, condition, against)
            if found is None:
                continue
            mean, other, difference = found
            interval = f"[{difference.low:+.3f}, {difference.high:+.3f}]" + (" *" if difference.excludes_zero else "")
            table.add_row(metric, f"{condition} - {against}", f"{mean:.3f} {other:.3f}", f"{difference.mean:+.3f}", interval)
            sizes.add(f"N = {difference.num_seeds} seeds x {difference.num_prompts} distinct prompts")
            notes |= {difference.note} - {""}
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(table)
    print("; ".join([*sorted(sizes), "* the interval excludes 0", *sorted(notes)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
