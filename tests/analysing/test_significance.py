"""Anybody's scores beside a reference: the report's numbers, columns of any name, what fails a CI job, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablations.analysing.significance import FAILURES
from ablations.reporting.pooling import Components, power, smallest_effect
from ablations.reporting.statistics import holm, paired_difference
from ablations.significance import main
from helpers.commands import run

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/example_report/tables"


def drawn(arms: dict[str, float], seeds: int = 5, units: int = 30, spread: float = 0.1, rng: int = 0) -> pd.DataFrame:
    """Scores with seed, unit and cell effects of every arm; an arm's mean is 0.5 and what is added."""
    draw = np.random.default_rng(rng)
    shared = draw.normal(0, 0.2, units)
    rows = []
    for arm, added in arms.items():
        values_SP = 0.5 + added + shared + draw.normal(0, spread / 5, (seeds, 1)) + draw.normal(0, spread, (seeds, units))
        rows += [(arm, s, f"prompt {p}", value) for (s, p), value in np.ndenumerate(values_SP)]
    return pd.DataFrame(rows, columns=["arm", "seed", "prompt", "value"])


def compare(table: pd.DataFrame, folder: Path, *words: str) -> tuple[int, dict]:
    """The exit code, and what was written as JSON."""
    table.to_csv(folder / "scores.csv", index=False)
    code = main([str(folder / "scores.csv"), *words, "--to", str(folder / "found.json")])
    return code, json.loads((folder / "found.json").read_text())


def refusal(capsys, *words: str) -> str:
    assert main(list(words)) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and error.count("\n") == 1 and len(error) <= 300, error
    return error


def _reference(table: pd.DataFrame) -> str:
    """The arm of the row that a table of the report compares the others with."""
    return table.loc[table.label == table.reference[0], "arm"].iloc[0]


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("losses-refined", ["fidelity", "words_drawn", "style_fits", "vendi", "self_bleu"]),
        ("losses-rewrite", ["content_words_kept", "words_f1", "phrases_cut"]),
        ("prompt-length-refined", ["fidelity", "phrases_cut", "vendi"]),
    ],
)
def test_it_reads_the_reports_scores_and_gives_the_reports_own_numbers(name, metrics, tmp_path):
    table = pd.read_csv(next(EXAMPLE.glob(f"*-{name}.csv")))
    arms, reference = list(dict.fromkeys(table.arm.dropna())), _reference(table)
    condition = name.rpartition("-")[2]
    words = [str(EXAMPLE / "scores.parquet"), "--pooled", "--where", f"condition={condition}", "--reference", reference, "--arms", *arms]
    words += [word for metric in metrics for word in ("--where", f"metric={metric}")]
    assert main([*words, "--to", str(tmp_path / "found.csv")]) == 0
    found = pd.read_csv(tmp_path / "found.csv").set_index(["metric", "arm"])
    told = table[table.metric.isin(metrics) & table.read_in.isna() & table.difference.notna()].set_index(["metric", "arm"])
    assert len(told) == len(found) == len(metrics) * (len(arms) - 1) and set(told.index) == set(found.index)
    # The report's scores are kept in single precision.
    for column in ("mean", "difference", "low", "high", "standard_error", "p_value", "p_holm"):
        np.testing.assert_allclose(found.loc[told.index, column], told[column], rtol=2e-4, atol=2e-6, err_msg=column)
    np.testing.assert_array_equal(found.loc[told.index, "better"], told.better)
    assert (found.pooled_arms > 3).any() == (name != "prompt-length-refined")


def test_several_files_are_one_table_if_their_columns_are_equal(tmp_path, capsys):
    table = drawn({"A": 0.0, "B": 0.05}, seeds=6)
    _, whole = compare(table, tmp_path, "--reference", "A")
    parts = [tmp_path / f"part{number}.csv" for number in range(3)]
    for number, path in enumerate(parts):
        table[table.seed % 3 == number].to_csv(path, index=False)
    assert main([*map(str, parts), "--reference", "A", "--to", str(tmp_path / "parts.json")]) == 0
    (told,), (found,) = whole["compared"], json.loads((tmp_path / "parts.json").read_text())["compared"]
    assert found["seeds"] == told["seeds"] == 6
    assert [found[name] for name in ("difference", "low", "high")] == pytest.approx([told[name] for name in ("difference", "low", "high")])
    capsys.readouterr()
    table.rename(columns={"value": "score"}).to_csv(parts[1], index=False)
    assert "part1.csv has other columns than" in refusal(capsys, *map(str, parts), "--reference", "A")


