"""What the parts of a cell cost on this machine: a few training steps, a few pictures and their scores, timed.

Nothing is left behind but the costs; networks, records and libraries are those of a real cell. The first step, picture and score
are not counted: they pay for what is loaded once.
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image

from ablations.cell.drawing.pictures import Sampling, draw_texts
from ablations.cell.loading.data import build_data
from ablations.cell.loading.device import device_of, ready
from ablations.cell.loading.module import build_module
from ablations.cell.refining.keys import image_seed, prompt_seed
from ablations.cell.refining.refine import refine_settings
from ablations.cell.scoring.scorer import Scorer
from ablations.cell.shared import Shared
from ablations.cell.training.fit import make_trainer, total_steps
from ablations.config import Config
from ablations.results.prompts_and_scores import Drawing
from ablations.sweeping.forecast import EvaluationCosts, TrainingCosts
from datamodules.batches import ImagesInOrder, stack_images
from datamodules.cfp import CFPDataModule
from datamodules.records import EvalPrompt
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule
from lightning_modules.settings import Refinement

_STEPS, _PICTURES_ENCODED, _PROMPTS, _SAMPLING_STEPS = 6, 16, 16, 2


@contextmanager
def processor_share() -> Iterator[Callable[[], float]]:
    """What share of its threads' time this process has got since the block began, 0 to 1; 1 where a GPU does the work."""
    wall, used = time.perf_counter(), time.process_time()

    def share() -> float:
        if torch.cuda.is_available():
            return 1.0
        return min(1.0, (time.process_time() - used) / (torch.get_num_threads() * (time.perf_counter() - wall)))

    yield share


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _memory(device: torch.device) -> float:
    """The most memory that this process held of a GPU since the last time; 0 elsewhere."""
    if device.type != "cuda":
        return 0.0
    most = float(torch.cuda.max_memory_reserved(device))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return most


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    started = _now(device)
    work()
    return _now(device) - started


class _Stamps(pl.Callback):
    """The time at the end of each optimiser step."""

    def __init__(self, device: torch.device):
        self._device, self.times = device, [_now(device)]

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_index: int) -> None:
        if trainer.global_step == len(self.times):
            self.times.append(_now(self._device))


@contextmanager
def _silent_lightning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        yield


def _prepare(config: Config, shared: Shared, scratch: Path) -> tuple[PromptRefinerModule, CFPDataModule]:
    """A cell's networks and data; of the tiny world only as many records as the probe needs, of a table all, but none encoded."""
    if config.data.source == "tiny":
        bank = config.loss.clip_bank if config.use_clip else 0
        num_train = min(config.data.num_train, 2 * (config.train.batch_size + bank) + 16)
        data = replace(config.data, cache_dir=None, cache=True, num_train=num_train, num_validation=1)
    else:
        data = replace(config.data, cache_dir=None, cache=False)
        config = replace(config, loss=replace(config.loss, clip_bank=0, hard_negatives=False))
    config = replace(config, output_dir=str(scratch), data=data)
    device = ready(device_of(config))
    module = build_module(config, shared.backbones(config))
    module.backbones.to(device)
    return module, build_data(config, module, lambda line: None)


