"""Random pictures of every mode and format show what a viewer shows: `tests/helpers/random_pictures.py 2000` tries more of them."""

from __future__ import annotations

from helpers.random_pictures import FORMATS, try_pictures


def test_random_pictures_show_what_a_viewer_shows():
    problems, tried = try_pictures(0, 300)
    assert problems == []
    assert min(tried.values()) >= 10 and set(tried) == set(FORMATS)
