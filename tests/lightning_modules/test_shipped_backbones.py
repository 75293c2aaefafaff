"""The shipped tiny backbones: small, with their provenance, and as good as it says."""

from __future__ import annotations

import json

import pytest
import torch

from ablations.metrics.word_oracle import WEIGHTS
from ablations.pretraining.clip import clip_quality
from ablations.pretraining.evaluation import diffusion_quality
from ablations.pretraining.t5 import t5_quality
from ablations.pretraining.vae import vae_quality
from lightning_modules.backbones.tiny import TINY, TINY_PARTS, load_tiny_backbones

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def backbones():
    return load_tiny_backbones()


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, float]]:
    stages = json.loads((TINY / "provenance.json").read_text())["stages"]
    return {name: stage["quality"] for name, stage in stages.items()}


def test_all_shipped_weights_take_at_most_25_mb():
    assert sum((TINY / f"{part}.safetensors").stat().st_size for part in TINY_PARTS) + WEIGHTS.stat().st_size <= 25e6


def test_the_recorded_quality_meets_the_bars(recorded):
    assert recorded["open_clip"]["clip_recall_at_1"] >= 0.60
    assert recorded["vae"]["vae_psnr_db"] >= 26
    assert recorded["t5"]["t5_inferable_accuracy"] >= 0.85
    assert recorded["diffusion"]["prompts"] >= 256
    assert recorded["diffusion"]["fine_subject_recognised"] >= 0.85
    assert recorded["diffusion"]["fidelity_gain_low"] > 0


def test_the_vae_and_openclip_are_as_good_as_recorded(backbones, recorded):
    assert vae_quality(backbones.text_to_image.vae, CPU, count=64)["vae_psnr_db"] == pytest.approx(recorded["vae"]["vae_psnr_db"], abs=1)
    recall = clip_quality(backbones.clip_model, backbones.tokenize, CPU, groups=2)["clip_recall_at_1"]
    assert recall == pytest.approx(recorded["open_clip"]["clip_recall_at_1"], abs=0.06)


def test_t5_infers_hidden_words_as_well_as_recorded(backbones, recorded):
    accuracy = t5_quality(backbones.decoder.t5, backbones.decoder.tokenizer, CPU)["t5_inferable_accuracy"]
    assert accuracy == pytest.approx(recorded["t5"]["t5_inferable_accuracy"], abs=0.01)


@pytest.mark.slow
def test_the_diffusion_model_draws_better_from_fine_prompts(backbones, recorded, tmp_path):
    quality = diffusion_quality(backbones, tmp_path, count=64)
    assert quality["fine_subject_recognised"] >= 0.85
    assert quality["fidelity_gain_low"] > 0
    assert quality["fidelity_gain"] == pytest.approx(recorded["diffusion"]["fidelity_gain"], abs=0.06)
