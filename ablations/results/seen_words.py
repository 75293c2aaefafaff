"""What a refiner has read in training: the words of its coarse and fine texts, and the pieces that T5 cuts its fine texts into.

The file lies in the folder of a training and in an exported refiner. Who refines learns from it which words the refiner never saw, and the
decoder which pieces it may write (`eval.any_piece=false`). Imports no heavy library.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.runtime.errors import UserError
from ablations.runtime.files import read_sealed, write_sealed
from datamodules.words import words_of

if TYPE_CHECKING:
    from datamodules.records import CFPRecord

FILE = "seen_words.json"
_FORMAT = 1


@dataclass(frozen=True)
class SeenWords:
    """`words` by their keys (`datamodules.words.word_key`); `pieces` as T5's vocabulary writes them, "\u2581" where a word starts.

    `data` is the digest of the records that the texts are from, `num_fine` and `num_coarse` count the distinct texts.
    """

    words: frozenset[str]
    pieces: frozenset[str]
    data: str
    num_fine: int
    num_coarse: int

    def unknown(self, text: str) -> tuple[str, ...]:
        """The words of a text that no training text has, as they are typed, each once and in order."""
        found: dict[str, str] = {}
        for word in words_of(text):
            if word.key not in self.words:
                found.setdefault(word.key, word.text)
        return tuple(found.values())


def gather(records: Sequence[CFPRecord], pieces_of: Callable[[list[str]], set[str]], data: str) -> SeenWords:
    """What the texts of training records consist of.

    `pieces_of` gives the decoder's pieces of some texts; those with characters that nobody sees (control, format) are left out.
    """
    fine_texts = list(dict.fromkeys(record.fine_prompt for record in records))
    coarse_texts = list(dict.fromkeys(prompt for record in records for prompt in record.coarse_prompts))
    words = frozenset(word.key for texts in (fine_texts, coarse_texts) for text in texts for word in words_of(text))
    pieces = frozenset(piece for piece in pieces_of(fine_texts) if not any(unicodedata.category(c)[0] == "C" for c in piece))
    return SeenWords(words, pieces, data, len(fine_texts), len(coarse_texts))


def write(folder: Path, seen: SeenWords) -> None:
    """Write the file, whole or not at all."""
    write_sealed(folder / FILE, {"format": _FORMAT, **content(seen)})


def content(seen: SeenWords) -> dict[str, Any]:
    """As plain data for JSON, by the names of the fields."""
    counts = {"data": seen.data, "num_fine": seen.num_fine, "num_coarse": seen.num_coarse}
    return counts | {"words": sorted(seen.words), "pieces": sorted(seen.pieces)}


def read(folder: str | os.PathLike[str]) -> SeenWords | None:
    """What lies in a folder; None where there is no such file, as in trainings and exports from before it was written.

    Raises UserError for a file that cannot be read.
    """
    path = Path(folder) / FILE
    try:
        found = read_sealed(path)
        if found["format"] != _FORMAT:
            raise ValueError(f"its format is {found['format']}, this version reads {_FORMAT}")
        words, pieces = (frozenset(map(str, found[name])) for name in ("words", "pieces"))
        return SeenWords(words, pieces, str(found["data"]), int(found["num_fine"]), int(found["num_coarse"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}): run its cell again, or export it again") from error
