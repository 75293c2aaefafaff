"""Text of others in what we write: one function for each language that it may stand in, each of which makes it plain text there.

Whatever comes out of a run folder, a table or a file's name is such text. Characters that no file in UTF-8 can hold become "?".
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from ablations.runtime.foreign import readable

if TYPE_CHECKING:
    from jinja2 import Environment

# What XML may not hold, in whatever spelling.
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"},
    **{"|": r"\textbar{}", '"': "''", "`": r"\textasciigrave{}", "\N{MINUS SIGN}": "$-$", "\N{EN DASH}": "--"},
    **{"\N{MULTIPLICATION SIGN}": r"$\times$"},
}
# A spreadsheet takes a cell that begins so for a formula, and runs it.
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?")
_FORMULA = ("=", "+", "-", "@", "\t", "\n")


def html(text: object) -> str:
    """Text that HTML and SVG show as it is, between tags and in a quoted attribute."""
    return escape(_NO_XML.sub("?", readable(text)), {'"': "&quot;", "'": "&#39;"})


def escaping_environment(folder: Path) -> Environment:
    """What renders the templates of a folder as HTML: every value goes through `html`, but for what a template marks as safe."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def as_text(value: object) -> object:
        return Markup(html(value)) if isinstance(value, str) and not isinstance(value, Markup) else value

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        finalize=as_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def markdown(text: object) -> str:
    """Text that Markdown and the HTML within it show as it is, on one line and within a table's cell."""
    line = " ".join(_NO_XML.sub("?", readable(text)).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|#~$]|(?<!\w)_|_(?!\w))", r"\\\1", line)


def latex(text: object) -> str:
    """Text that LaTeX shows as it is, on one line; characters beyond Latin-1, which a plain font lacks, become "?"."""
    return "".join(_LATEX.get(c) or (c if c.isprintable() and ord(c) < 256 else "?") for c in " ".join(readable(text).split()))


def csv_cell(value: object) -> object:
    """What a cell of a CSV holds: a number as it is, and text that a spreadsheet shows and does not take for a formula."""
    if not isinstance(value, str):
        return value
    text = readable(value).replace("\0", "?").replace("\r", " ")
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV (RFC 4180 quoting, \\n line ends); None is empty, floats in full precision."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([csv_cell(value) for value in row] for row in rows)
    return buffer.getvalue()
