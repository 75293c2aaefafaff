"""The comparison's files: Markdown, CSV and LaTeX of the main table, the figure, and what the terminal shows."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from ablations.baselines.register import REFERENCE
from ablations.comparing.figure import Shown, draw_figure, figure_rows
from ablations.comparing.results import Results
from ablations.comparing.tables import MARGIN_POINTS, Duel, DuelFinding
from ablations.config.names import is_rehearsal
from ablations.config.scope import TINY_WORLD_NOTE
from ablations.reporting import latex, markdown, tidy
from ablations.reporting.assembly import STATISTICS_NOTE
from ablations.reporting.formats import figure
from ablations.reporting.tables import ReportTable
from ablations.runtime.escaping import csv_text
from ablations.runtime.escaping import markdown as as_text
from ablations.runtime.files import whole_file, write_atomically

PAGE, FIGURE = "comparison.md", "comparison.png"
_SHOWN = ("fidelity", "words_drawn", "subject_kept", "clip_score_coarse", "musiq-koniq", "musiq-ava")
_SHOWN_DIVERSITY = ("st_lpips", "st_lpips@refined_shared_noise", "vendi")


def write(results: Results, table: ReportTable, duels: list[Duel]) -> list[Path]:
    """Write every file, each whole or not at all; returns their paths, the page first."""
    to, is_tiny = results.comparison.to, results.comparison.config.profile == "tiny"
    page = to / PAGE
    files = {
        page: _page(results, table, duels),
        to / "comparison.csv": csv_text(tidy.TABLE_COLUMNS, tidy.table_lines(table)),
        to / "comparison.tex": latex.table_file(table, is_tiny),
        to / "methods.csv": csv_text(
            ("method", "title", "about", "asked", "failed", "reasons", "mean_new_tokens", "seconds_writing", "cost"),
            [
                (m.name, m.title, m.about, m.num_asked, m.num_failed, _reasons(m.failures), m.mean_tokens, round(m.seconds, 1), m.cost)
                for m in results.methods
            ],
        ),
    }
    for path, content in files.items():
        write_atomically(path, content)
    with whole_file(to / FIGURE) as aside:
        _draw(results, aside)
    return [page, to / FIGURE, *(path for path in files if path != page)]


def _draw(results: Results, path: Path) -> None:
    comparison = results.comparison
    prompts = {prompt.prompt_id: prompt.coarse_prompt for prompt in results.prompts[: comparison.figure_prompts]}
    shown: dict[tuple[str, int], Shown] = {}
    for method in results.methods:
        unit = method.units[comparison.seeds[0]]
        for asked, written in zip(unit.asked, unit.written, strict=True):
            if asked.candidate == 0 and asked.prompt_id in prompts:
                picture = results.pictures.get((method.name, asked.prompt_id))
                shown[method.name, asked.prompt_id] = Shown(written.text, picture, written.failure)
    draw_figure(
        [method.title for method in results.methods],
        figure_rows(prompts, [method.name for method in results.methods], shown),
        path,
        title="What each method makes of a prompt",
        subtitle=f"{comparison.arm}, seed {comparison.seeds[0]}, first candidate, one image noise for each row; bold words are new. "
        f"{_scope(results)}",
    )


def _scope(results: Results) -> str:
    if is_rehearsal(results.comparison.config) or results.comparison.config.backbones.init == "random":
        return "Networks without pre-training: no figure of it means anything."
    return f"{TINY_WORLD_NOTE[0].upper()}{TINY_WORLD_NOTE[1:]}." if results.comparison.config.profile == "tiny" else ""


def _page(results: Results, table: ReportTable, duels: list[Duel]) -> str:
    comparison = results.comparison
    parts = [f"# {as_text(table.title)}", f"Arm {as_text(comparison.arm)}. {_scope(results)} {STATISTICS_NOTE}".replace("  ", " ")]
    parts += ["## Our refiner against each method", _rule()]
    for duel in duels:
        lines = [f"- **our refiner against {as_text(duel.title)}: {as_text(duel.verdict)}**"]
        lines += [f"  - {as_text(_said(finding))}" for finding in (*duel.diversity, *duel.others)]
        parts.append("\n".join(lines))
    if not duels:
        parts.append("No other method that writes prompts was compared.")
    parts += [markdown.one_table(table), "### The methods"]
    head = ["method", "what it does", "prompts", "failed", "reasons", "new tokens", "cost"]
    rows = []
    for method in results.methods:
        tokens = method.mean_tokens
        shown = f"{tokens:.1f}" if tokens else figure(None, 1)
        about = [method.title, method.about, str(method.num_asked), str(method.num_failed)]
        rows.append([*about, _reasons(method.failures), shown, method.cost])
    parts.append(markdown.grid(head, rows))
    parts.append(f"![methods as columns, prompts as rows]({FIGURE})")
    return "\n\n".join(parts) + "\n"


def _rule() -> str:
    return (
        "Decided beforehand: our refiner (strategy 1) wins if every diversity below is higher, with a 95% interval that excludes 0, and "
        f"it is not worse in fidelity and faithfulness: the interval ends above {figure(-MARGIN_POINTS, 0)} points (of 100 at a metric's "
        "upper bound). Differences are our refiner minus the other method."
    )


def _said(finding: DuelFinding) -> str:
    digits = finding.column.digits
    text = f"{finding.column.heading}: {figure(finding.mean, digits, signed=True)}"
    if finding.low is not None:
        text += f" [{figure(finding.low, digits, signed=True)}, {figure(finding.high, digits, signed=True)}]"
    return f"{text}: {finding.verdict}"


def _reasons(failures) -> str:
    return "; ".join(f"{reason} ({count})" for reason, count in failures.most_common())


def shown_table(results: Results, table: ReportTable) -> Table:
    """The main figures for the terminal."""
    keys = [key for key in (*_SHOWN, *_SHOWN_DIVERSITY) if any(column.key == key for column in table.columns)]
    columns = {column.key: column for column in table.columns if column.key in keys}
    title = f"{results.comparison.arm}: means. {_scope(results)}"
    headings = [columns[key].heading.replace(", shared noise", ",\nshared noise").replace(" ", "\n", 1) for key in keys]
    shown = Table("method", "N", *headings, "failed", title=title.strip(), title_justify="left")
    for method in results.methods:
        row = table.row(method.name)
        assert row is not None
        cells = []
        for key in keys:
            entry = row.entries.get(key)
            star = "*" if entry is not None and entry.is_significant else ""
            cells.append((figure(entry.mean, columns[key].digits) if entry else figure(None, 0)) + star)
        name = f"{method.title} (reference)" if method.name == REFERENCE else method.title
        shown.add_row(name, row.size, *cells, str(method.num_failed))
    return shown


def shown_lines(duels: list[Duel]) -> list[str]:
    """A line for each duel."""
    return [f"our refiner against {duel.title}: {duel.verdict}" for duel in duels]
