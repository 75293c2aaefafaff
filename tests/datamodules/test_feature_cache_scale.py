"""Claims about the feature cache at the size of the paper's data: forecast, resumption, one writer and many readers."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from filelock import FileLock

from datamodules.feature_cache.building import open_or_build
from datamodules.feature_cache.cache import FeatureCache
from datamodules.progress import duration, track

CFP_ROWS = 81_910


class StandIn:
    """An encoder of tiny shapes whose features say which picture they are of; can stop the process at a picture."""

    name, digest = "latents", "stand-in"

    def __init__(self, stop_at=None, how=None):
        self.stop_at, self.how, self.seen = stop_at, how, []

    def shapes(self):
        return {"latent_mean": (2, 4), "latent_logvar": (3,)}

    def encode(self, images_BCHW):
        number = images_BCHW.flatten(1).amax(1)  # in either view
        if self.stop_at is not None and (number >= self.stop_at).any():
            self.how()
        self.seen.append(len(number))
        values = images_BCHW.flatten(1).sum(1, keepdim=True)
        return {"latent_mean": values[:, :, None].expand(-1, 2, 4), "latent_logvar": values.expand(-1, 3)}


def pictures(count):
    """Picture i holds i on its left half and -2 i on its right."""
    i = torch.arange(count, dtype=torch.float32)[:, None, None, None]
    return torch.cat([i, -2 * i], dim=3).expand(-1, 3, 2, 2)


def make_cache(folder, count, flips=True):
    return FeatureCache(folder, "latents", "stand-in", StandIn().shapes(), count, "pictures", 2, flips)


def build(cache, encoder, batch=8, say=lambda line: None, how=lambda items, total, what: items):
    whole = pictures(cache.num_records)
    open_or_build([cache], [encoder], lambda start=0, end=None: whole[start:end].split(batch), how, say)


def test_the_forecast_of_81910_rows_is_the_size_of_the_files_to_a_percent(tmp_path):
    lines, cache, encoder = [], make_cache(tmp_path, CFP_ROWS), StandIn()
    started = time.monotonic()
    build(cache, encoder, batch=64, say=lines.append)
    seconds = time.monotonic() - started
    size = sum(path.stat().st_size for path in cache.folder.iterdir())
    forecast = float(lines[0].split(": ")[-1].split(" MB")[0]) * 1e6
    print(f"{CFP_ROWS} rows, {size / 1e6:.1f} MB, {seconds:.1f} s")
    assert cache.num_bytes() == 2 * CFP_ROWS * (11 * 4 + 2 * 8)
    assert size == pytest.approx(forecast, rel=0.01) and size == pytest.approx(cache.num_bytes(), rel=0.01)
    assert "about" in lines[1] and "by the first batch" in lines[1]
    assert seconds < 60 and cache.is_valid(full=True)
    last = cache.rows(np.array([0, 1]), np.array([CFP_ROWS - 1, 0]))["latent_mean"]
    assert torch.equal(last[0], torch.full((2, 4), -6.0 * (CFP_ROWS - 1)))


def test_the_papers_features_take_the_stated_gigabytes(tmp_path):
    latents = {"latent_mean": (4, 64, 64), "latent_logvar": (4, 64, 64)}
    vectors = {"image_vectors": (17, 1024), "image_pooled": (1024,)}
    sizes = [FeatureCache(tmp_path, name, "", shapes, CFP_ROWS, "", 512, True).num_bytes() for name, shapes in
             (("latents", latents), ("image_vectors", vectors))]  # fmt: skip
    assert [round(size / 1e9, 1) for size in sizes] == [21.5, 12.1]


@pytest.mark.slow
def test_rows_of_a_killed_process_are_kept_and_not_encoded_again(tmp_path):
    script = f"""
