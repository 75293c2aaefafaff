"""Files of networks are what was written: their digests lie beside them in digests.json, and are compared before they are loaded.

A file of a folder without digests, such as a published one, is read as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

DIGESTS = "digests.json"
_POINTER, _LONGEST_POINTER = b"version https://git-lfs.github.com/", 1024


def note_digests(folder: Path, names: Iterable[str]) -> None:
    """Note the digests of files in the folder, by their paths in it, beside those that are noted."""
    path = folder / DIGESTS
    known = json.loads(path.read_text()) if path.exists() else {}
    known |= {name: _digest(folder / name) for name in names}
    path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def require_whole(folder: Path, names: Iterable[str] = ()) -> None:
    """Raises ValueError, one line, for a file of the folder that is a Git LFS pointer or not what was noted; `names`: these alone."""
    try:
        known = json.loads((folder / DIGESTS).read_bytes()) if (folder / DIGESTS).exists() else {}
        known = {str(name): str(digest) for name, digest in known.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{folder / DIGESTS} is damaged: get the folder anew") from error
    for path in [folder / name for name in (set(names) or known)]:
        if not path.is_file():
            continue  # whoever reads it says so
        require_no_pointer(path)
        wanted = known.get(path.relative_to(folder).as_posix())
        if wanted is not None and _digest(path) != wanted:
            raise ValueError(f"{path} is damaged (its bytes are not those that were written): get it anew")


def require_no_pointer(path: Path) -> None:
    """Raises ValueError, one line, where the file is what Git leaves in place of a large file that it has not fetched."""
    if path.stat().st_size <= _LONGEST_POINTER and path.read_bytes().startswith(_POINTER):
        raise ValueError(f"{path} is a Git LFS pointer and not the file itself: fetch it by git lfs pull")


@contextmanager
def in_one_line(what: object) -> Iterator[None]:
    """Turns whatever a library raises for a damaged file in the block into a ValueError of one line; `what` cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file has as many errors as it has bytes
        if type(error) is ValueError and "\n" not in str(error) and len(str(error)) < 300:
            raise
        raise ValueError(f"{what} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:160]})") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
