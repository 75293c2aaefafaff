"""The work of a comparison: every method writes, then what was written is drawn at equal image noise and scored.

Every method's prompts take the place of the refined ones (conditions `refined` and `refined_shared_noise`), so that all are drawn and
scored by the code of a cell, and one table machinery reads them. Candidate c of prompt p at a seed has the same image noise whatever
the method: methods are paired picture by picture, with each other and with the arm's own run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ablations.baselines.base import Asked, Baseline, Written
from ablations.baselines.refiner import load_refiner, read_checkpoint
from ablations.baselines.register import REFERENCE, Context
from ablations.cell.cell import run_cell
from ablations.cell.drawing.draw import draw
from ablations.cell.loading.data import build_data
from ablations.cell.loading.device import device_of
from ablations.cell.loading.module import build_module
from ablations.cell.refining.keys import image_seed, prompt_seed
from ablations.cell.scoring.further import WHOLE_SET, further_metrics
from ablations.cell.scoring.score import COLUMNS, score, sentences_for
from ablations.cell.scoring.score_store import ScoreStore
from ablations.cell.shared import Workshop
from ablations.comparing.methods import make_methods, reads_data
from ablations.comparing.plan import Comparison, answer_store
from ablations.reporting.collect import WHOLE_SEED
from ablations.results.conditions import REFINED, SHARED_NOISE
from ablations.results.prompts_and_scores import PROMPTS, SCORES, Drawing, write_prompts, write_scores
from ablations.results.run_folder import RunFolder
from ablations.runtime.console import Console
from ablations.runtime.errors import UserError
from ablations.runtime.files import whole_file
from ablations.runtime.stopping import StopRequest
from datamodules.records import EvalPrompt
from lightning_modules.backbones.backbones import Backbones

# Bytes of pictures that are held at a time.
_MEMORY = 512 * 1024 * 1024


@dataclass
class Unit:
    """A method at a seed: what was asked and written, and the scores (columns of scores.parquet, with `coarse`)."""

    seed: int
    asked: list[Asked]
    written: list[Written]
    scores: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*COLUMNS, "coarse"]))

    @property
    def failures(self) -> Counter[str]:
        return Counter(one.failure for one in self.written if one.failure)


@dataclass
class MethodResult:
    """A method over all seeds. `seconds` were spent on writing."""

    name: str
    title: str
    about: str
    units: dict[int, Unit]
    seconds: float
    cost: str

    @property
    def num_asked(self) -> int:
        return sum(len(unit.written) for unit in self.units.values())

    @property
    def failures(self) -> Counter[str]:
        return sum((unit.failures for unit in self.units.values()), Counter())

    @property
    def num_failed(self) -> int:
        return self.failures.total()

    @property
    def mean_tokens(self) -> float | None:
        """Mean number of new tokens of what was written, each method by its own tokenizer; None where nothing was."""
        tokens = [one.num_new_tokens for unit in self.units.values() for one in unit.written if not one.failure]
        return float(np.mean(tokens)) if tokens else None


@dataclass
class Results:
    """All that came of it. `pictures` holds the figure's, uint8 (H, W, 3), by (method, prompt id): first seed, first candidate.

    `unavailable` says of metrics that were asked for, by name, why they have no value.
    """

    comparison: Comparison
    prompts: list[EvalPrompt]
    methods: list[MethodResult]
    pictures: dict[tuple[str, int], np.ndarray]
    data_digest: str
    weights_digest: str
    unavailable: dict[str, str] = field(default_factory=dict)

    def method(self, name: str) -> MethodResult | None:
        return next((method for method in self.methods if method.name == name), None)

    @property
    def reference(self) -> MethodResult:
        found = self.method(REFERENCE)
        assert found is not None
        return found


def carry_out(comparison: Comparison, console: Console, stop: StopRequest, workshop: Workshop | None = None) -> Results:
    """Do everything but write the tables; leaves prompts.jsonl, scores.parquet and images/ in the comparison's folder.

    Raises UserError for what cannot be had, before anything long begins where it can be known then. What was drawn, scored and
    answered before it stopped is taken from the caches by the next call.
    """
    workshop = workshop or Workshop()
    work = _Work(comparison, console, stop, workshop)
    work.prepare()
    return work.results()


class _Work:
    def __init__(self, comparison: Comparison, console: Console, stop: StopRequest, workshop: Workshop):
        self.comparison, self.console, self.stop, self.workshop = comparison, console, stop, workshop
        self.backbones: Backbones | None = None
        self.prompts: list[EvalPrompt] = []
        self.train_prompts: list[str] = []
        self.methods: list[Baseline] = []
        self.unavailable: dict[str, str] = {}

    def prepare(self) -> None:
        comparison, config = self.comparison, self.comparison.config
        torch.set_num_threads(config.trainer.threads or self.workshop.threads)
        self.further = further_metrics(comparison.scoring_config)

        def backbones() -> Backbones:
            assert self.backbones is not None
            return self.backbones

        context = Context(
            config,
            device_of(config),
            sources=comparison.sources,
            num_modifiers=comparison.num_modifiers,
            chat=comparison.chat,
            train_prompts=lambda: self.train_prompts,
            count_tokens=lambda text: len(backbones().tokenize_t5([text])[0]) - 1,
            load_refiner=lambda seed: load_refiner(comparison.configs[seed], comparison.checkpoint(seed), backbones()),
            answers=lambda kind: answer_store(comparison, kind),
            say=self.console.say,
            check=lambda: self.stop.check("writing prompts"),
        )
        self.methods = make_methods(comparison, context)
        for method in self.methods:
            if not reads_data(method.name):  # the data comes later
                method.prepare()
        for seed in comparison.untrained():
            self.console.say(f"seed {seed} of {comparison.arm} is not trained yet: python -m ablations.run for it, first")
            run_cell(comparison.configs[seed], self.stop, self.workshop, self.console)
        torch.set_num_threads(config.trainer.threads or self.workshop.threads)
        self._load()

    def _load(self) -> None:
        comparison, config = self.comparison, self.comparison.config
        try:
            self.backbones = self.workshop.backbones(config)
            self.backbones.to(device_of(config))
            for seed in comparison.seeds:
                read_checkpoint(comparison.checkpoint(seed), self.backbones)  # an unfit one is said before anything is written
            data = build_data(config, RunFolder(config), self.backbones, build_module(config, self.backbones), self.console.say)
            data.manifest_path = None  # the run's own
            self.workshop.read_records(config, data)
            self.prompts = data.eval_prompts("test", comparison.num_prompts, config.eval.coarse_length)
            self.train_prompts = [record.fine_prompt for record in data.train_records]
            self.data_digest = data.digest
            self.sentences = sentences_for(comparison.scoring_config, self.backbones)
        except (ValueError, FileNotFoundError) as error:
            raise UserError(str(error)) from error

    def results(self) -> Results:
        comparison = self.comparison
        results = [self._written_by(method) for method in self.methods]
        pictures: dict[tuple[str, int], np.ndarray] = {}
        groups = self._groups([(method, seed) for seed in comparison.seeds for method in results])
        for number, group in enumerate(groups, start=1):
            label = f"drawing, part {number} of {len(groups)}" if len(groups) > 1 else "drawing"
            pictures |= self._draw_and_score(group, label)
        self._leave_behind(results)
        assert self.backbones is not None
        return Results(comparison, self.prompts, results, pictures, self.data_digest, self.backbones.digest, self.unavailable)

    def _groups(self, units: Sequence[tuple[MethodResult, int]]) -> list[list[tuple[MethodResult, int]]]:
        """Units whose pictures fit in memory together: drawn at once they fill batches, and equal ones are drawn once."""
        assert self.backbones is not None
        per_picture = 3 * self.backbones.text_to_image.image_size**2
        groups: list[list[tuple[MethodResult, int]]] = [[]]
        used = 0
        for method, seed in units:
            size = per_picture * len(_drawings(method.units[seed], self.comparison.num_candidates))
            if groups[-1] and used + size > _MEMORY:
                groups.append([])
                used = 0
            groups[-1].append((method, seed))
            used += size
        return groups

    def _written_by(self, method: Baseline) -> MethodResult:
        """All prompts of a method, a candidate at a time as a cell writes them."""
        method.prepare()
        units: dict[int, Unit] = {}
        started = time.monotonic()
        per_seed = self.comparison.num_candidates
        batches = [(seed, candidate) for seed in self.comparison.seeds for candidate in range(per_seed)]
        for seed, candidate in self.console.track(batches, len(batches), f"writing, {method.title}"):
            self.stop.check("writing prompts")
            asked = [
                Asked(p.prompt_id, candidate, p.coarse_prompt, p.fine_prompt, prompt_seed(seed, p.prompt_id, candidate))
                for p in self.prompts
            ]
            written = method.write(seed, asked)
            assert len(written) == len(asked), method.name
            unit = units.setdefault(seed, Unit(seed, [], []))
            unit.asked += asked
            unit.written += written
        method.close()
        result = MethodResult(method.name, method.title, method.about, units, time.monotonic() - started, method.cost())
        if result.num_failed:
            reason, count = result.failures.most_common(1)[0]
            self.console.say(f"{method.title}: {result.num_failed} of {result.num_asked} prompts failed ({count} times: {reason})")
        if result.cost:
            self.console.say(f"{method.title}: {result.cost}")
        return result

    def _draw_and_score(self, group: Sequence[tuple[MethodResult, int]], label: str) -> dict[tuple[str, int], np.ndarray]:
        """Fills in the units' scores, saves their pictures, and gives those of the figure."""
        comparison, backbones = self.comparison, self.backbones
        assert backbones is not None
        pictures, scores = self.workshop.stores(comparison.config, backbones)
        parts = [_drawings(method.units[seed], comparison.num_candidates) for method, seed in group]
        drawings = [drawing for part in parts for drawing in part]
        if not drawings:
            return {}
        images = draw(
            backbones,
            drawings,
            comparison.config.eval,
            lambda items, count, what: self.console.track(items, count, label),
            lambda: self.stop.check("drawing"),
            store=pictures,
        )
        reused = f", {pictures.reused} different ones of them drawn before" if pictures is not None and pictures.reused else ""
        self.console.say(f"{label}: {len(images)} pictures{reused}")
        shown: dict[tuple[str, int], np.ndarray] = {}
        start = 0
        scoring_label = label.replace("drawing", "scoring")
        for (method, seed), part in self.console.track(list(zip(group, parts, strict=True)), len(group), scoring_label):
            own_images = images[start : start + len(part)]
            start += len(part)
            if part:
                shown |= self._score(method, seed, part, own_images, scores)
        return shown

    def _score(
        self, method: MethodResult, seed: int, drawings: Sequence[Drawing], images: np.ndarray, store: ScoreStore
    ) -> dict[tuple[str, int], np.ndarray]:
        comparison, unit = self.comparison, method.units[seed]
        assert self.backbones is not None
        check = lambda: self.stop.check("scoring")  # noqa: E731
        by = store, self.further, self.sentences
        scored = score(self.backbones, self.prompts, drawings, images, lambda line: None, check, *by)
        unit.scores = _without_broken_sets(scored.table, unit)
        self.unavailable |= scored.unavailable
        coarse = {p.prompt_id: p.coarse_prompt for p in self.prompts} | {WHOLE_SET: WHOLE_SEED}
        unit.scores["coarse"] = unit.scores.prompt_id.map(coarse)
        own = [i for i, drawing in enumerate(drawings) if drawing.condition == REFINED]
        for i in own:
            with whole_file(comparison.to / image_path(method.name, seed, drawings[i]), sync=False) as aside:
                Image.fromarray(images[i]).save(aside, format="PNG")
        if seed != comparison.seeds[0]:
            return {}
        return {(method.name, drawings[i].prompt_id): images[i] for i in own if drawings[i].candidate == 0}

    def _leave_behind(self, results: Sequence[MethodResult]) -> None:
        to = self.comparison.to
        lines, tables = [], []
        for method in results:
            for seed, unit in method.units.items():
                drawings = {(d.prompt_id, d.candidate): d for d in _drawings(unit, 1)}
                for asked, written in zip(unit.asked, unit.written, strict=True):
                    drawing = drawings.get((asked.prompt_id, asked.candidate))
                    lines.append(_line(method.name, seed, asked, written, drawing))
                tables.append(unit.scores.assign(method=method.name, seed=seed))
        write_prompts(to / PROMPTS, lines)
        filled = [table for table in tables if len(table)]
        if filled:
            together = pd.concat(filled, ignore_index=True)
            table = together.drop(columns=["image", "condition"]).assign(shared_noise=together.condition == SHARED_NOISE)
            write_scores(to / SCORES, table)


