"""One cell, end to end: data, training, refinement, pictures, scores, diversity grid, run.json."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from rich.table import Table

from ablations import evaluation, rehearsal, scoring
from ablations.arm_module import build_module
from ablations.config import Config, to_flat_dict
from ablations.console import Console
from ablations.diversity_grid import TINY_WORLD_NOTE, draw_grid, loss_curves
from ablations.errors import RunFolderError, UserError
from ablations.evaluation import Drawing
from ablations.metrics.base import NOT_AVAILABLE, all_metrics, metric_named
from ablations.rehearsal import is_rehearsal
from ablations.reuse import PictureStore, ScoreStore
from ablations.run_folder import RunFolder, whole_file, write_atomically
from ablations.stopping import Preempted, StopRequest
from ablations.tracking import Tracker
from ablations.training import CURVES, train
from ablations.workshop import Workshop
from datamodules.cfp import CFPDataModule
from datamodules.records import EvalPrompt
from lightning_modules.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule

# The rows of the table that a cell ends with, best known first.
SHOWN_METRICS = (
    "fidelity",
    "words_drawn",
    "style_drawn",
    "subject_kept",
    "subject_in_text",
    "clip_score",
    "clip_score_coarse",
    "sentence_similarity",
    "content_words_kept",
    "piqe",
    "entropy",
)
SHOWN_DIVERSITY = ("st_lpips", "clip_distance", "vendi", "distinct_2")


@dataclass
class Timings:
    """Seconds by stage."""

    seconds: dict[str, float]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 3)


def device_of(config: Config) -> torch.device:
    """Where the frozen networks encode, draw and score; Lightning moves the trained ones there too."""
    if config.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if config.trainer.accelerator in ("gpu", "cuda"):
        raise UserError(f"trainer.accelerator={config.trainer.accelerator}, but torch sees no CUDA device: use auto or cpu")
    if config.trainer.accelerator in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def require_precision(config: Config, device: torch.device) -> None:
    """Raises UserError for half precision of 5 exponent bits off a GPU: it overflows, and Lightning would take bf16 in its place."""
    if device.type != "cuda":
        if config.train.precision == "16-mixed":
            raise UserError(f"train.precision=16-mixed needs a CUDA GPU, but this runs on {device}: set it to bf16-mixed or 32-true")
        if config.backbones.frozen_dtype == "float16":
            raise UserError(f"backbones.frozen_dtype=float16 needs a CUDA GPU, but this runs on {device}: set it to bfloat16 or float32")


def build_data(
    config: Config, folder: RunFolder, backbones: Backbones, module: PromptRefinerModule, say: Callable[[str], None]
) -> CFPDataModule:
    """The data module of an arm: it caches the frozen features that the arm's losses read, and no others."""
    tiny = config.data.source == "tiny"
    return CFPDataModule(
        source=config.data.source,
        images=config.data.images,
        seed=config.seed,
        tokenize_clip=backbones.tokenize,
        tokenize_t5=backbones.tokenize_t5,
        t5_pad_id=backbones.decoder.tokenizer.pad_token_id,
        count_tokens=backbones.count_tokens,
        encoders=module.feature_encoders,
        cache=config.data.cache,
        cache_dir=config.data.cache_dir or f"{config.output_dir}/cache",
        batch_size=config.train.batch_size,
        num_workers=config.data.num_workers,
        random_flip=config.data.random_flip,
        clean_captions=config.data.clean_captions,
        image_size=config.data.image_size,
        encode_batch_size=config.data.encode_batch_size,
        clip_bank=config.loss.clip_bank if config.use_clip else 0,
        hard_negatives=config.loss.hard_negatives,
        target_len=config.train.target_len,
        max_bad_fraction=config.data.max_bad_fraction,
        manifest_path=folder.path / "manifest.json",
        num_train=config.data.num_train if tiny else None,
        num_validation=config.data.num_validation,
        say=say,
    )


