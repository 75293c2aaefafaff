"""Every command that loads networks, on a pretend accelerator: none mixes tensors of the CPU with those of the device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ablations import PromptRefiner, alignment, benchmark, build_cfp, compare, export, frontier, plan, refine, run, sweep
from ablations.benchmarking.sizes import SIZES
from ablations.web.sessions import RefiningSessions
from helpers.pretend_device import NAME, TINY_CELL
from helpers.trained_runs import make_run

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture(scope="module")
def trained_run(device, small_backbones, tmp_path_factory) -> Path:
    """The run folder of a finished training."""
    return make_run(tmp_path_factory.mktemp("outputs"), small_backbones, "prompt_len=2")


def test_a_comparison_runs_on_the_device(trained_run, tmp_path, capsys):
    arguments = [str(trained_run.parent), "--prompts", "1", "--candidates", "1", "--seeds", "0", "--progress", "none"]
    assert (
        compare.main([*arguments, "--methods", "coarse,most_frequent,refiner,refiner_rewrite,fine", "--to", str(tmp_path / "to")]) == 0
    ), capsys.readouterr()
    assert (tmp_path / "to" / "comparison.md").exists()


def test_the_refiner_of_a_run_refines_and_draws_on_the_device_and_so_does_its_export(trained_run, tmp_path, capsys):
    assert export.main([str(trained_run), "--to", str(tmp_path / "refiner")]) == 0, capsys.readouterr()
    of_run, exported = PromptRefiner.from_run(trained_run), PromptRefiner.from_pretrained(tmp_path / "refiner")
    assert {refiner.module.device.type for refiner in (of_run, exported)} == {NAME}
    written = [refiner.refine("a green tree", num_candidates=2, prompt_len=2) for refiner in (of_run, exported)]
    assert written[0] == written[1]
    assert of_run.draw("a green tree", seeds=1, plug_in=True)[0].size == (64, 64)


def test_refining_from_the_command_line_and_on_the_page_runs_on_the_device(trained_run, tmp_path, capsys):
    assert refine.main(["a green tree", f"run={trained_run}", "prompt_len=2", "num_candidates=1"]) == 0, capsys.readouterr()
    sessions = RefiningSessions(PromptRefiner.from_run(trained_run), "a test's refiner")
    state = sessions.start({"prompt": "a green tree", "settings": {"prompt_len": 2}})
    state = sessions.act(state["tab"], {"action": "pick", "revision": state["revision"], "candidate": 0})
    assert state["candidates"]


def test_the_study_of_alignment_runs_on_the_device(trained_run, tmp_path, capsys):
    assert alignment.main([str(trained_run), "--num-prompts", "2", "--to", str(tmp_path)]) == 0, capsys.readouterr()


def test_planning_a_sweep_and_running_it_runs_on_the_device(tmp_path, capsys):
    file = tmp_path / "sweep.yaml"
    file.write_text("program: ablations/run.py\nmethod: grid\nparameters:\n  use_mse: {values: [false]}\n  use_text: {values: [false]}\n")
    arguments = [str(file), *TINY_CELL, f"output_dir={tmp_path / 'out'}"]
    assert plan.main(arguments) == 0, capsys.readouterr()
    without_pictures = [word.replace("eval.num_prompts=1", "eval.num_prompts=0") for word in arguments]
    assert sweep.main(without_pictures) == 0, capsys.readouterr()


def test_a_run_with_frozen_networks_in_half_precision_trains_on_the_device(tmp_path, capsys):
    arguments = [word for word in TINY_CELL if not word.startswith("eval.num_prompts=")]
    arguments += [
        "eval.num_prompts=0",
        "backbones.frozen_dtype=bfloat16",
        "backbones.vae_dtype=float32",
        "use_clip=false",
        f"output_dir={tmp_path}",
    ]
    assert run.main(arguments) == 0, capsys.readouterr()


def test_a_cell_of_the_paper_profiles_settings_runs_on_the_device(tmp_path, capsys):
    """Its switches and numbers on small networks; autocast is what this device has not."""
    settings = {
        **{"adapter.output_relu": "true", "adapter.match_scale": "false", "adapter.mask_padding": "false", "loss.text_weight": "0.1"},
        **{"data.random_flip": "true", "data.clean_captions": "true", "train.accumulate": "4", "train.keep_best": "1"},
        **{"train.new_parts_lr_scale": "1.0", "train.decay_share": "0.0", "loss.clip_bank": "0", "train.checkpoint_minutes": "10"},
        **{
            "backbones.frozen_dtype": "bfloat16",
            "backbones.vae_dtype": "float32",
            "eval.judge": "conditioning",
            "output_dir": str(tmp_path),
        },
    }
    of_the_cell = dict(word.split("=", 1) for word in TINY_CELL)
    assert run.main([f"{name}={value}" for name, value in {**of_the_cell, **settings}.items()]) == 0, capsys.readouterr()
    record = json.loads(next(tmp_path.glob("tiny-*/seed-0/run.json")).read_text())
    assert record["status"] == "finished" and {"plug_in", "refined", "rewrite"} <= set(record["metrics"])


def test_quality_against_diversity_is_written_on_the_device(trained_run, capsys):
    assert frontier.main([str(trained_run), "--prompts", "2", "--candidates", "2", "--top-p", "0.5,1.0"]) == 0, capsys.readouterr()


def test_the_benchmark_times_both_sides_on_the_device(capsys, monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", replace(SIZES["tiny"], drawn=1, steps=2))
    assert benchmark.main(["training", "drawing", "--sizes", "tiny", "--repeats", "1"]) == 0, capsys.readouterr()


def test_fine_images_of_cfp_are_drawn_on_the_device(tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a cat in the snow, oil painting\n")
    arguments = ["--prompts", str(tmp_path / "prompts.txt"), "--to", str(tmp_path / "cfp")]
    assert build_cfp.main(["images", "--profile", "tiny", *arguments, "--steps", "1", "--batch-size", "1"]) == 0, capsys.readouterr()
