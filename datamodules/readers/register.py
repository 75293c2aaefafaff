"""The kinds of source that can be read, each declared by the file that reads it. Imports no heavy library.

A plug-in module adds one by `register(Reader(...))`; it is asked before those of this package, and read with where it says that it fits.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datamodules.readers.record_parser import ReadTable

# Modules that declare no reader.
_WITHOUT_READERS = {"arrow", "caption_files", "captions", "coarse_prompts", "collecting", "delimited", "evaluation_prompts"}
_WITHOUT_READERS |= {"image_finder", "record_parser", "register", "source", "tiny_world"}

# The least `order` of the readers of this package.
FIRST_OF_THE_PACKAGE = 100


@dataclass(frozen=True)
class Source:
    """What is to be read. `images` is where relative image paths start (None: beside what names them). `count_tokens` counts a text's
    tokens, for coarse prompts that are cut from fine ones; `clean` is applied to every text, None leaves them verbatim."""

    path: Path
    images: Path | None
    count_tokens: Callable[[str], int]
    clean: Callable[[str], str] | None = None


@dataclass(frozen=True)
class Reader:
    """One kind of source.

    `fits(path)` says whether what lies there (it exists) is of this kind, `read(source)` gives its records. It raises ValueError or
    FileNotFoundError, in one line, for what a user can set right. `file` is the kind of file that it reads, in a word as in "CSV";
    `folder` what a folder has that it reads, as in "parquet files"; "" where it reads none. Both stand in help and messages. Readers are
    asked by `order`: those of this package begin at 100, so that plug-ins come first.
    """

    name: str
    fits: Callable[[Path], bool] = field(repr=False)
    read: Callable[[Source], ReadTable] = field(repr=False)
    file: str = ""
    folder: str = ""
    order: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError("a reader needs a name")
        if not callable(self.fits) or not callable(self.read):
            raise ValueError(f"reader {self.name}: fits and read must be functions")
        if not (self.file or self.folder):
            raise ValueError(f"reader {self.name}: say in a word or two what file or folder it reads, for messages and help")

    @property
    def about(self) -> str:
        """What it reads, in one line."""
        parts = [f"a {self.file} file"] if self.file else []
        return ", or ".join([*parts, *([f"a folder with {self.folder}"] if self.folder else [])])


_READERS: dict[str, Reader] = {}


def register(reader: Reader) -> Reader:
    """Enters a reader and returns it. The same reader again is harmless; raises ValueError for two different ones under one name."""
    known = _READERS.get(reader.name)
    if known is not None and _identity(known) != _identity(reader):
        raise ValueError(f"two different readers are called {reader.name!r}: give the one of your plug-in another name")
    _READERS[reader.name] = reader
    return reader


def _identity(reader: Reader) -> tuple[Any, ...]:
    places = [(function.__module__, function.__qualname__) for function in (reader.fits, reader.read)]
    return reader.file, reader.folder, reader.order, *places


def all_readers() -> list[Reader]:
    """Every reader, in the order in which they are asked."""
    package = importlib.import_module(__package__)
    for module in sorted({module.name for module in pkgutil.iter_modules(package.__path__)} - _WITHOUT_READERS):
        importlib.import_module(f"{__package__}.{module}")
    return sorted(_READERS.values(), key=lambda reader: reader.order)


def what_a_source_may_be() -> str:
    """In words, as in "a CSV or parquet file, a folder with ..."."""
    files = [reader.file for reader in _told() if reader.file]
    return f"a {_listed(files)} file, a folder with {what_a_folder_may_have()}"


def what_a_folder_may_have() -> str:
    """In words, as in "parquet files, or pictures with ..."."""
    return _listed([reader.folder for reader in _told() if reader.folder], ", or ")


def _told() -> list[Reader]:
    """The readers as messages name them: those of this package first."""
    return sorted(all_readers(), key=lambda reader: (reader.order < FIRST_OF_THE_PACKAGE, reader.order))


def _listed(words: list[str], last: str = " or ") -> str:
    return last.join([*([", ".join(words[:-1])] if len(words) > 1 else []), words[-1]])
