"""How different the candidates of one prompt are: their pictures (ST-LPIPS, CLIP distance, Vendi score) and their texts
(distinct-n, self-BLEU, Vendi score over n-grams).

Every function takes the candidates of a single prompt and gives one number; none depends on the candidates' order.
Diversity alone is no merit: pictures that have nothing to do with the prompt are diverse too.

The Vendi score is a function of a kernel, and there are two here: cosine of image embeddings, and cosine of n-gram counts. Both
count "effective different items", but what counts as different is the kernel's own; one must not be read against the other.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ablations.metrics.base import UNBOUNDED, Metric, MetricError, at_least_two, checked_embeddings, checked_images, checked_scores
from ablations.metrics.register import register

# The network pads by reflection and fails from 16 px downwards; below 64 px its last features are 7 x 7 or smaller.
ST_LPIPS_MIN_SIDE = 64
# Pictures that go through its trunk at a time on a GPU.
_TRUNK_AT_ONCE = 16
_OWN = "Apache-2.0 (this project)"

ST_LPIPS = register(
    Metric(
        name="st_lpips",
        title="ST-LPIPS among candidates",
        per="candidates",
        higher_is_better=True,
        range=(0.0, UNBOUNDED),
        needs=("images",),
        licence="stlpips-pytorch: BSD-2-Clause; its blur layer: CC BY-NC-SA 4.0",
        note=f"pictures below {ST_LPIPS_MIN_SIDE} px are enlarged to {ST_LPIPS_MIN_SIDE} px",
        source="Ghildyal & Liu 2022",
        always=True,
        shown=True,
        against_controls=False,
        heading="ST-LPIPS",
        table_note="mean perceptual distance between the candidates of a prompt",
        order=310,
        at_shared_noise=True,
    )
)
CLIP_DISTANCE = register(
    Metric(
        name="clip_distance",
        title="CLIP distance among candidates",
        per="candidates",
        higher_is_better=True,
        range=(0.0, 2.0),
        needs=("image_embeddings",),
        licence=_OWN,
        note="mean of 1 - cosine over pairs",
        always=True,
        shown=True,
        against_controls=False,
        heading="CLIP distance",
        table_note="mean of 1 - cosine between the candidates of a prompt",
        order=320,
        at_shared_noise=True,
    )
)
VENDI = register(
    Metric(
        name="vendi",
        title="Vendi score of candidates",
        per="candidates",
        higher_is_better=True,
        range=(1.0, UNBOUNDED),
        needs=("image_embeddings",),
        licence=_OWN,
        note="effective number of different pictures: 1 to the number of candidates; kernel: cosine of CLIP image embeddings",
        source="Friedman & Dieng 2023",
        always=True,
        shown=True,
        against_controls=False,
        heading="Vendi",
        table_note="effective number of different images among the candidates of a prompt",
        order=330,
        at_shared_noise=True,
    )
)
VENDI_TEXTS = register(
    Metric(
        name="vendi_texts",
        title="Vendi score of candidates' texts",
        per="candidates",
        higher_is_better=True,
        range=(1.0, UNBOUNDED),
        needs=("texts",),
        licence=_OWN,
        note="effective number of different texts; kernel: mean cosine of the counts of words and of word pairs. Not comparable with "
        "the Vendi score of pictures; of extended prompts the added words alone",
        source="Friedman & Dieng 2023",
        always=True,
        heading="Vendi of texts",
        table_note="effective number of different texts among the candidates of a prompt, by n-grams; not comparable with Vendi of images",
        order=340,
    )
)
SELF_BLEU = register(
    Metric(
        name="self_bleu",
        title="Self-BLEU of texts",
        per="candidates",
        higher_is_better=False,
        range=(0.0, 100.0),
        needs=("texts",),
        licence=_OWN,
        note="BLEU-4 of each text against the others, as sacrebleu's sentence BLEU: 100 = all alike; of extended prompts the "
        "added words alone",
        source="Zhu et al. 2018; Post 2018",
        always=True,
        heading="Self-BLEU",
        table_note="0 to 100: BLEU of a candidate's text against the others",
        digits=1,
        order=350,
    )
)
DISTINCT = {
    n: register(
        Metric(
            name=f"distinct_{n}",
            title=f"Distinct-{n} of texts",
            per="candidates",
            higher_is_better=True,
            range=(0.0, 1.0),
            needs=("texts",),
            licence=_OWN,
            note="different words, or pairs of words, over all; of extended prompts the added words alone",
            source="Li et al. 2016",
            always=True,
            shown=n == 2,
            against_controls=False,
            in_tables=False,
            order=360 + n,
        )
    )
    for n in (1, 2)
}


@functools.cache
def _st_lpips_network(device: str):
    from stlpips_pytorch import stlpips

    network = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False).to(device)
    return network.eval().requires_grad_(False)


def st_lpips(images_NHWC: np.ndarray, device: str = "cpu") -> float:
    """Mean ST-LPIPS (AlexNet trunk) over all pairs of candidates; 0 for equal pictures.

    Args:
        images_NHWC: the N >= 2 candidates' pictures, uint8 (N, H, W, 3). Where the shorter side is below 64 px all are
            enlarged (bicubic) until it is 64: values are comparable at one picture size only.

    Equals the mean of `stlpips_pytorch`'s own distances, but takes each picture through the trunk once, not once a pair.
    Raises MetricError for fewer than 2 pictures. Source: Ghildyal & Liu, "Shift-tolerant Perceptual Similarity Metric", 2022.
    """
    return float(st_lpips_of_sets([images_NHWC], device)[0])


def st_lpips_of_sets(sets: Sequence[np.ndarray], device: str = "cpu") -> np.ndarray:
    """`st_lpips` of several sets of candidates, each uint8 (N, H, W, 3) with an N of its own: float64 (len(sets),).

    On a GPU several sets go through the trunk at a time, as many pictures as `_TRUNK_AT_ONCE` or one set; on a CPU, where that saves
    nothing, one, so that a set's value is the same bit for bit whatever is scored beside it. Raises as `st_lpips` does.
    """
    most = 1 if device == "cpu" else _TRUNK_AT_ONCE
    sets = [checked_images(images, ST_LPIPS.name) for images in sets]
    for images in sets:
        at_least_two(len(images), ST_LPIPS.name)
    found: list[float] = []
    start = 0
    while start < len(sets):
        stop, count = start + 1, len(sets[start])
        while stop < len(sets) and sets[stop].shape[1:] == sets[start].shape[1:] and count + len(sets[stop]) <= most:
            count += len(sets[stop])
            stop += 1
        found += _st_lpips_of_alike(sets[start:stop], device)
        start = stop
    return np.array(found)


def _st_lpips_of_alike(sets: Sequence[np.ndarray], device: str) -> list[float]:
    """The mean distance of the pairs of each set; all pictures are of one size, and go through the trunk together."""
    import torch
    from stlpips_pytorch.utils import normalize_tensor

    network = _st_lpips_network(device)
    images_NHWC = np.concatenate(sets)
    images_NCHW = torch.from_numpy(np.ascontiguousarray(images_NHWC.transpose(0, 3, 1, 2))).to(device).float() / 127.5 - 1
    height, width = images_NCHW.shape[2:]
    if min(height, width) < ST_LPIPS_MIN_SIDE:
        scale = ST_LPIPS_MIN_SIDE / min(height, width)
        size = (round(height * scale), round(width * scale))
        images_NCHW = torch.nn.functional.interpolate(images_NCHW, size=size, mode="bicubic", align_corners=False).clamp(-1, 1)
    starts = np.cumsum([0, *(len(images) for images in sets)])
    pairs = [(start + i, start + j) for images, start in zip(sets, starts, strict=False) for i, j in _pairs(len(images))]
    with torch.inference_mode():
        distances = torch.zeros(len(pairs), dtype=torch.float64)
        for layer, features in enumerate(network.net(network.scaling_layer(images_NCHW))):
            features = normalize_tensor(features)
            # Pair by pair: all pairs at once would hold N (N - 1) / 2 copies of the largest feature map.
            means = [network.lins[layer]((features[i : i + 1] - features[j : j + 1]) ** 2).mean() for i, j in pairs]
            distances += torch.stack(means).double().cpu()
    ends = np.cumsum([len(_pairs(len(images))) for images in sets])
    return [float(part.mean()) for part in np.split(checked_scores(distances.numpy(), ST_LPIPS.name), ends[:-1])]


def _pairs(count: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(count), 2))


def clip_distance(embeddings_NE: object) -> float:
    """Mean of 1 - cosine over all pairs of the N >= 2 candidates' image embeddings (N, E); 0 (equal) to 2 (opposite)."""
    vectors = checked_embeddings(embeddings_NE, CLIP_DISTANCE.name)
    at_least_two(len(vectors), CLIP_DISTANCE.name)
    cosines = (vectors @ vectors.T)[np.triu_indices(len(vectors), k=1)]
    return float(np.clip(1 - cosines, 0, 2).mean())


