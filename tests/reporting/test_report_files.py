"""The report's files: Markdown, page, LaTeX, CSV and plots; the command line; and what reaches W&B."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ablations import report as command
from ablations.reporting import tidy, verdicts
from ablations.reporting.assembly import Report, assemble
from ablations.reporting.writing import Written, write
from ablations.runtime import escaping
from ablations.runtime.errors import UserError
from helpers.synthetic_runs import FAILURE, every_arm, write_arms


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return every_arm(tmp_path_factory.mktemp)


@pytest.fixture(scope="module")
def report(outputs) -> Report:
    return assemble(outputs)


@pytest.fixture(scope="module")
def written(report, tmp_path_factory) -> Written:
    return write(report, tmp_path_factory.mktemp("report") / "new")


class _Balanced(HTMLParser):
    """Fails where tags do not nest, and keeps what the tests ask for."""

    VOID = frozenset({"meta", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open, self.links, self.ids, self.counts, self.sources = [], [], set(), {}, []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.ids |= {attributes["id"]} if "id" in attributes else set()
        self.links += [attributes["href"]] if "href" in attributes else []
        self.sources += [attributes["src"]] if "src" in attributes else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag


def test_the_page_is_whole_in_itself_and_its_links_lead_somewhere(written):
    page = written.page.read_text()
    parsed = _Balanced()
    parsed.feed(page)
    assert parsed.open == []
    assert "http:" not in page and "https:" not in page and "@import" not in page
    assert parsed.sources and all(source.startswith("data:image/webp;base64,") for source in parsed.sources)
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
    assert len(page) < 3_000_000


def test_the_page_shows_arms_side_by_side_with_afe_first_and_words_that_were_added_marked(written):
    page = written.page.read_text()
    grids = re.findall(r"<summary>([^<]*seed 0[^<]*)</summary>", page)
    assert [grid.partition(",")[0] for grid in grids] == ["Adaptive feature extraction (AFE)", "Loss terms", "Prompt length"]
    first = page[page.index("<summary>Adaptive") : page.index("<summary>Loss terms")]
    assert first.index("<h4>with AFE</h4>") < first.index("<h4>without AFE</h4>")
    assert first.count("<img") == 4 * (1 + 2 * 3)
    assert 'a cat in the snow at night, view 0<b class="new">, oil painting, 8k</b>' in first


def test_the_page_has_sortable_tables_plots_and_both_colour_schemes(written):
    page = written.page.read_text()
    parsed = _Balanced()
    parsed.feed(page)
    assert page.count('class="sortable"') == 2 * 8 and parsed.counts["button"] > 60
    assert parsed.counts["svg"] >= 12 and "prefers-color-scheme:dark" in page and 'name="viewport"' in page
    assert re.search(r'<td data-value="0\.\d{6,}"', page)  # sorted by the full value, not by the one that is shown


def test_text_from_the_runs_is_escaped_everywhere(written):
    page, text = written.page.read_text(), (written.folder / "report.md").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert(" in page
    assert "<script>" not in text and r"\| 50% &amp; a_b {x}" in text


def test_markdown_tables_have_as_many_cells_in_every_row_as_in_the_head(written):
    blocks = re.findall(r"(?:^\|.*\|\n)+", (written.folder / "report.md").read_text(), flags=re.MULTILINE)
    assert len(blocks) > 20
    for block in blocks:
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(counts) == 1
    assert escaping.markdown("a|b *c* <d> L_mse _x_\n`") == r"a\|b \*c\* &lt;d&gt; L_mse \_x\_ \`"


def test_latex_escapes_every_special_character_and_rows_fit_the_columns(report, written):
    special = r"50% & a_b #1 $x {y} ~ ^ \z <q> |"
    escaped = r"50\% \& a\_b \#1 \$x \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z \textless{}q\textgreater{} \textbar{}"
    assert escaping.latex(special) == escaped
    assert escaping.latex("naïve 漢 −1") == "naïve ? $-$1"  # noqa: RUF001
    for path in (written.folder / "tables").glob("*.tex"):
        text = path.read_text()
        for tabular in re.findall(r"\\begin\{tabular\}\{@\{\}(\w+)@\{\}\}\n\\toprule\n(.*?)\\bottomrule", text, flags=re.DOTALL):
            columns_, body = tabular
            rows = [line for line in body.splitlines() if line.endswith(r"\\")]
            assert rows and all(len(re.findall(r"(?<!\\)&", line)) == len(columns_) - 1 for line in rows)
        assert text.count(r"\midrule") == text.count(r"\begin{tabular}") >= 1
        assert "tiny world and claims nothing" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex: the LaTeX is checked by its structure only")
def test_the_document_compiles(written, tmp_path):
    shutil.copytree(written.folder, tmp_path / "report")
    command_ = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command_, cwd=tmp_path / "report", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "report" / "report.pdf").stat().st_size > 10_000


def test_every_table_is_a_tidy_csv_in_full_precision(report, written):
    for table in report.sections[0].tables:
        lines = list(csv.DictReader(io.StringIO((written.folder / "tables" / f"{table.slug}.csv").read_text())))
        assert list(lines[0]) == list(tidy.TABLE_COLUMNS)
        found = {(line["row"], line["metric"], line["read_in"]): line for line in lines}
        assert len(found) == len(lines)
        for row in table.rows:
            for column in table.columns:
                if entry := row.entries.get(column.key):
                    line = found[row.key, column.metric, column.condition]
                    assert float(line["mean"]) == entry.mean and int(line["seeds"]) == entry.num_seeds
                    if entry.difference:
                        assert float(line["low"]) == entry.difference.low and float(line["p_holm"]) == entry.p_holm


def test_lists_of_verdicts_and_cells_are_complete(report, written):
    verdict_lines = list(csv.DictReader(io.StringIO((written.folder / "verdicts.csv").read_text())))
    assert [(line["claim"], line["condition"]) for line in verdict_lines] == [
        (claim.id, setting.condition) for claim in verdicts.load_claims() for setting in claim.settings
    ]
    cells = list(csv.DictReader(io.StringIO((written.folder / "cells.csv").read_text())))
    assert len(cells) == 12 * 5 + 4
    assert next(line for line in cells if line["status"] == "failed")["note"] == FAILURE


def test_plots_are_files_too_and_the_length_curve_is_a_pdf_for_latex(written):
    names = {path.name for path in (written.folder / "figures").iterdir()}
    assert sum(name.endswith(".svg") for name in names) == 9
    (curve,) = (name for name in names if name.endswith(".pdf"))
    assert (written.folder / "figures" / curve).read_bytes().startswith(b"%PDF")
    import xml.etree.ElementTree as ElementTree

    for name in names:
        if name.endswith(".svg"):
            ElementTree.parse(written.folder / "figures" / name)


def test_the_same_cells_give_the_same_files(outputs, written, tmp_path):
    again = write(assemble(outputs), tmp_path)
    for first, second in zip(written.files, again.files, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_a_picture_that_is_gone_is_shown_as_missing(tmp_path):
    write_arms(tmp_path / "runs", [{}, {"use_afe": False}], [0], num_prompts=2)
    next((tmp_path / "runs").glob("*/seed-0/images/0000-refined-1.png")).unlink()
    page = write(assemble(tmp_path / "runs"), tmp_path / "report").page.read_text()
    assert page.count("picture missing") == 1


# -- command line and W&B -------------------------------------------------------------------------------------------------


def test_the_command_needs_neither_torch_nor_wandb(outputs, tmp_path):
    probe = (
        "import sys, ablations.report\n"
        f"code = ablations.report.main([{str(outputs)!r}, '--to', {str(tmp_path / 'report')!r}])\n"
        "print(code, 'torch' in sys.modules, 'wandb' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith("0 False False"), done.stderr
    assert "reproduced: L_mse matters, in plug_in" in done.stdout and "4 of the cells found enter no table" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent", "--to", "x"], "there is no folder 'absent'"),
        (["absent"], "--to"),
        (["absent", "--to", "x", "--too", "y"], "--too"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(arguments, said, capsys):
    code = command.main(arguments)
    error = capsys.readouterr().err
    assert code == 2 and said in error and error.startswith("error: ") and len(error.strip().splitlines()) == 1


def test_to_may_not_be_a_file(report, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="is a file"):
        write(report, tmp_path / "taken")


def test_help_teaches_without_heavy_imports():
    probe = "import sys, ablations.report; ablations.report.main(['--help']); print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("False")
    assert "OUTPUT_DIR" in done.stdout and "claims.yaml" in done.stdout and "rehearsals" in done.stdout


TOOLS = os.environ.get("UF_FGTG_TEST_TOOLS", "")


@pytest.fixture
def clean_wandb(monkeypatch, tmp_path):
    """No W&B variable, login or running service of the machine reaches a test."""
    import wandb

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, folder in (("HOME", "home"), ("NETRC", "netrc"), ("WANDB_CONFIG_DIR", "config"), ("WANDB_CACHE_DIR", "cache")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    wandb.teardown()
    yield
    wandb.teardown()


def test_the_best_row_of_a_metric_is_the_one_with_the_best_mean_on_its_better_side(report):
    tables = report.sections[0].tables
    lines = [dict(zip(tidy.BEST_COLUMNS, line, strict=True)) for line in tidy.best_lines(tables)]
    assert len(lines) > 4 and {line["better"] for line in lines} <= {"higher", "lower"}
    for line in lines:
        (table,) = (table for table in tables if table.slug == line["table"])
        (column,) = (c for c in table.columns if (c.metric, c.condition) == (line["metric"], line["read_in"]))
        means = sorted((row.entries[column.key].mean for row in table.rows if row.arm and column.key in row.entries), reverse=True)
        best, second = (means[0], means[1]) if line["better"] == "higher" else (means[-1], means[-2])
        assert line["mean"] == best and line["lead"] == pytest.approx(abs(best - second)) and line["of_rows"] == len(means)


def test_without_a_login_nothing_is_sent_and_a_line_says_so(clean_wandb, report, written, capsys):
    from ablations.reporting.send import send

    assert send(report, written, project="p")
    assert "nothing was sent, because it is offline here" in capsys.readouterr().out
    assert not (written.folder / "wandb").exists()


@pytest.mark.slow
@pytest.mark.skipif(not (Path(TOOLS) / "fake_wandb.py").is_file(), reason="no stand-in W&B server (UF_FGTG_TEST_TOOLS)")
def test_online_the_tables_the_page_and_every_file_reach_the_server(clean_wandb, report, written, monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(TOOLS)
    sys.modules.pop("fake_wandb", None)
    import fake_wandb

    from ablations.reporting.send import send

    server, url = fake_wandb.serve(tmp_path / "server")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    cell = report.sections[0].section.cells[0]
    sweep = report.collection.output_dir / "sweeps" / "all-1" / "sweep.json"
    sweep.parent.mkdir(parents=True)
    content = {"metric": "n/prompts", "goal": "maximize", "cells": [{"arm": cell.arm, "seed": cell.seed, "swept": {"seed": cell.seed}}]}
    sweep.write_text(json.dumps(content))
    try:
        assert send(report, written, project="reports")
    finally:
        server.shutdown()
        server.server_close()
        shutil.rmtree(written.folder / "wandb", ignore_errors=True)
        shutil.rmtree(sweep.parent)
    assert "W&B: report sent to" in capsys.readouterr().out
    (run,) = server.store.runs.values()
    assert (run["displayName"], run["project"], run["state"]) == ("ablation report", "reports", "finished")
    assert run["jobType"] == "report" and {"verdicts", "cells", "best_arms", "report"} <= set(run["summary"])
    assert sum(name.startswith("tables/") for name in run["summary"]) == len(report.sections[0].tables)
    assert run["summary"]["verdicts"]["nrows"] == len(report.sections[0].verdicts)
    sent = {str(path.relative_to(written.folder)) for path in written.files}
    received = {path.name for path in (tmp_path / "server" / "artifacts").rglob("*") if path.is_file()}
    assert {Path(name).name for name in sent} | {"run.json"} <= received
    assert run["summary"]["best_of_sweeps"]["nrows"] == 1
