"""The report: what enters which table, what the figures are, what the verdicts say, and what the files look like."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import LENGTH_ARMS, LOSS_ARMS, known_effect, write_arms, write_cell

from ablations import report as command
from ablations.errors import UserError
from ablations.reporting import columns, latex, markdown, tidy, verdicts
from ablations.reporting.assembly import Report, assemble
from ablations.reporting.collect import collect
from ablations.reporting.layouts import differing
from ablations.reporting.tables import tables_of
from ablations.reporting.writing import write
from ablations.statistics import holm, paired_difference, shannon_entropy_bits

SEEDS = (0, 1, 2, 3, 4)
FAILURE = 'FloatingPointError: <script>alert("1")</script> at step 12 | 50% & a_b {x}'


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Every arm of the paper at 5 seeds, with `known_effect`; a failed, a running, a random and a half-written cell."""
    folder = tmp_path_factory.mktemp("outputs")
    write_arms(folder, LOSS_ARMS + LENGTH_ARMS, SEEDS, known_effect, num_prompts=6)
    write_arms(folder, [{"use_afe": False}], SEEDS, known_effect, num_prompts=6, styles=2)
    write_cell(folder, {"prompt_len": 10}, 0, num_prompts=6, finish=False, pictures=False).fail(FAILURE)
    write_cell(folder, {"prompt_len": 16}, 0, num_prompts=6, finish=False, pictures=False)
    write_cell(folder, {"backbones.init": "random"}, 0, num_prompts=6, pictures=False)
    (folder / "tiny-torn" / "seed-0").mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def report(outputs) -> Report:
    return assemble(outputs)


@pytest.fixture(scope="module")
def written(report, tmp_path_factory):
    return write(report, tmp_path_factory.mktemp("report") / "new")


def table_named(report: Report, layout: str, condition: str = "refined"):
    (found,) = [t for t in report.sections[0].tables if t.layout == layout and t.condition in (condition, "")]
    return found


def scores_of(outputs: Path, arm: str, metric: str, condition: str) -> np.ndarray:
    """(seeds, prompts), candidates averaged, straight from the files."""
    parts = []
    for seed in SEEDS:
        scores = pd.read_parquet(outputs / arm / f"seed-{seed}" / "scores.parquet")
        chosen = scores[(scores.metric == metric) & (scores.condition == condition)]
        parts.append(chosen.groupby("prompt_id").value.mean().to_numpy())
    return np.stack(parts)


# -- tables ---------------------------------------------------------------------------------------------------------------


def test_the_loss_table_has_the_four_arms_then_the_others(report):
    table = table_named(report, "losses")
    assert [row.key for row in table.rows] == ["mse+text+clip", "text+clip", "mse+text", "text", "mse+clip", "mse+text+clip+feature"]
    assert [row.label for row in table.rows][:2] == ["full arm", "without L_mse"]
    assert all(row.size == "5 × 6 × 3" for row in table.rows)  # noqa: RUF001
    assert [row.is_reference for row in table.rows] == [True, False, False, False, False, False]


def test_a_cells_figures_are_those_of_the_paired_statistics_on_the_raw_scores(outputs, report):
    table = table_named(report, "losses")
    full, without = table.row("mse+text+clip"), table.row("text+clip")
    a, b = (scores_of(outputs, row.arm, "fidelity", "refined") for row in (without, full))
    entry, expected = without.entries["fidelity"], paired_difference(a, b)
    assert entry.mean == pytest.approx(a.mean()) and full.entries["fidelity"].mean == pytest.approx(b.mean())
    assert (entry.difference.mean, entry.difference.low, entry.difference.high) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert (entry.num_seeds, entry.num_prompts, entry.shared_seeds) == (5, 6, 5)
    p_values = [row.entries["fidelity"].difference.p_value for row in table.rows if not row.is_reference]
    assert [row.entries["fidelity"].p_holm for row in table.rows if not row.is_reference] == pytest.approx(holm(p_values))


