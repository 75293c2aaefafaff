"""idealo's two NIMA models, technical (trained on TID2013) and aesthetic (trained on AVA): our own port of the MobileNets to PyTorch.

NIMA (Talebi & Milanfar 2018) predicts how people's marks from 1 to 10 are distributed; the score is the mean. pyiqa has neither of these
two models, and what it calls plain `nima` is another network, trained on AVA. The weights are the Keras files that idealo published.

The network is MobileNet v1 (width 1, without its classifier), average pooling, and a dense layer of 10 with softmax. What has to
match Keras for the numbers to match:
- pictures are reduced to 224 x 224 by nearest neighbour, whatever their shape, as `load_img(target_size=...)` does for idealo;
- pixels become x / 127.5 - 1; channels are RGB;
- batch normalisation has eps = 1e-3; activations are ReLU6; convolutions have no bias;
- padding is TensorFlow's "same": at stride 2 and even sizes, one row and column at the bottom and right only, none at the top and left.
  PyTorch's padding=1 would shift every layer after it. Keras 2.1.6, which wrote the files, padded both sides; today's Keras, with which
  idealo's code reads them, pads like TensorFlow, and so do we.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ablations.metrics.base import Inputs, Metric
from ablations.metrics.register import register
from ablations.metrics.weights import path_of
from ablations.runtime.errors import UserError

if TYPE_CHECKING:
    from torch import nn

IMAGE_SIZE = 224
NUM_MARKS = 10
_EPS = 1e-3
# Output channels and stride of the 13 depthwise separable blocks.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
_STEM = 32
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
WEIGHTS_OF = {
    "nima-technical": "weights_mobilenet_technical_0.11.hdf5",
    "nima-aesthetic": "weights_mobilenet_aesthetic_0.07.hdf5",
}


def _metric(name: str, title: str, note: str) -> Metric:
    return register(
        Metric(
            name=name,
            title=title,
            per="image",
            higher_is_better=True,
            range=(1.0, 10.0),
            needs=("images",),
            licence="Apache-2.0 (this project); the weights: Apache-2.0 (idealo)",
            note=note,
            source="Talebi & Milanfar 2018; idealo/image-quality-assessment",
            weights=(WEIGHTS_OF[name],),
            pixels_at_once=sys.maxsize,  # whatever their size, the network sees 224 px
            function=lambda inputs: nima(name, inputs),
        )
    )


TECHNICAL = _metric(
    "nima-technical",
    "NIMA technical (TID)",
    "the model that the paper's label NIMA-TID fits: trained on TID2013's distortions of 25 photos",
)
AESTHETIC = _metric("nima-aesthetic", "NIMA aesthetic (AVA)", "trained on AVA, as pyiqa's nima is, but another network and other weights")


def resized(images_NHWC: np.ndarray) -> np.ndarray:
    """Pictures of any size as the network wants them: uint8 (N, 224, 224, 3), by nearest neighbour, their shape not kept."""
    if images_NHWC.shape[1:3] == (IMAGE_SIZE, IMAGE_SIZE):
        return images_NHWC
    size = (IMAGE_SIZE, IMAGE_SIZE)
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.NEAREST)) for image in images_NHWC])


def build() -> nn.Module:
    """The network with weights that mean nothing: float (N, 3, 224, 224) in [-1, 1] in, a distribution over the marks (N, 10) out."""
    import torch
    from torch import nn

    def convolution(channels_in: int, channels_out: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
        pad = {1: (0, 0, 0, 0), 3: (1, 1, 1, 1)}[kernel] if stride == 1 else (0, 1, 0, 1)  # left, right, top, bottom
        return [
            nn.ZeroPad2d(pad),
            nn.Conv2d(channels_in, channels_out, kernel, stride, groups=groups, bias=False),
            nn.BatchNorm2d(channels_out, eps=_EPS),
            nn.ReLU6(),
        ]

    with torch.random.fork_rng(devices=[]):  # the first weights are drawn, but nothing outside may notice
        layers = convolution(3, _STEM, 3, 2)
        channels = _STEM
        for channels_out, stride in BLOCKS:
            layers += convolution(channels, channels, 3, stride, groups=channels) + convolution(channels, channels_out, 1, 1)
            channels = channels_out
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, NUM_MARKS), nn.Softmax(dim=1)]
        return nn.Sequential(*layers, *head).eval().requires_grad_(False)


def read_keras(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a Keras file of weights by "LAYER/NAME", as in "conv_dw_1/depthwise_kernel". Raises UserError where it is none."""
    import h5py

    arrays: dict[str, np.ndarray] = {}
    try:
        with h5py.File(path, "r") as file:
            # Files of whole models keep the weights in a group of their own.
            root = file.get("model_weights", file)

            def take(name: str, item: object) -> None:
                if isinstance(item, h5py.Dataset):
                    layer, _, array = name.split(":")[0].rpartition("/")
                    arrays[f"{layer.rpartition('/')[2]}/{array}"] = item[()]

            root.visititems(take)
    except OSError as error:
        raise UserError(f"{path} is not a Keras file of weights ({error})") from error
    return arrays


