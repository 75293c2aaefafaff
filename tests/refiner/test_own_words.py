"""One's own words stay one's own: what rewriting keeps, what is never written, and syntax that is passed through, everywhere."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json

import pytest
from rich.console import Console

from ablations import PromptRefiner
from ablations.refine import main
from ablations.refiner import refining
from ablations.refiner.arguments import SETTINGS, parse_arguments
from ablations.refiner.own_words import banned_words, find_phrase, marked, phrases, with_kept, with_syntax
from ablations.refiner.pipe import records
from ablations.refiner.prompt_syntax import read_prompt
from ablations.refiner.session import RefiningSettings
from ablations.refiner.terminal import TerminalSession
from ablations.runtime.errors import UserError
from ablations.web.sessions import RefiningSessions

SYNTAX = "a (lonely:1.2) lighthouse, {red|blue}, <lora:name:0.8> on a beach --ar 16:9 Negative prompt: blurry, 8k"
PASSED = ["(lonely:1.2)", "{red|blue}", "<lora:name:0.8>", "--ar 16:9", "Negative prompt: blurry, 8k"]


@pytest.fixture(scope="module")
def embedded() -> PromptRefiner:
    return PromptRefiner.embedded(device="cpu")


def test_extending_writes_before_the_tail_and_changes_no_character_of_the_prompt(embedded):
    prompt = read_prompt(SYNTAX)
    for candidate in embedded.refine(SYNTAX, num_candidates=5, rounds=2, prompt_len=3):
        assert candidate.refined == prompt.head + candidate.new_text + prompt.tail
        assert list(candidate.passed_through) == PASSED and candidate.unknown_words == ()
        assert candidate.pieces() == [(prompt.head, False), (candidate.new_text, True), (prompt.tail, False)]
        assert candidate.num_new_tokens == 6 and all(text.endswith(prompt.tail) for text in candidate.rounds)
    bare = embedded.refine(prompt.reading, num_candidates=1)[0]
    assert bare.unknown_words == () and bare.passed_through == ()


@pytest.mark.parametrize("head", ["a castle [a|b]", "a castle BREAK", "a castle, {a|b}", "(a castle:1.2)", "a [b|c] "])
def test_nothing_is_glued_to_syntax_at_the_end(embedded, head):
    for candidate in embedded.refine(f"{head} --ar 16:9"):
        assert candidate.refined.startswith(head.rstrip()) and candidate.new_text[0] in " ,", candidate


@pytest.mark.parametrize("mode", ["extend", "rewrite"])
def test_syntax_is_passed_through_and_its_names_are_no_words(embedded, mode):
    for candidate in embedded.refine("a castle <lora:elementX9:0.8> [zebra|ox] BREAK a (robot:1.3) --ar 16:9", mode=mode):
        for source in ("<lora:elementX9:0.8>", "[zebra|ox]", "BREAK", "(robot:1.3)", "--ar 16:9"):
            assert candidate.refined.count(source) == 1
        assert candidate.refined.endswith(" --ar 16:9") and candidate.unknown_words == ()


def test_a_weight_is_laid_around_the_words_that_were_written_and_comes_in_front_where_they_were_not():
    prompt = read_prompt("a (lonely:1.2) castle, (lonely:0.9) owl, {a|b} <lora:x:1> --ar 2:1")
    assert with_syntax("a Lonely castle on a beach,", prompt) == (
        "(lonely:0.9), a (lonely:1.2) castle on a beach, {a|b} <lora:x:1> --ar 2:1"
    )
    assert with_syntax("lonely and lonely", prompt) == "(lonely:1.2) and (lonely:0.9), {a|b} <lora:x:1> --ar 2:1"
    assert with_syntax("a castle", read_prompt("a castle")) == "a castle"


def test_a_prompt_of_syntax_alone_is_refused_in_one_line(embedded):
    with pytest.raises(UserError, match="has no words to be refined, but syntax alone"):
        embedded.refine("<lora:x:1> --ar 16:9")
    (record,) = records([b"<lora:x:1> --ar 16:9"], embedded, RefiningSettings())
    assert (record["status"], record["reason"]) == ("skipped", "it has no words, but syntax alone")


def test_a_long_prompt_is_shortened_before_its_tail_and_within_no_piece_of_syntax(embedded):
    text = "a cat " * 250 + "(" + "a tree " * 30 + ":1.2) " + "a boat " * 200 + "--ar 16:9"
    (record,) = records([text.encode()], embedded, RefiningSettings(num_candidates=1))
    assert record["status"] == "shortened" and record["coarse"].endswith(" --ar 16:9")
    assert "(" not in record["coarse"] and record["coarse"].count("cat") > 200
    assert record["passed_through"] == ["--ar 16:9"]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_kept_stands_in_every_rewriting_within_its_length(embedded, seed):
    keep = ("ox", "oil painting", "lighthouse")
    for candidate in embedded.refine("a zebra by a lighthouse", mode="rewrite", max_new_tokens=20, keep=keep, seed=seed):
        assert all(find_phrase(candidate.refined, phrase) for phrase in keep)
        assert candidate.put_back[0] == "ox" and set(candidate.put_back) <= set(keep)
        assert candidate.refined.startswith(", ".join(candidate.put_back) + ", ")
        assert candidate.num_new_tokens == embedded.num_tokens(candidate.refined) <= 20
        assert not candidate.truncated and candidate.refined[-1].isalnum()
    without = embedded.refine("a zebra by a lighthouse", mode="rewrite", max_new_tokens=20, seed=seed)
    kept = embedded.refine("a zebra by a lighthouse", mode="rewrite", max_new_tokens=20, keep="a", seed=seed)
    assert [one.refined for one in kept] == [one.refined for one in without]  # nothing was missing, nothing is changed


def test_putting_back_makes_room_and_loses_nothing_that_is_kept():
    def shorten(front: str, text: str) -> str:
        return text[: max(0, 20 - len(front))]

    assert with_kept("a cat on a beach", ["cat"], shorten) == ("a cat on a beach", ())
    assert with_kept("a cat on a beach", ["zebra"], shorten) == ("zebra, a cat on a bea", ("zebra",))
    assert with_kept("a dog on a big beach", ["zebra", "beach"], shorten) == ("zebra, beach", ("zebra", "beach"))


def test_a_phrase_is_found_word_by_word():
    assert find_phrase("A Lonely, lighthouse's door", "lonely Lighthouse") == (2, 22)
    assert find_phrase("a lighthouse", "light") is None and find_phrase("rock & roll", "&") == (5, 6)


@pytest.mark.parametrize("ban", ["e", "pixel art,8k,water", ("HIGHLY detailed", "on a", "ight")])
@pytest.mark.parametrize("mode", ["extend", "rewrite"])
def test_banned_words_are_never_written_not_within_others_either(embedded, ban, mode):
    words = phrases("ban", ban, 10)
    for seed in range(3):
        for candidate in embedded.refine("a lighthouse", mode=mode, prompt_len=12, max_new_tokens=20, ban=ban, seed=seed):
            written = candidate.new_text.casefold()
            assert not [word for word in words if word.casefold() in written], candidate
            assert mode == "rewrite" or candidate.refined.startswith("a lighthouse")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"keep": "an 8k tree", "ban": ["8K"]}, "keep has 'an 8k tree' and ban has '8K': it cannot be both"),
        ({"keep": 3}, "keep must be words with commas between them, or a list of words, not int"),
        ({"ban": ["a", 3]}, "ban must be words, and 3 is none"),
        ({"ban": ["a", " "]}, "ban has an empty word"),
        ({"keep": "a\x07b"}, "is no word or phrase"),
        ({"ban": "x" * 201}, "is no word or phrase: at most 200"),
        ({"keep": [str(i) for i in range(65)]}, "keep has 65 words and phrases: at most 64"),
        ({"keep": "a " * 30, "mode": "rewrite", "max_new_tokens": 20}, "keep has 30 tokens, but max_new_tokens=20"),
        ({"any_piece": 1}, "any_piece must be true or false"),
    ],
)
def test_words_that_cannot_be_are_one_line(embedded, how, said):
    with pytest.raises(UserError) as error:
        embedded.refine("a tree", **how)
    assert said in str(error.value) and len(str(error.value)) < 300 and "\n" not in str(error.value)


def test_banned_words_come_from_a_file_one_a_line(tmp_path):
    path = tmp_path / "never.txt"
    path.write_bytes("\ufeffwatermark\n\n  text, and more \nWatermark\n".encode())
    assert banned_words(f"@{path}") == ("watermark", "text, and more")
    assert banned_words("a, b ,,A") == ("a", "b") and banned_words("") == ()
    path.write_bytes(b"caf\xe9")
    for given, said in ((f"@{path}", "is not valid UTF-8 at byte 3"), ("@absent.txt", "ban: 'absent.txt' cannot be read")):
        with pytest.raises(UserError, match=said):
            parse_arguments(["a cat", f"ban={given}"])


def test_the_record_of_a_pipe_says_what_was_kept_banned_and_passed_through(embedded, monkeypatch, capsys):
    monkeypatch.setattr(refining, "load_refiner", lambda arguments: embedded)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main([SYNTAX, "mode=rewrite", "keep=a red boat,8k", "ban=woodblock,noon", "num_candidates=2"]) == 0
    out, _ = capsys.readouterr()
    (record,) = map(json.loads, out.splitlines())
    assert (record["keep"], record["ban"], record["passed_through"]) == (["a red boat", "8k"], ["woodblock", "noon"], PASSED)
    assert record["coarse"] == SYNTAX and record["distinct"] and not record["any_piece"]
    for candidate in record["candidates"]:
        assert "a red boat" in candidate["put_back"] and all(source in candidate["refined"] for source in PASSED)


def test_what_extending_keeps_anyway_is_said(embedded, monkeypatch, capsys):
    monkeypatch.setattr(refining, "load_refiner", lambda arguments: embedded)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["a cat", "keep=cat", "num_candidates=1", "prompt_len=1"]) == 0
    assert "note: keep has no effect with mode=extend" in capsys.readouterr().err


def test_at_a_terminal_words_are_kept_and_banned_by_name(embedded):
    lines = iter(["mode=rewrite", "keep = a red boat, zebra", "ban=noon", "ban=a red", "keep=null", "q"])
    console = Console(file=io.StringIO(), width=120)
    session = TerminalSession(embedded, RefiningSettings(), keys=SETTINGS, console=console, read=lambda prompt: next(lines))
    assert session.run("a cat") is None
    assert [step.settings.keep for step in session._session.steps] == [(), (), ("a red boat", "zebra"), ("a red boat", "zebra"), ()]
    assert [step.settings.ban for step in session._session.steps] == [(), (), (), ("noon",), ("noon",)]
    assert "keep has 'a red boat' and ban has 'a red': it cannot be both" in console.file.getvalue()


def test_the_page_takes_words_with_commas_between_and_reads_no_file(embedded, tmp_path):
    (tmp_path / "never.txt").write_text("cat")
    sessions = RefiningSessions(embedded, "test")
    asked = {"mode": "rewrite", "keep": "a zebra, 8k", "ban": f"@{tmp_path / 'never.txt'}, noon"}
    state = sessions.start({"prompt": "a ox on a beach --ar 16:9", "settings": asked})
    assert state["settings"]["keep"] == "a zebra, 8k" and state["settings"]["ban"] == f"@{tmp_path / 'never.txt'}, noon"
    assert (state["unknown_words"], state["passed_through"], state["notes"][0]) == (["ox"], ["--ar 16:9"], "not seen in training: ox")
    assert state["marked"] == [("a ", False), ("ox", True), (" on a beach --ar 16:9", False)]
    assert all(candidate["put_back"][0] == "a zebra" for candidate in state["candidates"])
    step = sessions.history(state["tab"])["steps"][0]
    assert (step["keep"], step["ban"][1], step["passed_through"]) == (["a zebra", "8k"], "noon", ["--ar 16:9"])
    with pytest.raises(UserError, match="keep must be text"):
        sessions.start({"prompt": "a cat", "settings": {"keep": ["a"]}})


def test_marks_leave_syntax_out_and_give_the_prompt_back():
    pieces = marked("a (ox:1.2) and ox <lora:ox:1>", ("ox",))
    assert pieces == [("a (", False), ("ox", True), (":1.2) and ", False), ("ox", True), (" <lora:ox:1>", False)]
    assert marked("a cat", ()) == [("a cat", False)]


def test_settings_are_plain_data_in_records():
    settings = RefiningSettings(keep=("a",), ban=("b", "c"))
    assert settings.record() == dataclasses.asdict(settings) | {"keep": ["a"], "ban": ["b", "c"]}
    long = RefiningSettings(ban=tuple(map(str, range(101)))).record()["ban"]
    assert long == {"words": 101, "sha256": hashlib.sha256("\n".join(map(str, range(101))).encode()).hexdigest()}
