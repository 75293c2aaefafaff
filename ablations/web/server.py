"""The page over HTTP: routes, what a browser may send and do, and how the server runs. Knows nothing of prompts or runs.

The page must not be a way in for other pages that the same browser has open: foreign host names are refused (they can be made to point
here), requests must be JSON (which other origins may not send unasked), and the page itself may load nothing but its own files.
"""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ablations.refiner.session import RefiningSettings
from ablations.runtime.errors import RunFolderError, UserError, one_line
from ablations.runtime.escaping import escaping_environment
from ablations.runtime.foreign import Unreadable, parse_json, readable
from ablations.web.run_browser import NoSuchPicture, RunBrowser
from ablations.web.sessions import OutdatedTab, RefiningSessions, UnknownTab

if TYPE_CHECKING:
    from ablations.refiner.prompt_refiner import PromptRefiner

_FOLDER = Path(__file__).parent
MAX_BODY_BYTES = 256 * 1024
_TAB_HEADER = "x-tab"
# Bytes that the name of a file may have at most, on every file system in use.
_LONGEST_NAME = 255
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_STATUS = {OutdatedTab: 409, UnknownTab: 410, NoSuchPicture: 404}


class _Headers:
    """Adds `_HEADERS` to every answer."""

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class _SameOrigin:
    """Refuses what another page asks for: its browser says so, by `Sec-Fetch-Site` or by an `Origin` that is not this server's.

    A link or a bookmark may open the page itself, and programs that are no browsers send neither.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "http" and _is_foreign(Request(scope)):
            answer = JSONResponse({"error": "the page answers itself alone, not other pages"}, status_code=403)
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _is_foreign(request: Request) -> bool:
    headers = request.headers
    site, origin = headers.get("sec-fetch-site", "none"), headers.get("origin")
    if request.url.path == "/" and request.method in ("GET", "HEAD") and headers.get("sec-fetch-mode", "navigate") == "navigate":
        return False
    if site not in ("same-origin", "none"):
        return True
    return origin is not None and origin != f"{request.url.scheme}://{headers.get('host', '')}"


class _Answered:
    """Paths that no file can have are answered as those that are not there, and a client that breaks off is nobody's fault."""

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "http" and _is_no_path(scope["path"]):
            await JSONResponse({"error": "there is no such page"}, status_code=404)(scope, receive, send)
            return
        with suppress(ClientDisconnect):
            await self.app(scope, receive, send)


def _is_no_path(path: str) -> bool:
    parts = path.split("/")
    return not path.isprintable() or readable(path) != path or any(len(part.encode()) > _LONGEST_NAME for part in parts)


def make_app(refiner: PromptRefiner, source: str, runs: Path | None) -> Starlette:
    """The page for a refiner, whose origin is `source` in words, and for the runs in an output folder."""
    sessions, browser = RefiningSessions(refiner, source), RunBrowser(runs)
    page = _render(refiner, source, browser)

    async def index(request: Request) -> Response:
        return HTMLResponse(page)

    async def history(request: Request) -> Response:
        return await _answer(lambda: _download(sessions.history(_tab(request))))

    async def state(request: Request) -> Response:
        return await _answer(lambda: JSONResponse(sessions.state(_tab(request))))

    def posted(handle: Callable[[str, Mapping[str, Any]], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                body = await _read_json(request)
            except UserError as error:
                return JSONResponse({"error": str(error)}, status_code=400)
            except ClientDisconnect:  # nobody hears the answer
                return Response(status_code=400)
            return await _answer(lambda: handle(_tab(request), body))

        return endpoint

    def draw(tab: str, body: Mapping[str, Any]) -> Response:
        try:
            return Response(sessions.picture(tab, body), media_type="image/png")
        except OutdatedTab:
            return Response(status_code=204)  # usual, where one clicks faster than pictures are drawn: no error in the browser's log

    async def list_runs(request: Request) -> Response:
        return await _answer(lambda: JSONResponse(browser.list_runs()))

    async def run_picture(request: Request) -> Response:
        parts = request.path_params
        return await _answer(lambda: FileResponse(browser.picture(parts["arm"], parts["seed"], parts["name"]), media_type="image/png"))

    routes = [
        Route("/", index),
        Route("/api/state", state),
        Route("/api/history", history),
        Route("/api/start", posted(lambda tab, body: JSONResponse(sessions.start(body))), methods=["POST"]),
        Route("/api/act", posted(lambda tab, body: JSONResponse(sessions.act(tab, body))), methods=["POST"]),
        Route("/api/picture", posted(draw), methods=["POST"]),
        Route("/api/runs", list_runs),
        Route("/api/grids", posted(lambda tab, body: JSONResponse(browser.grids(body))), methods=["POST"]),
        Route("/pictures/{arm}/{seed}/{name:path}", run_picture),
        Mount("/static", StaticFiles(directory=_FOLDER / "static")),
    ]
    middleware = [
        Middleware(_Headers),
        Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
        Middleware(_SameOrigin),
        Middleware(_Answered),
    ]
    return Starlette(routes=routes, middleware=middleware)


def serve(app: Starlette, listening: socket.socket) -> None:
    """Answers on a socket until Ctrl-C, which it passes on as KeyboardInterrupt. Other threads' work is waited for, for some seconds."""
    make_server(app).run(sockets=[listening])


def make_server(app: Starlette) -> uvicorn.Server:
    """The server, for `run(sockets=[...])`; setting its `should_exit` ends that."""
    return uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=3))


def _render(refiner: PromptRefiner, source: str, browser: RunBrowser) -> str:
    from datamodules.tiny_world.grammar import SUBJECTS

    return (
        escaping_environment(_FOLDER)
        .get_template("page.html.j2")
        .render(
            source=source,
            is_tiny=refiner.config.profile == "tiny",
            tiny_subjects=SUBJECTS,
            default_length=RefiningSettings.prompt_len,
            runs="" if browser.output_dir is None else str(browser.output_dir),
        )
    )


def _tab(request: Request) -> str:
    return request.headers.get(_TAB_HEADER, "")


async def _read_json(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises UserError for anything else and for one that is too long."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise UserError("a request must be JSON")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise UserError(f"that is too much text: a request may have {MAX_BODY_BYTES // 1024} KB")
    try:
        content = parse_json(body)
    except Unreadable as error:
        raise UserError(f"a request must be JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError("a request must be a JSON object")
    return content


async def _answer(handle: Callable[[], Response]) -> Response:
    """What `handle` gives, worked out in another thread; its errors as {"error": one line}."""
    try:
        return await run_in_threadpool(handle)
    except (UserError, RunFolderError) as error:
        return JSONResponse({"error": one_line(error)}, status_code=_STATUS.get(type(error), 400))
    except Exception as error:
        # The terminal has the whole story; the person at the page learns that it failed, and why in a word.
        traceback.print_exc()
        return JSONResponse({"error": f"the server failed ({type(error).__name__}): its terminal says why"}, status_code=500)


def _download(history: Mapping[str, Any]) -> Response:
    content = json.dumps(history, ensure_ascii=False, indent=2) + "\n"
    return Response(content, media_type="application/json", headers={"content-disposition": 'attachment; filename="refined-prompt.json"'})
