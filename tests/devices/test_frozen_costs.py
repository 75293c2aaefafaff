"""What the frozen UNet costs a micro-batch of 16 at full size: half the operators and two thirds of the memory that it cost once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ablations.config import parse
from helpers.small_sweeps import ROOT

# As it ran once: float32 weights within float16 autocast, which cast every weight anew in each micro-batch.
OPERATORS_OF_ONCE, GIGABYTES_OF_ONCE = 1487, 16.6


def cost(*arguments: str) -> tuple[int, float]:
    """Operators forward, and gigabytes saved for the backward pass."""
    command = [sys.executable, "-m", "helpers.frozen_costs", *arguments]
    result = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=True)
    operators, gigabytes = json.loads(result.stdout)
    return operators, gigabytes


def test_the_paper_profiles_unet_takes_half_the_operators_and_two_thirds_of_the_memory_of_once():
    config = parse(["profile=paper"])
    operators, gigabytes = cost(config.backbones.frozen_dtype, config.train.precision.replace("bf16-mixed", "bfloat16"))
    assert operators <= 0.55 * OPERATORS_OF_ONCE
    assert gigabytes <= 0.70 * GIGABYTES_OF_ONCE


@pytest.mark.slow
def test_the_count_of_how_it_ran_once_is_the_one_that_the_others_are_held_to():
    operators, gigabytes = cost("float32", "float16", "within")
    assert operators == pytest.approx(OPERATORS_OF_ONCE, rel=0.02)
    assert gigabytes == pytest.approx(GIGABYTES_OF_ONCE, rel=0.01)
