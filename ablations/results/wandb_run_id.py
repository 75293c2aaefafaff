"""Which W&B run a cell is: an id that is drawn once and stays in the cell's folder, so that a cell that goes on is the same run."""

from __future__ import annotations

import json
import re
import secrets
import string
from pathlib import Path

from ablations.runtime.files import write_json

_FILE = "run_id.json"
_LENGTH = 8  # as W&B's own
_IS_ID = re.compile(r"[a-z0-9]{8}")


def run_id(folder: Path, anew: bool = False) -> str:
    """The id of the run whose W&B files lie in `folder`; drawn where there is none that can be read, or with `anew`.

    Raises RunFolderError where it cannot be written.
    """
    path = folder / _FILE
    if not anew:
        try:
            found = json.loads(path.read_bytes())["id"]
            if _IS_ID.fullmatch(found):
                return found
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass  # none, or damaged: a new run loses nothing but the connection to the one before
    drawn = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(_LENGTH))
    write_json(path, {"id": drawn})
    return drawn