def run_cell(config: Config, stop: StopRequest, workshop: Workshop | None = None, console: Console | None = None) -> dict:
    """Run one cell and return its metrics; a finished one is not run again unless `force` is set.

    `workshop` holds what the cells of this process share; `console` says what happens, as trainer.progress asks if it is None.
    Raises CellBusy where another process runs it, UserError for data that cannot be used, Preempted after a signal, and whatever
    else goes wrong, each time with run.json saying so.
    """
    workshop = workshop or Workshop()
    console = console or Console(config.trainer.progress)
    folder = RunFolder(config)
    with folder.lock():
        if folder.is_finished() and not config.force:
            console.say(f"{folder} is finished already (force=true runs it again)")
            run = folder.read()
            if os.environ.get("WANDB_SWEEP_ID"):
                _track_again(config, folder, run["metrics"])
            _show(console, folder, run["metrics"], config)
            return run["metrics"]
        torch.set_num_threads(config.trainer.threads or workshop.threads)
        folder.start(threads=torch.get_num_threads())
        tracker = Tracker()
        try:
            _start(tracker, config, folder)
            metrics = _run(config, folder, workshop, console, tracker, stop)
        except Preempted as preempted:
            where = str(preempted)
            _close(console, tracker, lambda: folder.preempted(where), preempted.exit_code)
            raise
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            _close(console, tracker, lambda: folder.fail(reason), 1)
            raise
        tracker.finish(exit_code=0)
        return metrics


def _start(tracker: Tracker, config: Config, folder: RunFolder) -> None:
    tracker.start(
        to_flat_dict(config),
        folder.path,
        name=config.wandb.name or str(folder),
        group=config.wandb.group or folder.arm,
        project=config.wandb.project,
        entity=config.wandb.entity,
        mode=config.wandb.mode,
    )


def _track_again(config: Config, folder: RunFolder, metrics: dict) -> None:
    """A W&B agent gave this cell out although it was finished before: its sweep gets the results all the same."""
    tracker = Tracker()
    _start(tracker, config, folder)
    if folder.diversity_grid.exists():
        drawings, images = evaluation.read_drawings(folder.prompts)
        scores = scoring.CellScores(pd.read_parquet(folder.scores), np.empty((0, 0)))
        tracker.log_grid(folder.diversity_grid, scoring.grid_rows(drawings, images, scores, config.eval.grid_prompts))
    tracker.summary(metrics)
    tracker.finish(exit_code=0)


def _close(console: Console, tracker: Tracker, write_status: Callable[[], None], exit_code: int) -> None:
    """Write how the cell ended and close the W&B run; a full disk must not hide why it ended."""
    try:
        write_status()
    except RunFolderError as error:
        console.say(f"run.json could not be written: {error}")
    finally:
        tracker.finish(exit_code=exit_code)