import os, signal
import test_feature_cache_scale as t, datamodules.feature_cache.building as f
f.KEEP_EVERY_S = 0.0
encoder = t.StandIn(40, lambda: os.kill(os.getpid(), signal.SIGKILL))
t.build(t.make_cache(__import__("pathlib").Path({str(tmp_path / "killed")!r}), 100), encoder)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == -signal.SIGKILL, result.stderr
    lines, encoder, cache = [], StandIn(), make_cache(tmp_path / "killed", 100)
    assert not cache.is_valid()
    build(cache, encoder, say=lines.append)
    assert lines[1] == "feature cache: 40 of 100 pictures are there from an earlier run; going on with the others"
    assert sum(encoder.seen) == 2 * 60
    whole = make_cache(tmp_path / "whole", 100)
    build(whole, StandIn())
    for name in ("latent_mean.npy", "latent_logvar.npy", "meta.json"):
        assert (cache.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert [path.name for path in (tmp_path / "killed").iterdir() if path.suffix != ".lock"] == [cache.folder.name]


class Stopped(BaseException):
    """A signal, as `ablations.runtime.stopping` turns one into an exception."""


def stop(error):
    def how():
        raise error

    return how


def test_a_signal_loses_no_batch_that_is_done(tmp_path):
    cache = make_cache(tmp_path, 50)
    with pytest.raises(Stopped):
        build(cache, StandIn(24, stop(Stopped())))
    encoder = StandIn()
    build(cache, encoder)
    assert sum(encoder.seen) == 2 * (50 - 24) and cache.is_valid(full=True)


@pytest.mark.parametrize("damage", ["other key", "truncated", "missing", "torn note"])
def test_a_partial_cache_that_does_not_fit_is_begun_anew(tmp_path, damage):
    cache = make_cache(tmp_path, 50)
    with pytest.raises(Stopped):
        build(cache, StandIn(24, stop(Stopped())))
    folder = tmp_path / f".{cache.folder.name}.partial"
    note, file = folder / "progress.json", folder / "latent_mean.npy"
    if damage == "other key":
        note.write_text(note.read_text().replace(cache.key, "0" * 64))
    elif damage == "torn note":
        note.write_text(note.read_text()[:20])
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-40])
    else:
        file.unlink()
    encoder = StandIn()
    build(cache, encoder)
    assert sum(encoder.seen) == 2 * 50 and cache.is_valid(full=True)


def test_a_batch_size_that_was_changed_between_runs_loses_no_row(tmp_path):
    cache = make_cache(tmp_path, 50)
    with pytest.raises(Stopped):
        build(cache, StandIn(24, stop(Stopped())), batch=8)
    build(cache, StandIn(), batch=7)
    values = cache.rows(np.zeros(50, dtype=np.int64), np.arange(50))["latent_logvar"][:, 0]
    assert torch.equal(values, -6.0 * torch.arange(50))


def test_caches_that_got_differently_far_are_completed_in_one_pass(tmp_path):
    first, second = make_cache(tmp_path, 50), make_cache(tmp_path, 50, flips=False)
    with pytest.raises(Stopped):
        build(first, StandIn(24, stop(Stopped())))
    encoders, passes = [StandIn(), StandIn()], []

    def image_batches(start=0, end=None):
        passes.append(start)
        return pictures(50)[start:end].split(8)

    open_or_build([first, second], encoders, image_batches, lambda items, total, what: items, lambda line: None)
    assert passes == [0] and first.is_valid(full=True) and second.is_valid(full=True)
    assert [sum(encoder.seen) for encoder in encoders] == [2 * (50 - 24), 50]


def test_a_second_process_waits_and_says_for_whom(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.feature_cache.building._SAY_WAITING_EVERY_S", 0.05)
    cache = make_cache(tmp_path, 50)
    with pytest.raises(Stopped):
        build(cache, StandIn(24, stop(Stopped())))
    lock, lines = FileLock(f"{cache.folder}.lock"), []
    lock.acquire()

    def say(line):
        lines.append(line)
        if "still waiting" in line:
            lock.release()

    build(cache, StandIn(), say=say)
    assert lines[0].startswith("feature cache: waiting for latents, which another process is writing (pid ")
    assert lines[0].endswith(", 24 of 50 pictures)") and cache.is_valid()


def test_room_that_unfinished_files_take_already_is_not_asked_for_twice(tmp_path, monkeypatch):
    cache = make_cache(tmp_path, 40_000)
    with pytest.raises(Stopped):
        build(cache, StandIn(39_000, stop(Stopped())), batch=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": cache.num_bytes() // 5})())
    build(cache, StandIn(), batch=1000)
    assert cache.is_valid()


def test_a_disk_that_fills_up_is_one_line_and_keeps_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.feature_cache.building.KEEP_EVERY_S", 0.0)
    cache, pwrite, written = make_cache(tmp_path, 50), os.pwrite, []

    def full(file, content, offset):
        written.append(len(content))
        if len(written) > 28:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(file, content, offset)

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(
        ValueError, match=r"filled the disk of .* after 24 of 50 pictures \(24 are kept\): free some space.*data\.cache_dir"
    ):
        build(cache, StandIn())
    monkeypatch.setattr("os.pwrite", pwrite)
    encoder = StandIn()
    build(cache, encoder)
    assert sum(encoder.seen) == 2 * (50 - 24) and cache.is_valid(full=True)


def test_progress_counts_what_is_left(tmp_path):
    cache, asked = make_cache(tmp_path, 50), []
    with pytest.raises(Stopped):
        build(cache, StandIn(24, stop(Stopped())))

    def how(items, total, what):
        asked.append((total, what))
        return track(items, total, what, lambda line: None, len)

    build(cache, StandIn(), how=how)
    assert asked == [(26, "encoding pictures")]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.4, "3 s"), (1500, "25 min"), (12_000, "3 h 20 min"), (7200, "2 h"), (187_200, "2 days 4 h"), (172_800, "2 days")],
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text
