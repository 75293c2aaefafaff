"""What the tests of the page share: the page served by a thread of the test's own process, on a free port of 127.0.0.1."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ablations.web.starting import listen


@contextmanager
def served(refiner, runs: Path | None = None) -> Iterator[str]:
    """The page's address while the block runs; the server has stopped when it is left."""
    from ablations.web.server import make_app, make_server

    server = make_server(make_app(refiner, "a test's refiner", runs))
    with listen(0) as listening:
        # Connections wait in the socket's queue until the server takes them, so there is nothing to wait for here.
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)
    assert not thread.is_alive()


def ask(port: int, path: str, body: object = None, *, tab: str = "", host: str = "127.0.0.1", kind: str = "application/json"):
    """Status, content and headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    content = body if body is None or isinstance(body, bytes) else json.dumps(body)
    connection.request("POST" if content else "GET", path, content, {"host": f"{host}:{port}", "content-type": kind, "x-tab": tab})
    with closing(connection):
        response = connection.getresponse()
        return response.status, response.read(), response.headers
