"""The page's server without a browser: what it answers, and what it refuses."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
from contextlib import closing

import pytest
from PIL import Image

from ablations import PromptRefiner
from helpers.page_server import ask, served
from helpers.trained_runs import make_run

INJECTION = '<img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def refiner(tmp_path_factory, small_backbones) -> PromptRefiner:
    made = make_run(tmp_path_factory.mktemp("outputs"), small_backbones)
    return PromptRefiner.from_run(made, backbones=small_backbones, device="cpu")


@pytest.fixture(scope="module")
def port(refiner, tmp_path_factory):
    with served(refiner, tmp_path_factory.mktemp("runs")) as address:
        yield int(address.rpartition(":")[2])


def test_the_page_explains_itself_and_asks_for_nothing_from_elsewhere(port):
    status, page, headers = ask(port, "/")
    page = page.decode()
    assert status == 200 and "claims nothing about Stable Diffusion 2.1" in page and "three ways on" in page
    assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
    assert "<script>" not in page and " onclick" not in page and " style=" not in page
    texts = [page] + [ask(port, path)[1].decode() for path in re.findall(r'(?:src|href)="(/[^"]+)"', page)]
    assert len(texts) == 4
    assert not re.search(r"https?://|@import|innerHTML|insertAdjacentHTML|document\.write|eval\(", "".join(texts))


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ({"body": {"prompt": "a cat"}, "host": "evil.example"}, 400, "Invalid host"),
        ({"body": {"prompt": "a cat"}, "kind": "text/plain"}, 400, "a request must be JSON"),
        ({"body": b"{"}, 400, "a request must be JSON"),
        ({"body": b"\xff"}, 400, "a request must be JSON"),
        ({"body": [1]}, 400, "a request must be a JSON object"),
        ({"body": {"prompt": "x" * 300_000}}, 400, "that is too much text: a request may have 256 KB"),
        ({"body": {"prompt": ""}}, 400, "the prompt is empty"),
        ({"body": {"action": "back", "revision": 0}, "path": "/api/act", "tab": "x"}, 410, "start again"),
        ({"path": "/pictures/a/seed-0/../../etc/passwd"}, 404, "there is no such picture"),
        ({"path": "/static/../server.py"}, 404, "Not Found"),
        ({"path": "/api/start"}, 405, "Method Not Allowed"),
    ],
)
def test_what_no_page_of_ours_would_send_is_refused(port, arguments, status, said):
    answered, content, _ = ask(port, arguments.pop("path", "/api/start"), **arguments)
    assert (answered, said in content.decode()) == (status, True), content


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"Origin": "https://evil.example"}, "/api/runs", 403),
        ({"Origin": "null"}, "/api/start", 403),
        ({"Origin": "https://127.0.0.1:PORT"}, "/api/runs", 403),
        ({"Origin": "http://127.0.0.1:1"}, "/api/runs", 403),
        ({"Sec-Fetch-Site": "cross-site"}, "/api/runs", 403),
        ({"Sec-Fetch-Site": "same-site"}, "/static/page.css", 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, "/", 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, "/", 200),  # a link from elsewhere may open the page
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:PORT"}, "/api/runs", 200),
        ({"Sec-Fetch-Site": "none"}, "/static/page.css", 200),
        ({}, "/api/runs", 200),
    ],
)
def test_other_pages_are_not_answered(port, headers, path, status):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={name: value.replace("PORT", str(port)) for name, value in headers.items()})
    with closing(connection):
        assert connection.getresponse().status == status


@pytest.mark.parametrize(
    "path",
    [
        "/pictures/a/seed-0/%00.png",
        f"/pictures/a/seed-0/{'x' * 300}.png",
        f"/static/{'x' * 3000}",
        "/static/%00",
        "/%ff%0a",
        "/pictures/%0a/b/c",
    ],
)
def test_a_name_that_no_file_has_is_404_and_says_nothing_in_the_terminal(port, path, capfd):
    assert ask(port, path)[0] == 404
    assert capfd.readouterr() == ("", "")


def test_json_that_is_too_deep_or_no_number_is_400(port, capfd):
    for body in (b'{"a":' * 20_000, b'{"prompt": NaN}', b'{"prompt": ' + b"9" * 6000 + b"}", b'{"prompt": "\\ud800"}'):
        status, content, _ = ask(port, "/api/start", body)
        assert status == 400 and b"a request must be JSON: " in content and len(content) < 200
    assert capfd.readouterr() == ("", "")


def test_a_client_that_breaks_off_leaves_no_word_in_the_terminal(port, capfd):
    head = f"POST /api/start HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(head.encode() + b'{"prompt": "a')
    assert ask(port, "/api/runs")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_over_http_as_in_python(port, refiner):
    status, content, _ = ask(port, "/api/start", {"prompt": INJECTION})
    state = json.loads(content)
    assert status == 200 and state["candidates"][0]["refined"] == refiner.refine(INJECTION)[0].refined
    status, content, headers = ask(port, "/api/picture", {"revision": 0, "text": "refined", "candidate": 0}, tab=state["tab"])
    assert (status, headers["content-type"], Image.open(io.BytesIO(content)).size) == (200, "image/png", (64, 64))
    status, content, _ = ask(port, "/api/picture", {"revision": 7, "text": "refined", "candidate": 0}, tab=state["tab"])
    assert (status, content) == (204, b"")
    status, content, headers = ask(port, "/api/history", tab=state["tab"])
    assert headers["content-disposition"] == 'attachment; filename="refined-prompt.json"'
    assert json.loads(content)["original"] == INJECTION
    assert ask(port, "/api/history")[0] == 410


def test_a_failure_of_ours_is_told_to_the_person_and_in_full_to_the_terminal(port, refiner, monkeypatch, capfd):
    monkeypatch.setattr(PromptRefiner, "refine", lambda *_, **__: 1 / 0)
    status, content, _ = ask(port, "/api/start", {"prompt": "a cat"})
    assert (status, json.loads(content)) == (500, {"error": "the server failed (ZeroDivisionError): its terminal says why"})
    assert "ZeroDivisionError: division by zero" in capfd.readouterr().err
