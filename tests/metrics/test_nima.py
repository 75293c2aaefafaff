"""The port of idealo's NIMA against a float64 reference that shares no code with it, and against what a quality measure must do."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from ablations.metrics import nima, weights
from ablations.metrics.base import MetricError
from ablations.metrics.register import metric_named
from ablations.runtime.errors import UserError

AESTHETIC = "weights_mobilenet_aesthetic_0.07.hdf5"


def data_at(*parts: str) -> Path:
    path = Path(os.environ.get("UF_FGTG_TEST_DATA", "/nowhere")).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"UF_FGTG_TEST_DATA does not name a folder with {'/'.join(parts)}")
    return path


def photos(count: int | None = None) -> list[np.ndarray]:
    """The real photos of the test data, uint8 (H, W, 3), of several sizes."""
    with tarfile.open(data_at("images", "cc12m-train-0000.tar")) as tar:
        names = sorted(name for name in tar.getnames() if name.endswith(".jpg"))[:count]
        return [np.asarray(Image.open(io.BytesIO(tar.extractfile(name).read())).convert("RGB")) for name in names]


@pytest.fixture(scope="module")
def random_weights() -> dict[str, np.ndarray]:
    """Arrays of the right shapes for the Keras file, by "LAYER/NAME", with statistics that keep every layer alive."""
    generator = np.random.default_rng(5)
    arrays: dict[str, np.ndarray] = {}

    def kernel(name: str, shape: tuple[int, ...], fan_in: int) -> None:
        arrays[name] = generator.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)

    def batch_norm(layer: str, channels: int) -> None:
        arrays[f"{layer}_bn/gamma"] = generator.uniform(0.7, 1.5, channels).astype(np.float32)
        arrays[f"{layer}_bn/beta"] = generator.normal(0.2, 0.3, channels).astype(np.float32)
        arrays[f"{layer}_bn/moving_mean"] = generator.normal(0, 0.2, channels).astype(np.float32)
        arrays[f"{layer}_bn/moving_variance"] = generator.uniform(0.3, 1.5, channels).astype(np.float32)

    kernel("conv1/kernel", (3, 3, 3, 32), 27)
    batch_norm("conv1", 32)
    channels = 32
    for block, (channels_out, _) in enumerate(nima.BLOCKS, start=1):
        kernel(f"conv_dw_{block}/depthwise_kernel", (3, 3, channels, 1), 9)
        batch_norm(f"conv_dw_{block}", channels)
        kernel(f"conv_pw_{block}/kernel", (1, 1, channels, channels_out), channels)
        batch_norm(f"conv_pw_{block}", channels_out)
        channels = channels_out
    kernel("dense_1/kernel", (channels, 10), 16_000)
    arrays["dense_1/bias"] = generator.normal(0, 0.5, 10).astype(np.float32)
    return arrays


def write_keras(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """A file as Keras's save_weights writes it: LAYER/LAYER/NAME:0."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            layer, _, rest = name.partition("/")
            file[f"{layer}/{layer}/{rest}:0"] = array


@pytest.fixture
def random_folder(tmp_path, random_weights, monkeypatch) -> Path:
    """A folder with random weights under the published name, which pass for the published ones."""
    write_keras(tmp_path / AESTHETIC, random_weights)
    digest = hashlib.sha256((tmp_path / AESTHETIC).read_bytes()).hexdigest()
    monkeypatch.setitem(weights.WEIGHTS, AESTHETIC, dataclasses.replace(weights.WEIGHTS[AESTHETIC], sha256=digest))
    return tmp_path


