"""Claims about the chat baseline, against a server on this machine: patience, refusals, malformed answers, cost, and the key's secrecy."""

from __future__ import annotations

import email.utils
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ablations import compare
from ablations.baselines.base import AnswerStore, Asked, Written
from ablations.baselines.chat import INSTRUCTION, ChatBaseline, Prices, read_answer
from ablations.baselines.chat_settings import ChatModel, chat_models
from ablations.baselines.endpoint import ChatEndpoint, NoAnswer, Patience, Unreachable, checked_url
from ablations.comparing.arguments import chat_settings
from ablations.runtime.errors import UserError
from helpers.chat_server import Server, answer, ok
from lightning_modules.settings import TokenSampling

KEY = "sk-a-secret-of-the-test-0123456789"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def endpoint(server: Server, clock: Clock | None = None, key: str | None = KEY, said: list[str] | None = None, **patience) -> ChatEndpoint:
    clock = clock or Clock()
    say = said.append if said is not None else lambda line: None
    return ChatEndpoint(server.url, key, Patience(**{"timeout": 5.0, **patience}), say, clock=clock, sleep=clock.sleep)


def baseline(server: Server, folder: Path | None = None, **settings) -> ChatBaseline:
    settings = {"prices": None, "sampling": TokenSampling(top_k=settings.pop("top_k", 0))} | settings
    given = {name: settings.pop(name) for name in ("clock", "key", "said", "timeout", "attempts", "at_once") if name in settings}
    return ChatBaseline(ChatModel("gpt-test", "gpt-test"), endpoint(server, **given), AnswerStore(folder), **settings)


def asked(number: int = 0) -> Asked:
    return Asked(number, 0, f"a cat number {number}", "never read", key=2**40 + number)