def vendi(embeddings_NE: object) -> float:
    """The Vendi score of the N >= 2 candidates' image embeddings (N, E) under the cosine kernel: 1 (all equal) to N (orthogonal).

    VS = exp(- sum_i l_i log l_i),  l_i the eigenvalues of K / N,  K_jk = cos(x_j, x_k)

    Source: Friedman & Dieng, "The Vendi Score: A Diversity Evaluation Metric for Machine Learning", TMLR 2023.
    """
    vectors = checked_embeddings(embeddings_NE, VENDI.name)
    at_least_two(len(vectors), VENDI.name)
    return _vendi_of_kernel(vectors @ vectors.T)


def _vendi_of_kernel(kernel_NN: np.ndarray) -> float:
    """The Vendi score under a positive semidefinite kernel whose diagonal is 1."""
    eigenvalues = np.linalg.eigvalsh(kernel_NN / len(kernel_NN))
    # Rounding takes zeros below zero; they carry no weight either way.
    eigenvalues = eigenvalues[eigenvalues > 0]
    eigenvalues = eigenvalues / eigenvalues.sum()
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def vendi_texts(texts: Sequence[str]) -> float:
    """The Vendi score of the N >= 2 candidates' texts under an n-gram kernel: 1 (all equal) to N (no word in common).

    K_jk = mean over n = 1, 2 of cos(c_n(x_j), c_n(x_k)),  c_n(x) the counts of the n-grams of `words(x)`

    the n-gram kernel of Friedman & Dieng, TMLR 2023 (theirs runs to n = 4, which prompts of a few words do not have). It knows no
    meaning: synonyms are as different as any two words. Raises MetricError where a text has fewer than 2 words.
    """
    _several_texts(texts, VENDI_TEXTS.name)
    kernel_NN = np.zeros((len(texts), len(texts)))
    for n in (1, 2):
        counts = [Counter(_ngrams(words(text), n)) for text in texts]
        if not all(counts):
            raise MetricError(VENDI_TEXTS.name, f"text {[bool(count) for count in counts].index(False)} has fewer than {n} words")
        columns = {gram: column for column, gram in enumerate(dict.fromkeys(itertools.chain.from_iterable(counts)))}
        counts_NG = np.zeros((len(texts), len(columns)))
        for row, count in enumerate(counts):
            counts_NG[row, [columns[gram] for gram in count]] = list(count.values())
        counts_NG /= np.linalg.norm(counts_NG, axis=1, keepdims=True)
        kernel_NN += counts_NG @ counts_NG.T / 2
    return _vendi_of_kernel(kernel_NN)


