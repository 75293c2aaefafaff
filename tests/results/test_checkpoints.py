"""Which checkpoints a training keeps, and which one an evaluation takes."""

from __future__ import annotations

import pytest

from ablations.config import parse
from ablations.results.checkpoints import asked_for, best_name, best_of, drop_all_but_best, kept_name, would_be_kept
from ablations.runtime.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in (
        best_name(100, 0.9),
        best_name(50, 1.25),
        best_name(150, 0.9),
        kept_name(100),
        kept_name(200),
        "final.ckpt",
        "best-1-x.ckpt",
    ):
        (tmp_path / name).touch()
    return tmp_path


def test_the_best_come_first_and_of_equal_ones_the_earlier(folder):
    assert [(loss, step) for loss, step, _ in best_of(folder)] == [(0.9, 100), (0.9, 150), (1.25, 50)]
    drop_all_but_best(folder, 2)
    assert [step for _, step, _ in best_of(folder)] == [100, 150]
    drop_all_but_best(folder, 0)
    assert best_of(folder) == [] and (folder / kept_name(100)).exists() and (folder / "final.ckpt").exists()


@pytest.mark.parametrize(
    ("loss", "count", "kept"), [(0.8, 1, True), (0.9, 1, False), (1.0, 2, False), (1.0, 3, True), (2.0, 4, True), (0.1, 0, False)]
)
def test_a_step_is_kept_where_it_is_among_the_best_so_far(folder, loss, count, kept):
    assert would_be_kept(folder, loss, count) == kept


@pytest.mark.parametrize(
    ("which", "name"), [("last", "final.ckpt"), ("best", best_name(100, 0.9)), ("200", kept_name(200)), ("50", best_name(50, 1.25))]
)
def test_an_evaluation_takes_what_it_asks_for(folder, which, name):
    assert asked_for(folder, which).name == name


def test_what_was_not_kept_is_said_with_what_was(folder, tmp_path_factory):
    with pytest.raises(UserError, match=r"eval\.checkpoint=70: .* has kept the steps 50, 100, 150, 200; train with train\.keep_every"):
        asked_for(folder, "70")
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(UserError, match=r"eval\.checkpoint=best: .* has kept none; train with train\.keep_best=1"):
        asked_for(empty, "best")
    with pytest.raises(UserError, match="has kept the steps none"):
        asked_for(empty, "1")
    for value in ("first", "-1", "1.5"):
        with pytest.raises(UserError, match=r"eval\.checkpoint=.*last, best, or the number of a step"):
            parse([f"eval.checkpoint={value}"])