def test_an_answer_is_the_prompt_and_the_request_says_how_to_sample(server):
    server.replies = [ok('  "a cat, oil painting, 8k" ')]
    assert baseline(server, top_k=50).write(0, [asked(3)]) == [Written("a cat, oil painting, 8k", 12, False)]
    headers, body = server.requests[0]
    assert headers["Authorization"] == f"Bearer {KEY}" and body["path"] == "/v1/chat/completions"
    assert (body["model"], body["top_p"], body["top_k"], body["temperature"]) == ("gpt-test", 0.95, 50, 1.0)
    assert body["seed"] == (2**40 + 3) % 2**31
    assert body["messages"] == [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": "a cat number 3"}]


def test_without_a_key_none_is_sent_and_top_k_is_sent_only_where_asked_for(server):
    server.replies = [ok("a cat, 8k")]
    baseline(server, key=None).write(0, [asked()])
    headers, body = server.requests[0]
    assert "Authorization" not in headers and "top_k" not in body


def test_a_busy_server_is_asked_again_after_as_long_as_it_says(server):
    date = email.utils.formatdate(time.time() + 40, usegmt=True)
    server.replies = [(429, {"Retry-After": "7"}, b"{}"), (503, {"Retry-After": date}, b""), (500, {}, b"oops"), ok("a cat, 8k")]
    clock, said = Clock(), []
    assert baseline(server, clock=clock, said=said).write(0, [asked()])[0].text == "a cat, 8k"
    assert len(server.requests) == 4
    assert clock.slept[0] == 7 and 35 < clock.slept[1] <= 40 and 3 <= clock.slept[2] <= 5
    assert said[0].endswith("status 429; trying again in 7.0 s")


def test_a_server_that_stays_busy_or_wants_too_long_a_wait_fails_the_prompt(server):
    server.replies = [(429, {}, b'{"error": {"message": "slow down", "code": "rate_limit"}}')]
    clock = Clock()
    found = baseline(server, clock=clock, attempts=3).write(0, [asked()])
    assert found == [Written.failed("no answer: status 429 (rate_limit slow down), 3 times")]
    assert len(clock.slept) == 2 and 0.75 <= clock.slept[0] <= 1.25 and 1.5 <= clock.slept[1] <= 2.5
    server.replies = [(429, {"Retry-After": "3600"}, b"{}")]
    with pytest.raises(Unreachable, match="asks to wait 3600 s, more than 120 s"):
        endpoint(server).ask({})


def test_an_answer_that_does_not_come_in_time_fails_the_prompt_after_all_attempts(server):
    server.replies = [None]
    chat = baseline(server, timeout=0.05, attempts=2)
    assert chat.write(0, [asked()]) == [Written.failed("no answer: no answer within 0.05 s, 2 times")]
    assert vars(chat)["_endpoint"].requests == 2


def test_a_late_answer_is_asked_for_again(server):
    server.replies = [None, ok("a cat, 8k")]
    assert baseline(server, timeout=1.0).write(0, [asked()])[0].text == "a cat, 8k"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((200, {}, b"<html>"), "malformed answer: no JSON"),
        ((200, {}, b"[1]"), "malformed answer: no JSON object"),
        ((200, {}, b"{}"), "malformed answer: no choices[0].message"),
        ((200, {}, b'{"choices": [7]}'), "malformed answer: no choices[0].message"),
        (ok(None), "malformed answer: no text"),
        (ok("  \n "), "malformed answer: empty"),
        (ok("Sure, here it is:\n\na cat, 8k"), "malformed answer: 2 lines, one was asked for"),
        (ok("I'm sorry, but I can't help with that."), "refused"),
        (ok("I cannot do that"), "refused"),
        (ok(None, message={"refusal": "no"}), "refused"),
        (ok("a cat", finish="content_filter"), "refused"),
        ((400, {}, b'{"error": {"code": "content_filter", "message": "filtered"}}'), "refused by the server's content filter (status 400)"),
        ((400, {}, b'{"error": {"message": "top_k unknown"}}'), "refused with status 400: top_k unknown"),
    ],
)
def test_refusals_and_malformed_answers_are_failures_and_never_the_prompt_that_was_read(server, reply, reason):
    server.replies = [reply]
    assert baseline(server).write(0, [asked()]) == [Written("", 0, False, reason)]
    assert len(server.requests) == 1  # none of these gets better by asking again


def test_an_answer_may_have_a_label_quotes_or_be_cut():
    given = ("Prompt: a cat", "Improved prompt: 'a cat'", "\u201ca cat\u201d", "a cat's 'tail'")
    read = [read_answer(json.loads(answer(text))).text for text in given]
    assert read == ["a cat", "a cat", "a cat", "a cat's 'tail'"]
    assert read_answer(json.loads(answer("a cat, oil", finish="length"))).truncated
    assert read_answer(json.loads(answer("sorry castle, 8k"))).text == "sorry castle, 8k"


def test_answers_are_kept_so_that_nothing_is_asked_twice_and_the_cost_is_told(server, tmp_path):
    server.replies = [ok("a cat, 8k"), ok("I'm sorry, no"), ok("a cat, oil painting")]
    first = baseline(server, tmp_path, prices=Prices(10.0, 100.0))
    written = first.write(0, [asked(0), asked(1)])
    assert first.cost() == "2 requests (0 answers from the cache), 140 tokens read and 24 written, $0.0038"
    again = baseline(server, tmp_path)
    assert again.write(0, [asked(0), asked(1)]) == written and len(server.requests) == 2
    assert again.cost() == "0 requests (2 answers from the cache), 0 tokens read and 0 written; cost unknown (--chat-price tells prices)"
    assert again.write(1, [asked(2)])[0].text == "a cat, oil painting" and len(server.requests) == 3
    other = ChatBaseline(ChatModel("gpt-other", "gpt-other"), endpoint(server), AnswerStore(tmp_path), sampling=TokenSampling(top_k=0))
    other.write(0, [asked(0)])
    assert len(server.requests) == 4  # another model is another question


