"""A client for OpenAI-compatible chat endpoints: patient with a busy server, silent about the key, usable by several threads.

The key is read from an environment variable and sent in the Authorization header to the endpoint that the user named, and nowhere else:
redirects are not followed, and no text of the server's is shown without the key being blanked out. Imports no heavy library.
"""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import json
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ablations.runtime.errors import UserError, one_line

_LARGEST_ANSWER = 4 * 1024 * 1024


class NoAnswer(Exception):
    """The endpoint gave no usable answer to one request, for a reason of one line."""


class Unreachable(NoAnswer):
    """Nothing came back after all attempts: no connection, no answer in time, a busy or failing server."""


@dataclass(frozen=True)
class Patience:
    """How long a request is tried: seconds for an answer, attempts, and the longest wait between two of them in seconds; and how many
    requests there may be a minute, and at a time."""

    timeout: float = 60.0
    attempts: int = 5
    longest_wait: float = 120.0
    requests_per_minute: float | None = None
    at_once: int = 1


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another place."""

    def redirect_request(self, *_: object) -> None:
        return None


def checked_url(url: str, has_key: bool) -> str:
    """The endpoint's address up to and without /chat/completions. Raises UserError for one that cannot be it, or is not safe for a key."""
    url = url.rstrip("/").removesuffix("/chat/completions")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--chat-url {url!r} is no address: give one such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError("--chat-url holds a user, a password or a query: leave them out; the key belongs into an environment variable")
    if has_key and parts.scheme == "http" and not _is_near(parts.hostname):
        raise UserError(f"--chat-url {url}: the key would cross the network in clear; use https, or unset it for a server of yours")
    return url


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ChatEndpoint:
    """`ask(body)` posts to URL/chat/completions and returns the answer's JSON.

    `clock` and `sleep` are time's own but in tests. Tried again are: no connection, no answer in time, and the statuses 408, 409, 429
    and 5xx; after as long as the server asks for in Retry-After (seconds or a date), else after 1, 2, 4, ... seconds, give or take a
    quarter, so that several processes do not come back at once.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        patience: Patience = Patience(),
        say: Callable[[str], None] = lambda line: None,
        check: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.url = checked_url(url, bool(key))
        self.requests, self.at_once = 0, patience.at_once
        self._key, self._patience = key, patience
        self._say, self._check, self._clock, self._sleep = say, check, clock, sleep
        self._next_start = 0.0
        self._lock = threading.Lock()
        near = _is_near(urllib.parse.urlsplit(self.url).hostname or "")
        # A server on this machine is not asked through a proxy, which would see the key.
        self._opener = urllib.request.build_opener(_NoRedirects, *([urllib.request.ProxyHandler({})] if near else []))

    def __repr__(self) -> str:
        return f"ChatEndpoint({self.url!r})"

    def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer's JSON object.

        Raises NoAnswer where this request was refused or its answer is no JSON, Unreachable where nothing came in all attempts, and
        UserError where no request can succeed: a wrong key, address or model.
        """
        for attempt in range(self._patience.attempts):
            self._check()
            self._keep_pace()
            try:
                return self._ask_once(body)
            except _TryAgain as again:
                reason, wait = str(again), again.wait
            if attempt + 1 < self._patience.attempts:
                if wait is None:
                    wait = min(2.0**attempt * random.uniform(0.75, 1.25), self._patience.longest_wait)
                if wait > self._patience.longest_wait:
                    raise Unreachable(f"{reason}; it asks to wait {wait:.0f} s, more than {self._patience.longest_wait:.0f} s")
                self._say(f"{self.url}: {reason}; trying again in {wait:.1f} s")
                self._sleep(wait)
        raise Unreachable(f"{reason}, {self._patience.attempts} times")

    def _keep_pace(self) -> None:
        """Waits for this request's own start; starts are 60 / rate seconds apart, whoever asks."""
        rate = self._patience.requests_per_minute
        if rate is None:
            return
        with self._lock:
            now = self._clock()
            start = max(now, self._next_start)
            self._next_start = start + 60.0 / rate
        if start > now:
            self._sleep(start - now)

    def _ask_once(self, body: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.requests += 1
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(f"{self.url}/chat/completions", json.dumps(body).encode(), headers, method="POST")
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        try:
            with self._opener.open(request, timeout=self._patience.timeout) as response:
                content = response.read(_LARGEST_ANSWER + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from None
        except TimeoutError:
            raise _TryAgain(f"no answer within {self._patience.timeout:g} s") from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise _TryAgain(f"no answer within {self._patience.timeout:g} s") from None
            raise _TryAgain(f"no connection ({self._shown(error.reason)})") from None
        except (OSError, http.client.HTTPException) as error:
            raise _TryAgain(f"the connection broke ({self._shown(f'{type(error).__name__}: {error}')})") from None
        if len(content) > _LARGEST_ANSWER:
            raise NoAnswer("malformed answer: larger than 4 MiB")
        if self._key:  # a server that repeats what it was sent must not get the key into a file
            content = content.replace(self._key.encode(), b"[key]")
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            raise NoAnswer("malformed answer: no JSON") from None
        if not isinstance(answer, dict):
            raise NoAnswer("malformed answer: no JSON object")
        return answer

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        code = error.code
        said = self._error_message(error)
        if code in (401, 403):
            return UserError(
                f"{self.url} does not accept the key, or there is none (status {code}): check --chat-key-variable and the key in it"
            )
        if code == 404 or 300 <= code < 400:
            return UserError(f"{self.url} has no such model or address (status {code}: {said}): check --chat and --chat-url")
        if code in (408, 409, 429) or code >= 500:
            return _TryAgain(f"status {code}" + (f" ({said})" if said else ""), _retry_after(error.headers.get("Retry-After")))
        if "content_filter" in said or "content policy" in said.lower() or "content_policy" in said:
            return NoAnswer(f"refused by the server's content filter (status {code})")
        return NoAnswer(f"refused with status {code}: {said}")

    def _error_message(self, error: urllib.error.HTTPError) -> str:
        try:
            raw = error.read(64 * 1024)
        except (OSError, http.client.HTTPException):
            return ""
        try:
            told = json.loads(raw)
        except (ValueError, RecursionError):
            return self._shown(raw.decode(errors="replace"))
        if isinstance(told, dict):  # FastAPI's servers say "detail"
            told = told.get("error") or told.get("detail") or told.get("message") or ""
        text = f"{told.get('code') or ''} {told.get('message') or ''}" if isinstance(told, dict) else told
        return self._shown(text)

    def _shown(self, text: object) -> str:
        """A text from outside as it may be shown: one line, not long, without the key."""
        shown = one_line(text)
        return (shown.replace(self._key, "[key]") if self._key else shown)[:160].strip()


class _TryAgain(Exception):
    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, a number or a date; None without one that can be read."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
