"""Claims about the feature cache: it holds what the encoder gives, it is made once, and it is never used torn or stale."""

import json
import threading

import numpy as np
import pytest
import torch
from torch import nn

from datamodules.feature_cache.building import open_or_build
from datamodules.feature_cache.cache import DamagedFeaturesError, FeatureCache

NUM_RECORDS, SIZE = 11, 16


class TinyEncoder:
    """A frozen convolution that counts its calls."""

    name = "latents"

    def __init__(self, digest="weights-1", channels=2):
        self.digest, self.calls, self.channels = digest, 0, channels
        self.conv = nn.Conv2d(3, 2 * channels, 4, stride=4)
        generator = torch.Generator().manual_seed(3)
        for parameter in self.conv.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 7

    def shapes(self):
        return {"latent_mean": (self.channels, 4, 4), "latent_logvar": (self.channels, 4, 4)}

    def encode(self, images_BCHW):
        self.calls += 1
        mean, logvar = self.conv(images_BCHW).chunk(2, dim=1)
        return {"latent_mean": mean, "latent_logvar": logvar}


PICTURES = torch.rand(NUM_RECORDS, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def make_cache(folder, encoder, content="pictures-1", flips=True):
    return FeatureCache(folder, encoder.name, encoder.digest, encoder.shapes(), NUM_RECORDS, content, SIZE, flips)


def build(cache, encoder, batch=4, say=lambda line: None, pictures=PICTURES, image_batches=None, **options):
    image_batches = image_batches or (lambda: pictures.split(batch))
    open_or_build([cache], [encoder], image_batches, lambda items, total, what: items, say, **options)


@pytest.fixture
def built(tmp_path):
    encoder = TinyEncoder()
    cache = make_cache(tmp_path, encoder)
    build(cache, encoder)
    return cache


def test_cached_features_equal_encoding_bit_for_bit_at_equal_batch_and_closely_at_any(built):
    encoder = TinyEncoder()
    positions = np.arange(4, 8)
    plain, mirrored = (built.rows(np.full(4, view), positions) for view in (0, 1))
    with torch.no_grad():
        assert torch.equal(plain["latent_mean"], encoder.encode(PICTURES[4:8])["latent_mean"])
        assert torch.equal(mirrored["latent_logvar"], encoder.encode(PICTURES[4:8].flip(-1))["latent_logvar"])
        one = encoder.encode(PICTURES[5:6])["latent_mean"]
    assert (plain["latent_mean"][1:2] - one).abs().max() <= 1e-5


def test_whole_cache_is_used_without_encoding(built):
    encoder = TinyEncoder()
    build(make_cache(built.cache_dir, encoder), encoder, full_check=True)
    assert encoder.calls == 0


def test_cache_without_flips_holds_one_view(tmp_path):
    encoder = TinyEncoder()
    cache = make_cache(tmp_path, encoder, flips=False)
    build(cache, encoder)
    assert encoder.calls == 3
    assert np.load(cache.folder / "latent_mean.npy").shape == (1, NUM_RECORDS, 2, 4, 4)


@pytest.mark.parametrize("change", ["weights", "pictures", "flips"])
def test_other_weights_pictures_or_flips_make_another_cache(built, change):
    encoder = TinyEncoder("weights-2" if change == "weights" else "weights-1")
    other = make_cache(built.cache_dir, encoder, "pictures-2" if change == "pictures" else "pictures-1", flips=change != "flips")
    assert not other.is_valid()
    build(other, encoder)
    assert encoder.calls > 0 and other.folder != built.folder and other.is_valid(full=True) and built.is_valid(full=True)


@pytest.mark.parametrize("damage", ["truncated", "missing", "foreign key", "no meta", "half meta"])
def test_torn_cache_is_rebuilt_and_never_used(built, damage):
    path, meta = built.folder / "latent_mean.npy", built.folder / "meta.json"
    whole = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(whole[:-100])
    elif damage == "missing":
        path.unlink()
    elif damage == "foreign key":
        meta.write_text(meta.read_text().replace(built.key, "0" * 64))
    elif damage == "no meta":
        meta.unlink()
    else:
        meta.write_text(meta.read_text()[:50])
    assert not built.is_valid()
    encoder = TinyEncoder()
    build(make_cache(built.cache_dir, encoder), encoder)
    assert encoder.calls == 6
    assert path.read_bytes() == whole and built.is_valid(full=True)


def part_of_them(start=0, end=None):
    return PICTURES[start:end].split(4)


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def test_a_changed_byte_is_found_when_a_small_cache_is_opened_and_its_batch_alone_is_made_again(built):
    path, lines, encoder = built.folder / "latent_mean.npy", [], TinyEncoder()
    whole = path.read_bytes()
    flip(path, -1)  # of the last record, 10, whose batch holds 8 to 10
    assert built.is_valid() and not built.is_valid(full=True) and not built.is_ready()
    build(
        make_cache(built.cache_dir, encoder),
        encoder,
        image_batches=part_of_them,
        say=lines.append,
    )
    assert encoder.calls == 2 and path.read_bytes() == whole and built.is_valid(full=True)
    assert lines[0] == f"feature cache: {built.folder.name} is damaged (1 of 11 pictures): these are made again"


def test_a_row_of_a_large_cache_is_compared_when_it_is_read_and_made_again_by_the_next_run(built, monkeypatch):
    monkeypatch.setattr("datamodules.feature_cache.cache.CHECKED_AT_ONCE", 0)
    path, encoder = built.folder / "latent_logvar.npy", TinyEncoder()
    whole = path.read_bytes()
    flip(path, -1)
    cache = make_cache(built.cache_dir, encoder)
    assert cache.is_ready()
    cache.rows(np.array([0, 1]), np.array([10, 9]))  # whole rows
    with pytest.raises(DamagedFeaturesError, match=r"latent_logvar of picture 10 in .* is damaged .*: run again, which makes it anew"):
        cache.rows(np.array([0, 1]), np.array([0, 10]))
    build(make_cache(built.cache_dir, encoder), encoder, image_batches=part_of_them)
    assert encoder.calls == 2 and path.read_bytes() == whole
    assert not (built.folder / "damaged").exists()


@pytest.mark.parametrize("damage", ["rows gone", "rows empty", "rows flipped", "rows of another shape"])
def test_digests_of_rows_are_not_trusted_more_than_rows(built, damage):
    path, rows, encoder = built.folder / "latent_mean.npy", built.folder / "latent_mean.rows.npy", TinyEncoder()
    whole = path.read_bytes()
    if damage == "rows gone":
        rows.unlink()
    elif damage == "rows empty":
        rows.write_bytes(b"")
    elif damage == "rows flipped":
        flip(rows, -1)
    else:
        np.save(rows, np.zeros((2, 5), np.uint64))
    build(make_cache(built.cache_dir, encoder), encoder, image_batches=part_of_them)
    assert path.read_bytes() == whole and built.is_valid(full=True) and encoder.calls == (2 if damage == "rows flipped" else 6)


def test_a_cache_from_before_rows_had_digests_is_read_whole_when_it_is_opened(built):
    meta_json = built.folder / "meta.json"
    meta = json.loads(meta_json.read_bytes())
    meta_json.write_text(json.dumps({name: value for name, value in meta.items() if name not in ("rows", "batch")}))
    for path in built.folder.glob("*.rows.npy"):
        path.unlink()
    encoder = TinyEncoder()
    build(make_cache(built.cache_dir, encoder), encoder)
    assert encoder.calls == 0
    flip(built.folder / "latent_mean.npy", -1)
    build(make_cache(built.cache_dir, encoder), encoder)
    assert encoder.calls == 6 and built.is_valid(full=True)


def test_failed_build_leaves_nothing_that_looks_like_a_cache(tmp_path):
    encoder = TinyEncoder()
    cache = make_cache(tmp_path, encoder)

    def broken():
        yield PICTURES[:4]
        raise OSError("a picture vanished")

    with pytest.raises(OSError, match="vanished"):
        open_or_build([cache], [encoder], broken, lambda items, total, what: items, lambda line: None)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    (tmp_path / f".{cache.folder.name}.1.partial").mkdir()  # as a killed process leaves it
    build(cache, encoder)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == [cache.folder]


def test_features_that_are_not_finite_are_refused(tmp_path):
    encoder = TinyEncoder()
    pictures = PICTURES.clone()
    pictures[6] = float("nan")
    with pytest.raises(ValueError, match="encoder latents: latent_mean of picture 6 is not finite"):
        build(make_cache(tmp_path, encoder), encoder, pictures=pictures)


def test_size_is_forecast_and_a_small_disk_stops_before_encoding(tmp_path, monkeypatch):
    encoder, lines = TinyEncoder(), []
    cache = make_cache(tmp_path, encoder)
    assert cache.num_bytes() == 2 * 2 * NUM_RECORDS * (2 * 4 * 4 * 4 + 8)  # a digest of each row, 64 bits
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(ValueError, match=r"data\.cache_dir.*data\.cache=false"):
        build(cache, encoder, say=lines.append)
    assert encoder.calls == 0 and "encoding 11 pictures, plain and mirrored" in lines[0]


def test_two_encoders_are_served_by_one_pass_over_the_pictures(tmp_path):
    encoders = [TinyEncoder("a"), TinyEncoder("b", channels=1)]
    caches = [make_cache(tmp_path, encoder) for encoder in encoders]
    passes = []
    open_or_build(caches, encoders, lambda: passes.append(1) or PICTURES.split(4), lambda items, total, what: items, lambda line: None)
    assert len(passes) == 1 and all(cache.is_valid(full=True) for cache in caches)


def test_of_two_builders_at_once_one_encodes_and_the_other_waits(tmp_path):
    encoders = [TinyEncoder(), TinyEncoder()]
    threads = [threading.Thread(target=build, args=(make_cache(tmp_path, encoder), encoder)) for encoder in encoders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(encoder.calls for encoder in encoders) == [0, 6]
