"""Imported, for what it does, by a command that is started by its path: `python ablations/run.py`, `torchrun ablations/run.py`.

Python then looks into the command's own folder first: our `config`, `metrics`, `web` and others would be taken for libraries of these
names, and the suite's packages would not be found where they are not installed. This takes that folder out, and puts the root in front.
From here on a signal ends the command in one line.
"""

from __future__ import annotations

import sys
from pathlib import Path

_COMMANDS = Path(__file__).resolve().parents[1]

sys.path[:] = [str(_COMMANDS.parent), *(entry for entry in sys.path if Path(entry).resolve() != _COMMANDS)]

from ablations.runtime import early_signals  # noqa: E402  (it is found from here on)

early_signals.install()
