"""One person's way from a short prompt to the one they want: draw candidates, pick, redraw, edit, go back. Knows no screen.

The command line and the page hold one `RefiningSession` per person and only show what is in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ablations.runtime.errors import UserError

if TYPE_CHECKING:
    from ablations.refiner.candidates import RefinedPrompt
    from ablations.refiner.prompt_refiner import PromptRefiner

NUM_SEEDS = 2**32  # seeds are 0 to 2^32 - 1, as config keys say
# So many banned words stand in every record by themselves.
_MOST_IN_RECORD = 100
# What repeats in every candidate of a step, and so stands once in its record.
_SHARED = ("coarse", "seed", "mode", "rounds", "passed_through", "unknown_words")


@dataclass(frozen=True)
class RefiningSettings:
    """How candidates are drawn: the arguments of `PromptRefiner.refine`, which checks them.

    Strategy 1 is mode "extend", where `prompt_len` counts; strategy 2 is mode "rewrite", where `max_new_tokens` does.
    """

    num_candidates: int = 3
    prompt_len: int = 6
    mode: Literal["extend", "rewrite"] = "extend"
    max_new_tokens: int = 50
    seed: int = 0
    any_piece: bool = False
    distinct: bool = True
    keep: tuple[str, ...] = ()
    ban: tuple[str, ...] = ()

    def arguments(self) -> dict[str, Any]:
        """As keyword arguments of `PromptRefiner.refine`."""
        return dataclasses.asdict(self)

    def record(self) -> dict[str, Any]:
        """As plain data for JSON. Of a long list of banned words: {"words": how many, "sha256": of the words, one a line}."""
        plain = _plain(self.arguments())
        if len(self.ban) > _MOST_IN_RECORD:
            plain["ban"] = {"words": len(self.ban), "sha256": hashlib.sha256("\n".join(self.ban).encode()).hexdigest()}
        return plain


@dataclass(frozen=True)
class Step:
    """One draw: `prompt` is what was refined, `candidates` what came of it, `settings` how.

    `action` says what the person did to get here: "start", "pick", "redraw", "edit" or "change" (of settings). `picked` is the
    candidate that the next step went on from, None where it did not go on from one, or there is no next step. `unfinished`: the prompt is
    a candidate that ended within a word, which may be gone on with.
    """

    action: str
    prompt: str
    settings: RefiningSettings
    candidates: tuple[RefinedPrompt, ...]
    picked: int | None = None
    unfinished: bool = False

    def record(self) -> dict[str, Any]:
        """The step as plain data for JSON: action, coarse, what `of_prompt` says, the settings, unfinished, candidates, picked."""
        return {
            "action": self.action,
            "coarse": self.prompt,
            **of_prompt(self.candidates),
            **self.settings.record(),
            "unfinished": self.unfinished,
            "candidates": [candidate_record(candidate) for candidate in self.candidates],
            "picked": self.picked,
        }


def candidate_record(candidate: RefinedPrompt) -> dict[str, Any]:
    """A candidate as plain data: candidate, refined, new_text, prompt_seed, image_seed, num_new_tokens, truncated, redraws, put_back."""
    return _plain({name: value for name, value in dataclasses.asdict(candidate).items() if name not in _SHARED})


def of_prompt(candidates: Sequence[RefinedPrompt]) -> dict[str, Any]:
    """What its candidates say of a prompt, as plain data: unknown_words (null: not known) and passed_through; null without candidates."""
    names = ("unknown_words", "passed_through")
    return _plain({name: getattr(candidates[0], name) if candidates else None for name in names})


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


class RefiningSession:
    """The steps from a person's first prompt to the present candidates.

    Every action draws new candidates, and `back` undoes the latest one, whichever it was. An action that fails (a prompt that is
    empty or too long, a number that no candidate has) raises UserError and changes nothing. Drawing is a function of prompt and
    settings alone, so the same actions give the same candidates everywhere.

    >>> from ablations import PromptRefiner
    >>> from ablations.refiner.session import RefiningSession, RefiningSettings
    >>> refiner = PromptRefiner.from_run("outputs/my-arm/seed-0")
    >>> session = RefiningSession(refiner, "a green tree", RefiningSettings(prompt_len=4))
    >>> first = session.candidates
    >>> first == refiner.refine("a green tree", prompt_len=4)
    True
    >>> session.pick(1)
    >>> session.prompt == first[1].refined
    True
    >>> session.redraw()
    >>> session.settings.seed
    1
    >>> session.back(); session.back()
    >>> session.candidates == first
    True
    >>> [(step["action"], step["picked"]) for step in session.history]
    [('start', None)]
    """

    def __init__(self, refiner: PromptRefiner, prompt: str, settings: RefiningSettings = RefiningSettings()):
        """Draws the first candidates. Raises UserError as `PromptRefiner.refine` does."""
        self.refiner = refiner
        self._steps: list[Step] = []
        self._advance("start", prompt, settings)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that led here, the present one last; those that were undone are gone."""
        return tuple(self._steps)

    @property
    def prompt(self) -> str:
        """The present prompt: the person's own text, or the candidate they picked last. This is what they leave with."""
        return self._steps[-1].prompt

    @property
    def original(self) -> str:
        """What the person wrote first."""
        return self._steps[0].prompt

    @property
    def settings(self) -> RefiningSettings:
        """How the present candidates were drawn."""
        return self._steps[-1].settings

    @property
    def candidates(self) -> list[RefinedPrompt]:
        """The present candidates, in order of their number, from 0."""
        return list(self._steps[-1].candidates)

    @property
    def can_go_back(self) -> bool:
        """Whether there is something to undo."""
        return len(self._steps) > 1

    @property
    def history(self) -> list[dict[str, Any]]:
        """The steps that led here as plain data for JSON; see `Step.record`."""
        return [step.record() for step in self._steps]

    def pick(self, candidate: int) -> None:
        """Go on from a candidate, counted from 0: it becomes the prompt, and candidates of it are drawn with the same settings.

        Raises UserError for a number that no candidate has, and for a prompt that has become too long to be extended.
        """
        step = self._steps[-1]
        if not 0 <= candidate < len(step.candidates):
            raise UserError(f"there is no candidate {candidate + 1}: pick one from 1 to {len(step.candidates)}")
        picked = step.candidates[candidate]
        self._advance("pick", picked.refined, step.settings, picked.truncated)
        self._steps[-2] = dataclasses.replace(step, picked=candidate)

    def redraw(self, seed: int | None = None) -> None:
        """Other candidates of the same prompt: with `seed`, or with the seed after the present one."""
        step = self._steps[-1]
        seed = (step.settings.seed + 1) % NUM_SEEDS if seed is None else seed
        self._advance("redraw", step.prompt, dataclasses.replace(step.settings, seed=seed), step.unfinished)

    def edit(self, text: str) -> None:
        """Put another text in the prompt's place and draw its candidates. Raises UserError as `PromptRefiner.refine` does."""
        self._advance("edit", text, self.settings)

    def change(self, **settings: Any) -> None:
        """Draw the same prompt's candidates with other settings, by name, as in `RefiningSettings`."""
        self._advance("change", self.prompt, dataclasses.replace(self.settings, **settings), self._steps[-1].unfinished)

    def back(self) -> None:
        """Undo the latest pick, redraw, edit or change. Raises UserError at the first step."""
        if not self.can_go_back:
            raise UserError("there is nothing to go back to: these are the first candidates")
        self._steps.pop()
        self._steps[-1] = dataclasses.replace(self._steps[-1], picked=None)

    def _advance(self, action: str, prompt: str, settings: RefiningSettings, unfinished: bool = False) -> None:
        """Draws before anything is changed: a draw that fails leaves the session as it was."""
        candidates = self.refiner.refine(prompt, **settings.arguments(), unfinished=unfinished)
        self._steps.append(Step(action, prompt, settings, tuple(candidates), unfinished=unfinished))
