"""The candidates of prompts: what the page, the command line and the exported pipeline make of a prompt and a seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ablations.cell.refining.keys import image_seed, prompt_key, prompt_seed
from ablations.figures.new_words import split_new_words
from ablations.refiner.distinct import made_distinct, redraw_key
from ablations.refiner.own_words import (
    MOST_BANNED,
    MOST_KEPT,
    check_own_words,
    extended,
    phrases,
    pieces_with_syntax,
    with_kept,
    with_syntax,
)
from ablations.refiner.prompt_syntax import ReadPrompt, read_prompt
from ablations.results.seen_words import SeenWords
from ablations.runtime.errors import UserError
from lightning_modules.settings import PieceRules, Refinement, RefineSettings
from lightning_modules.text_decoder import PromptDecoder

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

    `redraws`: how often it was drawn again because it equalled an earlier candidate. `put_back`: what of `keep` the rewriting lacked and
    has in front for that. Of the coarse prompt: `passed_through`, the syntax in it that is no word, and `unknown_words`, which no training
    text has, as they are typed; None where it is not known what the training read.
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
    redraws: int = 0
    put_back: tuple[str, ...] = ()
    passed_through: tuple[str, ...] = ()
    unknown_words: tuple[str, ...] | None = None

    def pieces(self) -> list[tuple[str, bool]]:
        """The refined prompt as [(text, is_new), ...], to set new words apart from the user's; joined they give it back."""
        return own_and_new(self.coarse, self.refined)


def own_and_new(coarse: str, refined: str) -> list[tuple[str, bool]]:
    """A refined prompt as [(text, is_new), ...]; what is new may stand before syntax at the end of the coarse one."""
    return pieces_with_syntax(coarse, refined) or split_new_words(coarse, refined)


@dataclass(frozen=True)
class Wishes:
    """What a user may wish of candidates, beside how they are written; `of` checks it.

    `any_piece`: write any piece of the decoder's vocabulary; else those alone that occur in the fine training texts, and nothing that goes
    on with the prompt's last word. `distinct`: draw a candidate that equals an earlier one again. `keep`: words and phrases that a
    rewriting must have. `ban`: words and phrases that are never written, not within longer words either. `unfinished`: the prompt's last
    word is cut and may be gone on with. `batch_size`: how many candidates are written at a time; None: those of one prompt.
    """

    any_piece: bool = False
    distinct: bool = True
    keep: tuple[str, ...] = ()
    ban: tuple[str, ...] = ()
    unfinished: bool = False
    batch_size: int | None = None

    @classmethod
    def of(
        cls,
        any_piece: bool = False,
        distinct: bool = True,
        keep: str | Iterable[str] = (),
        ban: str | Iterable[str] = (),
        unfinished: bool = False,
        batch_size: int | None = None,
    ) -> Wishes:
        """Words are a list, or a text with commas between them. Raises UserError for what cannot be."""
        for name, value in (("any_piece", any_piece), ("distinct", distinct), ("unfinished", unfinished)):
            if not isinstance(value, bool):
                raise UserError(f"{name} must be true or false, not {value!r:.100}")
        kept, banned = phrases("keep", keep, MOST_KEPT), phrases("ban", ban, MOST_BANNED)
        check_own_words(kept, banned)
        return cls(any_piece, distinct, kept, banned, unfinished, batch_size)


@dataclass(frozen=True)
class _Row:
    """One candidate that is to be written, and the key of its chance."""

    prompt: ReadPrompt
    candidate: int
    key: int


