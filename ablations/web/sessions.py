"""What the refining page does, without any HTTP: a `RefiningSession` per browser tab, its state as plain data, its pictures.

A tab is known by a random token that the server gave to it alone; without the token there is no way to its prompts.
"""

from __future__ import annotations

import io
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablations.config.scope import TINY_WORLD_NOTE
from ablations.refiner.candidates import own_and_new
from ablations.refiner.distinct import num_redrawn, said_of_redraws
from ablations.refiner.own_words import MOST_BANNED, MOST_KEPT, marked, phrases, said_of_unknown
from ablations.refiner.session import RefiningSession, RefiningSettings, Step, candidate_record, of_prompt
from ablations.runtime.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from ablations.refiner.candidates import RefinedPrompt
    from ablations.refiner.prompt_refiner import PromptRefiner

# Tabs that are remembered, those used least recently being forgotten first; and pictures, which any tab may ask for again.
MAX_TABS, MAX_PICTURES = 200, 512
_WORDS = {"keep": MOST_KEPT, "ban": MOST_BANNED}
_SETTINGS = ("mode", "prompt_len", "max_new_tokens", "seed", *_WORDS)
_TYPED = ("start", "edit")


class UnknownTab(UserError):
    """A token that the server does not know: it was restarted, or the tab was not used for long."""


class OutdatedTab(UserError):
    """A request about candidates that are not the present ones; the tab has to look again."""


@dataclass
class _Tab:
    """A tab's session. `revision` counts its actions, so that an answer or a click that comes late is known as such."""

    session: RefiningSession
    revision: int = 0


