"""Faithfulness: how much of the user's meaning survives refinement. A refiner that wins beauty by forgetting the subject shows it here.

Three readings, each against the coarse prompt: of the picture (CLIP score), of the text as a whole (similarity of sentence
embeddings), and of its words (share of content words kept). For extended prompts the last is 1 by construction, since the user's
words stay verbatim; it tells something of prompts that were rewritten.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablations.metrics.base import Metric, MetricError, checked_embeddings
from ablations.metrics.diversity import words
from ablations.metrics.register import register
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.foreign import is_file, is_folder

_OWN = "Apache-2.0 (this project)"
_AT_ONCE = 16
_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

CLIP_SCORE_COARSE = register(
    Metric(
        name="clip_score_coarse",
        title="CLIP score to the coarse prompt",
        per="image",
        higher_is_better=True,
        range=(0.0, 100.0),
        needs=("images", "texts"),
        licence=f"{_OWN}; the CLIP model's own licence applies",
        note="100 x max(cosine, 0) of the image and the coarse prompt, whatever it was drawn from; comparable within one CLIP model only",
        source="Hessel et al. 2021, scaled by 100 instead of 2.5",
        always=True,
        shown=True,
        heading="CLIP score, coarse",
        table_note="0 to 100: image against the coarse prompt",
        digits=2,
        order=70,
    )
)
SENTENCE_SIMILARITY = register(
    Metric(
        name="sentence_similarity",
        title="Sentence similarity to the coarse prompt",
        per="image",
        higher_is_better=True,
        range=(-1.0, 1.0),
        needs=("texts",),
        licence=f"{_OWN}; the text encoder's own licence applies",
        note="cosine of the sentence embeddings of coarse prompt and drawn text: the pooled feature of the original, frozen text encoder "
        "(OpenCLIP's), or eval.sentence_encoder's, mean-pooled; comparable within one encoder only",
        source="Reimers & Gurevych 2019 (mean pooling)",
        always=True,
        shown=True,
        against_controls=False,
        heading="Sentence similarity",
        table_note="-1 to 1: cosine of the sentence embeddings of text and coarse prompt",
        order=80,
    )
)
CONTENT_WORDS_KEPT = register(
    Metric(
        name="content_words_kept",
        title="Content words kept",
        per="image",
        higher_is_better=True,
        range=(0.0, 1.0),
        needs=("texts",),
        licence=_OWN,
        note="share of the coarse prompt's words, stop words aside, that the drawn text has; 1 for extended prompts by construction; "
        "no value where the coarse prompt has stop words only",
        always=True,
        shown=True,
        against_controls=False,
        heading="Words kept",
        table_note="0 to 1: share of the coarse prompt's content words that the text has; 1 if extended",
        order=90,
    )
)

# English function words: articles, pronouns, prepositions, conjunctions, auxiliaries, and what a cut leaves of contractions. Words that
# say where or how many things are ("above", "behind", "two", "no", "without") are no stop words: they change the picture.
_STOP_WORDS = """
a an the this that these those such i me my mine myself you your yours yourself he him his himself she her hers herself
it its itself we us our ours ourselves they them their theirs themselves who whom whose which what of in on at to for
from with by as into onto upon about and or but nor so if then than because while though although am is are was were be
been being do does did doing done have has had having will would shall should can could may might must there here also
just very too s t d ll m re ve
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


def content_words(text: str) -> list[str]:
    """The different words of a text that are no `STOP_WORDS`, case folded, in order of appearance.

    >>> content_words("The cat and a red Cat in the snow")
    ['cat', 'red', 'snow']
    """
    return [word for word in dict.fromkeys(words(text)) if word not in STOP_WORDS]


def content_words_kept(coarse: str, refined: str) -> float:
    """The share of the coarse prompt's content words that the refined prompt has: 0 (none) to 1 (all).

    Words count as kept where they are there letter by letter, case aside: another form ("cats" for "cat") or a synonym counts as lost.
    Raises MetricError where the coarse prompt has no content word.
    """
    wanted = content_words(coarse)
    if not wanted:
        raise MetricError(CONTENT_WORDS_KEPT.name, f"the coarse prompt {coarse[:60]!r} has no content word")
    there = set(words(refined))
    return sum(word in there for word in wanted) / len(wanted)


def sentence_similarity(coarse_NE: object, refined_NE: object) -> np.ndarray:
    """Cosine of the sentence embeddings of each coarse prompt and its refined prompt, -1 to 1: float64 (N,).

    Args:
        coarse_NE, refined_NE: embeddings (N, E) by one encoder, arrays or tensors, of any length.

    Raises MetricError where they do not match.
    """
    coarse = checked_embeddings(coarse_NE, SENTENCE_SIMILARITY.name)
    refined = checked_embeddings(refined_NE, SENTENCE_SIMILARITY.name)
    if coarse.shape != refined.shape:
        raise MetricError(SENTENCE_SIMILARITY.name, f"embeddings of coarse {coarse.shape} and refined {refined.shape} prompts do not match")
    return np.clip((coarse * refined).sum(axis=1), -1, 1)


