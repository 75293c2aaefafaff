"""Captions in files beside pictures: which belongs to which, and what they say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from datamodules.readers.delimited import read_lines
from datamodules.readers.image_finder import composed, in_any_case

# The first that a picture has is its caption.
CAPTION_SUFFIXES = (".txt", ".caption")
SEVERAL_LINES = "captions of several lines, the first is read"
# Texts that lie beside pictures and are no captions.
_NO_CAPTION = re.compile(
    r"(?i)^(read[-_ ]?me|licen[sc]es?|notice|changelog|changes|copying|copyright|authors|credits|contribut(ing|ors)|citation|about|info|"
    r"notes?|todo|requirements|classes|labels|class[-_ ]?names|metadata|captions|prompts|train|val(id(ation)?)?|test|split|index|list|"
    r"files|urls?|version|log|errors?)([^a-z].*)?$"
)


def pair_captions(pictures: Sequence[Path], captions: Sequence[Path]) -> tuple[dict[Path, Path | None], list[Path]]:
    """The caption file of each picture, None for one without; and the caption files without a picture, those left out that are none.

    Beside x.png it is x.txt, x.caption, or x.png.txt. Letters may be composed or decomposed, and last of all of another case.
    """
    ordered = sorted(captions, key=lambda file: CAPTION_SUFFIXES.index(file.suffix.lower()))
    found: dict[Path, Path | None] = dict.fromkeys(pictures)
    for key in (composed, in_any_case):
        taken = {_stem(caption) for caption in found.values() if caption is not None}
        free: dict[str, list[Path]] = {}
        for caption in ordered:
            if _stem(caption) not in taken:
                free.setdefault(key(_stem(caption)), []).append(caption)
        for picture in pictures:
            if found[picture] is None:
                candidates = free.get(key(_stem(picture))) or free.get(key(str(picture))) or []
                stems = {_stem(caption) for caption in candidates}
                found[picture] = candidates[0] if len(stems) == 1 or (stems and key is composed) else None
    used = {_stem(caption) for caption in found.values() if caption is not None}
    alone = {_stem(caption): caption for caption in reversed(ordered) if _stem(caption) not in used}
    return found, [caption for caption in alone.values() if not _NO_CAPTION.match(caption.stem)]


def _stem(file: Path) -> str:
    return str(file.with_suffix(""))


def read_caption(file: Path) -> tuple[str, int]:
    """The first line of a caption file, and how many it has: by the custom of such folders, further ones are other captions of the same
    picture. Raises ValueError for a file that is no text."""
    lines = [line.strip() for line in read_lines(file) if line.strip()]
    return (lines[0] if lines else ""), len(lines)
