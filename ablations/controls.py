"""`python -m ablations.controls OUTPUT_DIR/ARM`: does the refiner help, and because it was trained?

Reads the scores of an arm's finished seeds and prints, for each metric, the refined prompts against the coarse ones and
against every control, as a paired difference with its 95% interval: paired by (seed, prompt), candidates averaged,
prompts with equal text taken as one unit.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ablations.errors import UserError, one_line

METRICS = ("fidelity", "words_drawn", "style_drawn", "subject_kept", "clip_score_coarse")
CONDITIONS = ("refined", "rewrite")


def read_scores(arm: Path):
    """The scores of an arm's finished seeds as one table, with the columns `seed` and `coarse` (the coarse prompt's text).

    Raises UserError where the folder holds no finished seed.
    """
    import pandas as pd

    from ablations.run_folder import read_run

    parts = []
    for folder in sorted(arm.glob("seed-*")):
        run = read_run(folder)
        if run is None or run["status"] != "finished" or not (folder / "scores.parquet").exists():
            continue
        texts = (
            pd.read_json(folder / "prompts.jsonl", lines=True, dtype=False).drop_duplicates("prompt_id").set_index("prompt_id")["coarse"]
        )
        scores = pd.read_parquet(folder / "scores.parquet")
        parts.append(scores.assign(seed=run["seed"], coarse=scores.prompt_id.map(texts)))
    if not parts:
        raise UserError(f"{arm} holds no finished seed with scores: run cells first, then give OUTPUT_DIR/ARM")
    return pd.concat(parts, ignore_index=True)


def compare(scores, metric: str, condition: str, against: str):
    """The paired difference of two conditions on one metric; None where one of them was not scored."""
    from ablations.statistics import paired_difference

    chosen = scores[(scores.metric == metric) & (scores.candidate >= 0)]
    tables = [
        chosen[chosen.condition == name].pivot_table(index="seed", columns="coarse", values="value", aggfunc="mean")
        for name in (condition, against)
    ]
    if any(table.empty for table in tables):
        return None
    return paired_difference(*(table.to_numpy() for table in tables))


def main(argv: list[str] | None = None) -> int:
    """Print the comparisons; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) != 1 or argv[0] in ("--help", "-h"):
        print(__doc__)
        return 0 if argv and argv[0] in ("--help", "-h") else 2
    try:
        scores = read_scores(Path(argv[0]))
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "comparison", "difference", "95% interval", "N", title=Path(argv[0]).name, title_justify="left")
    names = set(scores.condition)
    for metric in METRICS:
        for condition in (name for name in CONDITIONS if name in names):
            others = ("coarse", *sorted(name for name in names if name.startswith("control_"))) if condition == "refined" else ("coarse",)
            for against in others:
                found = compare(scores, metric, condition, against)
                if found is not None:
                    interval = f"[{found.low:+.3f}, {found.high:+.3f}]" + (" *" if found.excludes_zero else "")
                    size = f"{found.num_seeds} seeds x {found.num_prompts} prompts"
                    table.add_row(metric, f"{condition} - {against}", f"{found.mean:+.3f}", interval, size)
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(table)
    print("* the interval excludes 0" + ("; " + found.note if found is not None and found.note else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
