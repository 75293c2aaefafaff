"""Random tables, seeded: dialects x encodings x line ends x headers x notations of picture names, with the records that they mean.

`PYTHONPATH=. python tests/helpers/random_tables.py 2000` tries so many and prints how many were tried and held.
"""

from __future__ import annotations

import csv
import io
import re
import sys
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
DELIMITERS = (",", ";", "\t", "|")
SUFFIXES = (".csv", ".tsv", ".tab", ".txt", "", ".CSV")
# What cells hold besides letters: what delimits, what quotes, what breaks lines, and other scripts.
PIECES = (",", ";", "\t", "|", '"', '""', "\n", "'", " ", "é", "猫", "ß", "🙂", "cat", "8k", "oil painting", "{", "\\", "sep=;")
FOLDERS = ("imgs", "Ünï côde", "a/b")
NAMES = ("1.png", "IMG_2.JPG", "é 3.webp", "4.final.png", "猫.avif")


@dataclass(frozen=True)
class RandomTable:
    """A table's content and file name, and for each row its fine prompt, coarse prompt and picture, by its path in the folder."""

    file_name: str
    content: bytes
    images: str | None
    rows: list[tuple[str, str, str]]


def count_tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def random_table(seed: int) -> RandomTable:
    """The table of a seed; its pictures are `NAMES` in each of `FOLDERS`, below `pictures` if `images` says so."""
    rng = np.random.default_rng([seed, 17])
    delimiter, encoding = str(rng.choice(DELIMITERS)), str(rng.choice(ENCODINGS))
    images = "pictures" if rng.random() < 0.5 else None
    origin = str(rng.choice(["C:/Users/me/", "D:/", "/home/me/set/", "file:///C:/x/", "//server/share/"]))  # of one machine
    rows, cells = [], []
    for _ in range(int(rng.integers(1, 8))):
        picture = f"{rng.choice(FOLDERS)}/{rng.choice(NAMES)}"
        fine, coarse = (f"a {' '.join(rng.choice(PIECES, rng.integers(1, 6)))} b" for _ in range(2))
        rows.append((fine, coarse, f"{images}/{picture}" if images else picture))
        cells.append({"fine": fine, "coarse": coarse, "image": _as_written(picture, origin if images else None, rng)})
    columns = list(rng.permutation(["fine", "coarse", "image", "seed", "note"][: int(rng.integers(3, 6))]))
    case = (str, str.upper, str.title)[int(rng.integers(3))]
    ending = str(rng.choice(["\n", "\r\n"]))
    stream = io.StringIO(newline="")
    stream.write(ending * int(rng.integers(0, 3)))
    if rng.random() < 0.15:
        stream.write(f"sep={delimiter}{ending}")
    quoting = csv.QUOTE_ALL if rng.random() < 0.3 else csv.QUOTE_MINIMAL
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=ending, quoting=quoting)
    writer.writerow([case(column) for column in columns])
    for row in cells:
        writer.writerow([row.get(column, "x") for column in columns])
        stream.write(ending * int(rng.random() < 0.1))
    return RandomTable(f"t{rng.choice(SUFFIXES)}", stream.getvalue().encode(encoding), images, rows)


def _as_written(picture: str, origin: str | None, rng: np.random.Generator) -> str:
    """A picture's path as somebody may have written it."""
    way = int(rng.integers(6 if origin else 5))
    if way == 5:
        picture = f"{origin}{picture}"
    if way == 1:
        picture = f"./{picture}"
    if way == 2:
        picture = unicodedata.normalize("NFD", picture)
    if way == 3:
        picture = picture.swapcase()
    if way == 4:
        picture = f" {picture} "
    return picture.replace("/", "\\") if rng.random() < 0.5 and "file:" not in picture else picture


def make_pictures(folder: Path) -> None:
    """Empty files in place of pictures: finding them reads none."""
    for root in (folder, folder / "pictures"):
        for below in FOLDERS:
            (root / below).mkdir(parents=True, exist_ok=True)
            for name in NAMES:
                (root / below / name).touch()


def try_tables(first: int, count: int, folder: Path) -> list[str]:
    """What did not hold of the tables of `count` seeds, a line each."""
    from datamodules.readers.source import read_source

    make_pictures(folder)
    problems = []
    for seed in range(first, first + count):
        made = random_table(seed)
        path = folder / made.file_name
        path.write_bytes(made.content)
        try:
            read = read_source(path, folder / made.images if made.images else None, count_tokens)
            found = [(r.fine_prompt, r.coarse_prompts[0], r.image and str(r.image.relative_to(folder))) for r in read.records]
            if found != made.rows:
                problems.append(f"seed {seed}: {found!r:.300} is not {made.rows!r:.300}; bad: {read.bad!r:.300}")
        except Exception as error:
            problems.append(f"seed {seed}: {type(error).__name__}: {error}")
        path.unlink()
    return problems


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as there:
        found = try_tables(0, int(sys.argv[1]), Path(there))
    print("\n".join(found))
    print(f"random tables: tried {sys.argv[1]}, held {int(sys.argv[1]) - len(found)}")