class RefiningSessions:
    """The sessions of everybody who has the page open. Methods may be called from several threads at a time.

    What comes in is a browser's JSON, to be doubted; what goes out is plain data. Texts are passed on as they are: whoever shows
    them has to show them as text.
    """

    def __init__(self, refiner: PromptRefiner, source: str):
        self.refiner = refiner
        self.source = source
        self._tabs: OrderedDict[str, _Tab] = OrderedDict()
        self._pictures: OrderedDict[tuple[str, int, bool], bytes] = OrderedDict()
        # One at a time uses the networks, and with them a tab's session.
        self._networks = threading.Lock()

    def start(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A new session for {prompt, settings}: its state, with the token of the tab. Raises UserError as `PromptRefiner.refine` does."""
        settings = RefiningSettings(**_settings(request))
        with self._networks:
            tab = _Tab(RefiningSession(self.refiner, _text(request, "prompt"), settings))
            token = secrets.token_urlsafe(16)
            self._tabs[token] = tab
            while len(self._tabs) > MAX_TABS:
                self._tabs.popitem(last=False)
            return {"tab": token, **_state(tab)}

    def act(self, token: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The state after {action, revision, ...}: pick (candidate), redraw (seed or null), back, edit (prompt), change (settings).

        Raises OutdatedTab where `revision` is not the present one, and UserError as `RefiningSession` does; then nothing has changed.
        """
        with self._networks:
            tab = self._current(token, request)
            match request.get("action"):
                case "pick":
                    tab.session.pick(_candidate(request))
                case "redraw":
                    tab.session.redraw(request.get("seed"))
                case "back":
                    tab.session.back()
                case "edit":
                    tab.session.edit(_text(request, "prompt"))
                case "change":
                    tab.session.change(**_settings(request))
                case other:
                    raise UserError(f"there is no action {other!r}: it is pick, redraw, back, edit or change")
            tab.revision += 1
            return _state(tab)

    def state(self, token: str) -> dict[str, Any]:
        """The state as it is: for a tab that was loaded again."""
        with self._networks:
            return _state(self._tab(token))

    def picture(self, token: str, request: Mapping[str, Any]) -> bytes:
        """A picture as PNG: {revision, text, candidate, plug_in}.

        `text` is "refined" (the candidate), "typed" (what the person typed last, at the candidate's image noise, to compare the two), or
        "prompt" (the present prompt, as it was drawn on the card that was picked). `plug_in`: read by the trained encoder.
        Raises OutdatedTab where `revision` is not the present one, before anything is drawn.
        """
        with self._networks:
            tab = self._current(token, request)
            text, seed = _to_draw(tab.session, request)
            key = (text, seed, request.get("plug_in") is True)
            if key not in self._pictures:
                # Alone in its batch, so that it is the same whatever else is drawn, and others need not wait for long.
                (image,) = self.refiner.draw(text, seed, plug_in=key[2], batch_size=1)
                self._pictures[key] = _png(image)
                while len(self._pictures) > MAX_PICTURES:
                    self._pictures.popitem(last=False)
            self._pictures.move_to_end(key)
            return self._pictures[key]

    def history(self, token: str) -> dict[str, Any]:
        """All steps of the session, with what it takes to repeat them."""
        with self._networks:
            session = self._tab(token).session
            return {
                "refiner": self.source,
                "profile": self.refiner.config.profile,
                **({"note": TINY_WORLD_NOTE} if self.refiner.config.profile == "tiny" else {}),
                "weights_digest": self.refiner.backbones.digest,
                "original": session.original,
                "prompt": session.prompt,
                "steps": session.history,
            }

    def _tab(self, token: str) -> _Tab:
        if token not in self._tabs:
            raise UnknownTab("what was done in this tab is no longer known (the page was restarted, or not used for long): start again")
        self._tabs.move_to_end(token)
        return self._tabs[token]

    def _current(self, token: str, request: Mapping[str, Any]) -> _Tab:
        tab = self._tab(token)
        if request.get("revision") != tab.revision:
            raise OutdatedTab("these candidates are not the present ones")
        return tab


def _state(tab: _Tab) -> dict[str, Any]:
    session = tab.session
    return {
        "revision": tab.revision,
        "prompt": session.prompt,
        "pieces": own_and_new(_typed(session), session.prompt),
        "typed": _typed(session),
        "candidates": [_shown(candidate) for candidate in session.candidates],
        "settings": {name: _typed_again(getattr(session.settings, name)) for name in _SETTINGS},
        "marked": marked(session.prompt, session.candidates[0].unknown_words or ()),
        "notes": _notes(session.candidates),
        **of_prompt(session.candidates),
        "can_go_back": session.can_go_back,
        "steps": len(session.steps),
    }


def _typed_again(value: Any) -> Any:
    """A setting as it is typed: words with commas between them."""
    return ", ".join(value) if isinstance(value, tuple) else value


def _notes(candidates: list[RefinedPrompt]) -> list[str]:
    """Lines about the prompt and its candidates: words that the refiner never saw, and candidates that were drawn again."""
    unknown = candidates[0].unknown_words
    redrawn = said_of_redraws(*num_redrawn([candidate_record(candidate) for candidate in candidates]))
    return [line for line in (said_of_unknown(unknown) if unknown else "", redrawn) if line]


def _shown(candidate: RefinedPrompt) -> dict[str, Any]:
    return {
        "pieces": candidate.pieces(),
        "refined": candidate.refined,
        "num_new_tokens": candidate.num_new_tokens,
        "truncated": candidate.truncated,
        "put_back": list(candidate.put_back),
    }


def _typed(session: RefiningSession) -> str:
    """What the person typed last, at the start or as an edit: the words that count as theirs."""
    return next(step.prompt for step in reversed(session.steps) if step.action in _TYPED)


def _to_draw(session: RefiningSession, request: Mapping[str, Any]) -> tuple[str, int]:
    """The text that is asked for, and its image noise."""
    number = _candidate(request)
    if not 0 <= number < len(session.candidates):
        raise UserError(f"there is no candidate {number + 1}")
    candidate = session.candidates[number]
    match request.get("text"):
        case "refined":
            return candidate.refined, candidate.image_seed
        case "typed":
            return _typed(session), candidate.image_seed
        case "prompt":
            return session.prompt, _seed_of_prompt(session.steps)
        case other:
            raise UserError(f"there is no text {other!r}: it is refined, typed or prompt")


def _seed_of_prompt(steps: tuple[Step, ...]) -> int:
    """The noise of the card that the present prompt was picked from; a typed prompt is drawn at its first candidate's."""
    for step in reversed(steps[:-1]):
        if step.picked is not None and step.candidates[step.picked].refined == steps[-1].prompt:
            return step.candidates[step.picked].image_seed
    return steps[-1].candidates[0].image_seed


def _settings(request: Mapping[str, Any]) -> dict[str, Any]:
    settings = request.get("settings", {})
    if not isinstance(settings, dict) or not set(settings) <= set(_SETTINGS):
        raise UserError(f"settings may have {', '.join(_SETTINGS)} and nothing else")
    return settings | {name: phrases(name, _text(settings, name), most) for name, most in _WORDS.items() if name in settings}


def _text(request: Mapping[str, Any], name: str) -> str:
    text = request.get(name)
    if not isinstance(text, str):
        raise UserError(f"{name} must be text")
    return text


def _candidate(request: Mapping[str, Any]) -> int:
    number = request.get("candidate")
    if isinstance(number, bool) or not isinstance(number, int):
        raise UserError("candidate must be a whole number from 0")
    return number


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
