"""What made a result: code revision, library versions, seconds by stage."""

from __future__ import annotations

import functools
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ablations.runtime.errors import one_line

_ROOT = Path(__file__).parents[2]
_CELL, _CONDITIONS = "ablations/cell", "ablations/results/conditions.py"
_DATA_AND_NETWORKS = ("lightning_modules", "datamodules")
# What decides a verdict, of all that a report is made by: `verdicts.py` and what it stands on, not how it looks.
JUDGING = ("collect.py", "columns.py", "formats.py", "layouts.py", "statistics.py", "tables.py", "verdicts.py", "claims.yaml")
# The files that decide a result, by what they do.
CODE = {
    "training": (f"{_CELL}/loading", f"{_CELL}/training", *_DATA_AND_NETWORKS),
    "refining": (f"{_CELL}/refining", _CONDITIONS, *_DATA_AND_NETWORKS),
    "drawing": (f"{_CELL}/drawing", _CONDITIONS, *_DATA_AND_NETWORKS),
    "scoring": (f"{_CELL}/scoring", "ablations/metrics", *_DATA_AND_NETWORKS),
    "judging": tuple(f"ablations/reporting/{name}" for name in JUDGING),
}


@dataclass
class Timings:
    """Seconds by stage."""

    seconds: dict[str, float]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 3)


LIBRARIES = (
    *("torch", "pytorch-lightning", "transformers", "open_clip_torch", "diffusers", "tokenizers", "safetensors", "omegaconf", "wandb"),
    *("pyiqa", "stlpips-pytorch", "numpy", "scipy", "pandas", "pyarrow", "pillow"),
)


def library_versions() -> dict[str, str | None]:
    """The versions of Python and of the libraries that results depend on; None for one that is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


@functools.cache
def code_digests() -> dict[str, str]:
    """16 hex digits of the code by what it does (see `CODE`), and of the weights that metrics score with."""
    from ablations.results.made_by import digest_of_code  # reads NumPy, which `--help` does not wait for

    weights = {"scoring": sorted((_ROOT / "ablations/metrics").glob("*.safetensors"))}
    return {what: digest_of_code(*(_ROOT / part for part in parts), *weights.get(what, [])) for what, parts in CODE.items()}


@functools.cache
def code_revision(root: Path = Path(__file__).parents[2]) -> tuple[str | None, str | None]:
    """What code this is, and the reason where that is unknown: (git revision, with "+dirty" for changed code, else version; reason).

    root: the folder of the packages. It counts as a checkout only if git tracks this file there: an environment that lies inside
    somebody's own repository must not report that repository's revision.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), "--no-optional-locks", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "ablations/results/provenance.py")
        changed = git("status", "--porcelain", "--", "ablations", "lightning_modules", "datamodules")
        return git("rev-parse", "HEAD") + ("+dirty" if changed else ""), None
    except (OSError, subprocess.SubprocessError) as error:
        reason = f"not a git checkout: {one_line(getattr(error, 'stderr', None) or error)}"
    distributions = metadata.packages_distributions().get("ablations", [])
    return (f"{distributions[0]}-{metadata.version(distributions[0])}", None) if distributions else (None, reason)
