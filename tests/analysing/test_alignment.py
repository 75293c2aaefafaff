"""The alignment of E_T(T_C) with the frozen encoder's features of T_F: definitions by hand, pairing, intervals, and the command's files."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ablations.alignment import main
from ablations.analysing.alignment import MEASURES, Pair, aligned, compare_alignment, cosines, evaluated_pairs, find_runs, measure_alignment
from ablations.runtime.console import Console
from ablations.runtime.errors import UserError
from helpers.trained_runs import make_run, nudge

PAIRS = [
    Pair("a cat in the snow", "a cat in the snow at noon, oil painting, sharp focus"),
    Pair("a red boat", "a red boat in a harbour at sunset, watercolour"),
    Pair("a castle", "a castle on a hill at night, pixel art"),
]


@pytest.fixture(scope="module")
def trained(small_backbones):
    encoder = small_backbones.new_text_encoder().eval()
    nudge(encoder)
    return encoder


def write_prompts(run, pairs=PAIRS) -> None:
    lines = [
        {"prompt_id": i, "condition": condition, "coarse": pair.coarse, "refined": text}
        for i, pair in enumerate(pairs)
        for condition, text in (("coarse", pair.coarse), ("fine", pair.fine))
    ]
    (run / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_cosines_are_those_of_pooled_features_and_of_the_fine_prompts_positions_that_causality_leaves_open(small_backbones, trained):
    found = cosines(trained, small_backbones, [pair.coarse for pair in PAIRS], [pair.fine for pair in PAIRS])
    for i, pair in enumerate(PAIRS):
        fine_1S = small_backbones.tokenize([pair.fine])
        with torch.no_grad():
            own, target = trained(small_backbones.tokenize([pair.coarse])), small_backbones.text_encoder(fine_1S)
        a_E, b_E = own.pooled_BE[0].double().numpy(), target.pooled_BE[0].double().numpy()
        assert found["pooled"][i] == pytest.approx(a_E @ b_E / np.linalg.norm(a_E) / np.linalg.norm(b_E), abs=1e-6)
        length, shared = small_backbones.count_tokens(pair.fine) + 2, small_backbones.count_tokens(pair.coarse) + 1
        a_SD, b_SD = (features.states_BSD[0, shared:length].double().numpy() for features in (own, target))
        cosine_S = (a_SD * b_SD).sum(1) / np.linalg.norm(a_SD, axis=1) / np.linalg.norm(b_SD, axis=1)
        assert found["states"][i] == pytest.approx(cosine_S.mean(), abs=1e-6)


def test_the_frozen_encoder_is_aligned_with_itself_and_a_trained_one_no_longer(small_backbones, trained):
    fine = [pair.fine for pair in PAIRS]
    for values in cosines(small_backbones.text_encoder, small_backbones, fine, fine).values():
        np.testing.assert_allclose(values, 1.0, atol=1e-9)
    assert all((values < 0.9999).all() for values in cosines(trained, small_backbones, fine, fine).values())
    with pytest.raises(ValueError, match="1 coarse but 3 fine prompts"):
        cosines(trained, small_backbones, ["a cat"], fine)


def test_the_control_reads_another_prompts_fine_prompt(small_backbones, trained):
    found = aligned(trained, small_backbones, PAIRS)
    others = [PAIRS[1].fine, PAIRS[2].fine, PAIRS[0].fine]
    by_hand = cosines(trained, small_backbones, [pair.coarse for pair in PAIRS], others)
    for name in ("pooled", "states"):
        np.testing.assert_allclose(found[name, "other"], by_hand[name], atol=1e-12)
        np.testing.assert_allclose(found[name, "own - other"], found[name, "own"] - by_hand[name], atol=1e-12)
    assert set(aligned(trained, small_backbones, [PAIRS[0]] * 2)) == {("pooled", "own"), ("states", "own")}


def fake(values) -> dict:
    return {("pooled", "own"): np.array(values, dtype=np.float64)}


def test_one_seed_has_an_interval_over_prompts_that_says_so():
    (found,) = compare_alignment([fake([0.1, 0.2, 0.3])], [fake([0.4, 0.4, 0.7])], ["a", "b", "c"])
    assert (found.step0, found.trained, found.difference) == pytest.approx((0.2, 0.5, 0.3))
    half = 4.302653 * np.std([0.3, 0.2, 0.4], ddof=1) / np.sqrt(3)
    assert (found.low, found.high) == pytest.approx((0.3 - half, 0.3 + half), abs=1e-6)
    assert found.note == "one seed: interval over prompts only" and (found.num_seeds, found.num_prompts) == (1, 3)


def test_two_seeds_have_no_interval_and_three_have_one_for_new_seeds_and_prompts():
    before, after = fake([0.1, 0.2, 0.3]), [fake([0.4, 0.4, 0.7]), fake([0.3, 0.5, 0.6]), fake([0.5, 0.4, 0.6])]
    (two,) = compare_alignment([before] * 2, after[:2], ["a", "b", "c"])
    assert two.low is two.high is two.p_value is None and two.note == "2 seeds: no interval below 3"
    assert two.difference == pytest.approx(np.mean([0.3, 0.2, 0.4, 0.2, 0.3, 0.3]))
    (three,) = compare_alignment([before] * 3, after, ["a", "b", "c"])
    assert three.low < three.difference < three.high and three.note == "" and three.num_seeds == 3


def test_prompts_of_equal_text_are_one_unit():
    (found,) = compare_alignment([fake([0.0, 0.0, 0.0])], [fake([0.2, 0.4, 0.6])], ["a", "a", "b"])
    assert found.num_prompts == 2 and found.difference == pytest.approx((0.3 + 0.6) / 2)
    (one,) = compare_alignment([fake([0.0, 0.0])], [fake([0.2, 0.4])], ["a", "a"])
    assert one.low is None and one.note == "one seed and one prompt: no interval"


def test_an_arms_folder_stands_for_its_seeds_and_runs_of_other_arms_are_not_pooled(tmp_path, small_backbones):
    runs = [make_run(tmp_path, small_backbones, f"seed={seed}") for seed in (1, 0)]
    assert [run.config.seed for run in find_runs([runs[0].parent])] == [0, 1]
    with pytest.raises(UserError, match="the same seed is there twice"):
        find_runs([runs[0], runs[0].parent])
    with pytest.raises(UserError, match="is of another arm than"):
        find_runs([runs[0], make_run(tmp_path, small_backbones, "use_clip=false")])
    write_prompts(runs[0])
    write_prompts(runs[1], PAIRS[:2])
    with pytest.raises(UserError, match=r"was evaluated on other prompts than .* give --num-prompts N"):
        measure_alignment(find_runs(runs), None, Console("none"), small_backbones)


def test_a_run_is_measured_over_the_prompts_it_was_evaluated_on(tmp_path, small_backbones):
    run = make_run(tmp_path, small_backbones)
    with pytest.raises(UserError, match="was not evaluated, so it has no prompts of its own: give --num-prompts N"):
        evaluated_pairs(find_runs([run])[0])
    write_prompts(run)
    measured = measure_alignment(find_runs([run]), None, Console("none"), small_backbones)
    pairs, step0, trained = measured.pairs, measured.step0, measured.trained
    assert len(measured.gaps_closed) == 1
    assert pairs == PAIRS
    expected = aligned(small_backbones.text_encoder, small_backbones, PAIRS)
    for key, values in expected.items():
        np.testing.assert_allclose(step0[0][key], values, atol=1e-7)
        assert np.abs(trained[0][key] - values).max() > 1e-4


def test_the_command_writes_json_and_figure_over_held_out_prompts(tmp_path, small_backbones, capsys):
    run = make_run(tmp_path / "runs", small_backbones)
    assert main([str(run), "--num-prompts", "5", "--to", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out" / "alignment.json").read_text())
    assert (content["seeds"], content["num_prompts"], len(content["prompts"])) == ([0], 5, 5)
    assert [(c["measure"], c["against"]) for c in content["comparisons"]] == [
        (measured, against) for against in ("own", "other", "own - other") for measured in ("pooled", "states")
    ]
    own = content["comparisons"][0]
    rows = [row["pooled, own"] for row in content["prompts"]]
    assert own["difference"] == pytest.approx(np.mean([row["trained"] - row["step0"] for row in rows]), abs=1e-9)
    assert own["low"] < own["difference"] < own["high"]
    assert Image.open(tmp_path / "out" / "alignment.png").size == (960, 504)
    said = capsys.readouterr().out
    assert "N = 1 seed x 5 distinct coarse prompts" in said and "one seed: interval over prompts only" in said
    assert not (run / "manifest.json").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "nowhere holds no run.json that can be read"),
        (["nowhere", "--num-prompts", "0"], "argument --num-prompts: '0' is no whole number of at least 1"),
        ([], "RUN_DIR"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(capsys, arguments, message):
    code = main(arguments)
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.startswith("error: ") and error.count("\n") == 1


def test_help_loads_nothing_heavy():
    code = "import sys, ablations.alignment; print([m for m in ('torch', 'numpy', 'matplotlib', 'open_clip') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    assert MEASURES.keys() == {"pooled", "states"}