def image_path(method: str, seed: int, drawing: Drawing) -> Path:
    """Where a picture lies within the comparison's folder."""
    return Path("images") / method / f"seed-{seed}" / f"{drawing.prompt_id:04d}-{drawing.candidate}.png"


def _line(method: str, seed: int, asked: Asked, written: Written, drawing: Drawing | None) -> dict:
    return {
        "method": method,
        "seed": seed,
        "prompt_id": asked.prompt_id,
        "candidate": asked.candidate,
        "coarse": asked.coarse_prompt,
        "written": written.text,
        "failure": written.failure,
        "prompt_seed": asked.key,
        "image_seed": drawing.image_seed if drawing else None,
        "num_new_tokens": written.num_new_tokens,
        "truncated": written.truncated,
        "image": str(image_path(method, seed, drawing)) if drawing else None,
    }


def _drawings(unit: Unit, num_candidates: int) -> list[Drawing]:
    """What is drawn of a unit; with several candidates also each at the first one's image noise."""
    drawings = []
    for asked, written in zip(unit.asked, unit.written, strict=True):
        if written.failure:
            continue
        for condition in (REFINED, SHARED_NOISE)[: 1 + (num_candidates > 1)]:
            noise_of = asked.candidate if condition == REFINED else 0
            drawings.append(
                Drawing(
                    prompt_id=asked.prompt_id,
                    condition=condition,
                    candidate=asked.candidate,
                    coarse=asked.coarse_prompt,
                    text=written.text,
                    prompt_seed=asked.key,
                    image_seed=image_seed(unit.seed, asked.prompt_id, noise_of),
                    num_new_tokens=written.num_new_tokens,
                    truncated=written.truncated,
                )
            )
    return drawings


def _without_broken_sets(table: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """The scores without the diversity of prompts of which a candidate failed: fewer candidates are no fair set."""
    broken = {asked.prompt_id for asked, written in zip(unit.asked, unit.written, strict=True) if written.failure}
    return table[~((table.candidate == -1) & table.prompt_id.isin(broken))].reset_index(drop=True)
