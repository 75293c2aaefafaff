"""The register's entries for what suits: whether written and drawn words are among those that fit scene and subject in the tiny world.

`style_text`, `added_words` and the scoring stage compute them, without the fine prompt of the moment: several styles suit a scene, and
whichever of them is written is right. The exact ones (`EXACT`) are properties of the refiner, without a sampling error: the probability
of each of the six styles right after a prompt's head and a comma, a product over the style's tokens, renormalised over the six.
`ablations.metrics.references` has the lines to read them against.
"""

from __future__ import annotations

import math
from typing import Any

from ablations.metrics.base import DIVERSITY, QUALITY, UNBOUNDED, Metric
from ablations.metrics.register import register

_OWN = "Apache-2.0 (this project)"
_TINY = "the tiny world alone"


def _fitting(name: str, title: str, note: str, **declared: Any) -> Metric:
    defaults: dict[str, Any] = {"per": "image", "higher_is_better": True, "range": (0.0, 1.0), "needs": ("texts", "scene"), "always": True}
    return register(Metric(name=name, title=title, licence=_OWN, note=f"{note}; {_TINY}", table_note=note, **{**defaults, **declared}))


EXACT = (
    _fitting(
        "style_kl",
        "Style: KL from the truth",
        "bits: Kullback-Leibler divergence of the refiner's probabilities of the six styles after the prompt's head from the world's; "
        "0 = it writes styles as often as they suit",
        per="candidates",
        higher_is_better=False,
        range=(0.0, UNBOUNDED),
        heading="Style KL",
        block=QUALITY,
        shown=True,
        against_controls=False,
        order=200,
    ),
    _fitting(
        "style_fit_probability",
        "Style: probability that it fits",
        "0 to 1: probability that the refiner writes a style that suits the scene after the prompt's head, of all six styles'",
        per="candidates",
        heading="Style fit",
        block=QUALITY,
        shown=True,
        against_controls=False,
        order=201,
    ),
    _fitting(
        "style_entropy_exact",
        "Style: entropy of what is written",
        "bits: entropy of the refiner's probabilities of the six styles after the prompt's head; 0 = always the same one, 2.58 = any",
        per="candidates",
        higher_is_better=None,
        range=(0.0, math.log2(6)),
        heading="Style entropy, exact",
        block=DIVERSITY,
        order=305,
    ),
    _fitting(
        "style_mass",
        "Style: probability of any",
        "0 to 1: probability that one of the six styles comes right after the prompt's head, before the six are renormalised",
        per="candidates",
        higher_is_better=None,
        in_tables=False,
    ),
)
ADDED_WORDS_FIT = _fitting(
    "added_words_fit",
    "Added words that fit",
    "0 to 1: share of the known style and quality words that were added which suit scene and subject, each once and one style; "
    "0 where none was added",
    heading="Added words fit",
    order=210,
)
ADDED_WORDS_RECALL = _fitting(
    "added_words_recall",
    "Fitting words added",
    "0 to 1: fitting words that were added, over the number of them in the fine prompt, at most 1",
    heading="Words recall",
    order=211,
)
WORDS_F1 = _fitting(
    "words_f1",
    "F1 of added words",
    "0 to 1: harmonic mean of recall and of the share of all added phrases, cut and unknown ones too, that fit",
    heading="Words F1",
    order=212,
)
WORDS_F1_OF_CEILING = _fitting(
    "words_f1_of_ceiling",
    "F1 of added words, of its ceiling",
    "words F1 over the mean words F1 of the fine prompts' own first tokens (fine_prefix): 1 = as good as they are at this length",
    range=(0.0, UNBOUNDED),
    heading="F1 of ceiling",
    order=213,
)
PHRASES_CUT = _fitting(
    "phrases_cut",
    "Phrases cut",
    "0 to 1: share of the added phrases that are the beginning of a known one of two words, such as 'oil'",
    higher_is_better=False,
    heading="Phrases cut",
    order=214,
)
DISTINCT_FITTING_STYLES = _fitting(
    "distinct_fitting_styles",
    "Fitting styles written among candidates",
    "number of different styles that suit the scene in the texts of a prompt's candidates",
    per="candidates",
    range=(0.0, UNBOUNDED),
    heading="Fitting styles written",
    order=306,
)
STYLE_FITS = _fitting(
    "style_fits",
    "Style drawn fits",
    "0 to 1: the style that is seen in the image suits the scene, whichever the fine prompt has",
    needs=("images", "scene"),
    shown=True,
    heading="Style fits",
    order=31,
)
QUALITIES_FIT = _fitting(
    "qualities_fit",
    "Fitting qualities drawn",
    "0 to 1: share of the quality words that suit the subject which are seen in the image",
    needs=("images", "scene"),
    shown=True,
    heading="Qualities fit",
    order=32,
)
QUALITY_PRECISION = _fitting(
    "quality_precision",
    "Qualities drawn that fit",
    "0 to 1: share of the quality words seen in the image that suit the subject; 0 where none is seen",
    needs=("images", "scene"),
    heading="Quality precision",
    order=33,
)
ST_LPIPS_FITTING = _fitting(
    "st_lpips_fitting",
    "ST-LPIPS among fitting candidates",
    "mean perceptual distance between those candidates of a prompt whose style suits: diversity at equal quality; "
    "no value for fewer than two",
    per="candidates",
    range=(0.0, UNBOUNDED),
    needs=("images", "scene"),
    heading="ST-LPIPS, fitting",
    order=311,
    at_shared_noise=True,
)
FITTING_STYLES_DRAWN = _fitting(
    "fitting_styles_drawn",
    "Fitting styles drawn among candidates",
    "number of different styles that suit the scene which are seen in the images of a prompt's candidates",
    per="candidates",
    range=(0.0, UNBOUNDED),
    needs=("images", "scene"),
    heading="Fitting styles drawn",
    order=307,
    at_shared_noise=True,
)
