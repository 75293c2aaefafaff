"""Servers on 127.0.0.1 that do not do what W&B's does: silent ones, failing ones, and such as break off."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

KEY = "0" * 40
# What each answers to whatever it is asked; None: nothing, for ever. "" ends the connection.
ANSWERS = {
    "silent": None,
    "breaks off": b"",
    "fails": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops",
    "refuses": b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    "rubbish": b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\nConnection: close\r\n\r\n{"a":',
    "no W&B": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>",
    "half": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{",
}

# A cell as W&B sees it, for a process of its own, which ends as every command does: RUN_DIR, then the fields of `Asked` as JSON.
TRACKED_CELL = """
import json, sys
from ablations.results.tracking import Asked, Tracker
from ablations.runtime.leaving import leave_within
tracker = Tracker(init_timeout=2, finish_timeout=5).start({"seed": 0}, sys.argv[1], Asked(**json.loads(sys.argv[2])))
tracker.log({"train": {"loss": 1.0}}, step=0)
tracker.summary({"refined": {"fidelity": 0.5}})
tracker.finish()
print("the cell is done", flush=True)
leave_within(4, 0)
"""


class OddServer:
    """Listens on a port of 127.0.0.1 and counts who knocks."""

    def __init__(self, kind: str):
        self._answer = ANSWERS[kind]
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.knocks: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self.knocks.append(self._socket.accept()[0])
                threading.Thread(target=self._reply, args=(self.knocks[-1],), daemon=True).start()

    def _reply(self, knock: socket.socket) -> None:
        with suppress(OSError):
            if self._answer is not None:
                knock.recv(1 << 16)
                knock.sendall(self._answer)
                if b"Content-Length: 500" not in self._answer:
                    knock.close()

    def close(self) -> None:
        self._socket.close()
        for knock in self.knocks:
            knock.close()


@contextmanager
def odd_server(kind: str) -> Iterator[OddServer]:
    server = OddServer(kind)
    try:
        yield server
    finally:
        server.close()


def without_wandb(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """No W&B variable, login or settings of the machine reaches a test; the folder that it works in is `home`."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home.mkdir(exist_ok=True)
    for name, folder in (
        ("HOME", home),
        ("NETRC", home / "netrc"),
        ("WANDB_CONFIG_DIR", home / "config"),
        ("WANDB_CACHE_DIR", home / "cache"),
    ):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.chdir(home)