def test_conditions_of_one_arm_are_compared_as_the_report_compares_them(tmp_path):
    table = pd.read_csv(next(EXAMPLE.glob("*-conditions.csv")))
    table = table[(table.metric == "words_drawn") & table.difference.notna()].set_index("row")
    arm = table.arm.iloc[0]
    words = ["--where", f"arm={arm}", "--where", "metric=words_drawn", "--arm-column", "condition", "--reference", "refined"]
    for row in ("control_shuffled", "coarse"):
        code = main([str(EXAMPLE / "scores.parquet"), *words, "--arms", row, "--to", str(tmp_path / "found.json")])
        (found,) = json.loads((tmp_path / "found.json").read_text())["compared"]
        assert code == 0 and found["pooled_arms"] is None
        np.testing.assert_allclose(
            [found[k] for k in ("difference", "low", "high")], table.loc[row, ["difference", "low", "high"]], atol=2e-6
        )


def test_a_csv_gets_the_difference_interval_and_p_of_the_papers_statistics(tmp_path):
    table = drawn({"A": 0.0, "B": 0.08, "C": 0.0})
    code, found = compare(table, tmp_path, "--unit", "prompt", "--seed-column", "seed", "--reference", "A", "--margin", "0.05")
    assert code == 0 and found["columns"] == {"arm": "arm", "seed": "seed", "unit": "prompt"}
    by_arm = {arm: own.pivot(index="seed", columns="prompt", values="value").to_numpy() for arm, own in table.groupby("arm")}
    expected = {arm: paired_difference(by_arm[arm], by_arm["A"]) for arm in "BC"}
    p_holm = holm([expected[arm].p_value for arm in "BC"])
    for each, p in zip(found["compared"], p_holm, strict=True):
        own = expected[each["arm"]]
        assert (each["seeds"], each["units"], each["candidates"]) == (5, 30, 1)
        np.testing.assert_allclose([each[k] for k in ("difference", "low", "high", "p_value")], [own.mean, own.low, own.high, own.p_value])
        assert each["p_holm"] == pytest.approx(p)
    assert [each["says"] for each in found["compared"]] == ["better", "no difference larger than 0.05"]
    assert found["compared"][1]["p_equivalence"] < 0.05 < found["compared"][0]["p_equivalence"]


def test_columns_of_any_name_separator_and_order_give_the_same(tmp_path):
    table = drawn({"A": 0.0, "B": 0.05})
    _, plain = compare(table, tmp_path, "--reference", "A")
    odd = table.rename(columns={"arm": "Wer", "seed": "Lauf", "prompt": "Satz", "value": "Güte"}).sample(frac=1, random_state=1)
    named = ["--arm-column", "Wer", "--seed-column", "Lauf", "--unit", "Satz", "--value-column", "Güte", "--reference", "A"]
    odd.to_csv(tmp_path / "odd.csv", sep=";", index=False)
    odd.to_parquet(tmp_path / "odd.parquet")
    odd.to_json(tmp_path / "odd.jsonl", orient="records", lines=True, double_precision=15)
    for file in ("odd.csv", "odd.parquet", "odd.jsonl"):
        assert main([str(tmp_path / file), *named, "--to", str(tmp_path / "odd.json")]) == 0
        (own,), (expected,) = json.loads((tmp_path / "odd.json").read_text())["compared"], plain["compared"]
        assert own.pop("metric") == "Güte" and expected["metric"] == "value"
        for key, value in own.items():
            assert value == (pytest.approx(expected[key]) if isinstance(value, float) else expected[key]), key


def test_a_wide_table_has_a_metric_for_each_column_and_directions_of_their_own(tmp_path):
    table = drawn({"A": 0.0, "B": 0.2}).rename(columns={"value": "fid"})
    table["speed"] = 1 - table.fid
    columns = ["--value-column", "fid", "--value-column", "speed", "--lower-is-better", "fid", "--reference", "A"]
    code, found = compare(table, tmp_path, *columns, "--fail-if", "worse")
    assert code == 1 and [(e["metric"], e["better"], e["says"]) for e in found["compared"]] == [
        ("fid", "lower", "worse"),
        ("speed", "higher", "worse"),
    ]
    assert found["failed"] == [{"because": "worse", "metric": name, "arm": "B"} for name in ("fid", "speed")]