def _run(config: Config, folder: RunFolder, workshop: Workshop, console: Console, tracker: Tracker, stop: StopRequest) -> dict:
    timings, reused = Timings({}), {}
    console.say(f"cell {folder}, in {folder.path}")
    device = device_of(config)
    require_precision(config, device)
    further = scoring.further_metrics(config) if config.eval.num_prompts else None
    for name, why in further.required.unavailable.items() if further else ():
        console.say(f"metric {name}: {NOT_AVAILABLE}: {why}")
    with timings.stage("backbones"):
        try:
            backbones = workshop.backbones(config)
        except (ValueError, FileNotFoundError) as error:
            raise UserError(str(error)) from error
        digest = backbones.digest
        if config.data.image_size != backbones.text_to_image.image_size:
            size = backbones.text_to_image.image_size
            raise UserError(f"data.image_size={config.data.image_size}, but the UNet was trained for {size} px: set data.image_size={size}")
        backbones.to(device)
        module = build_module(config, backbones)
        if backbones.commits:
            folder.record(commits=backbones.commits)
        if is_rehearsal(config):
            _rehearsal_begins(folder, console, module)
    stop.check("loading the backbones")
    with timings.stage("data"):
        try:
            data = build_data(config, folder, backbones, module, console.say)
            workshop.read_records(config, data)
            data.setup("fit")
            epoch = data.batches_per_epoch
            # Before the training, so that a mistake here costs no training.
            count = config.eval.num_prompts
            prompts = data.eval_prompts("test", count, config.eval.coarse_length) if count else []
        except (ValueError, FileNotFoundError) as error:
            raise UserError(str(error)) from error
        console.say(f"data: {epoch} batches an epoch, {len(prompts)} evaluation prompts")
        folder.record(digests={"data": data.digest, "weights": digest})
        if prompts and (problem := scoring.sentences_for(config, backbones).problem):
            console.say(f"metric sentence_similarity: {NOT_AVAILABLE}: {problem}")
    if is_rehearsal(config):
        _rehearsal_of_gradients(config, folder, console, module, data)
    with folder.training_lock(say=console.say), timings.stage("training"):
        training = train(config, folder, module, data, console, tracker, stop)
    if is_rehearsal(config) and not training["reused"]:
        seconds, peak = training["seconds"] / training["steps"], rehearsal.peak_memory(device)
        console.say(f"rehearsal: {seconds:.1f} s a step, peak memory {rehearsal.shown_memory(peak)}")
        folder.record(seconds_per_step=seconds, peak_memory_gb=peak)
    metrics: dict = {"training": {"steps": training["steps"]}}
    reused["training"] = training["reused"]
    curves = folder.training_path / CURVES
    if curves.exists():
        write_atomically(folder.metrics_csv, curves.read_bytes())
        with whole_file(folder.path / "loss_curves.png") as aside:
            loss_curves(folder.metrics_csv, aside, title=f"{folder.train_id}, seed {folder.seed}")
    if prompts:
        pictures, known_scores = stores = workshop.stores(config, backbones)
        metrics |= _evaluate(config, folder, backbones, module, prompts, stores, further, console, tracker, stop, timings)
        reused |= {"pictures": pictures.reused if pictures else 0, "scores": known_scores.reused}
    tracker.summary(metrics)
    folder.finish(metrics, timings.seconds, reused=reused)
    _show(console, folder, metrics, config)
    return metrics


def _rehearsal_begins(folder: RunFolder, console: Console, module: PromptRefinerModule) -> None:
    parts = rehearsal.parameters_by_part(module)
    folder.record(rehearsal=True, parameters=parts)
    console.say("rehearsal: random weights at full size, T5's pieces made up; no score of it means anything, and no table takes it in")
    console.table(rehearsal.parameter_table(parts))


def _rehearsal_of_gradients(config: Config, folder: RunFolder, console: Console, module: PromptRefinerModule, data: CFPDataModule) -> None:
    norms = rehearsal.gradient_norms(module, data, config.train.precision)
    for term, parts in norms.items():
        console.say(f"gradient of {term}: " + ", ".join(f"{norm:.3g} at {part}" for part, norm in parts.items()))
    folder.record(gradient_norms=norms)


def _evaluate(
    config: Config,
    folder: RunFolder,
    backbones: Backbones,
    module: PromptRefinerModule,
    prompts: list[EvalPrompt],
    stores: tuple[PictureStore | None, ScoreStore],
    further: scoring.FurtherMetrics | None,
    console: Console,
    tracker: Tracker,
    stop: StopRequest,
    timings: Timings,
) -> dict:
    module.to(backbones.text_to_image.device).eval()
    with timings.stage("refining"):
        console.say(f"refining {len(prompts)} prompts, {config.eval.num_candidates} candidates each")

        def untrained() -> PromptRefinerModule:
            return build_module(config, backbones).to(module.device).eval()

        drawings = evaluation.plan_drawings(module, untrained, prompts, config.prompt_len, config.eval, config.seed)
    stop.check("refining")
    with timings.stage("drawing"):
        images = evaluation.draw(
            backbones, drawings, config.eval, console.track, lambda: stop.check("drawing"), module.text_encoder, stores[0]
        )
        evaluation.save_pictures(folder.path, drawings, images)
    write_atomically(folder.prompts, "".join(json.dumps(_prompt_line(d), ensure_ascii=False) + "\n" for d in drawings))
    with timings.stage("scoring"):
        by = stores[1], further, scoring.sentences_for(config, backbones)
        scores = scoring.score(backbones, prompts, drawings, images, console.say, lambda: stop.check("scoring"), *by)
    with whole_file(folder.scores) as aside:
        scores.table.to_parquet(aside, index=False)
    if config.eval.grid_prompts:
        rows = scoring.grid_rows(drawings, images, scores, config.eval.grid_prompts)
        with whole_file(folder.diversity_grid) as aside:
            draw_grid(rows, aside, title=f"{folder.arm}, seed {folder.seed}", subtitle=TINY_WORLD_NOTE if config.profile == "tiny" else "")
        tracker.log_grid(folder.diversity_grid, rows)
    summary = summary_of(scores.table, len(prompts), config.eval.num_candidates)
    return summary | ({"unavailable": dict(scores.unavailable)} if scores.unavailable else {})


