"""A chat endpoint on this machine that gives prepared replies."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Reply = tuple[int, dict[str, str], bytes]


def answer(text: str | None, **more) -> bytes:
    choice = {"message": {"role": "assistant", "content": text} | more.pop("message", {}), "finish_reason": more.pop("finish", "stop")}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 70, "completion_tokens": 12}} | more).encode()


def ok(text: str | None, **more) -> Reply:
    return 200, {}, answer(text, **more)


class Server:
    """Gives its replies one after the other, the last one for ever; `requests` are (headers, body). A reply None answers too late."""

    def __init__(self) -> None:
        self.replies: list[Reply | Callable[[dict], Reply] | None] = []
        self.requests: list[tuple[dict[str, str], dict]] = []
        self.over = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append((dict(self.headers), body | {"path": self.path}))
                reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
                if reply is None:
                    server.over.wait(10)
                    return
                status, headers, content = reply(body) if callable(reply) else reply
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