def test_diversity_is_also_shown_at_shared_noise_for_refined_prompts_only(outputs, report):
    row = table_named(report, "afe").row("without")
    expected = scores_of(outputs, row.arm, "st_lpips", "refined_shared_noise").mean()
    assert row.entries["st_lpips@refined_shared_noise"].mean == pytest.approx(expected)
    assert row.entries["st_lpips"].mean != pytest.approx(expected)
    rewritten = {column.key for column in table_named(report, "afe", "rewrite").columns}
    assert "st_lpips" in rewritten and not any("@" in key for key in rewritten)


def test_style_entropy_is_of_the_styles_seen_over_prompts_and_candidates_of_a_seed(outputs, report):
    row = table_named(report, "afe").row("without")
    entropies = []
    for seed in SEEDS:
        scores = pd.read_parquet(outputs / row.arm / f"seed-{seed}" / "scores.parquet")
        entropies.append(shannon_entropy_bits(scores[(scores.metric == "style_seen") & (scores.condition == "refined")].value))
    entry = row.entries["style_entropy"]
    assert entry.mean == pytest.approx(np.mean(entropies)) and 0 < entry.mean <= 1
    assert (entry.num_seeds, entry.num_prompts, entry.difference.degrees_of_freedom) == (5, 1, pytest.approx(4, abs=0.01))


def test_the_comparison_of_conditions_is_of_the_full_arm(report):
    table = table_named(report, "conditions")
    expected = ["coarse", "refined", "refined_shared_noise", "rewrite", "control_step0", "control_t5_direct", "control_shuffled", "fine"]
    assert [row.key for row in table.rows] == expected
    assert table.family == f"arm {table_named(report, 'losses').row('mse+text+clip').arm}"
    assert table.row("coarse").entries["fidelity"].difference.mean < 0 < table.row("fine").entries["fidelity"].difference.mean
    assert "st_lpips" not in table.row("control_step0").entries
    quality = [row.key for row in table.rows_of(table.block("quality"))]
    assert "refined_shared_noise" not in quality and "coarse" in quality


def test_classes_parts_of_scores_and_what_is_no_quality_measure_at_64_px_are_no_columns(report):
    shown = {column.metric for table in report.sections[0].tables for column in table.columns}
    assert not shown & {"style_seen", "piqe", "distinct_2"}
    assert {"fidelity", "words_drawn", "style_drawn", "subject_kept", "clip_score", "clip_score_coarse"} <= shown
    assert {"st_lpips", "clip_distance", "vendi", "style_entropy"} <= shown


def test_a_metric_that_the_report_does_not_know_is_a_column_in_no_verdict():
    found = columns.columns_of({"fidelity", "new_metric"}, {"new_set_metric"}, is_tiny=True, own_condition="refined")
    assert [(c.metric, c.better, c.block) for c in found] == [
        ("fidelity", "higher", "quality"),
        ("new_metric", "", "quality"),
        ("new_set_metric", "", "diversity"),
    ]


def test_directions_are_those_of_the_metrics_own_register():
    from ablations import scoring
    from ablations.metrics.base import all_metrics

    words = {True: "higher", False: "lower", None: ""}
    registered = all_metrics()
    compared = [column for column in columns.KNOWN if column.metric in registered]
    assert len(compared) >= 5
    assert all(column.better == words[registered[column.metric].higher_is_better] for column in compared)
    assert columns.STYLE_SEEN == scoring.STYLE_SEEN


def test_prompts_with_equal_text_are_one_unit(tmp_path):
    coarse = ["a cat", "a dog", "a cat", "an owl"]
    write_arms(tmp_path, [{}, {"use_mse": False}], range(3), num_prompts=4, coarse=coarse, pictures=False)
    row = table_named(assemble(tmp_path), "losses").row("text+clip")
    assert row.size == "3 × 3 × 3"  # noqa: RUF001
    assert row.entries["fidelity"].difference.num_prompts == 3