@dataclass(frozen=True)
class CandidateWriter:
    """Makes candidates: `write` writes texts, `decoder` counts and cuts their tokens, `seen` is what the training read, None: not known."""

    write: Write
    decoder: PromptDecoder
    seen: SeenWords | None = None

    def refine(
        self, prompts: str | Sequence[str], num_candidates: int, seed: int, settings: RefineSettings, wishes: Wishes
    ) -> list[list[RefinedPrompt]]:
        """The candidates of each prompt. A candidate's chance is a function of `seed`, the prompt's text and the candidate's number.

        A list gives what its prompts give one by one (where `batch_size` is None). Raises UserError for what is no text or has no words,
        and for a prompt or words to keep that are too long.
        """
        read = _taken_apart(checked_texts(prompts), settings.mode)
        self._check_lengths(read, settings, wishes)
        settings = dataclasses.replace(settings, rules=self._rules(wishes))
        rows = [_Row(one, i, prompt_seed(seed, prompt_key(one.text), i)) for one in read for i in range(num_candidates)]

        def write(rows: Sequence[_Row], redraw: int = 0) -> list[RefinedPrompt]:
            keys = [redraw_key(row.key, redraw) for row in rows]
            written = self.write([row.prompt.reading for row in rows], keys, settings)
            return [self._result(row, one, seed, settings, wishes) for row, one in zip(rows, written, strict=True)]

        at_once = wishes.batch_size or num_candidates
        refined = [one for start in range(0, len(rows), at_once) for one in write(rows[start : start + at_once])]
        if wishes.distinct and settings.top_k != 1:  # of one token nothing else can be drawn
            refined = made_distinct(refined, lambda place, redraw: write(rows[place : place + 1], redraw)[0])
        return [refined[start : start + num_candidates] for start in range(0, len(refined), num_candidates)]

    def num_tokens(self, text: str) -> int:
        """How many tokens the decoder counts of a text, the end token left out."""
        return len(self.decoder.tokenizer([text]).input_ids[0]) - 1

    def unknown_words(self, prompt: str) -> tuple[str, ...] | None:
        """The words of a prompt that no training text has, as they are typed, each once; None where it is not known what those had.

        What other tools' syntax passes through is no word.
        """
        return None if self.seen is None else self.seen.unknown(read_prompt(prompt).reading)

    def _rules(self, wishes: Wishes) -> PieceRules:
        if wishes.any_piece:
            return PieceRules(ban=wishes.ban)
        return PieceRules(self.seen.pieces if self.seen is not None else None, new_word=not wishes.unfinished, ban=wishes.ban)

    def _check_lengths(self, read: Sequence[ReadPrompt], settings: RefineSettings, wishes: Wishes) -> None:
        if settings.mode == "rewrite" and (tokens := self.num_tokens(", ".join(wishes.keep))) > settings.max_new_tokens:
            raise UserError(f"keep has {tokens} tokens, but max_new_tokens={settings.max_new_tokens}: raise it, or keep less")
        if settings.mode == "rewrite" or settings.extend_by != "prime":
            return
        new_tokens = settings.prompt_len * settings.rounds
        for prompt in read:
            tokens = self.num_tokens(prompt.reading)
            if tokens + new_tokens > MAX_PROMPT_TOKENS:
                raise UserError(
                    f"the prompt {_shown(prompt.text)} has {tokens} tokens and would get {new_tokens} more: "
                    f"at most {MAX_PROMPT_TOKENS} can be extended; shorten it, or take mode=rewrite"
                )

    def _result(self, row: _Row, written: Refinement, seed: int, settings: RefineSettings, wishes: Wishes) -> RefinedPrompt:
        prompt, put_back, num_new = row.prompt, (), written.num_new_tokens
        if settings.mode == "extend":
            rounds = [prompt.head + extended(prompt.head, prompt.reading, text) + prompt.tail for text in written.rounds]
            new_text = rounds[-1][len(prompt.head) : len(rounds[-1]) - len(prompt.tail)]
        else:
            text, put_back = with_kept(written.text, wishes.keep, lambda front, text: self._shortened(front, text, settings.max_new_tokens))
            num_new = self.num_tokens(text) if put_back else num_new
            new_text = with_syntax(text, prompt)
            rounds = [new_text]
        return RefinedPrompt(
            coarse=prompt.text,
            refined=rounds[-1],
            new_text=new_text,
            candidate=row.candidate,
            seed=seed,
            prompt_seed=row.key,
            image_seed=image_seed(seed, prompt_key(prompt.text), row.candidate),
            num_new_tokens=num_new,
            truncated=written.truncated and not put_back,
            mode=settings.mode,
            rounds=tuple(rounds),
            put_back=put_back,
            passed_through=prompt.passed_through,
            unknown_words=self.unknown_words(prompt.text),
        )

    def _shortened(self, front: str, text: str, most: int) -> str:
        """The beginning of a text that leaves room for what comes in front of it, `most` tokens together; it ends with a whole word."""
        room = most - self.num_tokens(front)
        while room > 0:
            kept = self.decoder.first_tokens(text, 0, room)
            rest = kept.text.rpartition(" ")[0] if kept.truncated else kept.text
            if self.num_tokens(f"{front} {rest}") <= most:
                return rest
            room -= 1
        return ""


def _taken_apart(texts: Sequence[str], mode: str) -> list[ReadPrompt]:
    """The prompts, taken apart; of one that is rewritten the first chunk is read. Raises UserError for one that is syntax alone."""
    read = [read_prompt(text) for text in texts]
    for prompt in read:
        if not prompt.reading.strip():
            raise UserError(f"the prompt {_shown(prompt.text)} has no words to be refined, but syntax alone")
    return [prompt.first_chunk() for prompt in read] if mode == "rewrite" else read


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


def check_unicode(text: str, name: str = "the text") -> None:
    """Raises UserError for half a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{name} has half a character at position {error.start}: it is not valid Unicode") from None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