def load(path: Path) -> nn.Module:
    """The network with the weights of a Keras file. Raises UserError where the file is not that of this network."""
    import torch
    from torch import nn

    arrays = read_keras(path)
    network = build()
    names = _layer_names(arrays, path)
    used = 0

    def put(target: torch.Tensor, name: str, axes: tuple[int, ...] | None = None) -> None:
        nonlocal used
        if name not in arrays:
            raise UserError(f"{path} has no {name}: it is not NIMA's MobileNet")
        array = arrays[name] if axes is None or arrays[name].ndim != len(axes) else arrays[name].transpose(axes)
        if array.shape != tuple(target.shape):
            raise UserError(f"{path}: {name} has shape {arrays[name].shape}, which does not fit NIMA's MobileNet")
        target.copy_(torch.from_numpy(np.ascontiguousarray(array)))
        used += 1

    with torch.no_grad():
        for layer in network:
            if isinstance(layer, nn.Conv2d):
                name = next(names)
                # Keras has (height, width, in, out), and (height, width, channels, 1) for depthwise kernels.
                if layer.groups > 1:
                    put(layer.weight, f"{name}/depthwise_kernel", (2, 3, 0, 1))
                else:
                    put(layer.weight, f"{name}/kernel", (3, 2, 0, 1))
            elif isinstance(layer, nn.BatchNorm2d):
                targets = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
                for target, array in zip(targets, _BATCH_NORM, strict=True):
                    put(target, f"{name}_bn/{array}")
            elif isinstance(layer, nn.Linear):
                name = next(names)
                put(layer.weight, f"{name}/kernel", (1, 0))
                put(layer.bias, f"{name}/bias")
    if used != len(arrays):
        raise UserError(f"{path} has {len(arrays)} arrays where NIMA's MobileNet has {used}")
    return network


def _layer_names(arrays: dict[str, np.ndarray], path: Path) -> Iterator[str]:
    """Keras's names of the layers with kernels, from the picture to the marks."""
    yield "conv1"
    for block in range(1, len(BLOCKS) + 1):
        yield f"conv_dw_{block}"
        yield f"conv_pw_{block}"
    # Keras counts dense layers through a whole session: the head may be dense_1 or dense_7.
    heads = [name.partition("/")[0] for name in arrays if name.startswith("dense") and name.endswith("/kernel")]
    if len(heads) != 1:
        raise UserError(f"{path} has {len(heads)} dense layers where NIMA's MobileNet has one")
    yield heads[0]


@functools.cache
def _network(path: Path, device: str) -> nn.Module:
    return load(path).to(device)


def nima(name: str, inputs: Inputs) -> np.ndarray:
    """The mean mark of each picture, 1 (bad) to 10 (good): float64 (N,). `name` is nima-technical or nima-aesthetic.

    Pictures are uint8 (N, H, W, 3) of any size. Raises UserError where the weights are missing.
    """
    import torch

    network = _network(path_of(WEIGHTS_OF[name], inputs.folder), inputs.device)
    with torch.inference_mode():
        pixels_NHWC = torch.tensor(resized(inputs.images_NHWC).copy(), device=inputs.device)
        distribution_NM = network(pixels_NHWC.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return distribution_NM.cpu().double().numpy() @ np.arange(1, NUM_MARKS + 1)
