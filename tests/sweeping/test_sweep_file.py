"""Sweep files: W&B's format, read as W&B would read it, and every mistake in one line before anything runs."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import yaml

from ablations.config import KEYS, arm_name, parse, to_flat_dict
from ablations.config.presets import LENGTHS, full_arm, named_ablations
from ablations.runtime.errors import UserError
from ablations.sweeping.cells import cells_of
from ablations.sweeping.sweep_file import digest_of, read_sweep_file
from helpers.small_sweeps import ROOT, SWEEPS

COMMAND = "command: ['${env}', '${interpreter}', -m, ablations.run, '${args_no_hyphens}']\n"
FILES = sorted(SWEEPS.glob("*.yaml"))


@pytest.fixture
def write(tmp_path):
    def written(text: str, command: str = COMMAND):
        path = tmp_path / "mine.yaml"
        path.write_text(text + command)
        return path

    return written


def refusal(path, *arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        cells_of(read_sweep_file(path, list(arguments)))
    message = str(caught.value)
    assert "\n" not in message
    return message


def labels(path, *arguments: str) -> list[str]:
    return [cell.label for cell in cells_of(read_sweep_file(path, list(arguments))).cells]


# The files that come with the project


def test_there_is_a_file_for_each_ablation_of_the_paper():
    others = ["pilot", "prompt_length", "readings", "readings_confirmation", "target_length"]
    assert [path.stem for path in FILES] == ["ablation_tables", "afe", "loss_weights", "losses", *others, "text_loss"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_one_that_wandb_takes_unchanged(path):
    content = yaml.safe_load(path.read_text())
    assert content["command"] == ["${env}", "${interpreter}", "-m", "ablations.run", "${args_no_hyphens}"]
    assert content["metric"]["goal"] == "maximize" and content["name"] == path.stem
    for name, block in content["parameters"].items():
        assert name in KEYS
        values = block.get("values", [block["value"]] if "value" in block else [])
        if KEYS[name].type is bool:
            assert all(isinstance(value, bool) for value in values)


def test_the_loss_table_is_every_combination_of_l_mse_and_l_clip():
    assert labels(SWEEPS / "losses.yaml") == [
        "use_mse=true use_clip=true",
        "use_mse=true use_clip=false",
        "use_mse=false use_clip=true",
        "use_mse=false use_clip=false",
    ]


def test_the_prompt_lengths_share_one_training():
    cells = cells_of(read_sweep_file(SWEEPS / "prompt_length.yaml")).cells
    assert [cell.config.prompt_len for cell in cells] == list(LENGTHS)
    assert len({cell.folder.training_path for cell in cells}) == 1


def test_afe_and_the_text_terms_are_swept_where_they_act():
    assert labels(SWEEPS / "afe.yaml") == ["use_afe=true", "use_afe=false"]
    assert all(cell.config.use_clip for cell in cells_of(read_sweep_file(SWEEPS / "afe.yaml")).cells)
    assert len(labels(SWEEPS / "text_loss.yaml")) == 4


def test_the_tables_hold_every_arm_of_the_paper_its_twins_and_the_placebo_with_five_seeds():
    cells = cells_of(read_sweep_file(SWEEPS / "ablation_tables.yaml")).cells
    assert len(cells) == 85 and len({str(cell.folder) for cell in cells}) == 85
    assert len({cell.folder.training_path for cell in cells}) == 50
    arms = {cell.folder.arm for cell in cells if cell.config.seed == 0}
    assert arms == {cell.folder.arm for cell in cells if cell.config.seed == 4} and len(arms) == 17
    wanted = [[f"use_mse={mse}", f"use_clip={clip}"] for mse in ("true", "false") for clip in ("true", "false")]
    wanted += [["use_text=false"], ["use_feature=true"], ["use_afe=false"], *([f"prompt_len={length}"] for length in LENGTHS)]
    wanted += [["afe.weights=uniform"], ["afe.weights=frozen"], ["loss.clip_weight=0.10001"]]
    assert arms == {arm_name(parse([*arguments, "eval.num_prompts=64"])) for arguments in wanted}


# Arms by name


def test_a_named_ablation_is_the_arm_whose_keys_it_sets():
    assert arm_name(parse(["ablation=without_clip"])) == arm_name(parse(["use_clip=false"]))
    assert arm_name(parse(["ablation=full"])) == arm_name(parse([]))
    assert to_flat_dict(parse(["ablation=length_12"]))["ablation"] == "length_12"
    assert all(settings.keys() >= full_arm().keys() for settings in named_ablations().values())


def test_a_key_that_makes_an_ablations_name_lie_is_refused():
    with pytest.raises(UserError, match="ablation=without_mse means use_mse=false, not use_mse=true"):
        parse(["ablation=without_mse", "use_mse=true"])
    assert parse(["ablation=without_mse", "use_mse=false"]).use_mse is False


# Reading


def test_a_grid_is_the_product_in_wandbs_order_with_integer_ranges_as_values(write):
    path = write(
        "method: grid\nparameters:\n  prompt_len: {values: [2, 6]}\n  seed: {min: 0, max: 2}\n  use_afe: {values: [null, false]}\n"
    )
    assert labels(path)[:3] == ["prompt_len=2 seed=0 use_afe=null", "prompt_len=2 seed=0 use_afe=false", "prompt_len=2 seed=1 use_afe=null"]
    assert len(labels(path)) == 12


def test_combinations_that_are_the_same_cell_run_once(write):
    path = write("method: grid\nparameters:\n  use_afe: {values: [null, true, false]}\n")
    grid = cells_of(read_sweep_file(path))
    assert (grid.total, grid.num_repeated) == (2, 1)


def test_the_command_line_replaces_and_adds_and_lists_are_swept():
    path = SWEEPS / "losses.yaml"
    assert labels(path, "use_mse=true", "seed=0,1") == [f"use_clip={clip} seed={seed}" for clip in ("true", "false") for seed in (0, 1)]
    assert labels(SWEEPS / "ablation_tables.yaml", "ablation=full,length_2", "seed=3") == ["ablation=full", "ablation=length_2"]
    cells = cells_of(read_sweep_file(path, ["output_dir=elsewhere", "train.max_steps=7"])).cells
    assert {(cell.config.output_dir, cell.config.train.max_steps) for cell in cells} == {("elsewhere", 7)}


def test_keys_of_the_files_own_command_hold_in_every_cell(write):
    path = write(
        "method: grid\nparameters:\n  seed: {values: [0, 1]}\n",
        command="command: ['${env}', uv, run, python, -m, ablations.run, prompt_len=4, '${args}']\n",
    )
    assert {cell.config.prompt_len for cell in cells_of(read_sweep_file(path)).cells} == {4}


def test_run_cap_ends_a_grid_early_and_project_and_entity_are_kept(write):
    path = write("method: grid\nproject: p\nentity: e\nrun_cap: 3\nparameters:\n  seed: {min: 0, max: 9}\n")
    cells = cells_of(read_sweep_file(path)).cells
    assert [cell.config.seed for cell in cells] == [0, 1, 2]
    assert (cells[0].config.wandb.project, cells[0].config.wandb.entity) == ("p", "e")


EARLY = "method: grid\nparameters:\n  seed: {values: [0, 1]}\n"


@pytest.mark.parametrize("block", ["{type: hyperband, min_iter: 3}", "{type: hyperband, max_iter: 27, s: 2, eta: 3, strict: true}"])
def test_early_terminate_goes_with_a_metric_of_the_training(write, block):
    text = EARLY + f"metric: {{name: val/loss, goal: minimize}}\nearly_terminate: {block}\n"
    assert read_sweep_file(write(text)).without_effect == ("early_terminate",)


@pytest.mark.parametrize(
    ("block", "metric", "said"),
    [
        ("{type: hyperband, min_iter: 3}", "refined/fidelity", "as val/loss, not refined/fidelity: nothing else is known"),
        ("{type: hyperband, min_iter: 3}", "", "as val/loss, not none"),
        ("{type: median, min_iter: 3}", "val/loss", "must be of type hyperband"),
        ("{type: hyperband, min_iters: 3}", "val/loss", "with min_iter, max_iter, s, eta, strict"),
        ("{type: hyperband, min_iter: 0}", "val/loss", "min_iter of early_terminate must be an integer of at least 1, not 0"),
        ("{type: hyperband, max_iter: 9}", "val/loss", "either min_iter, or max_iter with s"),
        ("{type: hyperband}", "val/loss", "either min_iter, or max_iter with s"),
        ("hyperband", "val/loss", "must be of type hyperband"),
    ],
)
def test_early_terminate_that_could_stop_nothing_is_refused(write, block, metric, said):
    chosen = f"metric: {{name: {metric}, goal: minimize}}\n" if metric else ""
    assert said in refusal(write(EARLY + chosen + f"early_terminate: {block}\n"))


def test_the_sweeps_folder_is_named_after_what_is_swept_and_not_after_paths(write):
    path = write("method: grid\nparameters:\n  seed: {values: [0, 1]}\n")
    assert digest_of(read_sweep_file(path)) == digest_of(read_sweep_file(path, ["output_dir=x", "trainer.threads=1"]))
    assert digest_of(read_sweep_file(path)) != digest_of(read_sweep_file(path, ["seed=0,2"]))
    assert digest_of(read_sweep_file(path)) != digest_of(read_sweep_file(path, ["prompt_len=4"]))


# Mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method: grid\nparameters:\n  promt_len: {values: [2]}\n", "did you mean 'prompt_len'"),
        ("method: grid\nparameter:\n  prompt_len: {values: [2]}\n", "unknown key 'parameter'"),
        (
            "method: grid\nparameters:\n  loss: {parameters: {mse_weight: {value: 1}}}\n",
            "loss nests parameters; write them flat, as in loss.mse",
        ),
        ("method: grid\nparameters:\n  loss: {mse_weight: {value: 1}}\n", "'loss' is a group of keys"),
        ("method: grid\nparameters:\n  prompt_len: {values: [2, six]}\n", "prompt_len must be an integer from 1 to 256, not 'six'"),
        ("method: grid\nparameters:\n  use_mse: {values: [yes please]}\n", "use_mse must be true or false"),
        ("method: grid\nparameters:\n  prompt_len: {values: 2}\n", "values must be a list"),
        ("method: grid\nparameters:\n  prompt_len: 6\n", "prompt_len must have value, values or min and max"),
        ("method: grid\nparameters:\n  prompt_len: {values: [2, 2.0]}\n", "prompt_len has a value twice"),
        ("method: grid\nparameters:\n  prompt_len: {vales: [2]}\n", "unknown field 'vales'"),
        ("method: grid\nparameters:\n  train.learning_rate: {min: 1.0e-5, max: 1.0e-3}\n", "method grid needs values"),
        ("method: grid\nparameters:\n  use_mse: {min: 0, max: 1}\n", "it has no range; list its values"),
        ("method: grid\nparameters:\n  prompt_len: {min: 2}\n", "has min but no max"),
        ("method: grid\nparameters:\n  prompt_len: {min: 9, max: 2}\n", "max must be above min"),
        ("method: grid\nparameters:\n  prompt_len: {values: [2]\n", "line 4:"),
        ("method: grid\nmethod: bayes\nparameters:\n  prompt_len: {values: [2]}\n", "line 2: method is given twice"),
        ("method: grids\nparameters:\n  prompt_len: {values: [2]}\n", "method must be one of grid, random, bayes"),
        ("method: grid\n", "parameters must be a block of keys"),
        ("- a\n- b\n#", "expected a W&B sweep file"),
        ("method: bayes\nrun_cap: 3\nparameters:\n  prompt_len: {values: [2]}\n", "method bayes needs a metric"),
        ("method: random\nparameters:\n  prompt_len: {values: [2]}\n", "has no end: add run_cap"),
        ("method: random\nrun_cap: 0\nparameters:\n  prompt_len: {values: [2]}\n", "run_cap must be an integer of at least 1"),
        ("method: random\nrun_cap: 2\nparameters:\n  seed: {min: 0.5, max: 3.5}\n", "take distribution int_uniform"),
        (
            "method: random\nrun_cap: 2\nparameters:\n  train.beta2: {distribution: normal, mu: 0, sigma: 1}\n",
            "distribution 'normal' is not known",
        ),
        ("method: random\nrun_cap: 2\nparameters:\n  loss.mse_weight: {min: -1.0, max: 3.5}\n", "loss.mse_weight must be a number above 0"),
        ("method: random\nrun_cap: 2\nparameters:\n  seed: {values: [1, 2], probabilities: [1, 1]}\n", "that add up to 1"),
        ("method: grid\nparameters:\n  force: {value: true}\n", "force cannot be swept"),
        (
            "method: grid\nparameters:\n  use_clip: {values: [true, false]}\n  use_afe: {value: true}\n",
            "cell 2 (use_clip=false): use_afe=true needs use_clip=true",
        ),
        (
            "method: random\nrun_cap: 4\nparameters:\n"
            "  use_mse: {values: [true, false]}\n  use_clip: {value: false}\n  use_text: {value: false}\n",
            "cell 2 (use_mse=false): nothing to train",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(write, text, said):
    message = refusal(write(text, command=COMMAND if not text.endswith("#") else ""))
    assert said in message and "mine.yaml" in message


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", "add what runs a cell"),
        ("command: python run.py\n", "command must be a list of words"),
        ("command: [python, train.py, '${args}']\n", "command does not run ablations.run"),
        ("command: [python, -m, ablations.run]\n", "command does not hand the parameters over"),
        (
            "command: [python, -m, ablations.run, '${args_json}', '${args}']\n",
            "command has ${args_json}, which ablations.run does not read",
        ),
        ("command: [python, -m, ablations.run, promt_len=4, '${args}']\n", "did you mean 'prompt_len'"),
        ("command: [python, -m, ablations.run, seed=4, '${args}']\n", "seed stands in command and in parameters"),
    ],
)
def test_a_command_that_would_not_run_the_cells_is_refused(write, command, said):
    assert said in refusal(write("method: grid\nparameters:\n  seed: {values: [0, 1]}\n", command=command))


def test_a_file_that_is_not_there_is_named_with_those_that_are():
    assert "sweeps/losses.yaml" in refusal(SWEEPS.relative_to(ROOT) / "loses.yaml") or "losses.yaml" in refusal(SWEEPS / "loses.yaml")


@pytest.mark.parametrize("module", ["ablations.sweep", "ablations.plan"])
def test_a_mistake_costs_one_line_and_code_2_without_heavy_imports(module, tmp_path):
    started = time.monotonic()
    path = tmp_path / "a.yaml"
    path.write_text("method: grid\nparameters:\n  promt_len: {values: [2]}\n" + COMMAND)
    result = subprocess.run([sys.executable, "-m", module, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "") and time.monotonic() - started < 60
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1
    probe = f"import sys, {module}; {module}.main([{str(path)!r}]); {module}.main(['--help']); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True).stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweeps/losses.yaml", "--job", "2"], "unrecognized arguments: --job"),
        (["sweeps/losses.yaml", "--jobs", "none"], "argument --jobs: 'none' is no whole number of at least 1"),
        (["sweeps/losses.yaml", "sweeps/afe.yaml"], "one sweep file at a time"),
        (["seed=1"], "name a sweep file"),
        (["sweeps/losses.yaml", "promt_len=2"], "did you mean 'prompt_len'"),
        (["sweeps/losses.yaml", "use_afe=true"], "cell 2 (use_mse=true use_clip=false): use_afe=true needs"),
        (["sweeps/losses.yaml", "force=true"], "force=true would run finished cells again"),
        (["sweeps/losses.yaml", "--count", "3"], "--count is for method random and bayes"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_line(arguments, said, capsys, monkeypatch):
    from ablations import sweep

    monkeypatch.chdir(ROOT)
    assert sweep.main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and said in error and error.count("\n") == 1
