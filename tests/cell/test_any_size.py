"""An evaluation of any size: memory does not grow with it, a killed one draws nothing twice, and several processes share it out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

from ablations.config import parse
from ablations.results.prompts_and_scores import read_prompts, read_scores
from ablations.results.run_folder import RunFolder
from ablations.results.scores import COLUMNS

# Toy networks: a picture is its seed's colour, a text's embedding its length. What is tried is what is kept, and for how long.
TOYS = """
import json, os, resource, signal, sys
from pathlib import Path
import numpy as np
import torch
from ablations.cell.drawing import pictures as drawing
from ablations.cell.drawing.draw import draw
from ablations.cell.drawing.picture_store import PictureStore
from ablations.cell.scoring import candidates, scorer as scoring
from ablations.cell.scoring.score_store import ScoreStore
from ablations.cell.work import Work
from ablations.config import parse
from ablations.metrics.faithfulness import Sentences
from ablations.metrics.judge import Judge
from ablations.results.prompts_and_scores import Drawing
from datamodules.records import EvalPrompt
from lightning_modules.backbones.tiny import random_tiny_backbones
from types import SimpleNamespace

root, count, die_at = Path(sys.argv[1]), [int(word) for word in sys.argv[2].split(",")], int(sys.argv[3])
log = root / "drawn.txt"

def toy_pictures(backbones, encoder, texts, seeds, sampling):
    with log.open("a") as stream:
        stream.write("".join(f"{text} {seed}\\n" for text, seed in dict.fromkeys(zip(texts, seeds))))
    if len(log.read_text().splitlines()) > die_at > 0:
        os.kill(os.getpid(), signal.SIGKILL)
    colours = np.array([[seed % 256, seed // 256 % 256, len(text)] for text, seed in zip(texts, seeds)], dtype=np.uint8)
    return np.broadcast_to(colours[:, None, None], (len(texts), 96, 96, 3)).copy()

class Toy:
    def encode_image(self, images_NHWC):
        return torch.tensor(images_NHWC[:, 0, 0].astype(np.float32) + 1)
    def encode_text(self, texts):
        return torch.tensor([[len(text), 1.0, 2.0] for text in texts])

drawing.draw_texts = toy_pictures
one_each = lambda images, device="cpu": images[:, 0, 0, 0].astype(float)
scoring.image_quality = SimpleNamespace(piqe=one_each, entropy=one_each)
candidates.diversity.st_lpips_of_sets = lambda sets, device="cpu": np.array([float(np.ptp(images)) for images in sets])
backbones = random_tiny_backbones(0)
module = SimpleNamespace(backbones=backbones, text_encoder=None)

def evaluate(number):
    config = parse([f"output_dir={root}", f"prompt_len={1 + number // 100}"])
    work = Work.unheard(config)
    prompts = [EvalPrompt(i, f"prompt {i}", f"prompt {i}, fine") for i in range(number)]
    drawings = [Drawing(p.prompt_id, "refined", c, p.coarse_prompt, f"{p.coarse_prompt}, {number}", 0, 1000 * number + 3 * p.prompt_id + c)
                for c in range(3) for p in prompts]
    work.folder.path.mkdir(parents=True, exist_ok=True)
    pictures = draw(work, module, drawings, PictureStore(root / "cache", {}))
    scorer = scoring.Scorer(backbones, ScoreStore(root / "cache", {}), judge=Judge(Toy(), "toy"), sentences=Sentences(Toy().encode_text))
    table = scorer.score(prompts, drawings, pictures).table
    table.to_parquet(root / f"{number}.parquet")
    print(json.dumps([number, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(table)]), flush=True)

for number in count:
    evaluate(number)
"""


def run_toys(root: Path, counts: str, die_at: int = 0, at_once: int = 4 * 2**20) -> subprocess.CompletedProcess:
    script = TOYS.replace("root, count", f"import ablations.cell.scoring.pictures as p; p._BYTES_AT_ONCE = {at_once}\nroot, count", 1)
    command = [sys.executable, "-c", textwrap.dedent(script), str(root), counts, str(die_at)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.slow
def test_memory_is_flat_between_200_and_2000_prompts(tmp_path):
    result = run_toys(tmp_path, "200,2000")
    assert result.returncode == 0, result.stderr[-2000:]
    (_, few, rows), (_, many, more_rows) = map(json.loads, result.stdout.splitlines())
    # All pictures at once would be 166 MB more, and were held twice.
    assert many <= 1.10 * few, (few, many)
    assert more_rows == 10 * rows


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_draws_and_scores_nothing_twice(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    assert run_toys(whole, "60").returncode == 0
    for die_at in (50, 120):
        assert run_toys(parts, "60", die_at).returncode == -signal.SIGKILL
    assert run_toys(parts, "60").returncode == 0
    drawn = (parts / "drawn.txt").read_text().splitlines()
    once = (whole / "drawn.txt").read_text().splitlines()
    # A batch that the kill cut off was drawn again: its pictures had not come back.
    assert set(drawn) == set(once) and len(once) == 180 and len(drawn) <= 180 + 2 * 32
    pd.testing.assert_frame_equal(pd.read_parquet(whole / "60.parquet"), pd.read_parquet(parts / "60.parquet"))


@pytest.mark.slow
def test_scored_in_parts_is_scored_at_once(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir(), large.mkdir()
    assert run_toys(small, "60", at_once=10 * 96 * 96 * 3).returncode == 0
    assert run_toys(large, "60", at_once=2**30).returncode == 0
    order = ["metric", "prompt_id", "condition", "candidate"]
    tables = (pd.read_parquet(folder / "60.parquet").sort_values(order, ignore_index=True) for folder in (small, large))
    pd.testing.assert_frame_equal(*tables)


SMALL_CELL = (
    *("backbones.init=random", "data.num_train=48", "data.num_validation=8", "train.batch_size=8", "loss.clip_bank=6", "train.max_steps=2"),
    *("eval.num_prompts=5", "eval.text_prompts=7", "eval.steps=1", "eval.grid_prompts=2", "train.check_records=0", "trainer.threads=1"),
    *("trainer.accelerator=cpu", "wandb.mode=disabled", "trainer.progress=none"),
)


@pytest.mark.slow
def test_two_processes_give_the_texts_pictures_and_scores_of_one(tmp_path):
    def run(folder: str, *more: str) -> RunFolder:
        arguments = [f"output_dir={tmp_path / folder}", *SMALL_CELL, *more]
        result = subprocess.run([sys.executable, "-m", "ablations.run", *arguments], capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
        return RunFolder(parse(arguments))

    one = run("one")
    # The same trained weights: what training in two processes changes is another test's.
    shutil.copytree(tmp_path / "one" / "trainings", tmp_path / "two" / "trainings")
    two = run("two", "trainer.devices=2")
    assert read_prompts(one.prompts) == read_prompts(two.prompts)
    for line in read_prompts(one.prompts):
        if line["image"]:
            assert (one.path / line["image"]).read_bytes() == (two.path / line["image"]).read_bytes()
    order = ["metric", "condition", "prompt_id", "candidate"]
    tables = [read_scores(run.scores, COLUMNS).sort_values(order, ignore_index=True) for run in (one, two)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-6, atol=1e-9)
    assert sorted(path.name for path in two.path.iterdir()) == sorted(path.name for path in one.path.iterdir())
