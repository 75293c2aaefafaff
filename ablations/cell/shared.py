"""What the cells that one process runs share: loaded networks, records that were read and checked, and what was drawn before.

A single cell makes a workshop of its own. In a sweep it saves loading and reading for every cell but the first.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import torch

import lightning_modules
from ablations import metrics as metrics_package
from ablations.cell.drawing.picture_store import PictureStore
from ablations.cell.scoring.score_store import ScoreStore
from ablations.config import Config
from ablations.results.made_by import digest_of_code
from datamodules import tiny_world
from datamodules.cfp import CFPDataModule
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.backbones.loading import load_backbones
from lightning_modules.backbones.sources import PaperSources

_HERE = Path(__file__).parent
_MADE_BY = _HERE.parent / "results" / "made_by.py"
_DRAWING_CODE = (Path(lightning_modules.__file__).parent, _HERE / "refining", _HERE / "drawing", _MADE_BY)
_METRICS = Path(metrics_package.__file__).parent
# The oracles draw the picture that a prompt describes, and know the words that it may use.
_TINY_WORLD = Path(tiny_world.__file__).parent
_SCORING_CODE = (*_DRAWING_CODE, _HERE / "scoring", _METRICS, _TINY_WORLD)
_DRAWING_LIBRARIES = ("torch", "diffusers", "transformers", "open_clip_torch", "numpy")
_SCORING_LIBRARIES = (*_DRAWING_LIBRARIES, "torchvision", "scipy", "pyiqa", "stlpips-pytorch")


def backbones_key(config: Config) -> tuple:
    """What decides about the config's networks: the arguments of `load_backbones`, in order."""
    b = config.backbones
    return config.profile, b.dir, b.init, 0, PaperSources.named(b.image_model, b.open_clip, b.t5), b.frozen_dtype


class Workshop:
    """Loads once what several cells need. Not for two cells at a time."""

    def __init__(self) -> None:
        self.threads = torch.get_num_threads()
        self._backbones: tuple[tuple, Backbones] | None = None
        self._records: tuple[tuple, object] | None = None
        self._pictures: dict[tuple, PictureStore] = {}
        self._scores: dict[tuple, ScoreStore] = {}

    def backbones(self, config: Config) -> Backbones:
        """The config's networks, of which the last ones are kept. Raises as `load_backbones` does."""
        key = backbones_key(config)
        if self._backbones is None or self._backbones[0] != key:
            self._backbones = self._records = None  # two sets of networks need not fit in memory
            self._backbones = key, load_backbones(*key)
        backbones = self._backbones[1]
        backbones.text_to_image.set_speed(checkpoint=config.trainer.checkpoint_unet, compile=config.trainer.compile_unet)
        return backbones

    def read_records(self, config: Config, data: CFPDataModule) -> None:
        """Have `data` read its source, or use what an earlier cell read from it. Raises as `CFPDataModule.setup` does."""
        d = config.data
        key = (d.source, d.images, d.num_train, d.num_validation, d.image_size, d.clean_captions, d.max_bad_fraction, bool(data.encoders))
        if self._records is not None and self._records[0] == key:
            data.use_records(self._records[1])
        else:
            self._records = key, data.read_records()

    def stores(self, config: Config, backbones: Backbones) -> tuple[PictureStore | None, ScoreStore]:
        """Where the config's pictures and scores are looked up and kept; nowhere, but within the cell, with eval.reuse=false."""
        if not config.eval.reuse:
            return None, ScoreStore(None, {})
        root = Path(config.data.cache_dir or f"{config.output_dir}/cache")
        device = backbones.text_to_image.device
        machine = {
            "weights": backbones.digest,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "matmul": torch.get_float32_matmul_precision(),
        }
        drawn_by = {
            **machine,
            "steps": config.eval.steps,
            "guidance_scale": config.eval.guidance_scale,
            "batch_size": config.eval.batch_size,
            "long_prompts": config.eval.long_prompts,
            "compiled": config.trainer.compile_unet,
            "code": digest_of_code(*_DRAWING_CODE),
            "libraries": {name: metadata.version(name) for name in _DRAWING_LIBRARIES},
        }
        scored_by = {
            **machine,
            "code": digest_of_code(*_SCORING_CODE, *sorted(_METRICS.glob("*.safetensors"))),
            "libraries": {name: metadata.version(name) for name in _SCORING_LIBRARIES},
        }
        pictures = self._pictures.setdefault((root, repr(drawn_by)), PictureStore(root, drawn_by))
        scores = self._scores.setdefault((root, repr(scored_by)), ScoreStore(root, scored_by))
        pictures.reused = scores.reused = 0
        return pictures, scores
