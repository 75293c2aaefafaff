"""What the tests on a pretend device share: the device, and a cell that ran on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ablations.cell.cell import run_cell
from ablations.config import arm_name, parse
from ablations.runtime.stopping import StopRequest
from helpers.pretend_device import TINY_CELL, pretend_device


@pytest.fixture(scope="module")
def device() -> Iterator[torch.device]:
    """The pretend accelerator, which is what commands find until the file's tests are over."""
    with pytest.MonkeyPatch.context() as patch, pretend_device(patch) as device:
        yield device


@pytest.fixture(scope="module")
def run_on_the_device(device, tmp_path_factory) -> Path:
    """The run folder of a cell that ran on the device, OUTPUT_DIR/ARM/seed-0."""
    config = parse([*TINY_CELL, f"output_dir={tmp_path_factory.mktemp('outputs')}"])
    run_cell(config, StopRequest())
    return Path(config.output_dir) / arm_name(config) / "seed-0"
