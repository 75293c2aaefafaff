"""The bench counts what did not hold, and every kind is in the page that says what holds."""

from __future__ import annotations

import re
from pathlib import Path

from faults.bench import each, explained, kinds

ROOT = Path(__file__).resolve().parents[2]


def test_a_try_that_fails_or_raises_is_a_problem_with_its_seed_and_the_others_go_on():
    def attempt(rng, seed):
        if seed == 6:
            return "a traceback"
        if seed == 8:
            raise KeyError("missing")
        return None

    done = each("example", 5, 5, attempt)
    assert (done.tried, done.held, str(done)) == (5, 3, "example: 5 | 3")
    assert done.problems[0] == "seed 6: a traceback"
    assert re.fullmatch(r"seed 8: KeyError: 'missing' \(test_bench\.py:\d+\)", done.problems[1])


def test_chance_of_a_try_follows_from_its_seed_alone():
    numbers = each("example", 0, 4, lambda rng, seed: str(rng.integers(1 << 30))).problems
    assert each("example", 2, 1, lambda rng, seed: str(rng.integers(1 << 30))).problems == numbers[2:3]
    assert len(set(numbers)) == 4


def test_of_many_problems_the_first_ones_are_shown():
    done = each("example", 0, 30, lambda rng, seed: "bad")
    assert explained(done).splitlines()[1::10] == ["seed 0: bad", "... and 20 more"]


def test_the_page_names_every_kind_once():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(kinds())