def test_below_3_seeds_there_is_no_interval_and_the_table_says_why(tmp_path):
    write_arms(tmp_path, [{}, {"use_mse": False}], range(2), num_prompts=4, pictures=False)
    report = assemble(tmp_path)
    table = table_named(report, "losses")
    entry = table.row("text+clip").entries["fidelity"]
    assert entry.difference is None and entry.p_holm is None and entry.interval is None and entry.difference_mean is not None
    assert any("No interval for any row: 2 of the 3 seeds" in note for note in table.notes)
    assert {v.verdict for v in report.sections[0].verdicts} <= {"undecided", "not measured"}


def test_3_seeds_have_an_interval_and_5_are_recommended(tmp_path):
    write_arms(tmp_path, [{}, {"use_mse": False}], range(3), num_prompts=4, pictures=False)
    table = table_named(assemble(tmp_path), "losses")
    assert table.row("text+clip").entries["fidelity"].difference is not None
    assert any("3 seeds: for a headline table 5 are recommended" in note for note in table.notes)


def test_pairs_are_the_seeds_that_both_arms_have(tmp_path):
    write_arms(tmp_path, [{}], (0, 1, 2, 3), num_prompts=4, pictures=False)
    write_arms(tmp_path, [{"use_mse": False}], (1, 2, 3, 7), num_prompts=4, pictures=False)
    row = table_named(assemble(tmp_path), "losses").row("text+clip")
    assert row.seeds == (1, 2, 3, 7) and row.entries["fidelity"].shared_seeds == 3 and row.entries["fidelity"].num_seeds == 4


def test_an_arm_that_nobody_ran_is_listed_as_not_run(tmp_path):
    write_arms(tmp_path, [{}, {"use_mse": False}], range(3), num_prompts=4, pictures=False)
    table = table_named(assemble(tmp_path), "losses")
    assert [row.size for row in table.rows][2:] == ["not run", "not run"]
    found = {v.claim.id: v for v in assemble(tmp_path).sections[0].verdicts}
    assert found["l_clip"].verdict == "not measured" and "not run" in found["l_clip"].line


def test_a_table_without_its_reference_says_so_and_shows_means(tmp_path):
    write_arms(tmp_path, [{"prompt_len": 4}, {"prompt_len": 8}], range(3), num_prompts=4, pictures=False)
    table = table_named(assemble(tmp_path), "prompt_length")
    assert [row.key for row in table.rows] == ["4", "6", "8"]
    assert any("length 6) was not run" in note for note in table.notes)
    assert table.row("8").entries["fidelity"].difference_mean is None


def test_arms_that_differ_in_other_keys_too_get_tables_of_their_own(tmp_path):
    write_arms(tmp_path, [{}, {"use_mse": False}], range(3), num_prompts=4, pictures=False)
    longer = [{"prompt_len": 12}, {"prompt_len": 12, "use_mse": False}, {"prompt_len": 12, "use_text": False}]
    write_arms(tmp_path, longer, range(3), num_prompts=4, pictures=False)
    tables = [t for t in assemble(tmp_path).sections[0].tables if t.layout == "losses" and t.condition == "refined"]
    assert [t.family for t in tables] == ["prompt_len=12", "prompt_len=6"]
    assert len({t.slug for t in tables}) == 2
    assert all(len({row.arm for row in t.rows if row.arm}) == n for t, n in zip(tables, (3, 2), strict=True))
    assert differing([{"prompt_len": 6, "seed": 1}, {"prompt_len": 6, "seed": 1}]) == ["", ""]


# -- what is kept apart or left out ---------------------------------------------------------------------------------------


def test_cells_in_no_table_are_listed_with_status_and_reason(report):
    found = {item.name.split("/")[0].split("-mse")[0]: (item.status, item.reason) for item in report.collection.left_out}
    assert found["tiny-len10"] == ("failed", FAILURE)
    assert found["tiny-len16"][0] == "interrupted" and "the same command goes on" in found["tiny-len16"][1]
    assert found["tiny-torn"][0] == "absent"
    assert found["tiny-len6"][0] == "rehearsal" and "without pre-training" in found["tiny-len6"][1]


