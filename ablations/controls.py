"""`python -m ablations.controls OUTPUT_DIR/ARM`: does the refiner help, and because it was trained?

Reads the scores of an arm's finished seeds and prints, for each metric, the refined prompts against the coarse ones and
against every control, as a paired difference with its 95% interval: paired by (seed, prompt), candidates averaged,
prompts with equal text taken as one unit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ablations.errors import UserError, one_line

METRICS = ("fidelity", "words_drawn", "style_drawn", "subject_kept", "subject_in_text", "clip_score_coarse")
CONDITIONS = ("refined", "rewrite", "plug_in")


def read_scores(arm: Path):
    """The scores of an arm's finished seeds as one table, with the columns `seed` and `coarse` (the coarse prompt's text).

    Raises UserError where the folder holds no finished seed.
    """
    import pandas as pd

    from ablations.run_folder import read_run

    parts, origins = [], set()
    for folder in sorted(arm.glob("seed-*")):
        run = read_run(folder)
        if run is None or run["status"] != "finished" or not (folder / "scores.parquet").exists():
            continue
        origins.add(json.dumps(run["digests"], sort_keys=True))
        texts = (
            pd.read_json(folder / "prompts.jsonl", lines=True, dtype=False).drop_duplicates("prompt_id").set_index("prompt_id")["coarse"]
        )
        scores = pd.read_parquet(folder / "scores.parquet")
        parts.append(scores.assign(seed=run["seed"], coarse=scores.prompt_id.map(texts)))
    if not parts:
        raise UserError(f"{arm} holds no finished seed with scores: run cells first, then give OUTPUT_DIR/ARM")
    if len(origins) > 1:
        raise UserError(f"the seeds in {arm} were made from different data or weights: run them again with force=true")
    return pd.concat(parts, ignore_index=True)


def compare(scores, metric: str, condition: str, against: str):
    """(mean of one condition, mean of the other, their paired Difference) on a metric, over the prompts that every seed has.

    None where one of them was not scored, or where there are fewer than two pairs.
    """
    from ablations.statistics import paired_difference

    chosen = scores[(scores.metric == metric) & (scores.candidate >= 0)]
    tables = [
        chosen[chosen.condition == name].pivot_table(index="seed", columns="coarse", values="value", aggfunc="mean").dropna(axis="columns")
        for name in (condition, against)
    ]
    shared = tables[0].columns.intersection(tables[1].columns)
    if tables[0].shape[0] != tables[1].shape[0] or tables[0].shape[0] * len(shared) < 2:
        return None
    one, other = (table[shared].to_numpy() for table in tables)
    return one.mean(), other.mean(), paired_difference(one, other)


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

    table = Table("metric", "comparison", "means", "difference", "95% interval", title=Path(argv[0]).name, title_justify="left")
    names, notes, sizes = set(scores.condition), set(), set()
    controls = sorted(name for name in names if name.startswith("control_"))
    for metric in METRICS:
        for condition in (name for name in CONDITIONS if name in names):
            for against in ("coarse", *controls) if condition == "refined" else ("coarse",):
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
