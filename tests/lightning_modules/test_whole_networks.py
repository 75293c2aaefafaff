"""Files of networks that are damaged, or were never fetched, are one line before anything is loaded."""

from __future__ import annotations

import json
import shutil

import pytest

from lightning_modules.backbones.tiny import TINY, load_tiny_backbones
from lightning_modules.backbones.whole_files import DIGESTS, note_digests, require_no_pointer, require_whole

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 14556232\n"


@pytest.fixture
def networks(tmp_path):
    return shutil.copytree(TINY, tmp_path / "tiny")


def test_the_networks_that_come_with_the_package_are_whole():
    require_whole(TINY)
    noted = json.loads((TINY / DIGESTS).read_text())
    assert set(noted) == {path.relative_to(TINY).as_posix() for path in TINY.rglob("*") if path.is_file()} - {DIGESTS, "provenance.json"}


@pytest.mark.parametrize("name", ["unet.safetensors", "configs/t5.json", "t5_tokenizer.json", "clip_merges.txt.gz"])
def test_a_flipped_bit_is_one_line_that_names_the_file(networks, name):
    content = bytearray((networks / name).read_bytes())
    content[len(content) // 2] ^= 1
    (networks / name).write_bytes(bytes(content))
    with pytest.raises(ValueError, match=rf"{name} is damaged \(its bytes are not those that were written\): get it anew") as raised:
        load_tiny_backbones(networks)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("with_digests", [True, False])
def test_a_pointer_of_git_lfs_is_told_as_what_it_is(networks, with_digests):
    if not with_digests:
        (networks / DIGESTS).unlink()
    (networks / "vae.safetensors").write_bytes(POINTER)
    with pytest.raises(ValueError, match=r"vae\.safetensors is a Git LFS pointer and not the file itself: fetch it by git lfs pull"):
        load_tiny_backbones(networks)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"{" * 3000])
def test_without_digests_a_torn_file_is_one_line_too(networks, content):
    (networks / DIGESTS).unlink()
    (networks / "t5.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"t5\.safetensors cannot be read \(SafetensorError") as raised:
        load_tiny_backbones(networks)
    assert "\n" not in str(raised.value)


def test_what_nobody_noted_is_not_compared_and_damaged_notes_are_said(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"1")
    require_whole(tmp_path, ["weights.bin", "absent.bin"])
    note_digests(tmp_path, ["weights.bin"])
    require_no_pointer(tmp_path / "weights.bin")
    (tmp_path / "weights.bin").write_bytes(b"2")
    with pytest.raises(ValueError, match=r"weights\.bin is damaged"):
        require_whole(tmp_path)
    (tmp_path / DIGESTS).write_text("[")
    with pytest.raises(ValueError, match=r"digests\.json is damaged: get the folder anew"):
        require_whole(tmp_path)