def test_a_rehearsal_enters_no_table_by_its_flag_either(tmp_path):
    write_arms(tmp_path, [{}, {"use_mse": False}], range(3), num_prompts=3, pictures=False)
    write_cell(tmp_path, {"use_text": False}, 0, num_prompts=3, pictures=False).record(rehearsal=True)
    report = assemble(tmp_path)
    assert [item.status for item in report.collection.left_out] == ["rehearsal"]
    assert table_named(report, "losses").row("mse+clip") is None


@pytest.mark.parametrize(
    ("other", "settings"),
    [
        ({"digests": {"data": "f" * 64}}, {}),
        ({"digests": {"weights": "a" * 16}}, {}),
        ({}, {"profile": "paper", "train.precision": "32-true"}),
    ],
)
def test_other_data_weights_or_profiles_never_share_a_table(tmp_path, other, settings):
    write_arms(tmp_path, [{}, {"use_mse": False}], range(3), num_prompts=3, pictures=False)
    write_arms(
        tmp_path,
        [{"use_clip": False, "use_afe": False, **settings}, {"use_text": False, **settings}],
        range(3),
        num_prompts=3,
        pictures=False,
        **other,
    )
    report = assemble(tmp_path)
    assert len(report.sections) == 2
    arms = [{row.arm for table in section.tables for row in table.rows} - {""} for section in report.sections]
    assert len(arms[0]) == len(arms[1]) == 2 and not arms[0] & arms[1]
    warned = any("different data or weights" in warning and "force=true" in warning for warning in report.collection.warnings)
    assert warned == bool(other)


def test_scores_that_are_missing_or_not_finite_leave_the_cell_out_instead_of_being_averaged(tmp_path):
    write_arms(tmp_path, [{}], range(3), num_prompts=3, pictures=False)
    broken = write_cell(tmp_path, {}, 3, num_prompts=3, pictures=False)
    scores = pd.read_parquet(broken.scores)
    scores.loc[0, "value"] = np.nan
    scores.to_parquet(broken.scores)
    write_cell(tmp_path, {}, 4, num_prompts=3, pictures=False).scores.unlink()
    write_cell(tmp_path, {}, 5, num_prompts=3, pictures=False).scores.write_bytes(b"torn")
    collection = collect(tmp_path)
    reasons = [item.reason for item in collection.left_out]
    assert "1 of" in reasons[0] and "not finite" in reasons[0]
    assert "scores.parquet is missing" in reasons[1] and all("force=true" in reason for reason in reasons)
    assert [cell.seed for cell in collection.sections[0].cells] == [0, 1, 2]


