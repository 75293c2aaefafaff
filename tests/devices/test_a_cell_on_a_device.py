"""A whole cell on a pretend accelerator: no tensor of the CPU meets one of the device, and what goes between the two is counted.

The counts are what there is today, so that they can only fall: one that falls is written down here, one that rises is a mistake.
`Traffic.places()` says where each copy and each wait comes from.
"""

from __future__ import annotations

import json

import pytest
import pytorch_lightning as pl
import torch

from ablations.cell.loading.module import build_module
from ablations.cell.training.fit import make_trainer
from ablations.config import parse
from helpers.pretend_device import NAME, DevicesMixed, Traffic, counting
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.backbones.tiny import random_tiny_backbones
from lightning_modules.readings import reading_names
from lightning_modules.settings import RefineSettings
from lightning_modules.text_encoder import FineGrainedTextEncoder

UNCACHED = ("data.cache=false", "loss.clip_bank=0")
# Copies to the device and waits for it in a micro-batch; most copies are the batch's own tensors. Two waits are T5's mask in transformers.
ARMS = {
    ("ablation=full",): (17, 2),
    ("ablation=without_mse",): (14, 2),
    ("ablation=without_text",): (17, 0),
    ("ablation=without_clip",): (17, 2),
    ("ablation=without_afe",): (17, 2),
    ("ablation=with_feature",): (18, 2),
    ("adapter.mask_padding=false",): (17, 0),
    ("ablation=full", *UNCACHED): (12, 2),
}
# On top, at the end of an optimiser step: one look at whether the terms are finite.
AN_OPTIMISER_STEP = (0, 1)


def test_a_whole_cell_loads_encodes_trains_refines_draws_and_scores_on_the_device(run_on_the_device):
    run = json.loads((run_on_the_device / "run.json").read_text())
    assert run["status"] == "finished"
    assert {"coarse", "plug_in", "refined", "rewrite", "control_step0", "control_t5_direct"} <= set(run["metrics"])


class _Counted(pl.Callback):
    """What had gone between host and device at the end of each micro-batch."""

    def __init__(self, traffic: Traffic):
        self.traffic, self.seen = traffic, []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        self.seen.append((trainer.global_step, *self.traffic.counts))


def trained(arguments, batches) -> tuple[pl.LightningModule, list[tuple[int, int, int]], Traffic]:
    config = parse([*arguments, "backbones.init=random", "train.accumulate=2"])
    module = build_module(config, random_tiny_backbones(0))
    with counting() as traffic:
        watch = _Counted(traffic)
        make_trainer(config, len(batches) // 2, [watch]).fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    return module, watch.seen, traffic


@pytest.mark.parametrize("arm", ARMS, ids=" ".join)
def test_training_every_arm_copies_and_waits_no_more_than_it_did(device, make_batch, arm):
    bank = () if UNCACHED[0] in arm else (4, 5)
    batches = [make_batch((0, 1), epoch=epoch, cached=bool(bank), bank=bank) for epoch in range(4)]
    _, seen, traffic = trained(arm, batches)
    steps, copies, waits = zip(*seen, strict=True)
    assert steps == (0, 1, 1, 2)
    micro_batch = (copies[2] - copies[1], waits[2] - waits[1])
    assert micro_batch == ARMS[arm], traffic.places()
    assert (copies[3] - copies[2] - micro_batch[0], waits[3] - waits[2] - micro_batch[1]) == AN_OPTIMISER_STEP


@pytest.mark.parametrize("reading", reading_names())
def test_every_reading_of_afe_trains_on_the_device(device, make_batch, reading):
    batches = [make_batch((0, 1), epoch=epoch, cached=False) for epoch in range(2)]
    module, seen, _ = trained((f"afe.reading={reading}", "use_mse=false", "use_text=false", *UNCACHED), batches)
    assert seen[-1][0] == 1
    assert all(torch.isfinite(value.cpu()).all() for value in module.afe.state_dict().values())


@pytest.fixture(scope="module")
def module(device):
    made = build_module(parse([]), random_tiny_backbones(0))
    made.backbones.to(device)
    return made.to(device).eval()


def between(counted: list[Traffic], apart: int) -> tuple[float, float]:
    """Copies and waits of one more unit, from two countings that are so many units apart."""
    (copies, waits), (more_copies, more_waits) = (traffic.counts for traffic in counted)
    return (more_copies - copies) / apart, (more_waits - waits) / apart


def test_encoding_pictures_waits_for_nothing(module):
    images = torch.zeros(2, 3, 64, 64)
    with counting() as traffic:
        features = [encoder.encode(images) for encoder in module.feature_encoders]
    assert {value.device.type for each in features for value in each.values()} == {NAME}
    assert traffic.counts == (4, 0), traffic.places()  # the pictures twice, mean and standard deviation of the image tower's pixels


def test_writing_a_token_copies_its_noise_and_waits_to_know_whether_all_rows_ended(module):
    counted = []
    for length in (2, 4):
        with counting() as traffic:
            module.refine(["a cat", "a red boat"], [(1,), (2,)], RefineSettings(prompt_len=length))
        counted.append(traffic)
    assert between(counted, 2) == (1.0, 3.0), counted[1].places()


def test_a_sampling_step_copies_its_noise_and_waits_for_nothing(module):
    backbones, device = module.backbones, module.device
    states = [backbones.text_encoder(backbones.tokenize(texts).to(device)).states_BSD for texts in (["a cat", "a boat"], [""])]
    counted = []
    for steps in (1, 3):
        with counting() as traffic:
            backbones.text_to_image.generate(*states, [1, 2], steps=steps, guidance_scale=7.0)
        counted.append(traffic)
    assert between(counted, 2) == (1.0, 0.0), counted[1].places()


def test_the_networks_start_on_the_cpu_and_alike_wherever_the_frozen_ones_are(device):
    backbones = random_tiny_backbones(0)
    here = build_module(parse([]), backbones)
    backbones.to(device)
    beside = build_module(parse([]), backbones)
    assert {value.device.type for value in beside.state_dict().values()} == {"cpu"}
    assert all(torch.equal(value, here.state_dict()[name]) for name, value in beside.state_dict().items())


def test_scaling_the_adapter_after_the_encoder_moved_is_found_out(device, monkeypatch):
    """The order of once: E_T was a copy on the device, and read ids that were not."""
    monkeypatch.setattr(Backbones, "new_text_encoder", lambda self: FineGrainedTextEncoder(self.clip_model))
    backbones = random_tiny_backbones(0)
    build_module(parse([]), backbones)
    backbones.to(device)
    with pytest.raises(DevicesMixed, match=rf"embedding: tensors on {NAME} and on cpu"):
        build_module(parse([]), backbones)
    build_module(parse(["adapter.match_scale=false"]), backbones)
