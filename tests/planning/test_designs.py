"""Designs: what their cells draw and so cost, and how many candidates of each condition are there to be compared."""

from __future__ import annotations

import pytest

from ablations.config import parse
from ablations.planning.costs import evaluation_costs, training_costs
from ablations.planning.designs import Design, Minutes, all_designs, candidates_read, in_design

COSTS = {"step_seconds": {"tiny-mse-text-clip-afe": 0.2}, "token_seconds": 0.0, "picture_seconds": 0.1, "score_seconds": 0.02}
ARMS = {name: parse([f"ablation={name}"]) for name in ("full", "without_mse", "without_afe", "length_2", "length_20")}


def minutes(costs=COSTS, **changes) -> Minutes:
    return Minutes(ARMS, lambda config: (training_costs(config, costs), evaluation_costs(costs)), **changes)


def test_the_designs_are_the_grid_that_is_asked_about():
    assert len(all_designs()) == 24
    assert {(design.seeds, design.prompts, design.candidates) for design in all_designs()} >= {(3, 16, 1), (5, 64, 1), (10, 192, 3)}


def test_with_one_candidate_quality_reads_one_and_diversity_three():
    one, three = ([in_design(ARMS[name], Design(5, 64, count)) for name in ("full", "without_afe")] for count in (1, 3))
    assert candidates_read(one, ("refined",), of_texts=False) == 1
    assert candidates_read(one, ("refined_shared_noise",), of_texts=False) == 3
    assert candidates_read(one, ("refined",), of_texts=True) == 3
    assert candidates_read(three, ("refined",), of_texts=False) == 3


def test_seeds_cost_the_same_and_processes_share_them():
    five = minutes().of(Design(5, 64, 1), list(ARMS))
    assert minutes().of(Design(10, 64, 1), list(ARMS)) == pytest.approx(2 * five)
    assert minutes(jobs=2).of(Design(5, 64, 1), list(ARMS)) == pytest.approx(five / 2)


def test_lengths_share_the_full_arms_training():
    free = {**COSTS, "picture_seconds": 0.0, "score_seconds": 0.0}
    one = minutes(free).of(Design(1, 64, 1), ["full"])
    other = 2.5 / 60  # what a cell takes besides
    checks = 30 * 0.2 / 60  # as long as so many steps
    assert one == pytest.approx(550 * 0.2 / 60 + checks + other)
    assert minutes(free).of(Design(1, 64, 1), ["full", "length_2", "length_20"]) == pytest.approx(one + 2 * other)
    assert minutes(free).of(Design(1, 64, 1), ["full", "without_mse"]) == pytest.approx(2 * one)


def test_drawing_grows_with_prompts_and_candidates_and_only_what_is_read_is_drawn():
    alone = {**COSTS, "step_seconds": {"any": 0.0}, "score_seconds": 0.0}
    of = lambda *size: minutes(alone).of(Design(*size), ["full", "without_mse"])  # noqa: E731
    assert of(1, 192, 1) > 2.5 * of(1, 64, 1)
    assert of(1, 64, 3) > 2 * of(1, 64, 1)


def test_without_costs_there_are_no_minutes():
    assert Minutes(ARMS, None).of(Design(5, 64, 1), list(ARMS)) is None
