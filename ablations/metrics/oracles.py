"""The register's entries for the tiny world's oracles, which know what a picture should show; `fidelity` and `word_oracle` compute them.

Apart from those two, so that listing metrics loads neither SciPy nor torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ablations.metrics.base import DIVERSITY, Metric
from ablations.metrics.register import register

_TINY = "the tiny world alone, at its own 64 px"
_OWN = "Apache-2.0 (this project)"


def shannon_entropy_bits(classes: Sequence[int] | np.ndarray) -> float:
    """Shannon entropy, in bits, of the shares of the classes seen: 0 (one class) to log2(number of classes).

    The plug-in estimate, which is low by about (classes - 1) / (2 n ln 2) bits for n items: compare equal n only. Raises ValueError
    for no item.
    """
    classes = np.asarray(classes)
    if classes.size == 0:
        raise ValueError("the entropy of no item is not defined")
    counts = np.unique(classes, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _oracle(name: str, title: str, note: str, needs: tuple[str, ...] = ("images", "scene"), **seen: Any) -> Metric:
    return register(
        Metric(
            name=name,
            title=title,
            per="image",
            higher_is_better=True,
            range=(0.0, 1.0),
            needs=needs,
            licence=_OWN,
            note=f"{note}; {_TINY}",
            always=True,
            **seen,
        )
    )


FIDELITY = _oracle(
    "fidelity",
    "Fidelity",
    "mean of closeness, sharpness and cleanness; the render has the fine prompt's style and quality words: closeness to a hidden target",
    shown=True,
    table_note="0 to 1: closeness to a hidden target, the scene rendered with the fine prompt's words, sharpness and cleanness",
    order=10,
)
# Parts of fidelity, which tables need not show beside it.
CLOSENESS = _oracle("closeness", "Closeness", "to the high-quality render of the scene", in_tables=False)
SHARPNESS = _oracle("sharpness", "Sharpness", "of edges, against the render's", in_tables=False)
CLEANNESS = _oracle("cleanness", "Cleanness", "of flat areas: no grain", in_tables=False)
WORDS_DRAWN = _oracle(
    "words_drawn",
    "Words drawn",
    "share of the fine prompt's style and quality words that are seen in the image",
    shown=True,
    table_note="0 to 1: share of the fine prompt's style and quality words that are seen in the image",
    order=20,
)
STYLE_DRAWN = _oracle(
    "style_drawn",
    "Style drawn",
    "the fine prompt's style word is seen in the image",
    shown=True,
    table_note="0 to 1: the fine prompt's style word is seen in the image",
    order=30,
)
SUBJECT_KEPT = _oracle(
    "subject_kept",
    "Subject kept",
    "the subject is recognised in the image",
    shown=True,
    table_note="0 to 1: the subject is recognised in the image",
    order=40,
)
SUBJECT_IN_TEXT = _oracle(
    "subject_in_text",
    "Subject in the text",
    "the prompt that was drawn names the subject",
    ("texts", "scene"),
    shown=True,
    in_tables=False,
    order=50,
)
# A class is no quantity: it is kept for the entropy below, and averaged nowhere.
STYLE_SEEN = register(
    Metric(
        name="style_seen",
        title="Style seen",
        per="image",
        higher_is_better=None,
        range=(0.0, 6.0),
        needs=("images",),
        licence=_OWN,
        note=f"the class of the style that is recognised in the image, a label that is averaged nowhere; {_TINY}",
        always=True,
        in_tables=False,
        is_label=True,
    )
)
STYLE_ENTROPY = register(
    Metric(
        name="style_entropy",
        title="Style entropy",
        per="pictures",
        higher_is_better=True,
        range=(0.0, float(np.log2(7))),
        needs=("images",),
        licence=_OWN,
        note=f"bits: Shannon entropy of style_seen over all pictures of a condition, made by the report; {_TINY}",
        together=shannon_entropy_bits,
        table_note="bits: Shannon entropy of the styles recognised over all prompts and candidates of a seed, none being one; "
        "0 = one for all",
        block=DIVERSITY,
        order=300,
    )
)