def words(text: str) -> list[str]:
    """The words that distinct-n counts: runs of letters and digits, case folded ("close-up" is two words)."""
    return re.findall(r"\w+", text.casefold())


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words over all n-grams of the N >= 2 candidates' texts together: above 0 to 1 (none repeats).

    n is 1 or 2. Hand in the words that were added rather than whole prompts to leave the shared coarse prompt out of it.
    Raises MetricError where no text has n words. Source: Li et al., "A Diversity-Promoting Objective Function for Neural
    Conversation Models", 2016.
    """
    if n not in DISTINCT:
        raise ValueError(f"distinct-n is defined here for n = 1 and 2, not {n!r}")
    _several_texts(texts, DISTINCT[n].name)
    grams = [gram for text in texts for gram in _ngrams(words(text), n)]
    if not grams:
        raise MetricError(DISTINCT[n].name, f"no text has {n} word{'s' if n > 1 else ''}")
    return len(set(grams)) / len(grams)


# BLEU's n-grams have at most this many tokens.
_BLEU_ORDER = 4
# mteval-v13a: these stand alone; a full stop or a comma unless it is within a number; a hyphen where it follows a digit.
_STANDS_ALONE = re.compile(r"([!-&(-+:-@/\[-`{-~])")
_POINT_AFTER, _POINT_BEFORE = re.compile(r"([^0-9])([.,])"), re.compile(r"([.,])([^0-9])")
_DIGIT_HYPHEN = re.compile(r"([0-9])(-)")
_ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}


def bleu_tokens(text: str) -> list[str]:
    """The tokens that self-BLEU counts: those of mteval-v13a, sacrebleu's default. Case stays; punctuation is a token of its own."""
    line = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES.items():
        line = line.replace(entity, character)
    line = _STANDS_ALONE.sub(r" \1 ", f" {line} ")
    line = _POINT_BEFORE.sub(r" \1 \2", _POINT_AFTER.sub(r"\1 \2 ", line))
    return _DIGIT_HYPHEN.sub(r"\1 \2 ", line).split()


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU-4 of each of the N >= 2 candidates' texts with the others as its references: 0 to 100 (all alike); lower is more diverse.

    BLEU = BP exp( 1/O sum_{n <= O} log p_n ),  O = min(4, tokens of the text)

    with p_n the share of the text's n-grams that a reference has, each counted at most as often as in the reference that has it
    most; where none is there, 1 / (2^k n-grams) for the k-th such n; and BP = exp(1 - r / c) where the text, c tokens long, is
    shorter than the reference nearest to it in length, r. These are sacrebleu's sentence BLEU at its defaults (tokens 13a, case kept,
    smoothing exp, effective order) and its values.

    Raises MetricError for a text without a token. Source: Zhu et al., "Texygen", SIGIR 2018; Papineni et al. 2002; smoothing:
    Chen & Cherry 2014, method 3; tokens and defaults: Post, "A Call for Clarity in Reporting BLEU Scores", 2018.
    """
    _several_texts(texts, SELF_BLEU.name)
    tokens = [bleu_tokens(text) for text in texts]
    if not all(tokens):
        raise MetricError(SELF_BLEU.name, f"text {[bool(part) for part in tokens].index(False)} has no word")
    return sum(_bleu(own, tokens[:i] + tokens[i + 1 :]) for i, own in enumerate(tokens)) / len(tokens)


def _bleu(own: list[str], references: list[list[str]]) -> float:
    logarithms, any_match, misses = [], False, 0
    for n in range(1, min(_BLEU_ORDER, len(own)) + 1):
        counts = Counter(_ngrams(own, n))
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= Counter(_ngrams(reference, n))
        matched, total = (counts & most).total(), counts.total()
        any_match |= matched > 0
        misses += matched == 0
        logarithms.append(math.log(matched / total if matched else 1 / (2**misses * total)))
    if not any_match:
        return 0.0
    nearest = min((len(reference) for reference in references), key=lambda length: (abs(length - len(own)), length))
    brevity = min(0.0, 1 - nearest / len(own))
    return 100 * math.exp(brevity + sum(logarithms) / len(logarithms))


def _ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def _several_texts(texts: Sequence[str], metric: str) -> None:
    if isinstance(texts, str):
        raise MetricError(metric, "wants a list of texts, got one text")
    at_least_two(len(texts), metric)
