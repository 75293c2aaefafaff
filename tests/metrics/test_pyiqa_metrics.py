"""The metrics by pyiqa against pyiqa's own command line, and against its networks built by hand where their weights cannot be had."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablations.metrics import pyiqa_metrics, weights
from ablations.metrics.base import MetricError
from ablations.metrics.inception_score import inception_score
from ablations.metrics.register import metric_named
from ablations.runtime.errors import UserError


def data_at(*parts: str) -> Path:
    path = Path(os.environ.get("UF_FGTG_TEST_DATA", "/nowhere")).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"UF_FGTG_TEST_DATA does not name a folder with {'/'.join(parts)}")
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> dict[Path, np.ndarray]:
    """Two real photos of different shape as files, and their pixels (H, W, 3)."""
    folder = tmp_path_factory.mktemp("photos")
    found: dict[Path, np.ndarray] = {}
    with tarfile.open(data_at("images", "cc12m-train-0000.tar")) as tar:
        for name in sorted(name for name in tar.getnames() if name.endswith(".jpg")):
            content = tar.extractfile(name).read()
            pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
            if pixels.shape not in {other.shape for other in found.values()}:
                (folder / name).write_bytes(content)
                found[folder / name] = pixels
            if len(found) == 2:
                return found
    raise AssertionError("the test data has photos of one shape only")


def by_command_line(metrics: tuple[str, ...], folder: Path, torch_home: Path) -> dict[str, dict[str, float]]:
    """What `pyiqa METRICS -t FOLDER` prints, by metric and file. Without a network: what it does not find, it cannot download."""
    command = [str(Path(sys.executable).parent / "pyiqa"), *metrics, "-t", str(folder), "--device", "cpu", "--verbose"]
    environment = {**os.environ, "TORCH_HOME": str(torch_home), "HF_HUB_OFFLINE": "1", "https_proxy": "http://127.0.0.1:9"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert result.returncode == 0, result.stderr[-2000:]
    printed = result.stdout[result.stdout.index("\n{") :]
    return ast.literal_eval(re.sub(r"np\.float64\(([^)]*)\)", r"\1", printed).strip())


def linked_weights(torch_home: Path) -> Path:
    """A TORCH_HOME in which pyiqa finds the published weights of the test data."""
    (torch_home / "hub").mkdir()
    (torch_home / "hub" / "pyiqa").symlink_to(data_at("pyiqa_cache"))
    return torch_home


def compare(metrics: tuple[str, ...], photos: dict[Path, np.ndarray], torch_home: Path, folder: Path | None) -> None:
    theirs = by_command_line(metrics, next(iter(photos)).parent, torch_home)
    for name in metrics:
        for path, pixels in photos.items():
            own = metric_named(name).compute(pixels[None], folder=folder)
            assert own.dtype == np.float64 and own.shape == (1,)
            assert own[0] == pytest.approx(theirs[name][str(path)], abs=1e-4), (name, path.name)


@pytest.mark.slow
def test_piqe_entropy_brisque_and_niqe_equal_pyiqas_command_line_on_photos(photos, tmp_path):
    compare(("piqe", "entropy", "brisque", "niqe"), photos, linked_weights(tmp_path), data_at("pyiqa_cache"))


@pytest.mark.slow
def test_ilniqe_equals_pyiqas_command_line_on_a_photo(photos, tmp_path):
    photo, pixels = next(iter(photos.items()))  # one: it takes 15 seconds each time
    (tmp_path / "one").mkdir()
    alone = tmp_path / "one" / photo.name
    alone.write_bytes(photo.read_bytes())
    compare(("ilniqe",), {alone: pixels}, linked_weights(tmp_path), data_at("pyiqa_cache"))


def test_piqe_and_entropy_need_no_weights(tmp_path):
    for name in ("piqe", "entropy"):
        assert np.isfinite(metric_named(name).compute(_noise(1, 64), folder=tmp_path)).all()


@pytest.mark.slow
def test_scores_by_pyiqa_depend_neither_on_the_batch_nor_on_the_order(photos):
    folder = data_at("pyiqa_cache")
    corner = np.stack([pixels[y : y + 224, :224] for pixels in photos.values() for y in (0, 60)])
    for name in ("brisque", "niqe"):
        together = metric_named(name).compute(corner, folder=folder)
        np.testing.assert_allclose(metric_named(name).compute(corner[::-1], folder=folder)[::-1], together, rtol=1e-4)
        alone = np.concatenate([metric_named(name).compute(image[None], folder=folder) for image in corner])
        np.testing.assert_allclose(alone, together, rtol=1e-4)


def test_a_picture_without_texture_has_no_niqe_rather_than_a_made_up_one():
    folder = data_at("pyiqa_cache")
    with pytest.raises(MetricError, match=r"metric niqe: pyiqa cannot compute it of one of 1 pictures"):
        metric_named("niqe").compute(np.stack([_noise(1, 192)[0], np.full((192, 192, 3), 90, np.uint8)]), folder=folder)


def test_a_picture_that_is_too_small_is_refused_by_name(tmp_path):
    with pytest.raises(MetricError, match="metric niqe: wants pictures of at least 192 px a side, got 64 x 64"):
        metric_named("niqe").compute(_noise(1, 64), folder=tmp_path)


def test_without_weights_there_is_no_score_but_an_error_and_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: pytest.fail("downloads"))
    for name in ("brisque", "nima", "inception-score"):
        with pytest.raises(UserError, match="is missing"):
            metric_named(name).compute(_noise(1, 64), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_are_looked_for_where_torch_says_that_pyiqa_keeps_them(monkeypatch, tmp_path):
    import torch

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert weights.weights_folder() == Path(torch.hub.get_dir()) / "pyiqa"


# Networks whose weights cannot be had here: random ones, under the published names, through the same code.


def _noise(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def publish(monkeypatch, path: Path, content: object) -> None:
    """Save weights under a published name and let them pass for the published ones."""
    import torch

    torch.save(content, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(weights.WEIGHTS, path.name, dataclasses.replace(weights.WEIGHTS[path.name], sha256=digest))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments, **_):
        pytest.fail(f"downloads {arguments[0]}")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    yield
    pyiqa_metrics._model.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nima", "musiq-koniq", "dbcnn", "tres", "nima-vgg16-ava", "musiq-ava"])
def test_the_papers_metrics_are_pyiqas_networks_with_the_weights_of_the_file(name, tmp_path, monkeypatch, no_network):
    import torch

    torch.manual_seed(0)  # the networks that are drawn below: some draws of NIMA's give one score to every picture
    with pyiqa_metrics.weights_from({}) as replaced:  # nothing is read: its weights stay as they were drawn
        direct = pyiqa_metrics.create_quietly(pyiqa_metrics._RECIPES[name].pyiqa_name, "cpu")
    assert replaced == []
    for module in direct.net.modules():  # the means and variances that real weights have
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
    state = direct.net.state_dict()
    file = metric_named(name).weights[0]
    publish(monkeypatch, tmp_path / file, {"params": state} if name.startswith(("nima", "dbcnn")) else state)
    before = torch.random.get_rng_state()
    if name == "tres":  # of its 50 crops one is enough to tell networks apart
        direct.net.test_sample = pyiqa_metrics._model(name, tmp_path, "cpu").net.test_sample = 1
    images = _noise(2, 96)
    scores = metric_named(name).compute(images, folder=tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())
    expected = direct(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).double().numpy().reshape(-1)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    assert scores[0] != scores[1]


@pytest.mark.slow
def test_laion_aesthetics_is_the_linear_head_on_the_features_of_clip(tmp_path, monkeypatch, no_network):
    import open_clip
    import torch
    from torch import nn

    torch.manual_seed(0)
    vision = {"layers": 2, "width": 64, "patch_size": 16, "image_size": 32}
    text = {"context_length": 7, "vocab_size": 40, "width": 64, "heads": 1, "layers": 2}
    model = open_clip.CLIP(32, vision, text, quick_gelu=True).eval()
    layers = {
        i: nn.Linear(*shape) for i, shape in zip((0, 2, 4, 6, 7), ((32, 1024), (1024, 128), (128, 64), (64, 16), (16, 1)), strict=True)
    }
    state = {f"layers.{i}.{name}": values for i, layer in layers.items() for name, values in layer.state_dict().items()}
    publish(monkeypatch, tmp_path / "ViT-L-14.pt", model.state_dict())
    publish(monkeypatch, tmp_path / "sac+logos+ava1-l14-linearMSE.pth", state)
    images = _noise(2, 32)
    scores = metric_named("laion-aesthetics").compute(images, folder=tmp_path)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))
    with torch.no_grad():
        features = model.encode_image((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std)
        expected = features / features.norm(dim=1, keepdim=True)
        for layer in layers.values():
            expected = layer(expected)
    np.testing.assert_allclose(scores, expected[:, 0].double().numpy(), atol=1e-3)
    assert abs(scores[0] - scores[1]) > 1e-6


@pytest.mark.slow
def test_the_inception_score_equals_pyiqas_on_a_folder_of_pictures(tmp_path, monkeypatch, no_network):
    import torch
    from pyiqa.archs import inception, inceptionscore_arch

    file = "pt_inception-2015-12-05-6726825d.pth"
    with pyiqa_metrics.weights_from({}):
        network = inception.fid_inception_v3()
    network.fc.weight.data *= 1e8  # a random network's features nearly vanish: else every picture is of every class
    publish(monkeypatch, tmp_path / file, network.state_dict())
    # Noise in blocks of 64, 16, 4 and 1 px: pictures that even random features tell apart.
    images = np.stack([_noise(1, side)[0].repeat(64 // side, axis=0).repeat(64 // side, axis=1) for side in (1, 4, 16, 64)])
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i}.png")
    with pyiqa_metrics.weights_from({file: tmp_path / file}):
        theirs = inceptionscore_arch.InceptionScore()
    result = theirs(str(tmp_path / "pictures"), splits=1, num_workers=0, device=torch.device("cpu"), verbose=False)
    metric = metric_named("inception-score")
    probabilities = metric.compute(images, folder=tmp_path)
    assert probabilities.shape == (4, 1008)
    assert metric.together(probabilities) == pytest.approx(result["inception_score_mean"], abs=1e-4)
    assert result["inception_score_mean"] > 1.01


# The Inception Score itself


def test_the_inception_score_of_known_sets():
    assert inception_score(np.eye(5)) == pytest.approx(5.0)  # five pictures, surely of five classes
    assert inception_score(np.full((6, 4), 0.25)) == pytest.approx(1.0)  # of every class alike
    assert inception_score(np.eye(3)[[0, 0, 0]]) == pytest.approx(1.0)  # all of one class
    # Two pictures at 0.8 and 0.2: KL to the mean (0.5, 0.5) is 0.8 log 1.6 + 0.2 log 0.4 each.
    assert inception_score([[0.8, 0.2], [0.2, 0.8]]) == pytest.approx(np.exp(0.8 * np.log(1.6) + 0.2 * np.log(0.4)))
    assert inception_score(np.eye(4), splits=2) == pytest.approx(2.0)


def test_the_inception_score_cannot_exceed_the_number_of_pictures():
    rows = np.random.default_rng(0).dirichlet(np.full(1008, 1e-3), 8)
    assert 1 <= inception_score(rows) <= 8
    assert inception_score(rows[:4]) <= 4


def test_an_inception_score_of_one_picture_or_of_no_probabilities_is_an_error():
    with pytest.raises(MetricError, match="metric inception-score: wants at least 2 pictures a split, got 1"):
        inception_score(np.eye(3)[:1])
    with pytest.raises(MetricError, match="rows that are not negative and sum to 1"):
        inception_score([[2.0, 1.0], [0.5, 0.5]])
    with pytest.raises(MetricError, match="gave nan for item 1 of 2"):
        inception_score([[1.0, 0.0], [np.nan, 1.0]])
