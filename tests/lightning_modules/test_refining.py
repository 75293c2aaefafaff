"""Refining prompts: what the user wrote stays, what is added has the length asked for, and controls read what they should."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.prompt_refiner import PromptRefinerModule
from lightning_modules.prompt_writing import _joined
from lightning_modules.settings import LossSettings, OptimizerSettings, RefineSettings

PROMPTS = [
    "a cat",
    'Caf\u00e9  du  "Mar\u00e9" \U0001f98a, \u732b!!',
    "a red boat in the snow at noon, oil painting",
    "a tree ",
    "castle,",
    " ",
    "",
]
SEEDS = [(0, row) for row in range(len(PROMPTS))]


@pytest.fixture(scope="module")
def module(small_backbones) -> PromptRefinerModule:
    return PromptRefinerModule(small_backbones, LossSettings(), OptimizerSettings(), seed=0)


@pytest.mark.parametrize("extend_by", ["prime", "append"])
@pytest.mark.parametrize("rounds", [1, 2])
def test_extending_keeps_the_users_text_verbatim_and_adds_prompt_len_tokens_a_round(module, extend_by, rounds):
    settings = RefineSettings(extend_by=extend_by, rounds=rounds)
    for prompt, refined in zip(PROMPTS, module.refine(PROMPTS, SEEDS, settings), strict=True):
        assert refined.text.startswith(prompt)
        assert len(refined.text) > len(prompt)
        assert refined.num_new_tokens == 6 * rounds
        assert len(refined.rounds) == rounds
        assert refined.rounds[-1] == refined.text
        assert refined.rounds[-1].startswith(refined.rounds[0])


@pytest.mark.parametrize("settings", [RefineSettings(rounds=2), RefineSettings(extend_by="append"), RefineSettings(mode="rewrite")])
def test_prompts_of_any_length_are_refined_together_as_they_are_one_by_one(module, settings):
    together = module.refine(PROMPTS, SEEDS, settings)
    for row in range(len(PROMPTS)):
        assert module.refine([PROMPTS[row]], [SEEDS[row]], settings) == [together[row]]


def test_a_second_round_continues_what_the_first_wrote_with_draws_of_its_own(module):
    once = module.refine(PROMPTS, SEEDS, RefineSettings())
    twice = module.refine(PROMPTS, SEEDS, RefineSettings(rounds=2))
    assert [refined.rounds[0] for refined in twice] == [refined.text for refined in once]
    by_hand = module.refine([refined.text for refined in once], SEEDS, RefineSettings())
    # Round 0 again on the longer text: the same prompt, other draws than round 1.
    assert any(a.text != b.text for a, b in zip(by_hand, twice, strict=True))


def test_other_seeds_write_other_candidates(module):
    texts = {module.refine(["a cat"], [(0, candidate)], RefineSettings(prompt_len=12))[0].text for candidate in range(5)}
    assert len(texts) == 5


def test_rewriting_is_unprimed_and_at_most_max_new_tokens_long(module):
    refined = module.refine(PROMPTS, SEEDS, RefineSettings(mode="rewrite", max_new_tokens=15, rounds=3))
    assert all(1 <= row.num_new_tokens <= 15 and len(row.rounds) == 1 for row in refined)
    assert not any(row.text.startswith(prompt) for row, prompt in zip(refined[:3], PROMPTS[:3], strict=True))
    assert all(row.text == row.text.strip() for row in refined)


@pytest.mark.parametrize(
    ("prompt", "written", "prime", "append"),
    [
        ("a cat", " in snow", "a cat in snow", "a cat, in snow"),
        ("a cat", ", oil", "a cat, oil", "a cat, oil"),
        ("a ca", "t in", "a cat in", "a ca, t in"),
        ("a cat ", " in snow", "a cat in snow", "a cat , in snow"),
        ("a cat,", " in snow", "a cat, in snow", "a cat, in snow"),
        ("a cat, ", " in snow", "a cat, in snow", "a cat, in snow"),
        ("", " in snow", "in snow", "in snow"),
    ],
)
def test_texts_are_joined_without_touching_the_users(prompt, written, prime, append):
    assert _joined(prompt, written, RefineSettings()) == prime
    assert _joined(prompt, written, RefineSettings(extend_by="append")) == append
    assert _joined(prompt, written, RefineSettings(mode="rewrite")) == written.strip()


@pytest.fixture
def read_and_continued(module, monkeypatch) -> list[tuple[torch.Tensor, list[str]]]:
    """Of every round: the token ids that E_T read, and the texts that the decoder continued."""
    rounds: list = []
    write = module.backbones.decoder.write
    hook = module.text_encoder.register_forward_pre_hook(lambda _m, args: rounds.append([args[0], None]))

    def spy(*args, primers=None, **options):
        rounds[-1][1] = primers
        return write(*args, primers=primers, **options)

    monkeypatch.setattr(module.backbones.decoder, "write", spy)
    yield rounds
    hook.remove()


def test_in_every_round_the_encoder_and_the_decoder_read_the_current_prompt(module, read_and_continued):
    refined = module.refine(["a cat", "a boat"], [(0,), (1,)], RefineSettings(rounds=2))
    for number, texts in enumerate([["a cat", "a boat"], [row.rounds[0] for row in refined]]):
        read, continued = read_and_continued[number]
        assert torch.equal(read, module.backbones.tokenize(texts))
        assert continued == texts


def test_the_shuffled_control_changes_in_every_round_what_is_read_but_not_what_is_continued(module, read_and_continued):
    refined = module.refine(["a cat", "a boat"], [(0,), (1,)], RefineSettings(rounds=2), read_instead=["a boat", "a cat"])
    for read, _ in read_and_continued:
        assert torch.equal(read, module.backbones.tokenize(["a boat", "a cat"]))
    assert [continued for _, continued in read_and_continued] == [["a cat", "a boat"], [row.rounds[0] for row in refined]]
    assert [row.text for row in refined] != [row.text for row in module.refine(["a cat", "a boat"], [(0,), (1,)], RefineSettings(rounds=2))]


def test_the_control_t5_alone_uses_nothing_that_was_trained(module, small_backbones):
    other = PromptRefinerModule(small_backbones, LossSettings(), OptimizerSettings(), seed=9)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.ones_like(parameter))
    settings = RefineSettings(rounds=2)
    alone = module.refine_by_decoder_alone(PROMPTS, SEEDS, settings)
    assert other.refine_by_decoder_alone(PROMPTS, SEEDS, settings) == alone
    assert [row.num_new_tokens for row in alone] == [12] * len(PROMPTS)
    assert [row.text for row in alone] != [row.text for row in module.refine(PROMPTS, SEEDS, settings)]
    for row in range(len(PROMPTS)):
        assert module.refine_by_decoder_alone([PROMPTS[row]], [SEEDS[row]], settings) == [alone[row]]


def test_a_prompt_longer_than_the_encoders_context_is_refined(module):
    prompt = "a cat in the snow, " * 30
    refined = module.refine([prompt, "a cat"], [(0,), (1,)], RefineSettings(rounds=2))
    assert refined[0].text.startswith(prompt)
    assert [row.num_new_tokens for row in refined] == [12, 12]


def test_no_prompts_give_no_refinements(module):
    assert module.refine([], [], RefineSettings()) == []
    assert module.refine([], [], RefineSettings(mode="rewrite")) == []
    assert module.refine_by_decoder_alone([], [], RefineSettings()) == []


def test_refining_leaves_the_mode_and_the_global_random_state(module):
    module.train()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = module.refine(PROMPTS, SEEDS, RefineSettings())
    assert module.training
    assert module.text_encoder.training
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert module.eval().refine(PROMPTS, SEEDS, RefineSettings()) == first
    assert not module.training


def test_prompts_without_a_seed_or_a_text_to_read_each_are_refused(module):
    with pytest.raises(ValueError, match="2 prompts but 1 prompt seeds"):
        module.refine(["a", "b"], [(0,)], RefineSettings())
    with pytest.raises(ValueError, match="1 prompts but 2 texts to read instead"):
        module.refine(["a"], [(0,)], RefineSettings(), read_instead=["b", "c"])
