"""Faults of every kind are noticed, made good, or said in one line: see `bench` for how to try more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.bench import Kind, explained, kinds


@pytest.mark.parametrize("kind", kinds().values(), ids=lambda kind: kind.name)
def test_faults_of_a_kind_are_held(kind: Kind, request: pytest.FixtureRequest, record_property, tmp_path: Path):
    count, seed = request.config.getoption("--faults"), request.config.getoption("--faults-from")
    done = kind.generator(seed, kind.short if count is None else count, tmp_path)
    assert done.kind == kind.name
    record_property("faults", f"{done} (seeds {seed} to {seed + done.tried - 1})")
    assert done.problems == [], explained(done)
