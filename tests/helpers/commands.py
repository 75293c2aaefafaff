"""Commands as a user starts them."""

from __future__ import annotations

import resource
import subprocess
import sys


def run(*arguments: str, module: str = "ablations.run") -> tuple[int, str, str, float]:
    """Exit code, stdout, stderr, and the process' CPU seconds: unlike the clock, they do not count what else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return result.returncode, result.stdout, result.stderr, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
