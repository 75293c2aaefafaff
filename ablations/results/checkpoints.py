"""The files of a training's checkpoints. Imports no heavy library.

`last.ckpt` is the newest, with the optimiser's state, to go on from; `final.ckpt` is the end. `step-STEP.ckpt` (every
`train.keep_every`-th step) and `best-STEP-LOSS.ckpt` (the `train.keep_best` lowest held-out losses) are kept beside it. All but
`last.ckpt` hold trained parameters alone: Adam's two moments are two thirds of a checkpoint, and nothing reads them again.
"""

from __future__ import annotations

import re
from pathlib import Path

from ablations.runtime.errors import UserError

FINAL, LAST = "final.ckpt", "last.ckpt"
_KEPT = re.compile(r"step-(?P<step>\d+)\.ckpt")
_BEST = re.compile(r"best-(?P<step>\d+)-(?P<loss>\d+\.\d+)\.ckpt")


def kept_name(step: int) -> str:
    """The file of a step that is kept whatever its loss."""
    return f"step-{step:07d}.ckpt"


def best_name(step: int, loss: float) -> str:
    """The file of a step that is kept for its held-out loss."""
    return f"best-{step:07d}-{loss:.6f}.ckpt"


def best_of(folder: Path) -> list[tuple[float, int, Path]]:
    """(held-out loss, step, file) of those that were kept for their loss, the best first; of equal ones the earlier."""
    found = [(match, path) for path in folder.glob("best-*.ckpt") if (match := _BEST.fullmatch(path.name))]
    return sorted((float(match["loss"]), int(match["step"]), path) for match, path in found)


def would_be_kept(folder: Path, loss: float, count: int) -> bool:
    """Whether a step with this held-out loss is among the best `count` so far."""
    best = best_of(folder)
    return count > 0 and (len(best) < count or loss < best[count - 1][0])


def drop_all_but_best(folder: Path, count: int) -> None:
    """Remove those that are no more among the best `count`."""
    for _, _, path in best_of(folder)[count:]:
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)


def asked_for(folder: Path, which: str) -> Path:
    """The file of eval.checkpoint=`which`: "last" (the end of the training), "best", or a step.

    Raises UserError, one line, where the training did not keep it.
    """
    if which == "last":
        return folder / FINAL
    if which == "best":
        best = best_of(folder)
        if not best:
            raise UserError(f"eval.checkpoint=best: {folder} has kept none; train with train.keep_best=1, which needs train.validate_every")
        return best[0][2]
    step = int(which)
    steps = {int(match["step"]): path for path in folder.glob("*.ckpt") for form in (_KEPT, _BEST) if (match := form.fullmatch(path.name))}
    if step not in steps:
        there = ", ".join(map(str, sorted(steps))) or "none"
        raise UserError(f"eval.checkpoint={step}: {folder} has kept the steps {there}; train with train.keep_every")
    return steps[step]
