"""The register's entries for the tiny world's oracles, which know what a picture should show; `fidelity` and `word_oracle` compute them.

Apart from those two, so that listing metrics loads neither SciPy nor torch.
"""

from __future__ import annotations

from ablations.metrics.base import Metric
from ablations.metrics.register import register

_TINY = "the tiny world alone, at its own 64 px"


def _oracle(name: str, title: str, note: str, needs: tuple[str, ...] = ("images", "scene")) -> Metric:
    return register(
        Metric(
            name=name,
            title=title,
            per="image",
            higher_is_better=True,
            range=(0.0, 1.0),
            needs=needs,
            licence="Apache-2.0 (this project)",
            note=f"{note}; {_TINY}",
        )
    )


FIDELITY = _oracle("fidelity", "Fidelity", "mean of closeness, sharpness and cleanness")
CLOSENESS = _oracle("closeness", "Closeness", "to the high-quality render of the scene")
SHARPNESS = _oracle("sharpness", "Sharpness", "of edges, against the render's")
CLEANNESS = _oracle("cleanness", "Cleanness", "of flat areas: no grain")
SUBJECT_KEPT = _oracle("subject_kept", "Subject kept", "the subject is recognised in the image")
WORDS_DRAWN = _oracle("words_drawn", "Words drawn", "share of the fine prompt's style and quality words that are seen in the image")
STYLE_DRAWN = _oracle("style_drawn", "Style drawn", "the fine prompt's style word is seen in the image")
SUBJECT_IN_TEXT = _oracle("subject_in_text", "Subject in the text", "the prompt that was drawn names the subject", ("texts", "scene"))
