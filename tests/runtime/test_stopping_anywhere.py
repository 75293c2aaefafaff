"""A signal is heard wherever it comes, also where Python passes over what is raised."""

from __future__ import annotations

import subprocess
import sys

WHILE_DELETING = """
import os, signal
from ablations.runtime.stopping import Preempted, StopRequest

class Deleted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

stop = StopRequest().install()
one = Deleted()
del one
try:
    stop.check("drawing")
except Preempted as preempted:
    print("stopped:", preempted)
"""


def test_a_signal_while_something_is_deleted_is_heard_at_the_next_check_without_a_traceback():
    done = subprocess.run([sys.executable, "-c", WHILE_DELETING], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped: drawing\n", "")
