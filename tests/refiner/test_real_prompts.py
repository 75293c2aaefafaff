"""Prompts of real users through the pipe: what is written has no character that the training texts lack, and unknown words are right."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ablations import PromptRefiner
from ablations.refiner.pipe import records
from ablations.refiner.session import RefiningSettings

# Row of the file: the words of its prompt that the training texts have, and how many others it has, each counted once. Checked by hand.
BY_HAND = {
    **{643: ("in at night", 7), 1433: ("city art", 3), 1206: ("a at night in", 6), 1881: ("a book", 4), 453: ("comic book a", 5)},
    **{
        440: ("beautiful painting in a meadow", 4),
        1333: ("a beautiful giant", 4),
        517: ("a cat", 6),
        284: ("a on", 5),
        187: ("a focus", 8),
    },
    **{1083: ("a highly detailed", 8), 385: ("cat in painting", 6), 471: ("in the mountains art detailed", 3)},
    **{1136: ("cinematic art detailed", 5), 1773: ("an art detailed", 8), 314: ("robot the a", 7), 67: ("in the desert", 7)},
    **{
        1660: ("cat cinematic detailed", 5),
        1838: ("a old", 6),
        1040: ("a giant in the at sunset", 3),
        1077: ("a tree", 2),
        1001: ("a cat", 5),
    },
    **{
        219: ("a beautiful painting in the oil", 5),
        1789: ("art cinematic", 5),
        485: ("in", 6),
        1864: ("oil painting art", 1),
        592: ("", 5),
    },
    **{1381: ("art on highly detailed", 7), 1997: ("an old", 3), 247: ("tree's", 5)},
}


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    path = Path(os.environ.get("UF_FGTG_TEST_DATA", "/nowhere")) / "prompts" / "imagereward_refl_data.json"
    if not path.is_file():
        pytest.skip("UF_FGTG_TEST_DATA does not name a folder with prompts/imagereward_refl_data.json")
    return [" ".join(row["text"].splitlines()) for row in json.loads(path.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def embedded() -> PromptRefiner:
    return PromptRefiner.embedded(device="cpu")


@pytest.mark.parametrize("row", BY_HAND)
def test_unknown_words_are_those_of_a_check_by_hand(prompts, embedded, row):
    known, count = BY_HAND[row]
    unknown = embedded.unknown_words(prompts[row])
    assert len(unknown) == count
    assert not {word.casefold() for word in unknown} & set(known.split())
    assert all(word in prompts[row].casefold() for word in known.split())
    assert all(word in prompts[row] for word in unknown)


@pytest.mark.parametrize("mode", ["extend", "rewrite"])
def test_no_candidate_of_a_real_prompt_has_a_character_that_the_training_texts_lack(prompts, embedded, mode):
    """100 rows a mode, evenly over the file; docs/refining.md says how many were run once."""
    characters = {character for piece in embedded.seen.pieces for character in piece.replace("\u2581", " ")}
    lines = (prompt.encode() for prompt in prompts[::100])
    settings = RefiningSettings(num_candidates=1, mode=mode, max_new_tokens=12)
    found = list(records(lines, embedded, settings))
    assert len(found) == 100 and all(record["status"] == "ok" for record in found)
    for record in found:
        (candidate,) = record["candidates"]
        written = candidate["new_text"]
        for source in record["passed_through"]:
            written = written.replace(source, "", 1)
        assert set(written) <= characters, candidate
        if mode == "extend":
            assert written[:1] in " ," or record["coarse"][-1:].isspace(), candidate