def test_requests_keep_the_pace_that_was_asked_for(server):
    server.replies = [ok("a cat")]
    clock = Clock()
    slow = endpoint(server, clock, requests_per_minute=30)
    for _ in range(3):
        slow.ask({})
    assert clock.slept == [2.0, 2.0]


def test_several_requests_are_open_at_a_time_and_their_answers_stay_in_order(server):
    """The server answers none before four are there, and then the last one first."""
    together, turns = threading.Barrier(4, timeout=10), [threading.Event() for _ in range(4)]

    def reply(body: dict):
        number = int(body["messages"][1]["content"].split()[-1])
        together.wait()
        if number < 3:
            assert turns[number + 1].wait(10)
        turns[number].set()
        return ok(f"picture {number}")

    server.replies = [reply]
    chat = baseline(server, at_once=4)
    assert [one.text for one in chat.write(0, [asked(i) for i in range(4)])] == [f"picture {i}" for i in range(4)]
    assert chat.cost().startswith("4 requests (0 answers from the cache), 280 tokens read and 48 written")


def test_requests_at_a_time_keep_the_pace_together(server):
    server.replies = [ok("a cat")]
    clock = Clock()
    slow = endpoint(server, clock, requests_per_minute=30, at_once=3)
    chat = ChatBaseline(ChatModel("gpt-test", "gpt-test"), slow, AnswerStore(None), sampling=TokenSampling())
    chat.write(0, [asked(i) for i in range(6)])
    assert clock.now - 100.0 + 2.0 >= 2.0 * 5 and slow.requests == 6  # six starts, two seconds apart


def test_a_wrong_model_ends_requests_at_a_time_without_sending_the_others(server):
    server.replies = [(404, {}, b'{"detail": "no model gpt-test"}')]
    with pytest.raises(UserError, match=r"no such model or address .*no model gpt-test"):
        baseline(server, at_once=2).write(0, [asked(i) for i in range(50)])
    assert len(server.requests) <= 4


def test_a_server_that_does_not_sample_is_told_of_with_the_cost(server):
    server.replies = [lambda body: ok(f"{body['messages'][1]['content']}, 8k")]
    chat = baseline(server)
    chat.write(0, [asked(0), asked(1)])
    assert "does not sample" not in chat.cost()
    chat.write(1, [asked(0), asked(1)])
    assert "every candidate of a prompt has the same text, so the server does not sample" in chat.cost()


@pytest.mark.parametrize(
    ("given", "name", "model"),
    [
        ("gpt-4", "gpt-4", "gpt-4"),
        ("owner/model-7b", "owner/model-7b", "owner/model-7b"),
        ("/a/b/smol", "smol", "/a/b/smol"),
        ("./models/smol/", "smol", "./models/smol/"),
        ("smol=/a/b/c", "smol", "/a/b/c"),
        ("smol=llama3:8b=x", "smol", "llama3:8b=x"),
    ],
)
def test_a_chat_method_has_a_name_that_is_never_a_path(server, given, name, model):
    assert chat_models([given, given]) == (ChatModel(name, model),)
    chat = ChatBaseline(chat_models([given])[0], endpoint(server), AnswerStore(None), sampling=TokenSampling())
    assert chat.title == name and "/a/b" not in chat.about + chat.name


@pytest.mark.parametrize("given", [["=x"], ["a b=x"], ["x="], ["/"], ["../.."], ["a/b", "a-b"], ["a=x", "a=y"]])
def test_a_chat_method_without_a_name_or_with_that_of_another_is_refused(given):
    with pytest.raises(UserError, match="NAME=MODEL"):
        chat_models(given)


