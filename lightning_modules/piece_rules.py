"""Which pieces the decoder may write, as a mask over its vocabulary before anything is drawn.

Three rules, each its own: pieces that the training texts have alone; a first piece that does not go on with the last word of what is
extended; and words that are never written, however they are put together of pieces.

Shapes in this file: B = rows, T = tokens so far, V = vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor

from lightning_modules.settings import PieceRules

_STARTS_WORD = "\u2581"  # how SentencePiece writes the space before a word
# With one of these a text may go on after its last word without a space.
_CLOSING_MARKS = frozenset(",.;:!?")


def plain(text: str) -> str:
    """A text as banned words are looked for in it: without case, and with single spaces."""
    return re.sub(r"\s+", " ", text).casefold()


@dataclass(frozen=True)
class PieceMasks:
    """What the rules make of a vocabulary. `texts` are its pieces as plain text, a space where a word starts.

    `never_V` marks what may not be written at any place, `not_first_V` what may not come first; boolean. `endings` has, for a beginning of
    a banned word, the ids of the pieces that would complete it.
    """

    texts: Sequence[str]
    never_V: Tensor
    not_first_V: Tensor
    endings: Mapping[str, Tensor]

    @classmethod
    def of(cls, vocabulary: Sequence[str], rules: PieceRules, may_always: Iterable[int]) -> PieceMasks:
        """`vocabulary` holds the piece of each id; `may_always` are ids that no rule is about: the end token."""
        texts = [plain(piece.replace(_STARTS_WORD, " ")) for piece in vocabulary]
        allowed, ban = rules.pieces, {plain(word).strip() for word in rules.ban} - {""}
        never_V = torch.tensor([allowed is not None and piece not in allowed for piece in vocabulary])
        not_first_V = torch.tensor(
            [rules.new_word and not (p.startswith(_STARTS_WORD) or (p and set(p) <= _CLOSING_MARKS)) for p in vocabulary]
        )
        longest = max(map(len, ban), default=0)
        if ban:
            never_V |= torch.tensor([any(part in ban for part in _parts(text, longest)) for text in texts])
        for token in may_always:
            never_V[token] = not_first_V[token] = False
        return cls(texts, never_V, not_first_V, _endings(texts, ban, longest))


def _parts(text: str, longest: int) -> Iterable[str]:
    return (text[start:end] for start in range(len(text)) for end in range(start + 1, min(len(text), start + longest) + 1))


def _endings(texts: Sequence[str], ban: set[str], longest: int) -> dict[str, Tensor]:
    by_start: dict[str, list[int]] = {}
    for token, text in enumerate(texts) if ban else ():
        for end in range(1, min(len(text), longest) + 1):
            by_start.setdefault(text[:end], []).append(token)
    found: dict[str, set[int]] = {}
    for word in ban:
        for cut in range(1, len(word)):
            if tokens := by_start.get(word[cut:]):
                found.setdefault(word[:cut], set()).update(tokens)
    return {beginning: torch.tensor(sorted(tokens)) for beginning, tokens in found.items()}


class RuledPieces(LogitsProcessor):
    """Takes the chance of what the rules forbid. `width` is the number of ids that each row starts with, `primers` their texts.

    Where nothing at all may be written the end token `end` may, whatever the length that was asked for.
    """

    def __init__(self, masks: PieceMasks, primers: Sequence[str], width: int, end: int):
        self._masks, self._width, self._end = masks, width, end
        self._longest = max(map(len, masks.endings), default=0)
        self._primers = [plain(primer) for primer in primers]

    def __call__(self, input_ids: Tensor, scores_BV: Tensor) -> Tensor:
        masks = self._masks
        forbidden_V = masks.never_V
        if input_ids.shape[1] == self._width:
            forbidden_V = forbidden_V | masks.not_first_V
        scores_BV = scores_BV.masked_fill(forbidden_V.to(scores_BV.device), -torch.inf)
        if masks.endings:
            for row, ids in enumerate(input_ids[:, self._width :].tolist()):
                for tokens in self._completing(self._primers[row] + "".join(masks.texts[i] for i in ids)):
                    scores_BV[row, tokens.to(scores_BV.device)] = -torch.inf
        silent_B = scores_BV.isneginf().all(dim=-1)
        scores_BV[:, self._end] = torch.where(silent_B, 0.0, scores_BV[:, self._end])
        return scores_BV

    def _completing(self, text: str) -> Iterable[Tensor]:
        """The pieces that would complete a banned word after this text."""
        text = plain(text)
        for tail in {text, text.rstrip(" ")}:  # a space may stand there already when a piece brings its own
            for length in range(1, min(self._longest, len(tail)) + 1):
                tokens = self._masks.endings.get(tail[-length:])
                if tokens is not None:
                    yield tokens
