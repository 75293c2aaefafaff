"""The metrics as columns of the report's tables: heading, direction, decimals and order. Knows no table and no run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ablations.metrics.register import all_metrics

TINY_IMAGE_SIZE = 64
QUALITY, DIVERSITY = "quality", "diversity"
SHARED_NOISE = "refined_shared_noise"
# Read off the classes that the style oracle saw over all prompts and candidates of a seed: one value per seed.
STYLE_SEEN, STYLE_ENTROPY = "style_seen", "style_entropy"


@dataclass(frozen=True)
class Column:
    """A metric of a table.

    `condition` is "" for the row's own, or the one that the value is always read in. `better` is "higher", "lower" or "" where
    neither is better (such a metric enters no verdict). `digits` are decimals. `block` is the half of a table that it stands in.
    """

    metric: str
    heading: str
    better: str = "higher"
    block: str = QUALITY
    digits: int = 3
    condition: str = ""
    note: str = ""

    @property
    def key(self) -> str:
        """`metric`, or `metric@condition` where the condition is fixed; so that claims can name it."""
        return f"{self.metric}@{self.condition}" if self.condition else self.metric


def _diversity(metric: str, heading: str, note: str) -> list[Column]:
    shared = f"{note}; all candidates of a prompt drawn from one image noise, so that what differs comes from the text"
    return [
        Column(metric, heading, block=DIVERSITY, note=note),
        Column(metric, f"{heading}, shared noise", block=DIVERSITY, condition=SHARED_NOISE, note=shared),
    ]


KNOWN = (
    Column("fidelity", "Fidelity", note="0 to 1: closeness to the high-quality render of the scene, sharpness and cleanness"),
    Column("words_drawn", "Words drawn", note="0 to 1: share of the fine prompt's style and quality words that are seen in the image"),
    Column("style_drawn", "Style drawn", note="0 to 1: the fine prompt's style word is seen in the image"),
    Column("subject_kept", "Subject kept", note="0 to 1: the subject is recognised in the image"),
    Column("clip_score", "CLIP score", digits=2, note="0 to 100: image against the prompt that it was drawn from"),
    Column("clip_score_coarse", "CLIP score, coarse", digits=2, note="0 to 100: image against the coarse prompt"),
    Column("sentence_similarity", "Sentence similarity", note="-1 to 1: cosine of the sentence embeddings of text and coarse prompt"),
    Column("content_words_kept", "Words kept", note="0 to 1: share of the coarse prompt's content words that the text has; 1 if extended"),
    Column("musiq-koniq", "MUSIQ-KonIQ", digits=2),
    Column("dbcnn", "DB-CNN"),
    Column("tres", "TReS", digits=2),
    Column("nima", "NIMA", note="the paper's label is NIMA-TID, but pyiqa's plain `nima` is trained on AVA"),
    Column("nima-vgg16-ava", "NIMA-AVA"),
    Column("musiq-ava", "MUSIQ-AVA"),
    Column(
        STYLE_ENTROPY,
        "Style entropy",
        block=DIVERSITY,
        note="bits: Shannon entropy of the styles recognised over all prompts and candidates of a seed, none being one; 0 = one for all",
    ),
    *_diversity("st_lpips", "ST-LPIPS", "mean perceptual distance between the candidates of a prompt"),
    *_diversity("clip_distance", "CLIP distance", "mean of 1 - cosine between the candidates of a prompt"),
    *_diversity("vendi", "Vendi", "effective number of different images among the candidates of a prompt"),
    Column(
        "vendi_texts",
        "Vendi of texts",
        block=DIVERSITY,
        note="effective number of different texts among the candidates of a prompt, by n-grams; not comparable with Vendi of images",
    ),
    Column(
        "self_bleu", "Self-BLEU", better="lower", block=DIVERSITY, digits=1, note="0 to 100: BLEU of a candidate's text against the others"
    ),
)
# In the scores, but in no table: classes that cannot be averaged, parts of `fidelity`, and what says little.
HIDDEN = frozenset({STYLE_SEEN, "closeness", "sharpness", "cleanness", "subject_in_text", "distinct_1", "distinct_2"})
# No quality measures on pictures as small as the tiny world's.
HIDDEN_IF_TINY = frozenset({"piqe", "entropy"})


def columns_of(per_image: Iterable[str], per_set: Iterable[str], is_tiny: bool, own_condition: str) -> list[Column]:
    """The columns for the metrics that were scored, known ones first, then others as the register describes them.

    per_image, per_set: names of metrics with a value per image, and per set of candidates. Columns at shared noise belong to
    the refined prompts: `own_condition` says which condition the rows are.
    """
    per_image, per_set = set(per_image), set(per_set)
    hidden = HIDDEN | (HIDDEN_IF_TINY if is_tiny else frozenset())
    present = (per_image | per_set) - hidden
    columns = [column for column in KNOWN if column.metric in present and (not column.condition or own_condition == "refined")]
    known = {column.metric for column in KNOWN}
    columns += [_registered(name, is_tiny, QUALITY) for name in sorted((per_image & present) - known)]
    return columns + [_registered(name, is_tiny, DIVERSITY) for name in sorted((per_set & present) - known - per_image)]


def _registered(name: str, is_tiny: bool, block: str) -> Column:
    """The column of a metric as the register of metrics describes it; one that is not there keeps its name and has no direction."""
    metric = all_metrics().get(name)
    if metric is None:
        return Column(name, name, better="", block=block, note="direction not declared: in no verdict" if block == QUALITY else "")
    size = TINY_IMAGE_SIZE if is_tiny else metric.small_below
    better = {True: "higher", False: "lower", None: ""}[metric.higher_is_better_at(size)]
    block = QUALITY if metric.per == "pictures" else block
    return Column(name, metric.title, better=better, block=block, note=metric.note_at(size))
