"""What is read is what was written: digests beside and inside of files, and what killed processes leave half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ablations.runtime.files import (
    SEAL,
    drop,
    is_as_written,
    read_sealed,
    set_aside,
    whole_file_with_digest,
    write_sealed,
)
from ablations.runtime.foreign import Unreadable
from datamodules import files
from datamodules.files import clear_all, clear_dead, whole_file, whole_folder


def gone_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_flipped_bit_beside_its_digest_is_seen_and_a_file_without_one_is_taken(tmp_path):
    path = tmp_path / "last.ckpt"
    with whole_file_with_digest(path) as aside:
        aside.write_bytes(b"\0" * 1000)
    assert is_as_written(path)
    path.write_bytes(b"\0" * 999 + b"\1")
    assert not is_as_written(path)
    (tmp_path / "last.ckpt.sha256").unlink()
    assert is_as_written(path)


def test_a_process_that_is_killed_between_digest_and_name_leaves_a_file_that_is_taken(tmp_path):
    path = tmp_path / "last.ckpt"
    with whole_file_with_digest(path) as aside:
        aside.write_bytes(b"first")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as aside:
        aside.write_bytes(b"second")
        digests = tmp_path / "last.ckpt.sha256"
        digests.write_text(json.dumps([files.file_digest(aside), *json.loads(digests.read_text())[:1]]))
        raise KeyboardInterrupt  # in place of a kill
    assert path.read_bytes() == b"first" and is_as_written(path)


def test_a_file_that_is_set_aside_or_dropped_takes_its_digest_along(tmp_path):
    for name in ("a.ckpt", "b.ckpt"):
        with whole_file_with_digest(tmp_path / name) as aside:
            aside.write_bytes(b"x")
    assert set_aside(tmp_path / "a.ckpt").name == "a.damaged"
    drop(tmp_path / "b.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.damaged"]


def test_a_sealed_document_comes_back_without_its_seal_and_every_other_content_is_refused(tmp_path):
    path = tmp_path / "run.json"
    write_sealed(path, {"metrics": {"fidelity": 0.1 + 0.2, "gone": float("nan")}, "text": "é"})
    assert read_sealed(path) == {"metrics": {"fidelity": 0.1 + 0.2, "gone": None}, "text": "é"}
    path.write_text(path.read_text().replace("0.30000000000000004", "0.3"))
    with pytest.raises(Unreadable, match="its content is not what was written"):
        read_sealed(path)
    assert SEAL in json.loads(path.read_text())
    path.write_text('{"edited": "by hand, and unsealed"}')
    assert read_sealed(path) == {"edited": "by hand, and unsealed"}


@pytest.mark.parametrize("content", [b"", b"[1]", b"7", b'{"a": ', b"[" * 100_000, b"\xff\xfe", b'{"sha256": 3}'])
def test_what_is_no_document_is_one_line(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(Unreadable) as raised:
        read_sealed(tmp_path / "run.json")
    assert "\n" not in str(raised.value)


def test_what_a_process_that_is_gone_left_of_a_file_goes_when_the_file_is_written_again(tmp_path):
    mark = f"{files.PARTIAL}{files._MACHINE}"
    for name in (f"{mark}-{gone_process()}-0123abcd-a.json", f"{mark}-{os.getpid()}-0123abcd-a.json", f"{files.PARTIAL}other-a.json"):
        (tmp_path / name).touch()
    with whole_file(tmp_path / "a.json") as aside:
        aside.write_text("1")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"{mark}-{os.getpid()}-0123abcd-a.json", f"{files.PARTIAL}other-a.json", "a.json"]
    )
    clear_all(tmp_path)  # by the one who alone may write there
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_of_another_machine_and_of_other_files_nothing_goes(tmp_path):
    gone = gone_process()
    theirs = tmp_path / f"{files.PARTIAL}{'0' * 8}-{gone}-0123abcd-export"
    other = tmp_path / f"{files.PARTIAL}{files._MACHINE}-{gone}-0123abcd-other"
    own = tmp_path / f"{files.PARTIAL}old-{files._MACHINE}-{gone}-0123abcd-export"
    for path in (theirs, other, own):
        path.mkdir()
        (path / "file").touch()
    with whole_folder(tmp_path / "export") as aside:
        (aside / "file").touch()
    assert theirs.exists() and other.exists() and not own.exists()
    clear_dead(tmp_path)
    assert theirs.exists() and not other.exists()
