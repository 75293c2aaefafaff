"""The candidates of prompts: what the page, the command line and the exported pipeline make of a prompt and a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ablations.cell.refining.keys import image_seed, prompt_key, prompt_seed
from ablations.figures.new_words import split_new_words
from ablations.runtime.errors import UserError
from lightning_modules.settings import Refinement, RefineSettings

# T5 was pre-trained on at most this many tokens at a time; attention over a primed prompt grows with the square of its length.
MAX_PROMPT_TOKENS = 512
# One refinement a prompt, from its key: `PromptRefinerModule.refine`.
Write = Callable[[Sequence[str], Sequence[Sequence[int]], RefineSettings], list[Refinement]]


@dataclass(frozen=True)
class RefinedPrompt:
    """One candidate: what the user wrote, what came of it, and the keys of its chance.

    `new_text` is what the refiner wrote: in mode extend what follows the user's text, in mode rewrite the whole prompt. `truncated`:
    it ends within a word. `rounds`: the prompt after each round. `image_seed` draws it at the noise that every text of this prompt,
    seed and candidate shares, the coarse prompt included, so that pictures can be compared.
    """

    coarse: str
    refined: str
    new_text: str
    candidate: int
    seed: int
    prompt_seed: int
    image_seed: int
    num_new_tokens: int
    truncated: bool
    mode: str
    rounds: tuple[str, ...]

    def pieces(self) -> list[tuple[str, bool]]:
        """The refined prompt as [(text, is_new), ...], to set new words apart from the user's; joined they give it back."""
        return split_new_words(self.coarse, self.refined)


def refine_texts(
    write: Write, texts: Sequence[str], num_candidates: int, seed: int, settings: RefineSettings, batch_size: int | None = None
) -> list[list[RefinedPrompt]]:
    """The candidates of each text, `batch_size` at a time; None: those of one text, so that a list gives what its texts give one by one.

    A candidate's chance is a function of `seed`, the text and the candidate's number.
    """
    at_once = batch_size or num_candidates
    rows = [(text, candidate) for text in texts for candidate in range(num_candidates)]
    keys = [prompt_seed(seed, prompt_key(text), candidate) for text, candidate in rows]
    refined: list[RefinedPrompt] = []
    for start in range(0, len(rows), at_once):
        part, part_keys = rows[start : start + at_once], keys[start : start + at_once]
        written = write([text for text, _ in part], [(key,) for key in part_keys], settings)
        refined += [_result(row, key, one, seed, settings.mode) for row, key, one in zip(part, part_keys, written, strict=True)]
    return [refined[start : start + num_candidates] for start in range(0, len(refined), num_candidates)]


def _result(row: tuple[str, int], key: int, written: Refinement, seed: int, mode: str) -> RefinedPrompt:
    coarse, candidate = row
    return RefinedPrompt(
        coarse=coarse,
        refined=written.text,
        new_text=written.text[len(coarse) :] if mode == "extend" else written.text,
        candidate=candidate,
        seed=seed,
        prompt_seed=key,
        image_seed=image_seed(seed, prompt_key(coarse), candidate),
        num_new_tokens=written.num_new_tokens,
        truncated=written.truncated,
        mode=mode,
        rounds=written.rounds,
    )


def checked_texts(prompts: str | Sequence[str]) -> list[str]:
    """A prompt or a list of them as a list. Raises UserError for what is no text, empty, or no valid Unicode."""
    if isinstance(prompts, str):
        prompts, names = [prompts], ["the prompt"]
    else:
        prompts = list(prompts)
        names = [f"prompt {i}" for i in range(len(prompts))]
    for name, text in zip(names, prompts, strict=True):
        if not isinstance(text, str):
            raise UserError(f"{name} is no text but {type(text).__name__}")
        if not text.strip():
            raise UserError(f"{name} is empty")
        check_unicode(text, name)
    return prompts


def check_lengths(tokenize_t5: Callable[[list[str]], list[list[int]]], texts: Sequence[str], new_tokens: int) -> None:
    """Raises UserError for a text that is too long to be continued. `tokenize_t5` gives T5's ids, the end token included."""
    for text in texts:
        tokens = len(tokenize_t5([text])[0]) - 1
        if tokens + new_tokens > MAX_PROMPT_TOKENS:
            raise UserError(
                f"the prompt {_shown(text)} has {tokens} tokens and would get {new_tokens} more: "
                f"at most {MAX_PROMPT_TOKENS} can be extended; shorten it, or take mode=rewrite"
            )


def check_unicode(text: str, name: str = "the text") -> None:
    """Raises UserError for half a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{name} has half a character at position {error.start}: it is not valid Unicode") from None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
