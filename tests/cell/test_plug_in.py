"""The plug-in use: the trained text encoder in the image model, reading the coarse prompt, beside the original one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ablations.cell.drawing import pictures as drawing
from ablations.cell.drawing.pictures import draw_pictures
from ablations.cell.loading.module import build_module
from ablations.cell.refining.refine import Sources, plan_drawings
from ablations.config import arm_name, from_flat_dict, parse, to_flat_dict, train_id
from ablations.results.prompts_and_scores import Drawing
from datamodules.records import EvalPrompt
from helpers.trained_runs import nudge

PLUG_IN = "plug_in"
SETTINGS = ["eval.num_candidates=2", "eval.steps=2", "eval.batch_size=4", "eval.controls=false", "eval.rewrite_too=false", "eval.draw=all"]
CONFIG = parse(["backbones.init=random", *SETTINGS])
PROMPTS = [EvalPrompt(3, "a cat", "a cat, oil painting", None), EvalPrompt(5, "a red boat", "a red boat, 8k", None)]


def no_progress(items, _total, _label):
    return items


def plan(module, config=CONFIG) -> list[Drawing]:
    return plan_drawings(config, Sources(PROMPTS, module, lambda: module))


def pictures(module, drawings, trained) -> dict[tuple[int, str, int], np.ndarray]:
    images = draw_pictures(module.backbones, drawings, CONFIG.eval, no_progress, lambda: None, trained)
    return {(d.prompt_id, d.condition, d.candidate): image for d, image in zip(drawings, images, strict=True)}


@pytest.fixture(scope="module")
def untrained(small_backbones):
    return build_module(CONFIG, small_backbones).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def trained(small_backbones):
    module = build_module(CONFIG, small_backbones).eval().requires_grad_(False)
    nudge(module)
    return module


def test_plug_in_pictures_are_paired_with_the_coarse_ones_text_by_text_and_noise_by_noise(trained):
    found = {(d.prompt_id, d.condition, d.candidate): d for d in plan(trained)}
    for prompt in PROMPTS:
        for candidate in (0, 1):
            plug_in, coarse = (found[prompt.prompt_id, name, candidate] for name in (PLUG_IN, "coarse"))
            assert plug_in.text == plug_in.coarse == coarse.text == prompt.coarse_prompt
            assert (plug_in.image_seed, plug_in.prompt_seed) == (coarse.image_seed, coarse.prompt_seed)
            assert plug_in.num_new_tokens == 0
    assert {d.condition for d in found.values() if d.by_trained_encoder} == {PLUG_IN}


def test_it_can_be_left_out(trained):
    config = parse(["eval.plug_in=false", "eval.num_candidates=1"])
    with_it = {d.condition for d in plan(trained, parse(["eval.num_candidates=1"]))}
    assert {d.condition for d in plan(trained, config)} == with_it - {PLUG_IN} >= {"coarse", "fine", "refined", "rewrite"}


def test_before_the_first_step_the_plug_in_draws_what_the_original_encoder_draws(untrained):
    shown = pictures(untrained, plan(untrained), untrained.text_encoder)
    for prompt in PROMPTS:
        for candidate in (0, 1):
            coarse, plug_in = (shown[prompt.prompt_id, name, candidate].astype(int) for name in ("coarse", PLUG_IN))
            assert np.abs(coarse - plug_in).max() <= 1  # the batches differ, so rounding may


def test_the_trained_encoder_reads_the_prompt_and_the_empty_prompt_and_no_other_picture(trained, untrained):
    drawings = plan(trained)
    shown, before = pictures(trained, drawings, trained.text_encoder), pictures(trained, drawings, untrained.text_encoder)
    for key, image in shown.items():
        assert np.array_equal(image, before[key]) == (key[1] != PLUG_IN), key
    model, tokenize = trained.backbones.text_to_image, trained.backbones.tokenize
    seed = next(d.image_seed for d in drawings if (d.prompt_id, d.condition, d.candidate) == (3, PLUG_IN, 0))
    with torch.no_grad():
        states, empty = (trained.text_encoder(tokenize([text])).states_BSD for text in ("a cat", ""))
    by_hand = model.generate(states, empty, [seed], steps=2, guidance_scale=CONFIG.eval.guidance_scale)[0].astype(int)
    assert np.abs(by_hand - shown[3, PLUG_IN, 0]).max() <= 1


def test_every_picture_is_drawn_by_its_encoder_and_the_encoders_never_share_a_batch(trained, monkeypatch):
    batches: list[list[tuple[bool, str, int]]] = []

    def watch(_backbones, encoder, texts, seeds, _sampling):
        batches.append([(encoder is trained.text_encoder, text, seed) for text, seed in zip(texts, seeds, strict=True)])
        return np.zeros((len(texts), 8, 8, 3), np.uint8)

    monkeypatch.setattr(drawing, "draw_texts", watch)
    drawings = plan(trained)
    pictures(trained, drawings, trained.text_encoder)
    drawn = {picture for batch in batches for picture in batch}
    assert drawn == {(d.by_trained_encoder, d.text, d.image_seed) for d in drawings}
    assert {(True, "a cat", d.image_seed) for d in drawings if (d.prompt_id, d.condition) == (3, "coarse")} <= drawn


def test_without_the_trained_encoder_such_a_picture_is_refused(trained):
    with pytest.raises(ValueError, match="4 pictures are to be drawn by the trained encoder, but none was handed in"):
        pictures(trained, plan(trained), None)


def test_results_from_before_there_was_a_plug_in_keep_their_name_and_the_training_is_shared():
    now = to_flat_dict(parse([]))
    before = {name: value for name, value in now.items() if name != "eval.plug_in"}
    assert now["eval.plug_in"] is None
    assert from_flat_dict(before).eval.plug_in is False
    assert arm_name(from_flat_dict(before)) == arm_name(parse(["eval.plug_in=false"])) != arm_name(parse([]))
    assert train_id(from_flat_dict(before)) == train_id(parse([]))
