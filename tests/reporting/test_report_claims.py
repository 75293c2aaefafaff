"""What the report opens with: the picture of the claims, verdicts in plain words, checks, readings and the registration."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from ablations.reporting.assembly import Report, assemble
from ablations.reporting.claim_lines import claim_lines
from ablations.reporting.claims_plot import CLAIM, CONTROL, LIMIT, PLACEBO, ClaimLine, claims_plot, look_of, svg_file
from ablations.reporting.judging import VERDICTS
from ablations.reporting.matrix import Matrix
from ablations.reporting.sensitivity import grid
from ablations.reporting.writing import write
from ablations.results.registration import Planned, Prediction, Registration, claims_content, write_registration
from helpers.decided_runs import decided, tried_readings
from helpers.imports import ROOT


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    return assemble(decided(tmp_path_factory.mktemp))


@pytest.fixture(scope="module")
def page(report, tmp_path_factory) -> str:
    return write(report, tmp_path_factory.mktemp("report")).page.read_text()


@pytest.fixture(scope="module")
def readings(tmp_path_factory) -> Report:
    return assemble(tried_readings(tmp_path_factory.mktemp("readings")))


def test_controls_and_placebo_stand_above_the_claims_and_each_once(report):
    lines = report.sections[0].lines
    kinds = [line.kind for line in lines]
    assert kinds == sorted(kinds, key=(CONTROL, PLACEBO, CLAIM).index) and set(kinds) == {CONTROL, PLACEBO, CLAIM}
    assert len({(line.kind, line.title, line.detail) for line in lines}) == len(lines)
    assert {line.verdict for line in lines if line.kind == PLACEBO} == {"not found"}
    assert "fine prompt against control: known words, drawn blindly" in {line.title for line in lines}


def test_a_line_is_the_difference_in_margins_with_the_claims_side_to_the_right(report):
    verdict = next(v for v in report.sections[0].verdicts if (v.claim.id, v.condition) == ("l_mse", "plug_in"))
    finding = verdict.findings[0]
    line = next(line for line in report.sections[0].lines if line.title == "L_mse matters")
    assert finding.mean < 0 and finding.claimed == -1
    assert line.mean == pytest.approx(-finding.mean / finding.margin) and line.mean > 1
    assert (line.low, line.high) == pytest.approx((-finding.high / finding.margin, -finding.low / finding.margin))
    assert len(line.by_seed) == 5 and sum(line.by_seed) / 5 == pytest.approx(line.mean)
    assert line.verdict == "reproduced" and line.figures.endswith(f"\N{PLUS-MINUS SIGN}{finding.margin:g}")


def test_the_verdict_is_said_once_for_all_lines_that_it_is_made_of(report):
    own = [line.verdict for line in report.sections[0].lines if line.title == "L_mse matters" and "trained E_T" in line.detail]
    assert own == ["reproduced", ""]


def test_every_verdict_has_a_mark_of_its_own_whatever_the_colour():
    judged = [look_of(verdict) for verdict in VERDICTS if verdict != "not measured"]
    assert len({shape for _, shape in judged}) == len(judged) == len({colour for colour, _ in judged})
    assert look_of("found", PLACEBO) == look_of("not found", CONTROL) == look_of("contradicted")


def test_what_lies_beyond_the_picture_is_an_arrow_at_its_edge_with_its_value():
    elements, _ = claims_plot([ClaimLine(CLAIM, "t", "d", "reproduced", "+1 [+0.9, +1.1]", 20.0, 18.0, 22.0)])
    line = elements.split("<g>")[1].split("</g>")[0]
    assert ">+20</text>" in line and "l-9 -5v10z" in line and "<circle" not in line
    inside, _ = claims_plot([ClaimLine(CLAIM, "t", "d", "reproduced", "", LIMIT - 2, LIMIT - 3, LIMIT - 1)])
    assert "v10z" not in inside
    assert claims_plot([ClaimLine(CLAIM, "t", "d", "not measured", "")]) is None


def test_the_picture_is_a_file_that_needs_nothing_else(report):
    file = svg_file(claims_plot(report.sections[0].lines))
    ElementTree.fromstring(file)
    assert "prefers-color-scheme:dark" in file and "#0072b2" in file and "http" not in file.replace("http://www.w3.org/2000/svg", "")


def test_every_claim_is_one_sentence(report):
    said = {said.title: said.sentence for said in report.sections[0].said}
    assert said["L_mse matters"] == "holds (drawn with the trained E_T); has no effect larger than 0.05 (refined prompts)."
    assert said["AFE keeps results diverse"].startswith("cannot be judged, as the treatment was not delivered (")
    assert len(said) == 7


def test_one_table_says_where_each_claim_holds(report):
    matrix = Matrix.of(report.sections[0])
    assert matrix.headings[:2] == ("refined prompts", "drawn with the trained E_T")
    rows = dict(matrix.rows)
    assert rows["L_mse matters"][:2] == ("no effect larger than 0.05", "reproduced")
    assert all(len(cells) == len(matrix.headings) for cells in rows.values())


def test_checks_stand_beside_the_twins_and_say_whether_the_treatment_was_delivered(report):
    afe, losses = report.sections[0].checks
    assert [row.label for row in afe.rows] == ["with AFE", "without AFE", "twin: uniform weights", "twin: frozen random weights", "placebo"]
    with_afe, twin = afe.rows[0].checked["afe_cosine_to_mean_weights"], afe.rows[2].checked["afe_cosine_to_mean_weights"]
    assert with_afe.values == pytest.approx((0.96, 0.97, 0.98, 0.96, 0.97)) and twin.mean == 1.0
    assert afe.rows[0].checked["afe_cosine_to_mean_weights"].text(afe.columns[2]) == "0.968 [0.960, 0.980]"
    assert "afe_cosine_to_pooled" not in afe.rows[1].checked
    (said,) = afe.delivered
    assert said.startswith('AFE keeps results diverse: NOT delivered: "Cosine to mean weights" 0.960 to 0.980 (wanted: at most 0.97')
    assert said.endswith("kept to in 4 of 5 seeds).")
    assert losses.delivered[0].startswith('L_mse matters: delivered: "Gap closed" 0.800 to 0.840')


def test_the_share_of_equal_texts_is_counted_at_equal_seed_prompt_and_candidate(tmp_path):
    import json

    from helpers.synthetic_runs import forget_digests, write_arms

    write_arms(tmp_path, [{}, {"use_mse": False}], range(2), num_prompts=4, pictures=False)
    other = next(path for path in tmp_path.glob("*/seed-1/prompts.jsonl") if "mse" not in path.parts[-3])
    lines = [json.loads(line) for line in other.read_text().splitlines()]
    for line in lines:
        line["refined"] += " changed" * (line["condition"] == "refined" and line["candidate"] == 0)
    other.write_text("".join(json.dumps(line) + "\n" for line in lines))
    forget_digests(tmp_path)
    (table,) = assemble(tmp_path).sections[0].checks
    assert table.rows[1].checked["text_identical_to_reference"].values == pytest.approx((1.0, 2 / 3))
    assert table.rows[1].checked["rewritten_identical_to_reference"].values == (1.0, 1.0)
    assert table.delivered == () and [check.heading for check in table.columns] == ["Same texts", "Same texts, rewritten"]


def test_intervals_of_a_table_rest_on_the_spread_that_its_arms_share_and_a_note_says_so(report):
    table = next(t for t in report.sections[0].tables if t.layout == "losses" and t.condition == "plug_in")
    entry = table.row("text+clip").entries["fidelity"]
    verdict = next(v for v in report.sections[0].verdicts if (v.claim.id, v.condition) == ("l_mse", "plug_in"))
    finding = next(f for f in verdict.findings if f.endpoint.name == "style_fits")
    assert entry.pooled_arms and entry.pooled_arms >= 4
    judged = table.row("text+clip").entries["style_fits"].difference
    assert (judged.low, judged.high) == pytest.approx((finding.low, finding.high))
    assert any(note.startswith("Intervals rest on the spread that") for note in table.notes)


def test_below_the_rows_stand_floor_ceiling_fine_prompts_and_the_room_that_is_left(report):
    table = next(t for t in report.sections[0].tables if t.layout == "losses" and t.condition == "plug_in")
    lines = {line.label: line.values for line in table.lines}
    reference = table.row("mse+text+clip").entries["fidelity"].mean
    assert lines["ceiling"]["fidelity"] == 1.0 and lines["floor"]["fidelity"] == 0.0
    assert lines["room left to the reference"]["fidelity"] == pytest.approx(1 - reference)
    assert lines["fine prompts, as drawn"]["fidelity"] == pytest.approx(0.78, abs=0.05)
    # World 1 has one fitting style a scene, which nine of ten fine prompts have.
    assert lines["truth"]["style_fits"] > lines["uniform guess"]["style_fits"]


def test_the_page_goes_from_the_picture_to_words_to_checks_and_pictures_to_tables(page):
    order = ['class="forest"', "Verdicts in plain words", "Where the claims hold", "Manipulation checks", "Arms side by side", "sortable"]
    places = [page.index(part, page.index("<main>")) for part in order]
    assert places == sorted(places)
    assert "not registered" in page and "Sensitivity" not in page
    assert re.search(r"<td[^>]*>5 of 5</td>", page)


def test_claims_over_many_readings_are_counted_and_one_of_them_is_shown_in_full(readings):
    section = readings.sections[0]
    found = {(one.title, one.condition): one for one in section.readings}
    afe = found["AFE keeps results diverse", "refined_shared_noise"]
    assert afe.count == f"holds in {afe.holds} of 6 readings" and afe.varies == ("afe.reading", "loss.clip_weight")
    assert {cell.settings["afe.reading"] for cell in afe.cells if cell.bound > 0} == {"experts"}
    assert len({table.family for table in section.tables if table.layout == "afe"}) == 1
    assert sum(table.layout == "conditions" for table in section.tables) == 1
    elements, width, height = grid(afe)
    assert elements.count("<rect") == 6 and width > 0 and height > 3 * 40
    assert Matrix.of(section).headings[-1] == "over readings"


def test_a_folder_of_before_has_no_section_for_what_it_lacks(tmp_path):
    from helpers.synthetic_runs import forget_digests, write_arms

    write_arms(tmp_path / "runs", [{}, {"use_mse": False}], range(3), num_prompts=3, pictures=False)
    for path in (tmp_path / "runs").glob("*/seed-*/scores.parquet"):
        import pandas as pd

        old = pd.read_parquet(path)
        old[old.metric.isin(["fidelity", "words_drawn"]) & (old.condition != "plug_in")].to_parquet(path, index=False)
    forget_digests(tmp_path / "runs")
    written = write(assemble(tmp_path / "runs"), tmp_path / "report")
    text = written.page.read_text()
    assert "Sensitivity" not in text and "Registration" not in text and "delivered" not in text.split("<main>")[1]
    assert "Verdicts in plain words" in text and Path(written.folder / "tables" / "scores.parquet").is_file()


def test_lines_of_no_verdicts_are_none():
    assert claim_lines([]) == [] and claims_plot([]) is None


def test_what_the_docs_compute_from_the_raw_scores_is_what_the_table_says(report, tmp_path):
    code = (ROOT / "docs" / "reports.md").read_text().split("```python\n")[1].split("```")[0]
    write(report, tmp_path)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    table = next(t for t in report.sections[0].tables if t.layout == "losses" and t.condition == "refined")
    assert float(done.stdout) == pytest.approx(table.row("text+clip").entries["fidelity"].difference_mean, rel=1e-4), done.stderr


def test_a_registration_is_held_against_what_was_run(report, tmp_path):
    rows = {row.key: row.arm for row in next(t for t in report.sections[0].tables if t.layout == "losses").rows if row.arm}
    arms = {"full": rows["mse+text+clip"], "without_mse": rows["text+clip"]}
    planned = Planned("deciding", "f" * 16, "c" * 8, arms, (0, 1, 2, 3, 4, 5), num_prompts=8, num_text_prompts=8, num_candidates=3)
    predictions = (Prediction("l_mse", "text+clip", "plug_in", "style_fits", 0.05, 0.02, 0.9, 0.9, {}, "drawn numbers"),)
    digests = {"code_digests": {}, "code_revision": None, "data_digest": "d" * 64, "weights_digest": "e" * 16, "versions": {}}
    file, runs = tmp_path / "registration.json", tmp_path / "runs"
    write_registration(file, Registration("2020-01-01T00:00:00+00:00", planned, claims_content(), predictions, (), **digests))
    shutil.copytree(report.collection.output_dir, runs)
    held = assemble(runs, file)
    assert not held.registered.is_kept and "10 of 12 planned cells have finished" in " ".join(k.line for k in held.registered.kept)
    assert [look.finished for look in held.registered.looks] == [10]
    (reached,) = held.registered.reached
    finding = next(v for v in held.sections[0].verdicts if (v.claim.id, v.condition) == ("l_mse", "plug_in")).findings[0]
    assert reached.predicted == 0.02 and reached.ratio == pytest.approx((finding.high - finding.low) / 2 / 0.02)
    table = next(t for t in held.sections[0].tables if t.layout == "losses")
    assert (table.row("text+clip").finished, table.row("mse+text").finished) == ("5 of 6", "5 of 5")
    text = write(held, tmp_path / "report").page.read_text()
    assert "not as registered" in text and 'id="registration"' in text
    assert "half-width predicted" in (tmp_path / "report" / "report.md").read_text()