@pytest.mark.parametrize(
    ("added", "fails"),
    [
        (-0.2, {"worse", "different", "not-better", "not-equivalent", "maybe-worse"}),
        (0.2, {"different", "not-equivalent"}),
        (0.0, {"not-better"}),
        (-0.04, {"worse", "different", "not-better"}),
    ],
)
def test_what_fails_a_job_by_how_much_an_arm_differs_at_a_margin_of_008(added, fails, tmp_path):
    table = drawn({"A": 0.0, "B": added}, seeds=8, units=60, spread=0.05)
    failed = {word for word in FAILURES if compare(table, tmp_path, "--reference", "A", "--margin", "0.08", "--fail-if", word)[0] == 1}
    assert failed == fails


def test_holms_correction_runs_over_the_arms_of_a_metric_or_over_everything(tmp_path):
    table = drawn({"A": 0.0, "B": 0.02, "C": 0.01})
    table["other"] = drawn({"A": 0.0, "B": 0.01, "C": 0.03}, rng=1).value
    words = ["--value-column", "value", "--value-column", "other", "--reference", "A"]
    for extra in ([], ["--correct-over-all"]):
        found = compare(table, tmp_path, *words, *extra)[1]["compared"]
        groups = [found] if extra else [found[:2], found[2:]]
        expected = np.concatenate([holm([each["p_value"] for each in group]) for group in groups])
        np.testing.assert_allclose([each["p_holm"] for each in found], expected)


def test_without_seeds_it_is_the_paired_t_test_over_units_and_says_so(tmp_path, capsys):
    table = drawn({"A": 0.0, "B": 0.1}, seeds=1).drop(columns="seed")
    code, found = compare(table, tmp_path, "--reference", "A")
    a, b = (table[table.arm == arm].value.to_numpy() for arm in "AB")
    assert code == 0 and found["compared"][0]["p_value"] == pytest.approx(stats.ttest_rel(b, a).pvalue, rel=1e-3)
    assert "one seed: the intervals are for new units alone" in capsys.readouterr().out


def test_candidates_are_averaged_over_as_many_as_every_cell_has(tmp_path, capsys):
    parts = [drawn({"A": 0.0, "B": 0.0}, rng=i).assign(candidate=i) for i in range(3)]
    table = pd.concat(parts)
    table = table[~((table.arm == "B") & (table.candidate == 2))]
    _, found = compare(table, tmp_path, "--reference", "A")
    means = table[table.candidate < 2].groupby("arm").value.mean()
    (own,) = found["compared"]
    assert own["candidates"] == 2 and own["difference"] == pytest.approx(means.B - means.A)
    assert "2 of 3 candidates count" in capsys.readouterr().out


def test_units_that_a_seed_lacks_are_left_out_and_counted(tmp_path, capsys):
    table = drawn({"A": 0.0, "B": 0.0})
    table = table[~((table.arm == "B") & (table.seed == 3) & (table.prompt == "prompt 7"))]
    _, found = compare(table, tmp_path, "--reference", "A")
    assert found["compared"][0]["units"] == 29
    assert "29 of 30 units of B count, those that all of its seeds have (seed 3 has 29)" in capsys.readouterr().out


def test_the_smallest_effect_is_found_with_a_chance_of_eighty_percent():
    components = Components(0.0004, 0.001, 0.01)
    effect = smallest_effect(components, 5, 40)
    assert power(components, effect, 5, 40, 1) == pytest.approx(0.8, abs=0.005)
    # One factor: the power of a paired t test is known.
    alone = smallest_effect(Components(0.0, 0.0, 0.04), 1, 25)
    quantile = stats.t.isf(0.025, 24)
    assert stats.nct.sf(quantile, 24, alone / (0.2 / 5)) == pytest.approx(0.8, abs=0.01)


def test_what_cannot_be_compared_has_not_passed(tmp_path, capsys):
    table = drawn({"A": 0.0, "B": 0.0})
    apart = table.assign(seed=table.seed + 10 * (table.arm == "B"))
    apart.to_csv(tmp_path / "apart.csv", index=False)
    said = refusal(capsys, str(tmp_path / "apart.csv"), "--reference", "A", "--fail-if", "worse")
    assert "value: no two values of equal seed and unit in A and B: nothing to compare, so nothing has passed" in said
    long = pd.concat([table.assign(metric="m"), table[table.arm == "A"].assign(metric="n")])
    code, found = compare(long, tmp_path, "--reference", "A")
    assert code == 0 and len(found["compared"]) == 1 and any("n: no two values" in note for note in found["notes"])
    capsys.readouterr()
    assert "n: no two values" in refusal(capsys, str(tmp_path / "scores.csv"), "--reference", "A", "--fail-if", "worse")


