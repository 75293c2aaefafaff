"""Random tables of every dialect and notation give the records that they mean: `tests/helpers/random_tables.py 2000` tries more of them."""

from __future__ import annotations

from helpers.random_tables import try_tables


def test_random_tables_give_the_records_that_they_mean(tmp_path):
    assert try_tables(0, 300, tmp_path) == []
