"""eval.any_piece=false in a cell: every condition writes pieces of the fine training prompts alone, and none where these are not known."""

from __future__ import annotations

import dataclasses
import re

import pytest

from ablations.cell.loading.data import build_data
from ablations.cell.loading.load import Loaded
from ablations.cell.loading.module import build_module
from ablations.cell.refining.refine import Sources, plan_drawings, refine_settings, seen_by
from ablations.cell.training.train import leave_seen_words
from ablations.cell.work import Work
from ablations.config import parse
from ablations.results import seen_words
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest
from lightning_modules.settings import PieceRules

SMALL = ["data.num_train=12", "data.num_validation=2", "train.batch_size=4", "loss.clip_bank=0", "trainer.progress=none"]
SMALL += ["backbones.init=random", "eval.num_prompts=3", "eval.text_prompts=3", "eval.num_candidates=2", "eval.max_new_tokens=8"]


@pytest.fixture
def cell(tmp_path, small_backbones):
    """What a cell with `eval.any_piece` has before it refines, and its work."""

    def made(any_piece: bool, leave: bool = True) -> tuple[Work, Loaded]:
        config = parse([*SMALL, f"eval.any_piece={str(any_piece).lower()}", f"output_dir={tmp_path}"])
        work, module = Work.unheard(config, StopRequest()), build_module(config, small_backbones).eval()
        data = build_data(config, module, work.console.say)
        if leave:
            leave_seen_words(work, module, data)
        prompts = data.eval_prompts("test", 3, "middle")
        return work, Loaded(small_backbones, module, data, prompts, lambda: build_module(config, small_backbones).eval())

    return made


def sources(work: Work, loaded: Loaded) -> Sources:
    return Sources(loaded.prompts, loaded.module, loaded.at_step_0, loaded.data.known_phrases, seen_by(work))


def test_every_condition_writes_pieces_of_the_fine_training_prompts_alone(cell, small_backbones):
    work, loaded = cell(any_piece=False)
    seen = seen_words.read(work.folder.training_path)
    drawings = plan_drawings(work.config, sources(work, loaded))
    written = [one for one in drawings if one.num_new_tokens and not one.condition.startswith(("fine", "control_known", "fitting"))]
    assert {"refined", "rewrite", "control_step0", "control_t5_direct", "control_shuffled"} <= {one.condition for one in written}
    for one in written:
        new = one.text.removeprefix(one.coarse)
        assert set(re.findall(r"\w+", new)) <= seen.words and set(re.findall(r"[^\w ]", new)) <= {","}, one
    work, loaded = cell(any_piece=True)
    free = plan_drawings(work.config, sources(work, loaded))
    assert seen_by(work) is None
    assert any(set(re.findall(r"\w+", one.text.removeprefix(one.coarse))) - seen.words for one in free if one.condition == "refined")


def test_a_cell_that_does_not_know_what_was_read_says_what_to_do(cell):
    work, loaded = cell(any_piece=False, leave=False)
    with pytest.raises(UserError, match=r"eval\.any_piece=false: .*run its cell again with force=true"):
        plan_drawings(work.config, sources(work, loaded))


def test_settings_have_rules_only_where_any_piece_is_false():
    config = parse([]).eval
    assert refine_settings(6, config).rules == PieceRules() == refine_settings(6, config, "rewrite").rules
    seen = seen_words.SeenWords(frozenset(), frozenset({"a"}), "d", 1, 1)
    assert refine_settings(6, dataclasses.replace(config, any_piece=False), seen=seen).rules == PieceRules(frozenset({"a"}), new_word=True)