def test_a_folder_without_cells_or_without_finished_ones_is_one_line_that_says_what_to_give(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        collect(tmp_path / "absent")
    with pytest.raises(UserError, match="no run folder"):
        collect(tmp_path)
    folder = write_cell(tmp_path, {}, 0, num_prompts=2, pictures=False, finish=False)
    folder.fail("no space")
    with pytest.raises(UserError, match=r"none of the 1 cells .*1 failed.*no space"):
        collect(tmp_path)
    with pytest.raises(UserError, match="folder of one arm"):
        collect(folder.path.parent)


# -- verdicts -------------------------------------------------------------------------------------------------------------


def test_verdicts_say_what_is_true_of_the_synthetic_arms(report):
    found = {v.claim.id: v.verdict for v in report.sections[0].verdicts}
    assert found == {
        "l_mse": "reproduced",
        "l_clip": "undecided",
        "l_text": "reproduced",
        "feature": "contradicted",
        "afe": "reproduced",
        "length_6": "undecided",
        "refiner": "reproduced",
    }


def test_a_verdict_names_the_difference_the_interval_and_n_and_what_it_is_about(report):
    verdict = next(v for v in report.sections[0].verdicts if v.claim.id == "l_mse")
    pattern = r"^without L_mse: Fidelity −0\.0\d\d \[−0\.\d+, −0\.\d+\], Holm p [=<] 0\.\d+; Words drawn .*\(N = 5 × 6 × 3\)$"  # noqa: RUF001
    assert re.match(pattern, verdict.line)
    assert all("tiny world" in v.scope and "nothing about Stable Diffusion 2.1" in v.scope for v in report.sections[0].verdicts)


def test_length_6_is_compared_with_every_other_length(report):
    verdict = next(v for v in report.sections[0].verdicts if v.claim.id == "length_6")
    assert {finding.row: finding.state for finding in verdict.findings} == {
        **dict.fromkeys(("length 2", "length 4", "length 12", "length 20"), "supports"),
        "length 8": "open",
    }
    assert verdict.line.startswith("as claimed: length 2, length 4, length 12, length 20; not separated: length 8. Decisive: length 8:")


def test_one_better_length_contradicts_that_6_is_best(tmp_path):
    def effect(settings, metric):
        return {4: -0.05, 8: 0.06}.get(settings.get("prompt_len"), 0.0)

    write_arms(tmp_path, [{}, {"prompt_len": 4}, {"prompt_len": 8}], SEEDS, effect, num_prompts=6, pictures=False)
    verdict = next(v for v in assemble(tmp_path).sections[0].verdicts if v.claim.id == "length_6")
    assert verdict.verdict == "contradicted" and "Decisive: length 8: Fidelity +0.0" in verdict.line


def test_one_comparison_among_many_that_goes_the_other_way_by_chance_contradicts_nothing():
    opposing = [verdicts.Finding("length 8", "opposes", "", p_value=0.03)]
    others = [verdicts.Finding(f"length {i}", "open", "", p_value=0.5) for i in range(6)]
    assert verdicts._corrected(opposing)[0].state == "opposes"
    assert verdicts._corrected(opposing + others)[0].state == "open"


def test_every_claim_names_a_table_that_exists_and_columns_that_are_known():
    from ablations.reporting.layouts import LAYOUTS

    known = {column.key for column in columns.KNOWN}
    claims = verdicts.load_claims()
    assert [claim.id for claim in claims] == ["l_mse", "l_clip", "l_text", "feature", "afe", "length_6", "refiner"]
    assert {claim.table for claim in claims} <= {"conditions", *(layout.id for layout in LAYOUTS)}
    assert all(set(claim.endpoints) == {"tiny", "paper"} for claim in claims)
    assert {name for claim in claims for names in claim.endpoints.values() for name in names} <= known
    afe = next(claim for claim in claims if claim.id == "afe")
    assert afe.endpoints["tiny"] == ("style_entropy", "st_lpips@refined_shared_noise")


def test_what_was_not_published_is_empty_in_the_data_and_said_in_the_tables(report, written):
    data = verdicts.load_published()
    assert not any(values for rows in data["tables"].values() for values in rows.values())
    assert {verdicts.published(table, row) for table in report.sections[0].tables for row in table.rows} == {"not published"}
    assert all(figure["source"] for figure in data["figures"]) and "2402.12760" in data["source"]
    assert "not published" in (written.folder / "report.md").read_text()


# -- files ----------------------------------------------------------------------------------------------------------------


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
    assert page.count('class="sortable"') == 2 * 6 and parsed.counts["button"] > 60
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
    assert markdown.escape("a|b *c* <d> L_mse _x_\n`") == r"a\|b \*c\* &lt;d&gt; L_mse \_x\_ \`"


def test_latex_escapes_every_special_character_and_rows_fit_the_columns(report, written):
    special = r"50% & a_b #1 $x {y} ~ ^ \z <q> |"
    escaped = r"50\% \& a\_b \#1 \$x \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z \textless{}q\textgreater{} \textbar{}"
    assert latex.escape(special) == escaped
    assert latex.escape("naïve 漢 −1") == "naïve ? $-$1"  # noqa: RUF001
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
    assert [line["claim"] for line in verdict_lines] == [claim.id for claim in verdicts.load_claims()]
    cells = list(csv.DictReader(io.StringIO((written.folder / "cells.csv").read_text())))
    assert len(cells) == 12 * 5 + 4
    assert next(line for line in cells if line["status"] == "failed")["note"] == FAILURE


def test_plots_are_files_too_and_the_length_curve_is_a_pdf_for_latex(written):
    names = {path.name for path in (written.folder / "figures").iterdir()}
    assert sum(name.endswith(".svg") for name in names) == 6
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


def test_forecast_stands_against_actual_time(tmp_path):
    folder = write_cell(tmp_path, {}, 0, num_prompts=2, pictures=False)
    seconds = {"training": 50.0, "refining": 1.0, "drawing": 20.0, "scoring": 3.0, "other": 2.0}
    (tmp_path / "sweeps" / "losses").mkdir(parents=True)
    forecast = tmp_path / "sweeps" / "losses" / "forecast.json"
    forecast.write_text(json.dumps({"cells": {str(folder): {"seconds": seconds}}}))
    found = {(part.sweep, part.part): (part.forecast, part.actual) for part in assemble(tmp_path).forecasts}
    assert found["losses", "training"] == (50.0, 60.0) and found["losses", "drawing"] == (20.0, 20.5)
    forecast.write_text("torn")
    assert any("forecast.json cannot be read" in warning for warning in assemble(tmp_path).collection.warnings)


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
    assert "reproduced: L_mse matters" in done.stdout and "4 of the cells found enter no table" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent", "--to", "x"], "there is no folder 'absent'"),
        (["absent"], "--to"),
        (["absent", "--to", "x", "--too", "y"], "--too"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(arguments, said, capsys):
    try:
        code = command.main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    error = capsys.readouterr().err
    assert code == 2 and said in error and error.startswith("error: ") and len(error.strip().splitlines()) == 1


def test_to_may_not_be_a_file(report, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="is a file"):
        write(report, tmp_path / "taken")


def test_help_teaches_without_heavy_imports():
    probe = "import sys, ablations.report\ntry: ablations.report.main(['--help'])\nexcept SystemExit: pass\nprint('pandas' in sys.modules)"
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


def test_without_a_login_nothing_is_sent_and_a_line_says_so(clean_wandb, report, written, capsys):
    from ablations.reporting.send import send

    assert send(report, written, project="p")
    assert "nothing was sent, because it is offline here" in capsys.readouterr().out
    assert not (written.folder / "wandb").exists()


@pytest.mark.skipif(not (Path(TOOLS) / "fake_wandb.py").is_file(), reason="no stand-in W&B server (UF_FGTG_TEST_TOOLS)")
def test_online_the_tables_the_page_and_every_file_reach_the_server(clean_wandb, report, written, monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(TOOLS)
    sys.modules.pop("fake_wandb", None)
    import fake_wandb

    from ablations.reporting.send import send

    server, url = fake_wandb.serve(tmp_path / "server")
    try:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        assert send(report, written, project="reports")
    finally:
        server.shutdown()
        shutil.rmtree(written.folder / "wandb", ignore_errors=True)
    assert "W&B: report sent to" in capsys.readouterr().out
    (run,) = [json.loads(path.read_text()) for path in (tmp_path / "server").glob("runs/*/summary.json")]
    assert {"verdicts", "cells", "report"} <= set(run)
    assert sum(name.startswith("tables/") for name in run) == len(report.sections[0].tables)
    sent = {path.name for path in (tmp_path / "server" / "artifacts").rglob("*") if path.is_file()}
    assert {"report.html", "report.md", "verdicts.csv"} <= sent


def test_tables_of_a_section_are_those_of_the_report(report):
    assert [table.slug for table in tables_of(report.collection.sections[0])] == [table.slug for table in report.sections[0].tables]
