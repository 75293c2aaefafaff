"""Tables as LaTeX with booktabs, each in a file of its own, and a document that holds them all and compiles by itself."""

from __future__ import annotations

from collections.abc import Sequence

from ablations.reporting.assembly import STATISTICS_NOTE, Report
from ablations.reporting.claim_lines import where
from ablations.reporting.columns import Column
from ablations.reporting.formats import ABSENT, MINUS, figure
from ablations.reporting.rows import Entry, Row
from ablations.reporting.tables import ReportTable
from ablations.reporting.verdicts import TINY_SCOPE, load_published, published
from ablations.runtime.escaping import latex as as_text

_TERMS = {"L_mse": r"$L_\mathrm{mse}$", "L_text": r"$L_\mathrm{text}$", "L_clip": r"$L_\mathrm{clip}$", "E_T": "$E_T$"}


def _label(text: str) -> str:
    """An escaped text with the symbols of the losses as mathematics."""
    text = as_text(text)
    for name, symbol in _TERMS.items():
        text = text.replace(as_text(name), symbol)
    return text


def table_file(table: ReportTable, is_tiny: bool) -> str:
    """The table as one `table` environment per block: \\input it in a document that loads booktabs."""
    return "\n".join(_block(table, number, is_tiny) for number in range(len(table.blocks)))


def _block(table: ReportTable, number: int, is_tiny: bool) -> str:
    name, columns = table.blocks[number]
    shows_published = number == 0
    family = f" ({table.family})" if table.family else ""
    caption = " ".join(
        [
            f"{table.title}{family}, {name}. N = seeds x prompts x candidates; below it, how many of the seeds that were begun finished.",
            f"Below each mean: difference from {table.reference}, its 95% interval and Holm-corrected p; * p < 0.05.",
            f"Held fixed: {table.fixed}.",
            *table.notes_of(columns),
            *([f"Tiny profile: {TINY_SCOPE}."] if is_tiny else []),
        ]
    )
    lines = [
        *(r"\begin{table}[htbp]", r"\centering\scriptsize\setlength{\tabcolsep}{3pt}", f"\\caption{{{_label(caption)}}}"),
        *(
            f"\\label{{tab:{table.slug}-{name}}}",
            f"\\begin{{tabular}}{{@{{}}ll{'r' * len(columns)}{'l' * shows_published}@{{}}}}",
            r"\toprule",
        ),
        " & ".join(["", "N", *(_heading(column) for column in columns), *["Published"] * shows_published]) + r" \\",
        r"\midrule",
    ]
    for i, row in enumerate(table.rows_of(columns)):
        lines += ([r"\addlinespace"] if i else []) + _row(row, columns, [as_text(published(table, row))] * shows_published)
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _heading(column: Column) -> str:
    words = column.heading.split(", ")
    return as_text(words[0]) if len(words) == 1 else f"\\shortstack[r]{{{as_text(words[0])}\\\\{as_text(words[1])}}}"


def _row(row: Row, columns: Sequence[Column], last: list[str]) -> list[str]:
    """Up to three lines: means, with the last cells; differences with p; intervals."""
    entries = [row.entries.get(column.key) for column in columns]
    pairs = list(zip(entries, columns, strict=True))
    means = [_number(entry.mean, column.digits) if entry else row.absent(column).replace(ABSENT, "--") for entry, column in pairs]
    lines = [[_label(row.label + " (reference)" * row.is_reference), as_text(row.size_in(columns)), *means, *last]]
    if any(entry and entry.difference_mean is not None for entry in entries):
        lines.append(["", as_text(f"{row.finished} seeds"), *(_difference(entry, column) for entry, column in pairs), *[""] * len(last)])
        if any(entry and entry.difference for entry in entries):
            lines.append(["", "", *(_interval(entry, column) for entry, column in pairs), *[""] * len(last)])
    return [" & ".join(line) + r" \\" for line in lines]


def _number(value: float, digits: int, signed: bool = False) -> str:
    return figure(value, digits, signed).replace(MINUS, "$-$")


def _difference(entry: Entry | None, column: Column) -> str:
    if entry is None or entry.difference_mean is None:
        return ""
    text = _number(entry.difference_mean, column.digits, signed=True)
    if entry.p_holm is None:
        return text
    p_value = "p$<$.001" if entry.p_holm < 0.001 else f"p={entry.p_holm:.3f}".replace("0.", ".")
    return f"{text}{'*' * entry.is_significant} {p_value}"


def _interval(entry: Entry | None, column: Column) -> str:
    if entry is None or entry.difference is None:
        return ""
    # Braces: a row that starts with "[" would be read as an option of the line break before it.
    return f"{{[{_number(entry.difference.low, column.digits, True)}, {_number(entry.difference.high, column.digits, True)}]}}"


def document(report: Report, table_files: dict[str, str], figure_files: dict[str, str]) -> str:
    """A document with the verdicts, every table (by slug: its path) and the curves (likewise)."""
    source = load_published()
    parts = [
        *(r"\documentclass[a4paper]{article}", r"\usepackage[T1]{fontenc}", r"\usepackage[utf8]{inputenc}"),
        *(
            r"\usepackage[margin=15mm,landscape]{geometry}",
            r"\usepackage{booktabs}",
            r"\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}",
            r"\usepackage{graphicx}",
            r"\usepackage{textcomp}",
        ),
        *(r"\begin{document}", r"\section*{Ablation report}", _label(STATISTICS_NOTE), ""),
        _label(f"Published figures: {source['source']}. {source['note']}"),
        "",
    ]
    for section in report.sections:
        parts += [f"\\section*{{{as_text(section.title)}}}", f"\\textbf{{{as_text(section.scope)}}} {as_text(section.contents)}.", ""]
        parts += [r"\begin{description}"]
        parts += [
            f"\\item[{_label(f'{v.claim.title}, {where(v.condition)}')}:] \\emph{{{v.verdict}}} ({as_text(v.scope)}). {_label(v.line)}"
            for v in section.verdicts
        ]
        parts += [r"\end{description}", r"\clearpage"]
        for table in section.tables:
            parts.append(f"\\input{{{table_files[table.slug]}}}")
            if table.slug in figure_files:
                parts += [r"\begin{figure}[htbp]", r"\centering", f"\\includegraphics[width=\\linewidth]{{{figure_files[table.slug]}}}"]
                parts += [f"\\caption{{{_label(table.title)}: means with 95\\% intervals.}}", r"\end{figure}"]
        parts.append(r"\clearpage")
    return "\n".join([*parts, r"\end{document}", ""])
