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