def test_a_wrong_key_or_model_and_an_endpoint_that_is_gone_end_the_comparison_instead_of_failing_every_prompt(server):
    server.replies = [(401, {}, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode())]
    with pytest.raises(UserError, match="does not accept the key") as caught:
        baseline(server).write(0, [asked()])
    assert KEY not in str(caught.value)
    server.replies = [(404, {}, b'{"error": {"message": "no model gpt-test"}}')]
    with pytest.raises(UserError, match=r"no such model or address .*no model gpt-test"):
        baseline(server).write(0, [asked()])
    server.replies = [(500, {}, b"")]
    with pytest.raises(UserError, match=r"did not answer 3 requests in a row .*the answers so far are kept"):
        baseline(server, attempts=1).write(0, [asked(i) for i in range(5)])
    server.stop()
    with pytest.raises(Unreachable, match="no connection"):
        endpoint(server, attempts=2).ask({})


def test_a_redirect_is_not_followed_with_the_key(server):
    server.replies = [(302, {"Location": f"{server.url}/elsewhere"}, b"")]
    with pytest.raises(UserError, match="status 302"):
        endpoint(server).ask({})
    assert len(server.requests) == 1


def test_the_key_appears_in_no_file_log_or_error(server, tmp_path, caplog, capsys):
    """The server repeats the key wherever it can: in an answer, in a message of a failure, in a refusal."""
    caplog.set_level(logging.DEBUG)
    repeats = json.dumps({"error": {"message": f"you sent {KEY}", "code": KEY}}).encode()
    server.replies = [(500, {}, repeats), (400, {}, repeats), ok(f"a cat, {KEY}", echo=KEY), (404, {}, repeats)]
    said: list[str] = []
    chat = baseline(server, tmp_path, said=said)
    results = chat.write(0, [asked(0), asked(1)])
    with pytest.raises(UserError) as caught:
        chat.write(0, [asked(2)])
    assert results[0].failure == "refused with status 400: [key] you sent [key]" and results[1].text == "a cat, [key]"
    assert len(said) == 1 and "[key]" in said[0]
    files = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(files) == 1
    output = capsys.readouterr()
    shown = [*files, caplog.text, output.out, output.err, str(caught.value), *said, repr(chat), repr(vars(chat)["_endpoint"]), chat.about]
    assert all(KEY not in text for text in [*shown, *(str(one) for one in results), chat.cost()])
    frames, error = [], caught.value.__traceback__
    while error is not None:
        frames.append(error.tb_frame.f_code.co_name)
        error = error.tb_next
    assert "ask" in frames and caught.value.__cause__ is None


def test_the_key_of_the_environment_stays_out_of_what_the_command_shows(monkeypatch, capsys):
    monkeypatch.setenv("MY_KEY", KEY)
    arguments = ["--chat", "gpt-test", "--chat-key-variable", "MY_KEY"]
    settings = chat_settings(compare.parser().read(arguments))
    assert settings.key == KEY and KEY not in repr(settings)
    assert compare.main([*arguments, "--chat-url", "http://far.example/v1"]) == 2
    error = capsys.readouterr().err
    assert "the key would cross the network in clear" in error and KEY not in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("far.example/v1", "is no address"),
        ("ftp://far.example", "is no address"),
        ("https://me:secret@far.example/v1", "holds a user, a password or a query"),
        ("https://far.example/v1?key=secret", "holds a user, a password or a query"),
        ("http://far.example/v1", "in clear"),
    ],
)
def test_an_address_that_would_lose_the_key_is_refused(url, message):
    with pytest.raises(UserError, match=message) as caught:
        checked_url(url, has_key=True)
    assert "secret" not in str(caught.value)


def test_an_address_may_end_in_the_path_of_the_api():
    assert checked_url("http://127.0.0.1:8000/v1/chat/completions", True) == "http://127.0.0.1:8000/v1"
    assert checked_url("http://far.example:8000/v1/", False) == "http://far.example:8000/v1"


def test_a_huge_answer_is_malformed(server):
    server.replies = [(200, {}, b" " * (4 * 1024 * 1024 + 1))]
    with pytest.raises(NoAnswer, match="larger than 4 MiB"):
        endpoint(server).ask({})
