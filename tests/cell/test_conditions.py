"""What each condition writes, and that as many pictures are planned as a forecast counts."""

from __future__ import annotations

import pytest

from ablations.cell.loading.module import build_module
from ablations.cell.refining import refine as refining
from ablations.cell.refining.refine import Sources, plan_drawings
from ablations.config import Config, parse
from ablations.results.conditions import Condition, as_they_are
from ablations.results.prompts_and_scores import Drawing, drawn
from ablations.sweeping.forecast import picture_groups
from datamodules.phrases import count_phrases
from datamodules.readers.tiny_world import read_tiny_world
from datamodules.records import EvalPrompt
from datamodules.tiny_world.worlds import world
from helpers.trained_runs import nudge

SMALL = ["backbones.init=random", "eval.num_prompts=4", "eval.text_prompts=6", "eval.grid_prompts=2", "eval.max_new_tokens=5"]
PHRASES = dict(count_phrases(["a cat, oil painting, 8k", "a dog, 8k, sharp focus"]))


@pytest.fixture(scope="module")
def module(small_backbones):
    module = build_module(parse(SMALL), small_backbones).eval().requires_grad_(False)
    nudge(module)
    return module


@pytest.fixture(scope="module")
def prompts(module) -> list[EvalPrompt]:
    records = read_tiny_world("test", 6, world(2), module.backbones.count_tokens)
    return [EvalPrompt(i, record.coarse_prompt(1), record.fine_prompt, record.scene) for i, record in enumerate(records)]


def small(*arguments: str) -> Config:
    given = dict(word.split("=", 1) for word in (*SMALL, *arguments))
    return parse([f"{name}={text}" for name, text in given.items()])


def plan(module, prompts, *arguments: str) -> list[Drawing]:
    return plan_drawings(small(*arguments), Sources(prompts, module, lambda: module, lambda: PHRASES))


def texts(drawings: list[Drawing], condition: str) -> dict[tuple[int, int], str]:
    return {(d.prompt_id, d.candidate): d.text for d in drawings if d.condition == condition}


def test_fine_prefix_is_the_coarse_prompt_and_the_first_tokens_of_what_the_fine_one_adds(module, prompts):
    count = lambda text: len(module.backbones.decoder.tokenizer(text, add_special_tokens=False).input_ids)  # noqa: E731
    for length in (2, 6, 50):
        found = texts(plan(module, prompts, f"prompt_len={length}"), "fine_prefix")
        assert len(found) == 6
        for prompt in prompts:
            text, whole = found[prompt.prompt_id, 0], count(prompt.fine_prompt) - count(prompt.coarse_prompt)
            assert text.startswith(prompt.coarse_prompt) and prompt.fine_prompt.startswith(text)
            assert count(text) - count(prompt.coarse_prompt) == min(length, whole)
    assert found == {(prompt.prompt_id, 0): prompt.fine_prompt for prompt in prompts}


def test_fine_prefix_of_a_coarse_prompt_that_is_no_prefix_appends_the_fine_prompts_first_tokens(module):
    found = texts(plan(module, [EvalPrompt(0, "a cat", "the big owl, 8k")], "prompt_len=2"), "fine_prefix")
    assert found[0, 0].startswith("a cat, ") and len(found[0, 0]) > len("a cat, ")


def test_known_words_are_drawn_by_key_from_the_training_prompts_phrases_to_the_refined_prompts_length(module, prompts):
    drawings = [d for d in plan(module, prompts) if d.condition == "control_known_words"]
    assert [d.num_new_tokens for d in drawings] == [6] * 4
    words = {word for phrase in PHRASES for word in phrase.split()}
    added = [d.text.removeprefix(d.coarse).replace(",", " ").split() for d in drawings]
    assert all(set(one[:-1]) <= words for one in added) and len({tuple(one) for one in added}) > 1
    other_seed = texts(plan(module, prompts, "seed=1"), "control_known_words")
    assert other_seed != {(d.prompt_id, d.candidate): d.text for d in drawings}


