"""A refining session without a screen: picking, redrawing, editing, going back; and what is done to odd prompts before."""

from __future__ import annotations

import doctest
import json

import pytest
from PIL import Image

import ablations.refiner.prompt_refiner as api
from ablations import PromptRefiner
from ablations.refiner import session as session_module
from ablations.refiner.pictures import GridPages
from ablations.refiner.session import RefiningSession, RefiningSettings, candidate_record
from ablations.refiner.texts import decode, prepare
from ablations.runtime.errors import UserError
from helpers.trained_runs import make_run


@pytest.fixture(scope="module")
def refiner(tmp_path_factory, small_backbones) -> PromptRefiner:
    return PromptRefiner.from_run(make_run(tmp_path_factory.mktemp("outputs"), small_backbones), backbones=small_backbones, device="cpu")


@pytest.fixture
def session(refiner) -> RefiningSession:
    return RefiningSession(refiner, "a green tree", RefiningSettings(prompt_len=4))


def test_the_example_in_the_docstring_runs(tmp_path, monkeypatch, small_backbones):
    make_run(tmp_path / "outputs", small_backbones).parent.rename(tmp_path / "outputs" / "my-arm")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "load_backbones", lambda *_: small_backbones)
    result = doctest.testmod(session_module)
    assert (result.failed, result.attempted) == (0, 13)


def test_a_pick_goes_on_from_the_candidate_with_the_same_settings(session, refiner):
    first = session.candidates
    session.pick(2)
    assert session.prompt == first[2].refined and session.original == "a green tree"
    assert session.candidates == refiner.refine(first[2].refined, prompt_len=4)
    assert [step["picked"] for step in session.history] == [2, None]


def test_redrawing_takes_the_next_seed_or_the_one_named(session, refiner):
    session.redraw()
    assert session.candidates == refiner.refine("a green tree", prompt_len=4, seed=1)
    session.redraw(2**32 - 1)
    session.redraw()
    assert [step["seed"] for step in session.history] == [0, 1, 2**32 - 1, 0]


def test_back_undoes_every_kind_of_step_until_the_first(session):
    states = [(session.prompt, session.settings, session.candidates)]
    for act in (
        lambda: session.pick(0),
        lambda: session.redraw(9),
        lambda: session.edit("a red boat"),
        lambda: session.change(mode="rewrite", max_new_tokens=9),
    ):
        act()
        states.append((session.prompt, session.settings, session.candidates))
    assert [step.action for step in session.steps] == ["start", "pick", "redraw", "edit", "change"]
    for state in states[-2::-1]:
        session.back()
        assert (session.prompt, session.settings, session.candidates) == state
    assert session.history[0]["picked"] is None and not session.can_go_back
    with pytest.raises(UserError, match="nothing to go back to"):
        session.back()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda s: s.pick(3), "there is no candidate 4: pick one from 1 to 3"),
        (lambda s: s.pick(-1), "there is no candidate 0"),
        (lambda s: s.edit(" "), "the prompt is empty"),
        (lambda s: s.edit("cat " * 600), "at most 512 can be extended"),
        (lambda s: s.redraw(-1), "seed must be"),
        (lambda s: s.change(prompt_len=0), "prompt_len must be"),
    ],
)
def test_what_cannot_be_done_changes_nothing(session, act, message):
    before = session.history
    with pytest.raises(UserError, match=message):
        act(session)
    assert session.history == before and session.prompt == "a green tree"


def test_two_sessions_on_one_refiner_know_nothing_of_each_other(refiner, session):
    other = RefiningSession(refiner, "a castle")
    session.pick(0)
    other.redraw()
    assert [step["coarse"] for step in other.history] == ["a castle", "a castle"]
    assert [step["seed"] for step in session.history] == [0, 0]


def test_the_history_is_plain_json_and_redraws_the_same_candidates(session, refiner):
    session.pick(1)
    session.redraw()
    for step in json.loads(json.dumps(session.history)):
        settings = {name: step[name] for name in ("num_candidates", "prompt_len", "mode", "max_new_tokens", "seed")}
        assert step["candidates"] == [candidate_record(c) for c in refiner.refine(step["coarse"], **settings)]


@pytest.mark.parametrize(
    ("given", "text", "status", "reason"),
    [
        ("a green tree", "a green tree", "ok", ""),
        ("  a  tree ", "  a  tree ", "ok", ""),
        ("", None, "skipped", "it is empty"),
        (" \t ", None, "skipped", "it is empty but for control characters"),
        ("\x07a \x1b[31mred\x1b[0m\tboat\x00", "a red boat", "cleaned", "12 control characters were taken out"),
        ("\x1b]0;title\x07a cat", "a cat", "cleaned", "10 control characters were taken out"),
        ("a cat\n", "a cat ", "cleaned", "1 control character was taken out"),
        ("a \udce9", None, "skipped", "it is not valid UTF-8"),
        ("\u732b", "\u732b", "ok", "not in the decoder's vocabulary: they stay, but are not understood"),
        ("\u0645\u0631\u062d\u0628\u0627 \U0001f98a", "\u0645\u0631\u062d\u0628\u0627 \U0001f98a", "ok", "not in the decoder's vocabulary"),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>", "ok", ""),
    ],
)
def test_a_prompt_stays_as_it_was_written_but_for_what_no_prompt_can_have(refiner, given, text, status, reason):
    prepared = prepare(given, refiner, RefiningSettings())
    assert (prepared.text, prepared.status) == (text, status)
    assert reason in prepared.reason


@pytest.mark.parametrize(("settings", "limit"), [(RefiningSettings(prompt_len=12), 500), (RefiningSettings(mode="rewrite"), 512)])
def test_a_prompt_of_ten_thousand_words_is_shortened_to_what_can_be_refined(refiner, settings, limit):
    prepared = prepare("cat " * 10_000, refiner, settings)
    assert prepared.status == "shortened" and f"at most {limit} can be" in prepared.reason
    assert prepared.text.endswith("cat") and ("cat " * 10_000).startswith(prepared.text)
    tokens = len(refiner.backbones.tokenize_t5([prepared.text])[0]) - 1
    assert limit - 10 <= tokens <= limit
    assert len(refiner.refine(prepared.text, **settings.arguments())) == 3
    one_word = prepare("cat" * 5_000, refiner, settings)
    assert one_word.status == "shortened" and len(refiner.refine(one_word.text, **settings.arguments())) == 3


def test_lines_are_utf_8_or_say_where_they_are_not():
    assert decode("caf\u00e9 \r\n".encode()) == "caf\u00e9 "
    with pytest.raises(UserError, match="not valid UTF-8 at byte 3"):
        decode(b"caf\xe9\n")


def test_pictures_of_many_prompts_go_to_pages_of_their_own(refiner, tmp_path):
    pages = GridPages(refiner, tmp_path / "made" / "grid.png", "title", rows_per_page=2)
    named = [pages.add(refiner.refine(text, num_candidates=2)) for text in ("a cat", "a boat", "a castle")]
    assert [path.name for path in named] == ["grid.png", "grid.png", "grid-2.png"]
    assert pages.written == [tmp_path / "made" / "grid.png"]
    pages.finish()
    pages.finish()
    assert pages.written == [tmp_path / "made" / name for name in ("grid.png", "grid-2.png")]
    sizes = [Image.open(path).size for path in pages.written]
    # Three pictures of 192 px side by side; two rows are taller than one.
    assert sizes[0][0] == sizes[1][0] > 3 * 192 and sizes[0][1] > sizes[1][1] + 192
