"""The benchmark compares like with like, counts what it says it counts, and shows what it found."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from ablations import benchmark
from ablations.benchmarking.floors import Floor, count_flops
from ablations.benchmarking.machine import Reach, reach_of
from ablations.benchmarking.matrix import Matrix
from ablations.benchmarking.running import Found, default_sizes, run_benchmark
from ablations.benchmarking.sizes import SIZES, Size
from ablations.benchmarking.tables import markdown
from ablations.benchmarking.timing import Timed, alternating, ratio
from ablations.benchmarking.training import steps_of
from lightning_modules.backbones.tiny import random_tiny_backbones

CPU = torch.device("cpu")
SMALL = Size("small", lambda precision: random_tiny_backbones(0), 2, 6, 12, 2, 2)


def test_works_take_turns_and_neighbours_in_time_are_compared():
    order: list[str] = []
    timed = alternating({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, CPU)
    assert order == ["a", "b", "a", "b", "a", "b"]  # once to warm up
    assert len(timed["a"].seconds) == 2
    # The machine slowed down by ten in the second turn: the ratio does not.
    assert ratio(Timed((2.0, 20.0, 4.0)), Timed((1.0, 10.0, 2.0))) == 2.0


def test_both_steps_train_the_same_parts_on_the_same_losses():
    steps = steps_of(SMALL, random_tiny_backbones(0), CPU, None)
    ours, authors = ([step() for _ in range(3)] for step in (steps.ours, steps.authors))
    # Neither loop leaves a term out: L_mse of random networks alone is about 1.
    assert all(1 < loss < 12 for loss in (*ours, *authors)), (ours, authors)
    assert abs(ours[0] - authors[0]) < 1.5


def test_operations_are_those_of_the_matrix_products_backward_passes_too():
    layer = nn.Linear(32, 64, bias=False)
    rows = torch.randn(10, 32, requires_grad=True)
    assert count_flops(lambda: layer(rows)) == 2 * 10 * 32 * 64
    assert count_flops(lambda: layer(rows).sum().backward()) == 3 * 2 * 10 * 32 * 64


def test_a_floor_is_the_longer_of_operations_and_bytes():
    reach = Reach(flops=1e9, bytes=1e8, dtype="float32")
    assert reach.floor(2e9, 1e8) == 2.0 and reach.floor(1e9, 5e8) == 5.0
    assert Floor("stage", 2e9, 1e8, 4.0, 2.0).reached == 0.5
    here = reach_of(CPU, torch.float32)
    assert here.flops > 1e9 and here.bytes > 1e8


def found() -> Found:
    machine = {"processor": "a processor", "cores": 2, "threads": 2, "device": "cpu", "versions": {"torch": "2.9"}}
    result = Found(machine, Reach(1e11, 1e10, "float32"))
    result.training["middle"] = {"ours": Timed((2.0, 2.0)), "authors": Timed((5.0, 5.0))}
    result.drawing["middle"] = {"ours": Timed((4.0,)), "pipeline": Timed((4.4,))}
    result.records["middle"], result.pictures["middle"] = 4, 2
    result.loop = {"lightning": Timed((1.01,)), "loop": Timed((1.0,))}
    result.matrix = Matrix(50.0, (60.0, 40.0))
    result.floors["middle"] = [Floor("training step", 1e11, 1e9, 2.0, 1.0)]
    return result


def test_the_tables_show_ratios_and_what_they_are_of():
    text = markdown(found())
    for shown in ("**2.50x**", "| 2.00 |", "**1.010x**", "2.000 s | 2.200 s | **1.10x**", "**50%**", "| 50% |", "a processor", "100 GFLOP"):
        assert shown in text, shown
    content = json.loads(json.dumps(found().as_json()))
    assert content["training_ratio"] == {"middle": 2.5} and content["matrix"]["share"] == 0.5


def test_what_was_not_timed_is_left_out():
    bare = Found(found().machine, found().reach)
    assert "|" not in markdown(bare)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["speed"], "'speed' is no part: training, loop, drawing, matrix, floors"),
        (["--sizes", "huge"], "--sizes: 'huge' is none: tiny, middle, full"),
        (["--device", "cuda"], "--device cuda: torch sees none here"),
        (["--repeats", "0"], "argument --repeats: '0' is no whole number of at least 1"),
    ],
)
def test_mistakes_are_one_line(arguments, line, capsys):
    assert benchmark.main(arguments) == 2
    assert line in capsys.readouterr().err


def test_full_size_is_for_a_gpu_that_holds_it(monkeypatch):
    assert default_sizes(CPU) == ("tiny", "middle")
    for memory, sizes in ((80e9, ("tiny", "middle", "full")), (24e9, ("tiny", "middle"))):
        properties = type("Properties", (), {"total_memory": memory})
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, properties=properties: properties)
        assert default_sizes(torch.device("cuda")) == sizes


@pytest.mark.slow
def test_all_parts_but_the_sweep_run_on_small_networks(monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", SMALL)
    result = run_benchmark(CPU, ["tiny"], ["training", "drawing", "floors"], 1, lambda line: None, lambda: None)
    text = markdown(result)
    assert "A training step" in text and "A picture" in text and "encoding for the cache" in text
    assert all(floor.flops > 0 and floor.seconds > 0 for floor in result.floors["small"])
