"""The judge of pictures is another model than is trained and draws: as good as its provenance says, and of an opinion of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ablations.cell.scoring.joint_space import JointSpace
from ablations.cell.scoring.scorer import Scorer, judge_for
from ablations.config import parse
from ablations.metrics.clip_score import encode_images, encode_texts
from ablations.metrics.judge import CONDITIONING, JUDGED, OPENAI, WEIGHTS, Judge, judge_asked_for, judge_by
from ablations.results.prompts_and_scores import Drawing
from ablations.runtime.errors import UserError
from datamodules.records import EvalPrompt
from datamodules.tiny_world.grammar import draw_split
from datamodules.tiny_world.renderer import render
from lightning_modules.backbones.tiny import TINY


@pytest.fixture(scope="module")
def judge() -> Judge:
    return judge_by("tiny")


def recall(encoder, captions) -> float:
    """Share of the pictures to which their own caption is the nearest."""
    images = encode_images(encoder, np.stack([render(caption.description) for caption in captions]))
    texts = encode_texts(encoder, [caption.text for caption in captions])
    return float(np.mean((images @ texts.T).argmax(1) == np.arange(len(captions))))


def test_the_judge_is_small_and_finds_held_out_captions_as_its_provenance_says(judge):
    said = json.loads((TINY / "provenance.json").read_text())["stages"]["judge"]
    assert WEIGHTS.stat().st_size < 4_000_000
    assert said["training"]["corpus"]["fine_prompts"] == "neutral" and said["training"]["corpus"]["seed"] == 1
    found = np.mean([recall(judge.encoder, captions) for captions in np.array_split(np.array(draw_split("test", 256, 2), dtype=object), 4)])
    assert found == pytest.approx(said["quality"]["clip_recall_at_1"], abs=0.02) and found > 0.85


def test_each_profile_has_a_judge_of_its_own_and_old_results_have_the_model_that_drew():
    assert judge_asked_for(parse([]).eval.judge, "tiny") == "tiny"
    assert judge_asked_for(parse(["profile=paper"]).eval.judge, "paper") == OPENAI
    assert parse(["profile=paper", "backbones.init=random"]).eval.judge == CONDITIONING
    assert judge_by(CONDITIONING).encoder is None
    with pytest.raises(UserError, match=r"eval\.judge=tiny knows the tiny world's pictures"):
        parse(["profile=paper", "eval.judge=tiny"])


def test_missing_weights_are_an_error_or_leave_scores_out(tmp_path):
    with pytest.raises(UserError, match=r"ViT-L-14\.pt is missing.*eval\.judge=conditioning"):
        judge_by(OPENAI, "error", tmp_path)
    arguments = ["eval.judge=ViT-L-14/openai", "eval.missing_metrics=skip", f"eval.metrics_dir={tmp_path}"]
    assert "ViT-L-14.pt is missing" in judge_for(parse(arguments), "cpu").problem


def scored(backbones, judge: Judge):
    captions = draw_split("test", 2, 0)
    prompts = [EvalPrompt(i, caption.text.split(",")[0], caption.text, caption.description) for i, caption in enumerate(captions)]
    drawings = [Drawing(p.prompt_id, "refined", c, p.coarse_prompt, p.fine_prompt, 0, 0) for p in prompts for c in range(2)]
    pictures = [render(captions[(d.prompt_id + d.candidate) % 2].description) for d in drawings]
    return Scorer(backbones, judge=judge).score(prompts, drawings, np.stack(pictures))


def test_the_judge_decides_about_clip_scores_and_diversity_of_embeddings_and_about_nothing_else(small_backbones, judge):
    by_judge, by_drawer = (
        scored(small_backbones, who).table.set_index(["metric", "prompt_id", "candidate"]).value for who in (judge, Judge())
    )
    assert by_judge.index.equals(by_drawer.index)
    changed = {name for name in by_judge.index.get_level_values(0) if not by_judge[name].equals(by_drawer[name])}
    assert changed == set(JUDGED)
    # A picture fits its own prompt better than the other's.
    assert by_judge["clip_score", 0, 0] > by_judge["clip_score", 0, 1] and by_judge["clip_score", 1, 0] > by_judge["clip_score", 1, 1]


def test_without_a_judge_its_scores_have_no_rows_and_tables_are_told_why(small_backbones):
    scores = scored(small_backbones, Judge(problem="its weights are missing"))
    assert not set(scores.table.metric) & set(JUDGED)
    assert {name: scores.unavailable[name] for name in JUDGED} == dict.fromkeys(JUDGED, "its weights are missing")


def test_the_judge_has_other_weights_than_the_model_that_draws(judge):
    from lightning_modules.backbones.tiny import load_tiny_backbones

    space = JointSpace(load_tiny_backbones())
    texts = ["an owl in the desert at noon, comic book", "a cat on a beach at night"]
    one, other = (torch.as_tensor(encode_texts(encoder, texts)) for encoder in (judge.encoder, space))
    assert one.shape == other.shape and (one * other).sum(1).abs().max() < 0.5