def probe_training(config: Config, shared: Shared, scratch: Path) -> TrainingCosts:
    """What training of this kind costs, by some steps of it. Raises as a cell does for data and networks that cannot be used."""
    module, data = _prepare(config, shared, scratch)
    device = device_of(config)
    read_seconds = _seconds(device, data.read_records)
    records = data.records
    num_records, num_train = len(records), len(records) - config.data.num_validation
    if config.data.source == "tiny":
        num_records, num_train = config.data.num_train + config.data.num_validation, config.data.num_train
        read_seconds *= num_records / len(records)
    pictures = _time_pictures(config, data, device) if data.encoders else _PictureCosts()
    stamps = _Stamps(device)
    with _silent_lightning():
        data.setup("fit")
        stamps.times = [_now(device)]
        make_trainer(config, _STEPS, [stamps]).fit(module, datamodule=data)
    step_seconds = median(np.diff(stamps.times)[1:])
    if data.encoders and not data.settings.cache:
        encoding = config.train.accumulate * config.train.batch_size * (pictures.open_seconds + pictures.network_seconds)
        step_seconds = max(step_seconds - encoding, 0.1 * step_seconds)
    views = 2 if config.data.random_flip else 1
    return TrainingCosts(
        steps=total_steps(config, num_train // config.train.batch_size),
        step_seconds=float(step_seconds),
        start_seconds=float(stamps.times[1] - stamps.times[0]),
        checkpoint_bytes=12 * sum(parameter.numel() for parameter in module.parameters()),  # weights and AdamW's two moments
        num_records=num_records,
        read_seconds=read_seconds,
        encode_seconds=pictures.open_seconds + views * pictures.network_seconds,
        feature_bytes=views * sum(4 * int(np.prod(shape)) for encoder in data.encoders for shape in encoder.shapes().values()),
        encoders={encoder.name: encoder.digest for encoder in data.encoders},
        memory_bytes=_memory(device),
    )


@dataclass(frozen=True)
class _PictureCosts:
    """Seconds for one picture, plain view: to open it, and in the frozen networks."""

    open_seconds: float = 0.0
    network_seconds: float = 0.0


def _time_pictures(config: Config, data: CFPDataModule, device: torch.device) -> _PictureCosts:
    pictures = ImagesInOrder(data.records, config.data.image_size)
    count = min(_PICTURES_ENCODED, len(data.records))
    started = _now(device)
    images_BCHW = stack_images([pictures[i] for i in range(count)])
    open_seconds = _now(device) - started
    data.encoders[0].encode(images_BCHW)
    network_seconds = sum(_seconds(device, lambda e=encoder: e.encode(images_BCHW)) for encoder in data.encoders)
    return _PictureCosts(open_seconds / count, network_seconds / count)


def probe_evaluation(config: Config, shared: Shared, scratch: Path) -> EvaluationCosts:
    """What refining, drawing and scoring cost, by one rewrite of some prompts and one batch of pictures."""
    module, data = _prepare(config, shared, scratch)
    device, e = device_of(config), config.eval
    if config.data.source != "tiny":
        shared.read_records(config, data)
    prompts = data.eval_prompts("test", min(e.num_prompts, _PROMPTS), e.coarse_length)
    module.to(device).eval()
    coarse = [prompt.coarse_prompt for prompt in prompts]
    token_seconds = _time_tokens(config, module, prompts)

    texts = [coarse[i % len(coarse)] for i in range(e.batch_size)]
    seeds = [image_seed(config.seed, i, 0) for i in range(e.batch_size)]

    def draw(steps: int) -> np.ndarray:
        sampling = Sampling(steps, e.guidance_scale, e.batch_size)
        return draw_texts(module.backbones, module.backbones.text_encoder, texts, seeds, sampling)

    draw(1)
    one = _seconds(device, lambda: draw(1))
    images: list[np.ndarray] = []
    some = _seconds(device, lambda: images.extend(draw(1 + _SAMPLING_STEPS)))
    per_step = max(some - one, 0.0) / _SAMPLING_STEPS
    return EvaluationCosts(
        token_seconds=token_seconds,
        picture_seconds=(one + per_step * (e.steps - 1)) / e.batch_size,
        score_seconds=_time_scores(config, module.backbones, prompts, images),
        picture_bytes=float(np.mean([_png_bytes(image) for image in images])),
        memory_bytes=_memory(device),
    )


def _time_tokens(config: Config, module: PromptRefinerModule, prompts: Sequence[EvalPrompt]) -> float:
    """Seconds for a token of a prompt, by rewriting some at a time."""
    coarse = [prompt.coarse_prompt for prompt in prompts]
    settings = refine_settings(config.prompt_len, replace(config.eval, any_piece=True), "rewrite")
    keys = [(prompt_seed(config.seed, prompt.prompt_id, 0),) for prompt in prompts]
    module.refine(coarse[:1], keys[:1], settings)
    written: list[Refinement] = []
    seconds = _seconds(device_of(config), lambda: written.extend(module.refine(coarse, keys, settings)))
    return seconds / (1 + max(refinement.num_new_tokens for refinement in written)) / len(prompts)


def _time_scores(config: Config, backbones: Backbones, prompts: Sequence[EvalPrompt], images: Sequence[np.ndarray]) -> float:
    """Seconds for the scores of a picture. As in a cell, sets of candidates are compared in about every second condition."""
    drawings, pictures = [], []
    for condition in ("coarse", "fine"):
        for prompt in prompts:
            for candidate in range(config.eval.num_candidates):
                picture = images[len(pictures) % len(images)].copy()
                picture[0, 0] = (len(pictures) % 256, len(pictures) // 256, 0)  # no two are equal: equal ones are scored once
                drawings.append(Drawing(prompt.prompt_id, condition, candidate, prompt.coarse_prompt, prompt.fine_prompt, 0, 0))
                pictures.append(picture)
    stacked = np.stack(pictures)

    def score() -> None:
        Scorer(backbones).score(prompts, drawings, stacked)

    score()
    return _seconds(device_of(config), score) / len(pictures)


def _png_bytes(image: np.ndarray) -> int:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.tell()
