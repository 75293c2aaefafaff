"""Pre-training of the tiny backbones, at a very small scale: it runs, goes on where it stopped, and writes what can be loaded."""

from __future__ import annotations

import csv
import functools
import json

import numpy as np
import pytest
import torch
from torch import nn

from ablations.pretrain_tiny import main
from ablations.pretraining import clip, oracle, t5, vae
from ablations.pretraining.data import build_corpus, draw_captions
from ablations.pretraining.loop import Schedule, train
from ablations.pretraining.t5 import corrupt_spans, encode_words, inferable_words, words_of
from ablations.pretraining.vae import vae_quality, widen
from datamodules.tiny_world.grammar import split_of
from lightning_modules.backbones.tiny import TINY, load_tiny_backbones


def noisy_regression(module: nn.Linear):
    def loss_of_step(step: int):
        rng = np.random.default_rng([1, step])
        inputs = torch.from_numpy(rng.standard_normal((8, 4), dtype=np.float32))
        return (module(inputs) - inputs.sum(dim=1, keepdim=True)).pow(2).mean(), {}

    return loss_of_step


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_stage_that_was_stopped_ends_as_an_undisturbed_one(tmp_path, ema_decay):
    weights = []
    for name, stops in (("whole", [12]), ("parts", [5, 12])):
        for steps in stops:
            torch.manual_seed(0)
            module = nn.Linear(4, 1)
            # Before the decay the rate does not depend on the length, so the first part is the whole's beginning.
            schedule = Schedule(steps, 0.1, warmup_steps=2, decay_share=0.1, ema_decay=ema_decay, save_every=5, log_every=5)
            if steps == 5:
                schedule = Schedule(12, 0.1, warmup_steps=2, decay_share=0.1, ema_decay=ema_decay, save_every=5, log_every=5)
                with pytest.raises(KeyboardInterrupt):
                    train("part", module, stopping_at(5, noisy_regression(module)), schedule, tmp_path / name)
                continue
            train("part", module, noisy_regression(module), schedule, tmp_path / name)
        weights.append(module.weight.detach().clone())
    assert torch.equal(*weights)
    curves = [[(row["step"], row["loss"]) for row in csv.DictReader((tmp_path / n / "part.csv").open())] for n in ("whole", "parts")]
    assert curves[0] == curves[1] and [step for step, _ in curves[0]] == ["5", "10", "12"]


def stopping_at(last: int, loss_of_step):
    def stopped(step: int):
        if step >= last:
            raise KeyboardInterrupt
        return loss_of_step(step)

    return stopped


def test_the_corpus_holds_no_held_out_fine_prompt_and_is_read_back(tmp_path):
    captions = draw_captions(300, seed=3, fine_share=0.5)
    fine = [c.text for c in captions if c.description.style and len(c.description.qualities) >= 2]
    assert len(fine) > 100
    assert all(split_of(text) == "train" for text in fine)
    first = build_corpus(tmp_path, 40, seed=0, workers=1)
    again = build_corpus(tmp_path, 40, seed=0, workers=1)
    assert np.array_equal(first.images, again.images) and first.captions == again.captions


def test_hidden_words_follow_from_what_is_left_of_their_phrase_only():
    words = words_of("a cat in the desert at noon, oil painting, sharp focus")

    def follows(*hidden: str) -> list[str]:
        mask = np.array([word in hidden for word in words])
        return [word for word, yes in zip(words, inferable_words(words, mask), strict=True) if yes]

    assert follows("focus") == ["focus"]
    assert follows("in", "the") == ["in", "the"]
    assert follows("desert") == []  # "in the" begins three scenes
    assert follows("sharp", "focus") == []
    assert follows("at", "oil") == ["at", "oil"]


def test_span_corruption_loses_no_word():
    words = words_of("a cat in the desert at noon, oil painting, sharp focus")
    source, target, hidden = corrupt_spans(words, np.random.default_rng(2))
    kept = [word for word in source if not word.startswith("<")]
    gone = [word for word in target if not word.startswith("<")]
    assert kept == [word for word, out in zip(words, hidden, strict=True) if not out]
    assert gone == [word for word, out in zip(words, hidden, strict=True) if out]


def test_words_are_encoded_as_the_tokenizer_does(small_backbones):
    text = "a lonely owl on a beach at night, woodblock print, 8k"
    assert encode_words(words_of(text), small_backbones.decoder.tokenizer) == small_backbones.decoder.tokenizer(text).input_ids


def test_a_widened_vae_starts_as_good_as_the_narrow_one():
    from diffusers import AutoencoderKL

    wide = load_tiny_backbones().text_to_image.vae
    torch.manual_seed(0)
    narrow = AutoencoderKL.from_config({**wide.config, "latent_channels": 8})
    fresh = AutoencoderKL.from_config(dict(wide.config))
    widen(fresh, narrow.state_dict())
    one, two = (vae_quality(vae.eval(), torch.device("cpu"), count=8)["vae_psnr_db"] for vae in (narrow, fresh))
    assert two == pytest.approx(one, abs=0.5)


@pytest.mark.slow
def test_all_stages_run_and_leave_backbones_that_load(tmp_path, monkeypatch):
    # What networks are worth after two steps is measured on a few pictures; the shipped ones are held by tests of their own.
    for module, name, few in (
        (vae, "vae_quality", {"count": 16}),
        (clip, "clip_quality", {"groups": 1}),
        (t5, "t5_quality", {"count": 16}),
        (oracle, "oracle_quality", {"count": 32}),
    ):
        monkeypatch.setattr(module, name, functools.partial(getattr(module, name), **few))
    embedded = {path: path.read_bytes() for path in TINY.rglob("*.json")}
    steps = [f"--steps={name}=2" for name in ("vae_narrow", "vae", "open_clip", "t5", "oracle", "unet")]
    stages = ["vocabularies", "vae", "open_clip", "t5", "oracle", "unet"]
    arguments = [*stages, "--work", str(tmp_path / "work"), "--to", str(tmp_path / "weights"), "--pictures", "300", *steps]
    assert main(arguments) == 0
    backbones = load_tiny_backbones(tmp_path / "weights")
    provenance = json.loads((tmp_path / "weights" / "provenance.json").read_text())
    assert set(provenance["stages"]) == set(stages)
    assert provenance["stages"]["vae"]["quality"]["vae_psnr_db"] > 0
    assert (
        backbones.text_to_image.scaling_factor == json.loads((tmp_path / "weights" / "configs" / "vae.json").read_text())["scaling_factor"]
    )
    assert embedded == {path: path.read_bytes() for path in TINY.rglob("*.json")}