class SentenceEncoder:
    """A sentence embedder such as all-MiniLM-L6-v2: a transformer whose last states are averaged over the text's tokens.

    Callable: texts in, embeddings float64 (N, E) out, of any length. Source: Reimers & Gurevych, "Sentence-BERT", 2019. Models that pool
    otherwise (the first token) or add a projection give other values here than their authors' own.
    """

    def __init__(self, name: str, device: str = "cpu"):
        """`name` is a folder, or a hub id OWNER/NAME, that AutoModel reads. Raises UserError, with the remedy, where it cannot."""
        from transformers import AutoModel, AutoTokenizer

        is_local = is_folder(name)
        if problem := problem_of(name):
            raise UserError(_cannot_load(name, problem))
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=is_local)
            self._model = AutoModel.from_pretrained(name, local_files_only=is_local, use_safetensors=True)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise UserError(_cannot_load(name, one_line(error)[:160])) from error
        self._model.to(device).eval().requires_grad_(False)
        self._max_tokens = min(self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", 512))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.concatenate(list(self._embeddings(list(texts))))

    def _embeddings(self, texts: list[str]) -> Iterator[np.ndarray]:
        import torch

        for start in range(0, len(texts), _AT_ONCE):
            part = texts[start : start + _AT_ONCE]
            inputs = self._tokenizer(part, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt")
            inputs = inputs.to(self._model.device)
            with torch.inference_mode():
                states_BSD = self._model(**inputs).last_hidden_state.double()
            mask_BS1 = inputs["attention_mask"].unsqueeze(-1)
            yield ((states_BSD * mask_BS1).sum(dim=1) / mask_BS1.sum(dim=1)).cpu().numpy()


def problem_of(name: str) -> str:
    """Why eval.sentence_encoder=`name` cannot be loaded, as far as its files tell without reading them; "" where nothing is seen."""
    if is_folder(Path(name)):
        lacking = [file for file in _FILES if not is_file(Path(name, file))]
        return f"the folder has no {', '.join(lacking)}" if lacking else ""
    # Anything else is not looked for on the hub, which takes a while where there is no network.
    return "" if _HUB_ID.fullmatch(name) else "there is no such folder"


def require(name: str) -> None:
    """Raises UserError where `problem_of` sees one: before anything is loaded or trained."""
    if problem := problem_of(name):
        raise UserError(_cannot_load(name, problem))


def _cannot_load(name: str, why: str) -> str:
    return (
        f"eval.sentence_encoder={name}: metric {SENTENCE_SIMILARITY.name} cannot be computed ({why}). Remedy: a folder with "
        f"{', '.join(_FILES)}, a hub id within reach, or null for the original text encoder; "
        "or set eval.missing_metrics=skip, and tables will say not available"
    )


@functools.lru_cache(maxsize=1)
def load_sentence_encoder(name: str, device: str = "cpu") -> SentenceEncoder:
    """The sentence encoder called `name`, kept for the next cell. Raises as `SentenceEncoder` does."""
    return SentenceEncoder(name, device)


@dataclass(frozen=True)
class Sentences:
    """What embeds sentences: `encode`, texts in, embeddings (N, E) out. None is the original text encoder or, with a `problem`, nothing."""

    encode: Callable[[Sequence[str]], object] | None = None
    problem: str = ""


def sentences_by(name: str | None, missing: str = "error", device: str = "cpu") -> Sentences:
    """What eval.sentence_encoder=`name` asks for, loaded. `missing` is eval.missing_metrics: with "skip" the problem is returned.

    Raises UserError where the encoder cannot be loaded and is not to be skipped.
    """
    if name is None:
        return Sentences()
    try:
        return Sentences(load_sentence_encoder(name, device))
    except UserError as error:
        if missing == "error":
            raise
        return Sentences(problem=str(error))


def text_scores(
    coarse: Sequence[str], refined: Sequence[str], encode: Callable[[Sequence[str]], object] | None
) -> dict[str, list[float | None]]:
    """`sentence_similarity` and `content_words_kept` of N pairs of texts, by the metric's name; None where a value is not defined.

    `encode` gives the sentence embeddings (M, E) of M texts; each different text is encoded once. Without it there is no similarity.
    """
    kept = [content_words_kept(one, other) if content_words(one) else None for one, other in zip(coarse, refined, strict=True)]
    if encode is None:
        return {CONTENT_WORDS_KEPT.name: kept}
    rows = {text: row for row, text in enumerate(dict.fromkeys([*coarse, *refined]))}
    embeddings_ME = checked_embeddings(encode(list(rows)), SENTENCE_SIMILARITY.name)
    similar = sentence_similarity(embeddings_ME[[rows[text] for text in coarse]], embeddings_ME[[rows[text] for text in refined]])
    return {SENTENCE_SIMILARITY.name: similar.tolist(), CONTENT_WORDS_KEPT.name: kept}
