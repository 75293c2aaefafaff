"""Finds the picture that a cell names, as people wrote it: with back-slashes, a drive, composed or decomposed letters, in another case.

Where a picture may be one of several, the row is a bad record that names them: a wrong picture would be trained on without a word.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

_DRIVE = re.compile(r"^[A-Za-z]:")
_ADDRESS = re.compile(r"^(?!file:)[A-Za-z][A-Za-z0-9+.-]+://")
_SHOWN_CHARS = 100
NO_IMAGE_NAMED = "no image is named"
# How sure it is that a file under `data.images` is the one that a cell means: the cell ends in that folder's own path; it names a folder
# of that name; or it is absolute and only the file's name is the same.
_OWN_PATH, _OWN_NAME, _BARE_NAME = range(3)


class AmbiguousImageError(ValueError):
    """A cell may name one of several pictures. The message names them."""


def composed(name: str) -> str:
    """A name with its letters composed, as NFC has them."""
    return unicodedata.normalize("NFC", name)


def in_any_case(name: str) -> str:
    """A name that is equal for names that differ in case or composition alone."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class ImageFinder:
    """Where the picture named by a table's cell is: under `images` if given, else beside the table, in `images/` there, or in `further`.

    `roots` are the folders that are looked in. Raises FileNotFoundError if `images` is no folder.
    """

    def __init__(self, table: Path, images: Path | None, further: tuple[Path, ...] = ()):
        if images is not None and not os.path.isdir(images):
            raise FileNotFoundError(f"data.images={str(images)[:_SHOWN_CHARS]} is not a folder")
        beside = (images,) if images is not None else (table.parent, table.parent / "images")
        self.roots = tuple(dict.fromkeys((*beside, *further)))
        self._images = images
        # The folder given, by its own path and by what a link leads to.
        own = {os.path.abspath(images), os.path.realpath(images)} if images is not None else set()
        self._own = [[in_any_case(part) for part in Path(path).parts] for path in sorted(own)]
        self._listings: dict[tuple[Path, Callable[[str], str]], dict[str, list[str]]] = {}
        self._by_name: dict[Path, dict[str, int]] = {}
        self._surest = _BARE_NAME

    def find(self, cell: Any) -> Path | None:
        """The picture's file; None if there is none. Raises AmbiguousImageError where several may be meant."""
        if not isinstance(cell, str) or not cell.strip() or _ADDRESS.match(cell):
            return None
        for root in self.roots:
            if os.path.isfile(path := root / cell):  # not Path.is_file: it raises for names that are too long
                return path
        parts, is_absolute = _parts(cell)
        if not parts:
            return None
        for root in (Path("/"),) if is_absolute else self.roots:
            if (found := self._walk(root, parts)) is not None:
                return found
        return self._find_by_name(cell, parts, is_absolute) if self._images is not None else None

    def doubt(self, image: Any, cells: list[str]) -> str:
        """Why `image`, found for one of `cells`, is not to be trusted now that every row is read; "" if it is."""
        names = self._by_name.get(image, {})
        cell = next((cell for cell in cells if cell in names), None)
        if cell is None:
            return ""
        if names[cell] > self._surest:
            other = "is the folder that other rows name, and has a picture of that name of theirs"
            return f"no image {shortened(cell)}: data.images={self._images} {other}"
        others = [other for other, sureness in names.items() if other != cell and sureness == names[cell] and _parts(other) != _parts(cell)]
        if others:
            return f"{image.name} in data.images may be {shortened(cell)} or {shortened(others[0])}"
        return ""

    def _find_by_name(self, cell: str, parts: list[str], is_absolute: bool) -> Path | None:
        """Under `images`, where that is the folder that the cell names, as `eval` for `eval/1.png`, or where the cell is absolute."""
        assert self._images is not None
        folders = [in_any_case(part) for part in parts[:-1]]
        tries: list[tuple[int, list[str]]] = []
        for place in range(len(folders), 0, -1):
            for own in self._own:
                if own and folders[place - 1] == own[-1]:
                    sureness = _OWN_PATH if own[-place:] == folders[:place] else _OWN_NAME
                    tries.append((sureness, parts[place:]))
        if is_absolute:
            tries += [(_OWN_NAME if start < len(parts) - 1 else _BARE_NAME, parts[start:]) for start in range(len(parts))]
        for sureness, rest in sorted(tries, key=lambda entry: entry[0]):
            path = self._images.joinpath(*rest)
            found = path if os.path.isfile(path) else self._walk(self._images, rest)
            if found is not None:
                self._by_name.setdefault(found, {})[cell] = sureness
                self._surest = min(self._surest, sureness)
                return found
        return None

    def _walk(self, root: Path, parts: list[str]) -> Path | None:
        """The file whose path differs in the composition of letters only, else in their case too. Raises AmbiguousImageError."""
        for key in (composed, in_any_case):
            found = self._matches(root, parts, key)
            if len(found) > 1:
                named = " or ".join(shortened(str(path.relative_to(root))) for path in sorted(found)[:3])
                raise AmbiguousImageError(f"{shortened('/'.join(parts))} may be {named} in {root}")
            if found:
                return found[0]
        return None

    def _matches(self, folder: Path, parts: list[str], key: Callable[[str], str]) -> list[Path]:
        first, rest = parts[0], parts[1:]
        names = [first] if first == ".." else self._listing(folder, key).get(key(first), [])
        paths = [folder / name for name in names]
        if not rest:
            return [path for path in paths if os.path.isfile(path)]
        return [found for path in paths if os.path.isdir(path) for found in self._matches(path, rest, key)]

    def _listing(self, folder: Path, key: Callable[[str], str]) -> dict[str, list[str]]:
        """The names in a folder by their key; read once."""
        if (folder, key) not in self._listings:
            by_key: dict[str, list[str]] = {}
            try:
                for name in os.listdir(folder):
                    by_key.setdefault(key(name), []).append(name)
            except (OSError, ValueError):
                pass
            self._listings[folder, key] = by_key
        return self._listings[folder, key]


def _parts(cell: str) -> tuple[list[str], bool]:
    """The parts of the path that a cell names, in any notation, and whether it is absolute; a drive is no part."""
    text = cell.strip()
    if text[:7].lower() == "file://":
        text = unquote(text[7:])
        text = text[1:] if _DRIVE.match(text[1:]) else text
    text = text.replace("\\", "/")
    has_drive = bool(_DRIVE.match(text))
    text = text[2:] if has_drive else text
    return [part for part in text.split("/") if part not in ("", ".")], has_drive or text.startswith("/")


def why_missing(cell: Any) -> str:
    """What is said of a row whose image cell leads to no file."""
    if not isinstance(cell, str) or not cell.strip():
        return NO_IMAGE_NAMED
    if _ADDRESS.match(cell):
        return f"{shortened(cell)} is an address, not a file: fetch the pictures first"
    return f"no image {shortened(cell)}"


def shortened(name: str) -> str:
    """A name in quotes, cut where it is very long."""
    return repr(name if len(name) <= _SHOWN_CHARS else f"{name[:_SHOWN_CHARS]}...")