def _prompt_line(drawing: Drawing) -> dict:
    fields = asdict(drawing) | {"refined": drawing.text, "image": drawing.image}
    names = (
        "prompt_id",
        "condition",
        "candidate",
        "coarse",
        "refined",
        "prompt_seed",
        "image_seed",
        "num_new_tokens",
        "truncated",
        "image",
    )
    return {name: fields[name] for name in names}


def summary_of(table: pd.DataFrame, num_prompts: int, num_candidates: int) -> dict:
    """{condition: {metric: mean}}, with the sets' diversity under "diversity" and the sample size under "n"."""
    table = table[table.metric != scoring.STYLE_SEEN]
    per_prompt = table.groupby(["condition", "metric", "prompt_id"])["value"].mean()
    is_set = table.groupby(["condition", "metric"])["candidate"].max() == -1
    means = per_prompt.groupby(["condition", "metric"]).mean()
    summary: dict = {"n": {"prompts": num_prompts, "candidates": num_candidates}, "diversity": {}}
    for (condition, metric), value in means.items():
        target = summary["diversity"] if is_set[condition, metric] else summary
        target.setdefault(condition, {})[metric] = float(value)
    return summary


def _show(console: Console, folder: RunFolder, metrics: dict, config: Config) -> None:
    """The cell's result as a small table, and where the pictures are."""
    if "refined" in metrics:
        n = metrics["n"]
        title = f"{folder}: means over {n['prompts']} prompts x {n['candidates']} candidates"
        if config.profile == "tiny":
            title += f"\n{TINY_WORLD_NOTE}"
        conditions = [name for name in ("coarse", "plug_in", "refined", "rewrite", *evaluation.CONTROLS, "fine") if name in metrics]
        # On two lines: side by side, the controls' names leave no room for the metrics'.
        headings = [name.replace("control_", "control_\n") for name in conditions]
        table = Table("metric", *headings, title=title, title_justify="left")
        diversity = metrics["diversity"]
        asked = (config.eval.metrics or "").split(",")
        for name in dict.fromkeys((*SHOWN_METRICS, *asked)):
            if name in metrics.get("unavailable", {}):
                table.add_row(name, *[NOT_AVAILABLE] * len(conditions))
            elif name in metrics["refined"]:
                table.add_row(_label(name, config.data.image_size), *(f"{metrics[c][name]:.3f}" for c in conditions))
            elif name in diversity.get("refined", {}):
                table.add_row(name, *(f"{diversity[c][name]:.3f}" if c in diversity else "" for c in conditions))
        for name in SHOWN_DIVERSITY:
            if name in diversity.get("refined", {}):
                cells = [f"{diversity[c][name]:.3f}" if c in diversity else "" for c in conditions]
                table.add_row(f"{name} (diversity)", *cells, end_section=name == SHOWN_DIVERSITY[-1])
        console.table(table)
        if any(_is_no_quality_measure(name, config.data.image_size) for name in ("piqe", "entropy", *asked)):
            console.say(f"† not a quality measure at {config.data.image_size} px")
        console.say("one seed: compare arms over several, see README")
    if folder.diversity_grid.exists():
        console.say(f"diversity grid: {folder.diversity_grid}")
    console.say(f"everything else: {folder.path}")


def _label(name: str, image_size: int) -> str:
    return f"{name} †" if _is_no_quality_measure(name, image_size) else name


def _is_no_quality_measure(name: str, image_size: int) -> bool:
    return name in all_metrics() and "not a quality measure" in metric_named(name).note_at(image_size)


__all__ = ["build_data", "build_module", "run_cell", "summary_of"]
