"""Whatever a path or a JSON is, looking at it raises nothing but what it is documented to raise."""

from __future__ import annotations

import json
import os

import pytest

from ablations.runtime.foreign import MOST_DEPTH, Unreadable, is_file, is_folder, is_there, parse_json, read_json, readable

NO_PATHS = ("x" * 300, "x/" * 3000, "a\0b", "\ud800", "", "/proc/1/root/x")


@pytest.mark.parametrize("path", NO_PATHS, ids=lambda path: repr(path[:12]))
def test_a_path_that_nothing_can_have_is_not_there(path):
    assert (is_file(path), is_folder(path), is_there(path)) == (False, False, False)
    with pytest.raises(FileNotFoundError):
        read_json(path)


def test_a_link_in_a_circle_is_not_there_and_a_folder_is_no_file(tmp_path):
    os.symlink("loop", tmp_path / "loop")
    assert not is_there(tmp_path / "loop") and is_folder(tmp_path) and not is_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[" * 200_000, "nested more than"),
        (b"[" * (MOST_DEPTH + 1) + b"]" * (MOST_DEPTH + 1), "nested more than"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": Infinity}', "Infinity is no number"),
        (b'{"a": 1e999}', "a number in it is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "it is no JSON"),
        (b'{"a": ' + b"9" * 100 + b"}", "a number in it is too large"),
        (b'{"a": "\\ud800"}', "no Unicode"),
        (b'{"\\udfff": 1}', "no Unicode"),
        (b"\xff\xfe\xff", "it is no JSON"),
        (b"", "it is no JSON"),
    ],
)
def test_json_that_nobody_could_use_is_refused_in_a_short_line(content, why):
    with pytest.raises(Unreadable) as caught:
        parse_json(content)
    assert why in str(caught.value) and len(str(caught.value)) < 160 and "\n" not in str(caught.value)


def test_json_of_ours_passes_as_it_is(tmp_path):
    content = {"a": [1, 2.5, None, True, "é漢", {"b": [[1]]}], "seed": 2**64 - 1}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert parse_json(json.dumps(content)) == content == read_json(tmp_path / "a.json", dict)
    with pytest.raises(Unreadable, match="no JSON list"):
        read_json(tmp_path / "a.json", list)
    assert readable("a\udcffb") == "a?b"
