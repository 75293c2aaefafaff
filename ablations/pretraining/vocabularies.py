"""Stage 1: the two vocabularies, a shortened byte-level BPE for OpenCLIP and a Unigram model for T5.

Both know every word of the tiny world as one token and can spell everything else: CLIP's BPE any bytes, T5's Unigram
printable ASCII (what it cannot spell becomes <unk>, as in the real T5).
"""

from __future__ import annotations

import gzip
import json
import math
import string
from collections import Counter
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

# How OpenCLIP's SimpleTokenizer splits a text before it merges.
_CLIP_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
NUM_SENTINELS = 32


def train_clip_merges(texts: list[str], path: Path) -> int:
    """Write the merges as OpenCLIP reads them (gzip, a header line, one merge a line); returns the vocabulary's size."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_CLIP_PATTERN), "removed", invert=True)
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=2000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False)
    )
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    lines = ["#version: 0.2", *(" ".join(merge) if isinstance(merge, list) else merge for merge in merges)]
    # A fixed time stamp: the same texts give the same bytes.
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    return 2 * 256 + len(merges) + 2


def build_t5_vocabulary(texts: list[str], path: Path) -> int:
    """Write T5's tokenizer (ids: <pad> 0, </s> 1, <unk> 2, sentinels last); returns the vocabulary's size.

    The Unigram pieces are the words themselves, weighted by their frequency, then single characters at a much lower
    weight: the EM training of a Unigram model prefers letters on so small a language.
    """
    splitter = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    counts = Counter(piece for text in texts for piece, _ in splitter.pre_tokenize_str(text))
    total = sum(counts.values())
    pieces = [(piece, math.log(count / total)) for piece, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    alphabet = [c for c in ["▁", *sorted(set(string.printable) - set(string.whitespace))] if c not in counts]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces, *((character, -20.0) for character in alphabet)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>", *(f"<extra_id_{i}>" for i in range(NUM_SENTINELS))])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(path))
    return tokenizer.get_vocab_size()
