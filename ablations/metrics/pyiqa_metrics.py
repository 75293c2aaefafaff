"""pyiqa's no-reference metrics that need weights: the paper's six, BRISQUE, NIQE and IL-NIQE.

The numbers are pyiqa's own; what is ours is where the weights come from. Left alone, pyiqa downloads them when a metric is built, first
those of the ImageNet networks that some are made from, then its own, which replace all of the former; it reads them as pickles. Here a
metric is built from the files in the folder of weights alone, all checked, read with `weights_only=True`, and nothing is downloaded.
"""

from __future__ import annotations

import functools
import posixpath
import types
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ablations.metrics.base import UNBOUNDED, Inputs, Metric, MetricError
from ablations.metrics.image_quality import create_quietly
from ablations.metrics.register import register
from ablations.metrics.weights import path_of

_LICENCE = "pyiqa: PolyForm Noncommercial 1.0.0"
_SMALL_BELOW = 256
_MEGAPIXEL = 1024 * 1024


@dataclass(frozen=True)
class _Recipe:
    """How pyiqa builds a metric: its name there, and whether its one file is handed over by path."""

    pyiqa_name: str
    by_path: bool = False


_RECIPES: dict[str, _Recipe] = {}


def _add(
    name: str, title: str, recipe: _Recipe, weights: tuple[str, ...], better: bool, range: tuple[float, float], **declared: Any
) -> Metric:
    _RECIPES[name] = recipe
    return register(
        Metric(
            name=name,
            title=title,
            per="image",
            higher_is_better=better,
            range=range,
            needs=("images",),
            licence=_LICENCE,
            small_below=_SMALL_BELOW,
            weights=weights,
            function=lambda inputs: score(name, inputs),
            **declared,
        )
    )


# The authors' list, in the order of their code. Where the network's last layer is linear nothing bounds the value.
_add(
    "nima",
    "NIMA",
    _Recipe("nima"),
    ("NIMA_InceptionV2_ava-b0c77c00.pth",),
    True,
    (1.0, 10.0),
    note="the paper's label is NIMA-TID, but pyiqa's plain nima is trained on AVA: nima-technical is the model that the label fits",
    source="Talebi & Milanfar 2018, pyiqa",
    table_note="the paper's label is NIMA-TID, but pyiqa's plain `nima` is trained on AVA",
    order=130,
)
_add(
    "musiq-koniq",
    "MUSIQ-KonIQ",
    _Recipe("musiq"),
    ("musiq_koniq_ckpt-e95806b9.pth",),
    True,
    (-UNBOUNDED, UNBOUNDED),
    note="usually 0 to 100; pyiqa's name is musiq",
    table_note="",
    digits=2,
    order=100,
    full_scale=100.0,
    source="Ke et al. 2021, pyiqa",
)
_add(
    "dbcnn",
    "DB-CNN",
    _Recipe("dbcnn"),
    ("DBCNN_KonIQ10k-2de81c0a.pth",),
    True,
    (-UNBOUNDED, UNBOUNDED),
    note="trained on KonIQ; usually 0 to 1",
    table_note="",
    order=110,
    source="Zhang et al. 2020, pyiqa",
    min_side=32,
    pixels_at_once=_MEGAPIXEL,
)
_add(
    "tres",
    "TReS",
    _Recipe("tres"),
    ("tres_koniq-f0502926.pth",),
    True,
    (-UNBOUNDED, UNBOUNDED),
    note="trained on KonIQ; usually 0 to 100; reads 50 crops of 224 px a picture: by far the slowest",
    table_note="",
    digits=2,
    order=120,
    source="Golestaneh et al. 2022, pyiqa",
    pixels_at_once=_MEGAPIXEL // 4,
)
_add(
    "nima-vgg16-ava",
    "NIMA-AVA",
    _Recipe("nima-vgg16-ava"),
    ("NIMA_VGG16_ava-dc4e8265.pth",),
    True,
    (1.0, 10.0),
    order=140,
    source="Talebi & Milanfar 2018, pyiqa",
)
_add(
    "musiq-ava",
    "MUSIQ-AVA",
    _Recipe("musiq-ava"),
    ("musiq_ava_ckpt-e8d3f067.pth",),
    True,
    (1.0, 10.0),
    order=150,
    source="Ke et al. 2021, pyiqa",
)
_add(
    "brisque",
    "BRISQUE",
    _Recipe("brisque", by_path=True),
    ("brisque_svm_weights.pth",),
    False,
    (-UNBOUNDED, UNBOUNDED),
    note="usually 0 to 100; made for photographs",
    source="Mittal et al. 2012, pyiqa",
    min_side=16,
    # One picture at a time, here and below: in a batch a value moves in its fourth digit with the pictures beside it.
    pixels_at_once=1,
)
_add(
    "niqe",
    "NIQE",
    _Recipe("niqe", by_path=True),
    ("niqe_modelparameters.mat",),
    False,
    (0.0, UNBOUNDED),
    note="distance to the statistics of pristine photographs, in blocks of 96 px",
    source="Mittal et al. 2013, pyiqa",
    # One block has no covariance.
    min_side=192,
    pixels_at_once=1,
)
_add(
    "ilniqe",
    "IL-NIQE",
    _Recipe("ilniqe", by_path=True),
    ("ILNIQE_templateModel.mat",),
    False,
    (0.0, UNBOUNDED),
    note="every picture is first resized to 524 x 524",
    source="Zhang et al. 2015, pyiqa",
    pixels_at_once=1,
)
# They compute in float64, or by functions, that Apple's GPUs do not have.
_CPU_INSTEAD_OF_MPS = ("brisque", "niqe", "ilniqe")