# The reference: plain NumPy in float64, channels last, as the layers are described in TensorFlow's and Keras's documentation.


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "same": ceil(size / stride) outputs, the odd row of padding at the end."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def windows(x_HWC: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    rows, columns = (same_padding(size, kernel, stride) for size in x_HWC.shape[:2])
    padded = np.pad(x_HWC, (rows, columns, (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(0, 1))[::stride, ::stride]  # H W C k k


def reference_distribution(arrays: dict[str, np.ndarray], pixels_HWC: np.ndarray) -> np.ndarray:
    """NIMA's distribution over the marks of a picture of 224 x 224."""
    w = {name: array.astype(np.float64) for name, array in arrays.items()}

    def normalised(x: np.ndarray, layer: str) -> np.ndarray:
        gamma, beta, mean, variance = (w[f"{layer}_bn/{name}"] for name in ("gamma", "beta", "moving_mean", "moving_variance"))
        return np.clip((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0, 6)

    x = normalised(np.einsum("hwcij,ijcd->hwd", windows(pixels_HWC / 127.5 - 1, 3, 2), w["conv1/kernel"], optimize=True), "conv1")
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    for block, stride in enumerate(strides, start=1):
        kernel_ijc = w[f"conv_dw_{block}/depthwise_kernel"][..., 0]
        x = normalised(np.einsum("hwcij,ijc->hwc", windows(x, 3, stride), kernel_ijc), f"conv_dw_{block}")
        x = normalised(x @ w[f"conv_pw_{block}/kernel"][0, 0], f"conv_pw_{block}")
    head = next(name.partition("/")[0] for name in w if name.startswith("dense"))
    logits = x.mean(axis=(0, 1)) @ w[f"{head}/kernel"] + w[f"{head}/bias"]
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def reference_score(arrays: dict[str, np.ndarray], image_HWC: np.ndarray) -> float:
    # Pillow's nearest neighbour is part of the definition, its rounding of ties too: Keras's load_img uses it.
    pixels = np.asarray(Image.fromarray(image_HWC).resize((224, 224), Image.Resampling.NEAREST))
    return float(reference_distribution(arrays, pixels.astype(np.float64)) @ np.arange(1, 11))


def keras_arrays(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {
            f"{layer}/{name.split('/')[-1].split(':')[0]}": file[layer][name][()]
            for layer in (text.decode() for text in file.attrs["layer_names"])
            for name in (text.decode() for text in file[layer].attrs["weight_names"])
        }


# Agreement


def test_scores_equal_a_float64_reference_on_random_weights_and_pictures_of_any_shape(random_folder, random_weights):
    generator = np.random.default_rng(1)
    for shape in ((224, 224), (300, 451), (64, 64)):
        image = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
        score = metric_named("nima-aesthetic").compute(image[None], folder=random_folder)
        assert score.dtype == np.float64 and score.shape == (1,)
        assert score[0] == pytest.approx(reference_score(random_weights, image), abs=1e-4)


def test_a_network_padded_on_both_sides_would_not_agree(random_folder, random_weights):
    """That the reference tells TensorFlow's padding from PyTorch's: else agreement would say nothing about it."""
    from torch import nn

    network = nima.load(random_folder / AESTHETIC)
    for i, layer in enumerate(network):
        if isinstance(layer, nn.ZeroPad2d) and layer.padding == (0, 1, 0, 1):
            network[i] = nn.ZeroPad2d((1, 0, 1, 0))
    import torch

    image = np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    with torch.inference_mode():
        distribution = network(torch.tensor(image[None]).permute(0, 3, 1, 2).float() / 127.5 - 1)[0].double().numpy()
    assert abs(distribution @ np.arange(1, 11) - reference_score(random_weights, image)) > 1e-3


def test_published_weights_agree_with_the_float64_reference_on_real_photos():
    folder = data_at("nima")
    arrays = keras_arrays(folder / AESTHETIC)
    for image in photos(2):
        score = metric_named("nima-aesthetic").compute(image[None], folder=folder)[0]
        assert score == pytest.approx(reference_score(arrays, image), abs=1e-4)


@pytest.mark.slow
def test_published_weights_rank_photos_above_blurred_and_noised_copies_of_themselves():
    folder, metric = data_at("nima"), metric_named("nima-aesthetic")
    generator = np.random.default_rng(0)

    def noised(image: np.ndarray) -> np.ndarray:
        return np.clip(image + generator.normal(0, 40, image.shape), 0, 255).astype(np.uint8)

    wins = []
    for image in photos():
        blurred = gaussian_filter(image, sigma=(8, 8, 0))
        own, *worse = metric.compute(
            np.stack([image, blurred, noised(image), noised(gaussian_filter(image, sigma=(4, 4, 0)))]), folder=folder
        )
        wins.append([own > value for value in worse])
    assert len(wins) == 32
    blurred, noised_share, both = np.mean(wins, axis=0)
    assert min(blurred, noised_share, both) >= 0.9, (blurred, noised_share, both)


def test_a_score_depends_neither_on_the_batch_nor_on_the_order(random_folder):
    images = np.random.default_rng(2).integers(0, 256, (18, 64, 64, 3), dtype=np.uint8)
    metric = metric_named("nima-aesthetic")
    together = metric.compute(images, folder=random_folder)
    np.testing.assert_allclose(metric.compute(images[::-1], folder=random_folder)[::-1], together, atol=1e-5)
    np.testing.assert_allclose(metric.compute(images[17:], folder=random_folder), together[17:], atol=1e-5)
    assert together.std() > 1e-4


# Files


def test_the_head_may_have_any_number_in_its_name_and_a_saved_model_is_read_too(tmp_path, random_weights):
    renamed = {name.replace("dense_1/", "dense_7/"): array for name, array in random_weights.items()}
    with h5py.File(tmp_path / "model.hdf5", "w") as file:
        for name, array in renamed.items():
            layer, _, rest = name.partition("/")
            file[f"model_weights/{layer}/{layer}/{rest}:0"] = array
    network = nima.load(tmp_path / "model.hdf5")
    np.testing.assert_array_equal(network[-2].bias.numpy(), random_weights["dense_1/bias"])


def test_a_file_that_is_not_this_network_is_refused_by_name(tmp_path, random_weights):
    def refused(arrays: dict[str, np.ndarray], said: str) -> None:
        write_keras(tmp_path / "other.hdf5", arrays)
        with pytest.raises(UserError, match=said):
            nima.load(tmp_path / "other.hdf5")

    without = {name: array for name, array in random_weights.items() if name != "conv_dw_3_bn/beta"}
    refused(without, r"other\.hdf5 has no conv_dw_3_bn/beta")
    refused(random_weights | {"conv_pw_2/kernel": np.zeros((1, 1, 64, 64), np.float32)}, r"conv_pw_2/kernel has shape \(1, 1, 64, 64\)")
    refused(random_weights | {"extra/kernel": np.zeros(3, np.float32)}, "138 arrays where NIMA's MobileNet has 137")
    refused(random_weights | {"dense_2/kernel": np.zeros((4, 4), np.float32)}, "2 dense layers")
    (tmp_path / "page.hdf5").write_text("<html>")
    with pytest.raises(UserError, match=r"page\.hdf5 is not a Keras file"):
        nima.load(tmp_path / "page.hdf5")


def test_building_the_network_leaves_torchs_random_state_alone():
    import torch

    before = torch.random.get_rng_state()
    nima.build()
    assert torch.equal(before, torch.random.get_rng_state())


def test_without_weights_there_is_no_score_but_an_error(tmp_path):
    with pytest.raises(UserError, match=r"weights_mobilenet_technical_0\.11\.hdf5 is missing"):
        metric_named("nima-technical").compute(np.zeros((1, 64, 64, 3), np.uint8), folder=tmp_path)
    with pytest.raises(MetricError, match="metric nima-technical: wants uint8 images"):
        metric_named("nima-technical").compute(np.zeros((1, 64, 64, 3)), folder=tmp_path)
