"""What a refiner read in training: gathered from records, written, read, and asked for unknown words."""

from __future__ import annotations

import json

import pytest

from ablations.results import seen_words
from ablations.results.seen_words import SeenWords
from ablations.runtime.errors import UserError
from datamodules.records import CFPRecord

RECORDS = [
    CFPRecord(0, "a Castle, oil painting\u200b", ("a castle",)),
    CFPRecord(1, "a Castle, oil painting\u200b", ("a castle", "an old castle", "the old castle's tower")),
]


def split(texts: list[str]) -> set[str]:
    return {piece for text in texts for piece in text.split()}


def test_words_are_those_of_all_texts_and_pieces_those_of_the_fine_ones_that_can_be_seen():
    seen = seen_words.gather(RECORDS, split, "d")
    assert seen.words == {"a", "an", "the", "castle", "old", "tower", "oil", "painting"}
    assert seen.pieces == {"a", "Castle,", "oil"}  # a zero-width space is in the other one
    assert (seen.num_fine, seen.num_coarse, seen.data) == (1, 3, "d")


def test_unknown_words_come_as_they_were_typed_each_once_and_in_order():
    seen = SeenWords(frozenset({"a", "castle", "8k"}), frozenset(), "d", 1, 1)
    assert seen.unknown("A zebra's Castle, 8K; Zebra castles 9 zebra") == ("zebra's", "castles", "9")
    assert seen.unknown("a castle!") == ()


def test_what_is_written_is_read(tmp_path):
    seen = seen_words.gather(RECORDS, split, "d")
    seen_words.write(tmp_path, seen)
    assert seen_words.read(tmp_path) == seen
    assert seen_words.read(tmp_path / "absent") is None


@pytest.mark.parametrize("content", ["torn", "[]", "{}", '{"format": 2}', '{"format": 1, "words": 3}'])
def test_a_file_that_cannot_be_read_is_one_line_with_the_remedy(tmp_path, content):
    (tmp_path / seen_words.FILE).write_text(content)
    with pytest.raises(UserError, match=r"seen_words.json cannot be read .*: run its cell again, or export it again") as error:
        seen_words.read(tmp_path)
    assert "\n" not in str(error.value)
    assert json.dumps(str(error.value))
