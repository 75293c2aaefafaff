"""Claims about held-out rows: the rows of a prompt stay together, and a line says how many that makes."""

from __future__ import annotations

import pytest

from datamodules.records import CFPRecord
from datamodules.splits import split_table


def records(*rows_of_each_prompt: int) -> list[CFPRecord]:
    prompts = [f"a cat number {number}" for number, rows in enumerate(rows_of_each_prompt) for _ in range(rows)]
    return [CFPRecord(row, prompt, ("a cat",)) for row, prompt in enumerate(prompts)]


def test_as_many_whole_groups_are_held_out_as_fit_and_a_line_says_how_many():
    split = split_table(records(*[3] * 100), 32, None)
    assert (len(split.validation), len(split.distinct["validation"]), len(split.train)) == (30, 10, 270)
    assert split.remark == (
        "30 rows of 10 prompts are held out, not data.num_validation=32: the rows of a prompt stay together, and every other prompt has "
        "3 or more"
    )


def test_a_number_that_fits_is_held_out_exactly_and_without_a_word():
    for sizes in ([1] * 40, [3] * 100, [2, 5, 1, 1, 7, 3, 3]):
        split = split_table(records(*sizes), 9, None)
        assert len(split.validation) == 9 and split.remark == ""
        rows = records(*sizes)
        assert not {rows[i].fine_prompt for i in split.validation} & {rows[i].fine_prompt for i in split.train}


def test_what_was_held_out_stays_where_more_is_asked_for():
    few, more = (split_table(records(*[2] * 60), number, None) for number in (10, 20))
    assert list(more.distinct["validation"][:5]) == list(few.distinct["validation"])


def test_one_prompt_for_all_rows_is_the_reason_that_is_given():
    with pytest.raises(ValueError, match=r"all 50 usable records have the same fine prompt \('a cat number 0'\).*data\.num_validation=0"):
        split_table(records(50), 10, None)
    with pytest.raises(ValueError, match="all 50 usable records have the same fine prompt"):
        split_table(records(50), 50, None)
    assert len(split_table(records(50), 0, None).train) == 50


def test_prompts_with_more_rows_than_may_be_held_out_say_the_number_that_would_do():
    with pytest.raises(
        ValueError, match=r"data\.num_validation=4 holds out nothing: .* each of the 10 prompts has 5 or more; raise it to at least 5"
    ):
        split_table(records(*[5] * 10), 4, None)
    assert len(split_table(records(*[5] * 10), 5, None).validation) == 5


def test_a_source_that_is_too_small_says_so():
    with pytest.raises(ValueError, match=r"data\.num_validation=9 leaves nothing to train on: the source has 9 usable records; lower it"):
        split_table(records(3, 3, 3), 9, None)
    with pytest.raises(ValueError, match=r"leaves nothing to train on: the source has 0 usable records"):
        split_table([], 1, None)
