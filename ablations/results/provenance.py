"""What made a result: code revision, library versions, seconds by stage."""

from __future__ import annotations

import functools
import platform
import re
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
# Tables and verdicts come together here; how they look is decided by other files, which this one does not import.
_REPORTING, _JUDGING = "ablations/reporting", "assembly.py"
# The files that decide a result, by what they do.
CODE = {
    "training": (f"{_CELL}/loading", f"{_CELL}/training", *_DATA_AND_NETWORKS),
    "refining": (f"{_CELL}/refining", _CONDITIONS, *_DATA_AND_NETWORKS),
    "drawing": (f"{_CELL}/drawing", _CONDITIONS, *_DATA_AND_NETWORKS),
    "scoring": (f"{_CELL}/scoring", "ablations/metrics", *_DATA_AND_NETWORKS),
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
    """16 hex digits of the code by what it does: see `CODE` and `judging_files`. The weights that metrics score with are of scoring."""
    from ablations.results.made_by import digest_of_code  # reads NumPy, which `--help` does not wait for

    weights = {"scoring": sorted((_ROOT / "ablations/metrics").glob("*.safetensors"))}
    digests = {what: digest_of_code(*(_ROOT / part for part in parts), *weights.get(what, [])) for what, parts in CODE.items()}
    return {**digests, "judging": digest_of_code(*judging_files())}


@functools.cache
def judging_files() -> tuple[Path, ...]:
    """The files of `ablations/reporting` that tables and verdicts are computed by: the one where they come together, and all that it
    imports, through whatever files between."""
    folder = _ROOT / _REPORTING
    reached, new = set(), {folder / _JUDGING}
    while new:
        reached |= new
        texts = [path.read_text(encoding="utf-8") for path in new]
        names = {name for text in texts for name in re.findall(r"from ablations\.reporting\.(\w+) import", text)}
        lists = [names for text in texts for names in re.findall(r"from ablations\.reporting import \(?([^)\n]+)", text)]
        names |= {name.strip().partition(" ")[0] for listed in lists for name in listed.split(",")}
        new = {folder / f"{name}.py" for name in names if (folder / f"{name}.py").is_file()} - reached
    return tuple(sorted({*reached, *folder.glob("*claims.yaml")}))


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