def score(name: str, inputs: Inputs) -> np.ndarray:
    """A metric of this module for each picture: float64 (N,); equal to pyiqa's own.

    Pictures are uint8 (N, H, W, 3). Raises MetricError where it does not exist, UserError where weights are missing.
    """
    import torch

    device = "cpu" if inputs.device.startswith("mps") and name in _CPU_INSTEAD_OF_MPS else inputs.device
    model = _model(name, inputs.folder, device)
    pixels_NHWC = torch.tensor(inputs.images_NHWC.copy(), device=device)
    try:
        return model(pixels_NHWC.permute(0, 3, 1, 2).float().div(255)).detach().cpu().double().numpy().reshape(-1)
    except torch.linalg.LinAlgError as error:  # NIQE of a picture without texture: statistics that do not exist
        raise MetricError(name, f"pyiqa cannot compute it of one of {len(inputs.images_NHWC)} pictures ({error})") from error


@functools.cache
def _model(name: str, folder: Path | None, device: str) -> Any:
    from ablations.metrics.register import metric_named

    recipe = _RECIPES[name]
    files = {file: path_of(file, folder) for file in metric_named(name).weights}
    if recipe.by_path:
        return create_quietly(recipe.pyiqa_name, device, pretrained_model_path=str(*files.values()))
    with weights_from(files) as replaced:
        model = create_quietly(recipe.pyiqa_name, device)
    read = {id(parameter) for network in replaced for parameter in network.parameters()}
    if left := [parameter for parameter, tensor in model.net.named_parameters() if id(tensor) not in read]:
        raise MetricError(name, f"pyiqa's weights do not replace {left[0]} and {len(left) - 1} more")
    return model


@contextmanager
def weights_from(files: dict[str, Path]) -> Iterator[list[Any]]:
    """While it lasts, pyiqa builds networks without downloading: it reads `files`, and starts from no ImageNet weights.

    Gives the list of networks whose weights were read; whoever uses it checks that nothing is left as it was drawn at random.
    """
    import timm
    import torch
    import torchvision
    from pyiqa.archs import dbcnn_arch, inception, musiq_arch, nima_arch, tres_arch
    from pyiqa.archs.arch_util import clean_state_dict

    replaced: list[Any] = []

    def load(network: Any, address: str, strict: bool = True, weight_keys: str | None = None) -> None:
        name = urllib.parse.unquote(posixpath.basename(urllib.parse.urlparse(address).path))
        if name not in files:  # DB-CNN's second trunk, which is part of DB-CNN's own file too
            return
        state = torch.load(files[name], map_location="cpu", weights_only=True)
        network.load_state_dict(clean_state_dict(state[weight_keys] if weight_keys else state), strict=True)
        replaced.append(network)

    models = torchvision.models
    named = types.SimpleNamespace
    stand_ins = [(module, "load_pretrained_network", load) for module in (dbcnn_arch, inception, musiq_arch, nima_arch, tres_arch)]
    stand_ins += [
        (nima_arch, "timm", named(create_model=lambda name, pretrained, **options: timm.create_model(name, pretrained=False, **options))),
        (dbcnn_arch, "torchvision", named(models=named(vgg16=lambda weights: models.vgg16(weights=None)))),
        (tres_arch, "models", named(resnet50=lambda weights: models.resnet50(weights=None))),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in stand_ins]
    try:
        for module, name, stand_in in stand_ins:
            setattr(module, name, stand_in)
        with torch.random.fork_rng(devices=[]):  # weights are drawn before they are read; nothing outside may notice
            yield replaced
    finally:
        for module, name, own in before:
            setattr(module, name, own)
