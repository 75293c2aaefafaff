"""Pictures and scores that are kept for other cells are what was written, or made again: nothing that was changed is taken."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ablations.cell.drawing.picture import ORIGINAL, Picture
from ablations.cell.drawing.picture_store import PictureStore
from ablations.cell.scoring.score_store import ScoreStore
from ablations.cell.training.fit import read_curves, usable_curves, write_curves

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
ONE, OTHER = Picture(ORIGINAL, "a cat", 1), Picture(ORIGINAL, "a boat", 1)


def kept(store: PictureStore, picture: Picture):
    return store._path(picture)


@pytest.mark.parametrize("damage", ["zeroed", "another size", "another picture", "without a digest", "of other settings"])
def test_a_kept_picture_that_was_changed_is_as_good_as_not_there(tmp_path, caplog, damage):
    store = PictureStore(tmp_path, {"steps": 2})
    store.put(ONE, PIXELS)
    store.put(OTHER, PIXELS[::-1])
    path = kept(store, ONE)
    content = path.read_bytes()
    if damage == "zeroed":
        path.write_bytes(content[:2000] + bytes(64) + content[2064:])
    elif damage == "another size":
        Image.new("RGB", (64, 32)).save(path)
    elif damage == "another picture":
        path.write_bytes(kept(store, OTHER).read_bytes())
    elif damage == "without a digest":
        Image.fromarray(PIXELS).save(path)
    else:
        more = PictureStore(tmp_path, {"steps": 3})
        more.put(ONE, PIXELS[::-1])
        path.write_bytes(kept(more, ONE).read_bytes())
    assert store.get(ONE) is None and store.reused == 0
    assert "the picture is drawn again" in caplog.text
    store.put(ONE, PIXELS)
    assert np.array_equal(store.get(ONE), PIXELS) and path.read_bytes() == content


@pytest.mark.parametrize("damage", ["flipped", "another metric's", "rows of another width", "of another format"])
def test_kept_scores_that_were_changed_are_computed_again(tmp_path, caplog, damage):
    for metric, value in (("fidelity", 1.0), ("piqe", 2.0)):
        ScoreStore(tmp_path, {}).remember(metric, ["a", "b"], lambda positions, value=value: np.full(len(positions), value))
    store = ScoreStore(tmp_path, {})
    (path,) = store.folder.glob("fidelity-*.npz")
    if damage == "flipped":
        content = bytearray(path.read_bytes())
        content[content.index(np.float64(1.0).tobytes())] ^= 1
        path.write_bytes(bytes(content))
    elif damage == "another metric's":
        path.write_bytes(next(store.folder.glob("piqe-*.npz")).read_bytes())
    elif damage == "rows of another width":
        np.savez(path, keys=np.array(["a", "b"]), rows=np.ones((2, 7)))
    else:
        path.write_bytes(b"PK\x03\x04" + bytes(60))
    assert store.remember("fidelity", ["b"], lambda positions: np.full(1, 3.0)).tolist() == [[3.0]]
    assert store.reused == 0 and "its scores are computed again" in caplog.text


@pytest.mark.parametrize("names", [("embedding", "embedding-tiny"), ("a", "a-b-c"), ("style", "style_fits")], ids=" and ".join)
def test_a_metric_whose_name_begins_with_anothers_has_scores_of_its_own(tmp_path, caplog, names):
    for name, value in zip(names, (1.0, 2.0), strict=True):
        ScoreStore(tmp_path, {}).remember(name, ["a"], lambda positions, value=value: np.full(len(positions), value))
    for order in (names, names[::-1]):
        store = ScoreStore(tmp_path, {})
        found = {name: store.remember(name, ["a"], lambda positions: np.full(len(positions), np.nan)) for name in order}
        assert [found[name].item() for name in names] == [1.0, 2.0] and store.reused == 2
    assert not caplog.text


@pytest.mark.parametrize("content", [b"", b"step,loss\n1,", b"step,loss\n1,0.5\n2,0.", b"\x00" * 40, b"loss\n0.5\n"])
def test_half_a_curve_is_set_aside_aloud(tmp_path, content):
    path, said = tmp_path / "metrics.csv", []
    write_curves(path, [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])
    assert read_curves(path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    path.write_bytes(content)
    assert usable_curves(path, said.append) == []
    assert (tmp_path / "metrics.damaged").read_bytes() == content and not path.exists()
    (line,) = said
    assert line.startswith(f"training: {path} is damaged (") and line.endswith("it is set aside as metrics.damaged, and its rows are lost")