def test_mistakes_are_named_in_one_line(tmp_path, capsys):
    table, path = drawn({"A": 0.0, "Bee": 0.0}), str(tmp_path / "scores.csv")
    table.assign(split=["x", "y"] * 150).to_csv(path, index=False)
    assert "there is no such file" in refusal(capsys, str(tmp_path / "no.csv"), "--reference", "A")
    assert "which arm are the others compared with? name one with --reference; there are A, Bee" in refusal(capsys, path)
    assert "no arm of" in refusal(capsys, path, "--reference", "D")
    assert "did you mean 'Bee'?" in refusal(capsys, path, "--reference", "A", "--arms", "Be")
    assert "did you mean 'prompt'?" in refusal(capsys, path, "--reference", "A", "--unit", "promt")
    assert "--where split=z: no row" in refusal(capsys, path, "--reference", "A", "--where", "split=z")
    assert "needs a margin of value" in refusal(capsys, path, "--reference", "A", "--fail-if", "not-equivalent")
    assert "it knows worse, different" in refusal(capsys, path, "--reference", "A", "--fail-if", "bad")
    assert "ends in .csv or .json" in refusal(capsys, path, "--reference", "A", "--to", "x.txt")
    assert "argument --margin: '-1' is no number above 0" in refusal(capsys, path, "--margin", "fid=-1")
    pd.concat([table.assign(split="x"), table.assign(split="y")]).to_csv(path, index=False)
    assert "differ in 'split': choose with --where split=x" in refusal(capsys, path, "--reference", "A")
    assert main([path, "--reference", "A", "--average-over", "split"]) == 0
    capsys.readouterr()
    table.loc[7, "value"] = np.nan
    table.to_csv(path, index=False)
    assert "1 of 300 values in 'value' are no finite numbers, the first is '' in row 8" in refusal(capsys, path, "--reference", "A")
    Path(path).write_text("arm,prompt,value\nA,x,1,7\nB,x,2,8\n")
    assert "cannot be read as a table" in refusal(capsys, path, "--reference", "A")
    Path(path).write_text("arm,prompt,value\nA,,1\nB,x,2\n")
    assert "1 of 2 rows have no unit (column 'prompt'), first row 1" in refusal(capsys, path, "--reference", "A")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    assert "cannot be read as a table" in refusal(capsys, str(tmp_path / "torn.parquet"), "--reference", "A")


def test_where_neither_direction_is_better_worse_is_refused_until_one_is_named(tmp_path, capsys):
    table = drawn({"A": 0.0, "B": 0.2}).rename(columns={"value": "entropy"})
    table.to_csv(tmp_path / "scores.csv", index=False)
    words = [str(tmp_path / "scores.csv"), "--reference", "A", "--fail-if", "worse"]
    assert "of entropy neither direction is better" in refusal(capsys, *words)
    assert main([*words, "--lower-is-better", "entropy"]) == 1
    assert "failed (worse): entropy of B: +0.188, worse" in capsys.readouterr().out


def test_it_loads_neither_torch_nor_the_statistics_of_scipy(tmp_path):
    drawn({"A": 0.0, "B": 0.05}).to_csv(tmp_path / "scores.csv", index=False)
    code = (
        "import sys; from ablations.significance import main; code = main(sys.argv[1:]);"
        "print(code, [m for m in ('torch', 'scipy.stats', 'matplotlib', 'transformers') if m in sys.modules])"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "scores.csv"), "--reference", "A", "--margin", "0.1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 []" and done.stderr == ""


def test_twenty_thousand_rows_are_read_as_one_study(tmp_path):
    drawn(dict.fromkeys("ABCDEFGH", 0.0), 5, 500).to_csv(tmp_path / "scores.csv", index=False)
    words = [str(tmp_path / "scores.csv"), "--reference", "A", "--margin", "0.02", "--pooled"]
    code, out, error, _ = run(*words, module="ablations.significance")
    assert (code, error) == (0, "") and "5 seeds x 500 units x 1" in out
