"""What the cells of one process share: loaded networks, records that were read and checked, and what was drawn and scored before.

A single cell makes one of its own. In a sweep it saves loading and reading for every cell but the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

import lightning_modules
from ablations import metrics as metrics_package
from ablations.cell.drawing.picture_store import PictureStore
from ablations.cell.loading.kept import Kept
from ablations.cell.scoring.score_store import ScoreStore
from ablations.config import Config
from ablations.results.made_by import digest_of_code
from ablations.results.run_folder import cache_folder
from datamodules import tiny_world
from lightning_modules.backbones.backbones import Backbones

_HERE = Path(__file__).parent
_MADE_BY = _HERE.parent / "results" / "made_by.py"
_DRAWING_CODE = (Path(lightning_modules.__file__).parent, _HERE / "refining", _HERE / "drawing", _MADE_BY)
_METRICS = Path(metrics_package.__file__).parent
# The oracles draw the picture that a prompt describes, and know the words that it may use.
_TINY_WORLD = Path(tiny_world.__file__).parent
_SCORING_CODE = (*_DRAWING_CODE, _HERE / "scoring", _METRICS, _TINY_WORLD)
_DRAWING_LIBRARIES = ("torch", "diffusers", "transformers", "open_clip_torch", "numpy")
_SCORING_LIBRARIES = (*_DRAWING_LIBRARIES, "torchvision", "scipy", "pyiqa", "stlpips-pytorch")


@dataclass(frozen=True)
class Stores:
    """Where pictures and scores are looked up and kept.

    With eval.reuse=false there are no `pictures`, and `scores` are kept in memory alone.
    """

    pictures: PictureStore | None
    scores: ScoreStore

    @property
    def reused(self) -> dict[str, int]:
        """How many of each were found rather than made."""
        return {"pictures": self.pictures.reused if self.pictures else 0, "scores": self.scores.reused}


class Shared(Kept):
    """What was loaded, read, drawn and scored for one cell and is there for the next. Not for two cells at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.threads = torch.get_num_threads()
        self._pictures: dict[tuple, PictureStore] = {}
        self._scores: dict[tuple, ScoreStore] = {}

    def stores(self, config: Config, backbones: Backbones) -> Stores:
        """Where the config's pictures and scores are looked up and kept, with nothing counted as reused yet."""
        if not config.eval.reuse:
            return Stores(None, ScoreStore(None, {}))
        root = cache_folder(config)
        machine = _machine(backbones)
        drawn_by, scored_by = _drawn_by(config, machine), _scored_by(machine)
        pictures = self._pictures.setdefault((root, repr(drawn_by)), PictureStore(root, drawn_by))
        scores = self._scores.setdefault((root, repr(scored_by)), ScoreStore(root, scored_by))
        pictures.reused = scores.reused = 0
        return Stores(pictures, scores)


def _machine(backbones: Backbones) -> dict[str, object]:
    """Networks and where they compute: what both pictures and scores depend on."""
    device = backbones.text_to_image.device
    return {
        "weights": backbones.digest,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "matmul": torch.get_float32_matmul_precision(),
    }


def _drawn_by(config: Config, machine: dict[str, object]) -> dict[str, object]:
    return {
        **machine,
        "steps": config.eval.steps,
        "guidance_scale": config.eval.guidance_scale,
        "batch_size": config.eval.batch_size,
        "long_prompts": config.eval.long_prompts,
        "compiled": config.trainer.compile_unet,
        "code": digest_of_code(*_DRAWING_CODE),
        "libraries": {name: metadata.version(name) for name in _DRAWING_LIBRARIES},
    }


def _scored_by(machine: dict[str, object]) -> dict[str, object]:
    return {
        **machine,
        "code": digest_of_code(*_SCORING_CODE, *sorted(_METRICS.glob("*.safetensors"))),
        "libraries": {name: metadata.version(name) for name in _SCORING_LIBRARIES},
    }
