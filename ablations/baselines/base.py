"""What a baseline is: it reads coarse prompts and writes prompts, or says why it could not.

A prompt that a baseline could not write is a failure with a reason. It is counted and shown, neither drawn nor scored, and never
replaced by the prompt that was read: else failures would score as results. Imports no heavy library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ablations.runtime.errors import RunFolderError
from ablations.runtime.files import write_json

if TYPE_CHECKING:
    from ablations.results.seen_words import SeenWords
    from lightning_modules.prompt_refiner import PromptRefinerModule


class LoadedRefiner(NamedTuple):
    """A trained module, and which words and pieces its training read (None: that was not written down)."""

    module: PromptRefinerModule
    seen: SeenWords | None


@dataclass(frozen=True)
class Asked:
    """One prompt that is to be written. All chance of it follows from `key`, which differs between seeds, prompts and candidates.

    Baselines read the coarse prompt. The fine one is there for the upper bound alone.
    """

    prompt_id: int
    candidate: int
    coarse_prompt: str
    fine_prompt: str
    key: int


@dataclass(frozen=True)
class Written:
    """What came of it: a prompt, or the reason why there is none (`failure`; then `text` is "").

    `num_new_tokens` counts the tokens that were written, by the writer's own tokenizer. `truncated`: it ends where the number of
    tokens did, within a word as far as can be told.
    """

    text: str
    num_new_tokens: int = 0
    truncated: bool = False
    failure: str = ""

    @classmethod
    def failed(cls, reason: str) -> Written:
        assert reason, "a failure has a reason"
        return cls("", failure=reason)


class Baseline(Protocol):
    """A way to write prompts. `name` is its key on the command line and in files, `title` its heading, `about` what it does, in words."""

    name: str
    title: str
    about: str

    def prepare(self) -> None:
        """Make sure that whatever it needs is there, before anything long begins. Raises UserError where it is not."""

    def write(self, seed: int, asked: Sequence[Asked]) -> list[Written]:
        """One result for each, in order. Raises UserError for what makes all of them impossible, such as a wrong key."""

    def close(self) -> None:
        """Let go of what takes memory; what it has used up can still be asked for."""

    def cost(self) -> str:
        """What was used up, in words ("" for nothing that costs money)."""


class AnswerStore:
    """Answers by the digest of what was asked, a JSON file each, so that nothing is asked or generated twice; nowhere with root None."""

    def __init__(self, root: Path | None):
        self.folder = root
        self.reused = 0

    @staticmethod
    def digest(asked: object) -> str:
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:40]

    def get(self, digest: str) -> dict[str, Any] | None:
        """The answer, or None where it is not known. Raises RunFolderError for a torn file."""
        if self.folder is None:
            return None
        path = self.folder / digest[:2] / f"{digest}.json"
        try:
            answer = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise RunFolderError(f"{path} cannot be read ({error}): delete it") from error
        self.reused += 1
        return answer

    def put(self, digest: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer. Raises RunFolderError where it cannot be written."""
        if self.folder is not None:
            write_json(self.folder / digest[:2] / f"{digest}.json", answer)
