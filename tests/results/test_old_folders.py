"""An output folder that older code left is read as it always was: by report, controls, refine, export and compare, and by a second run.

`old_folder` was left behind by the code of revision bd3175e: three cells of two training steps and two prompts, and what `report` and
`controls` printed and wrote of them then. Its scores are kept as text. Its pictures and checkpoints, which are large, are made here: a
picture's pixels are not read, and the checkpoints hold the parameters of then by name and shape.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from ablations import PromptRefiner, compare, controls, export, report
from ablations.config import from_flat_dict, parse
from ablations.results.run_folder import RunFolder, read_run
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.backbones.tiny import load_tiny_backbones

OLD = Path(__file__).parent / "old_folder"
ARM = "tiny-len6-mse-text-clip-afe-9a4c7fc5"
TRAININGS = {
    ARM: "tiny-mse-text-clip-afe-ab4fe10d8bf8",
    "tiny-len6-text-clip-afe-390e9f83": "tiny-text-clip-afe-8265be3da502",
}
CELLS = (f"{ARM}/seed-0", f"{ARM}/seed-1", "tiny-len6-text-clip-afe-390e9f83/seed-0")
# The command line of the first of them, which a user may give again, with what has become another default since.
COMMAND = (
    *(
        "eval.judge=conditioning",
        "data.world=1",
        "afe.reading=class_and_patches",
        "eval.draw=all",
        "eval.controls=true",
        "eval.plug_in=true",
        "eval.rewrite_too=true",
        "eval.text_prompts=0",
    ),
    *("train.max_steps=2", "data.num_train=48", "data.num_validation=8", "train.batch_size=8", "loss.clip_bank=8", "eval.num_prompts=2"),
    *("eval.num_candidates=2", "eval.steps=2", "eval.max_new_tokens=8", "eval.batch_size=4", "eval.grid_prompts=1"),
    *("wandb.mode=disabled", "trainer.threads=1", "trainer.progress=none", "train.check_records=0"),
)
TEXT_ENCODER = {
    "positional_embedding": (77, 128),
    "text_projection": (128, 128),
    "token_embedding.weight": (736, 128),
    "ln_final.weight": (128,),
    "ln_final.bias": (128,),
}
BLOCK = {
    "ln_1.weight": (128,),
    "ln_1.bias": (128,),
    "attn.in_proj_weight": (384, 128),
    "attn.in_proj_bias": (384,),
    "attn.out_proj.weight": (128, 128),
    "attn.out_proj.bias": (128,),
    "ln_2.weight": (128,),
    "ln_2.bias": (128,),
    "mlp.c_fc.weight": (512, 128),
    "mlp.c_fc.bias": (512,),
    "mlp.c_proj.weight": (128, 512),
    "mlp.c_proj.bias": (128,),
}
OTHERS = {
    "adapter.layers.0.weight": (256, 128),
    "adapter.layers.0.bias": (256,),
    "adapter.layers.2.weight": (128, 256),
    "adapter.layers.2.bias": (128,),
    "afe.dynamic_weights.0.weight": (128,),
    "afe.dynamic_weights.0.bias": (128,),
    "afe.dynamic_weights.1.weight": (64, 128),
    "afe.dynamic_weights.1.bias": (64,),
    "afe.dynamic_weights.3.weight": (1, 64),
    "afe.dynamic_weights.3.bias": (1,),
}


def parameters(seed: int) -> dict[str, torch.Tensor]:
    """What a checkpoint of then holds as its state_dict, with values that no training gave."""
    blocks = {f"transformer.resblocks.{i}.{name}": shape for i in range(4) for name, shape in BLOCK.items()}
    shapes = {f"text_encoder.{name}": shape for name, shape in (TEXT_ENCODER | blocks).items()} | OTHERS
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """The output folder, whole."""
    output_dir = Path(shutil.copytree(OLD, tmp_path_factory.mktemp("old") / "outputs", ignore=shutil.ignore_patterns("printed")))
    for cell in CELLS:
        (output_dir / cell / "images").mkdir()
        scores = output_dir / cell / "scores.csv"
        pd.read_csv(scores, keep_default_na=False).to_parquet(scores.with_suffix(".parquet"), index=False)
        scores.unlink()
        for line in (output_dir / cell / "prompts.jsonl").read_text().splitlines():
            Image.new("RGB", (64, 64), "teal").save(output_dir / cell / json.loads(line)["image"])
        arm, seed = cell.split("/")
        checkpoint = output_dir / "trainings" / TRAININGS[arm] / seed / "checkpoints" / "final.ckpt"
        checkpoint.parent.mkdir(parents=True)
        made_from = json.loads((output_dir / cell / "run.json").read_text())["digests"]
        content = {"state_dict": parameters(int(seed[-1])), "global_step": 2, "epoch": 0, "made_from": made_from}
        torch.save(content, checkpoint)
    return output_dir


@pytest.fixture(scope="module")
def backbones() -> Backbones:
    return load_tiny_backbones()


def printed(name: str) -> str:
    return (OLD / "printed" / name).read_text()


@pytest.mark.parametrize("cell", CELLS)
def test_the_config_of_an_old_run_lies_where_its_folder_lies(cell, old):
    run = read_run(old / cell)
    folder = RunFolder(from_flat_dict(run["config"] | {"output_dir": str(old)}))
    assert str(folder) == cell == f"{run['arm']}/seed-{run['seed']}"
    assert folder.train_id == run["train_id"] == TRAININGS[cell.split("/")[0]]
    assert folder.status() == "finished"


def test_the_same_command_finds_its_old_cell_finished(old):
    folder = RunFolder(parse([*COMMAND, f"output_dir={old}"]))
    assert (folder.path, folder.status()) == (old / CELLS[0], "finished")
    assert (folder.checkpoints / "final.ckpt").is_file()


def test_the_report_of_an_old_folder_has_the_old_numbers(old, tmp_path, capsys):
    """Every figure of then stands in the report. Verdicts do not: the claims are others now, and read what old cells did not score."""
    assert report.main([str(old), "--to", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(printed("report.txt"))
    assert (tmp_path / "cells.csv").read_text() == printed("cells.csv")
    for file in sorted((OLD / "printed").glob("tiny-*.csv")):
        expected = pd.read_csv(file)
        found = pd.read_csv(tmp_path / "tables" / file.name).drop(columns="seeds_begun")
        old_rows = found.merge(expected[["row", "metric", "read_in"]], on=["row", "metric", "read_in"])
        pd.testing.assert_frame_equal(old_rows[expected.columns], expected, rtol=1e-9, obj=file.name)


def test_the_controls_of_an_old_arm_are_printed_as_they_were(old, capsys):
    assert controls.main([str(old / ARM)]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        line.rstrip() for line in printed("controls.txt").splitlines()
    ]


def test_an_old_training_is_loaded_parameter_by_parameter_and_refines(old, backbones):
    refiner = PromptRefiner.from_run(old / CELLS[1], backbones, device="cpu")
    expected = parameters(seed=1)
    found = refiner.module.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    candidates = refiner.refine("a green tree", num_candidates=2)
    assert all(candidate.refined == "a green tree" + candidate.new_text and candidate.num_new_tokens == 6 for candidate in candidates)


def test_an_old_run_is_exported_and_the_export_refines_as_it_does(old, backbones, tmp_path):
    assert export.main([str(old / CELLS[0]), "--to", str(tmp_path / "exported")]) == 0
    exported = PromptRefiner.from_pretrained(tmp_path / "exported", backbones, device="cpu")
    run = PromptRefiner.from_run(old / CELLS[0], backbones, device="cpu")
    assert exported.refine("a green tree", seed=3) == run.refine("a green tree", seed=3)


def test_an_old_arm_is_compared(old, tmp_path, capsys):
    arguments = ["--methods", "coarse,refiner,fine", "--prompts", "1", "--candidates", "1", "--figure-prompts", "1", "--progress", "plain"]
    code = compare.main([str(old / ARM), *arguments, "--to", str(tmp_path / "compared")])
    assert (code, capsys.readouterr().err) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "compared" / "prompts.jsonl").read_text().splitlines()]
    assert [(line["method"], line["seed"]) for line in lines if line["method"] == "refiner"] == [("refiner", 0), ("refiner", 1)]
