"""Caption cleaning as the authors of UF-FGTG did it before training."""

from __future__ import annotations

MAX_WORDS = 256
_CLEANING = str.maketrans({**dict.fromkeys(".'!?\"()*#:;~"), "-": " ", "/": " "})


def clean_caption(text: str, max_words: int = MAX_WORDS) -> str:
    """Lower case without most punctuation; commas stay, `-` and `/` become spaces, at most `max_words` words.

    >>> clean_caption("A Close-Up: the (old) Cat's eye,  4K!")
    'a close up the old cats eye, 4k'
    """
    return " ".join(text.lower().translate(_CLEANING).split()[:max_words])
