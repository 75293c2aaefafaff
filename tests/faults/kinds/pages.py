"""Requests that no page of ours sends: each is answered with a status below 500, and the terminal stays quiet."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
from PIL import Image

from ablations.config import KEYS
from ablations.config.parsing import convert
from ablations.runtime.errors import UserError
from ablations.web.starting import listen
from faults.bench import Kind, Tried, each
from faults.kinds.folders import HOSTILE, any_of, change_json
from helpers.page_server import ask
from helpers.synthetic_runs import write_cell

PATHS = ("/", "/api/state", "/api/history", "/api/start", "/api/act", "/api/picture", "/api/runs", "/api/grids", "/static/", "/pictures/")
PARTS = (
    "..",
    "%2e%2e",
    "%00",
    "a" * 300,
    "a" * 5000,
    "%ff",
    "%0a",
    "etc",
    "passwd",
    "seed-0",
    "diversity_grid.png",
    "run.json",
    "%5c..",
    "",
)
SETTINGS = {"seed": 1, "prompt_len": 4, "mode": "extend", "max_new_tokens": 8}
# What the page itself sends, by where to.
BODIES = {
    "/api/start": ({"prompt": "a cat", "settings": SETTINGS},),
    "/api/act": tuple(
        {"action": action, "revision": 0, "candidate": 0, "seed": 1, "prompt": "x", "settings": SETTINGS}
        for action in ("pick", "redraw", "back", "edit", "change")
    ),
    "/api/picture": tuple({"revision": 0, "text": text, "candidate": 0, "plug_in": False} for text in ("refined", "typed", "prompt")),
    "/api/grids": ({"runs": ["RUN"], "measure": "st_lpips", "filter": "cat", "order": "most diverse", "limit": 5},),
}


class QuickRefiner:
    """Refines by a word and draws a grey picture; what it is asked for is checked by the config's own keys."""

    config = SimpleNamespace(profile="tiny")
    backbones = SimpleNamespace(digest="e" * 16)

    def refine(self, prompt, **asked):
        from ablations.refiner.candidates import RefinedPrompt, check_unicode

        check_unicode(prompt)
        if not prompt.strip():
            raise UserError("the prompt is empty")
        for name, key in (("prompt_len", "prompt_len"), ("seed", "seed"), ("mode", "eval.mode"), ("max_new_tokens", "eval.max_new_tokens")):
            if name in asked:
                convert(KEYS[key], asked[name])
        seed = int(asked.get("seed", 0))
        return [RefinedPrompt(prompt, f"{prompt}, oil", ", oil", i, seed, i, i, 2, False, "extend", ()) for i in range(3)]

    def draw(self, texts, seeds, plug_in=False, batch_size=None):
        return [Image.new("RGB", (8, 8))]


@contextmanager
def served(runs: Path, said: list[str]) -> Iterator[int]:
    """The page's port; what its server logs is put into `said`."""
    import logging

    from ablations.web.server import make_app, make_server

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage() + (f" {record.exc_info[0].__name__}" if record.exc_info and record.exc_info[0] else ""))

    server = make_server(make_app(QuickRefiner(), "a test's refiner", runs))
    handler = Listener()
    logging.getLogger("uvicorn.error").addHandler(handler)
    with listen(0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            logging.getLogger("uvicorn.error").removeHandler(handler)


def a_request(rng: np.random.Generator, port: int, run: str, tab: str) -> tuple[bytes, bool]:
    """Bytes of a request, and whether it may be answered with 200."""
    method, path = any_of(rng, ("GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE")), any_of(rng, PATHS)
    body = any_of(rng, any_of(rng, list(BODIES.values())))
    if rng.random() < 0.5:
        method, path = "POST", any_of(rng, list(BODIES))
        body = any_of(rng, BODIES[path])
    elif rng.random() < 0.7:
        path += "/".join(str(any_of(rng, (*PARTS, quote(run)))) for _ in range(int(rng.integers(1, 5))))
    body = json.loads(json.dumps(body).replace("RUN", run))
    if rng.random() < 0.8:
        change_json(rng, body)
    content = json.dumps(body).encode()
    match int(rng.integers(16)):
        case 0:
            content = rng.bytes(int(rng.integers(300)))
        case 1:
            content = content[: int(rng.integers(len(content)))]
        case 2:
            content = b'{"a":' * 20_000
        case 3:
            content = json.dumps(any_of(rng, HOSTILE)).encode()
        case 4:
            content = b'{"limit": ' + b"9" * 6000 + b"}"
    headers = {"host": f"127.0.0.1:{port}", "content-type": "application/json", "content-length": str(len(content)), "x-tab": tab}
    is_ours = True
    for name, values in (
        ("origin", ("null", "https://evil.example", f"http://127.0.0.1:{port + 1}", f"https://127.0.0.1:{port}")),
        ("sec-fetch-site", ("cross-site", "same-site")),
        ("host", ("evil.example", "", "127.0.0.1.evil.example")),
    ):
        if rng.random() < 0.1:
            headers[name] = any_of(rng, values)
            is_ours = path == "/" and name != "host" and is_ours
    for name, values in (("content-type", ("text/plain", "", "multipart/form-data")), ("x-tab", ("", "abc", "../x"))):
        if rng.random() < 0.1:
            headers[name] = any_of(rng, values)
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "connection: close", "", ""]
    return "\r\n".join(lines).encode() + content, is_ours


def answer_to(port: int, request: bytes, breaks_off: bool) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request[: len(request) - 3] if breaks_off else request)
        if breaks_off:
            return b""
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


def try_requests(seed: int, count: int, folder: Path) -> Tried:
    """Ask one served page for everything that it should not have been asked for; some clients break off."""
    outputs = folder / "outputs"
    run = str(write_cell(outputs, {}, 0, num_prompts=2, num_candidates=2))
    said: list[str] = []
    with served(outputs, said) as port:

        def attempt(rng: np.random.Generator, number: int) -> str | None:
            said.clear()
            _, state, _ = ask(port, "/api/start", {"prompt": "a cat"})
            request, is_ours = a_request(rng, port, run, json.loads(state)["tab"])
            breaks_off = rng.random() < 0.15
            answer = answer_to(port, request, breaks_off)
            first = answer.partition(b"\r\n")[0].decode("latin-1")
            if said:
                return f"the terminal says {said[0]!r:.200} to {request[:120]!r}"
            if breaks_off:
                return None
            status = int(first.split()[1]) if first.startswith("HTTP/1.1 ") else 0
            if not 200 <= status < 500:
                return f"{first!r} to {request[:160]!r}: {answer[-200:]!r}"
            return f"{status} for another page: {request[:160]!r}" if status == 200 and not is_ours else None

        return each("page", seed, count, attempt)


KIND = Kind("page", try_requests, short=40, about="requests to the page by other pages, by nobody's browser, and broken off")