def test_candidates_of_the_positive_control_differ_in_style_and_all_fit_at_one_noise(module, prompts):
    drawings = [d for d in plan(module, prompts) if d.condition == "fitting_styles"]
    assert len(drawings) == 4 * 3 and len({(d.prompt_id, d.image_seed) for d in drawings}) == 4
    for prompt in prompts[:4]:
        fitting = world(2).fitting_styles[prompt.scene.scene]
        own = [d.text.split(", ") for d in drawings if d.prompt_id == prompt.prompt_id]
        styles = [parts[1] for parts in own]
        assert set(styles) <= set(fitting) and len(set(styles)) == min(3, len(fitting))
        assert fitting[styles[0]] == max(fitting.values())
        assert all(parts[0] == prompt.coarse_prompt and parts[2:] == own[0][2:] for parts in own)
        assert set(own[0][2:]) == set(world(2).fitting_qualities[prompt.scene.subject])


def test_without_scenes_there_is_no_positive_control_of_diversity(module):
    drawings = plan(module, [EvalPrompt(0, "a cat", "a cat, 8k"), EvalPrompt(1, "a dog", "a dog, 8k")])
    assert "fitting_styles" not in {d.condition for d in drawings}


def test_refined_prompts_that_may_stop_are_at_most_as_long(module, prompts):
    drawings = plan(module, prompts, "prompt_len=20")
    lengths = {name: [d.num_new_tokens for d in drawings if d.condition == name] for name in ("refined", "refined_may_stop")}
    assert set(lengths["refined"]) == {20} and max(lengths["refined_may_stop"]) <= 20
    assert not any(d.drawn for d in drawings if d.condition == "refined_may_stop")
    free = [d for d in plan(module, prompts, "prompt_len=20", "eval.exact_length=false") if d.condition == "refined" and not d.candidate]
    assert [d.text for d in free] == [d.text for d in drawings if d.condition == "refined_may_stop"]


def test_prompts_beyond_those_with_pictures_are_texts_alone(module, prompts):
    drawings = plan(module, prompts)
    assert {d.prompt_id for d in drawings if d.drawn} == {0, 1, 2, 3}
    alone = [d for d in drawings if not d.drawn]
    assert {d.prompt_id for d in alone if d.condition == "refined"} == {4, 5} and all(d.image == "" for d in alone)


def test_what_is_written_does_not_depend_on_how_many_are_written_at_a_time(module, prompts, monkeypatch):
    whole = plan(module, prompts)
    monkeypatch.setattr(refining, "AT_ONCE", 3)
    assert plan(module, prompts) == whole


def test_a_condition_may_read_what_another_writes_though_no_table_reads_that(module, prompts):
    one = refining.CandidateRound(refining._Evaluation(parse(SMALL), Sources(prompts, module, lambda: module)), 2, [0, 1])
    doubled = Condition("doubled", "doubled", bool, lambda round: as_they_are([row.text * 2 for row in round.written["rewrite"]]))
    assert [row.text for row in one.written.of(doubled)] == [row.text * 2 for row in one.written["rewrite"]]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["ablation=without_mse"],
        ["ablation=without_afe"],
        ["ablation=length_2"],
        ["eval.draw=all"],
        ["ablation=without_clip", "eval.controls=true", "eval.grid_prompts=0"],
        ["eval.num_candidates=1"],
        ["eval.mode=rewrite"],
    ],
    ids=" ".join,
)
def test_a_forecast_counts_the_pictures_that_are_drawn(module, prompts, arguments):
    planned = drawn(plan(module, prompts, *arguments))
    groups = picture_groups(small(*arguments))
    # Where candidates share their noise, the first is the refined one's own picture; it is shown twice and drawn once.
    shown_twice = sum(d.condition == "refined_shared_noise" and d.candidate == 0 for d in planned)
    assert sum(groups.values()) == len(planned) - shown_twice
    distinct = {(d.by_trained_encoder, d.text, d.image_seed) for d in planned}
    assert len(distinct) <= sum(groups.values())
