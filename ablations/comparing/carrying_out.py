"""The work of a comparison: every method writes, then what was written is drawn at equal image noise and scored."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from ablations.baselines.base import Asked, Baseline
from ablations.baselines.refiner import checked_checkpoint, load_refiner
from ablations.baselines.register import Context
from ablations.cell.cell import run_cell
from ablations.cell.drawing.pictures import draw_pictures
from ablations.cell.loading.data import build_data
from ablations.cell.loading.device import device_of, ready
from ablations.cell.loading.module import build_module
from ablations.cell.refining.keys import prompt_seed
from ablations.cell.scoring.fitting import fitting_for
from ablations.cell.scoring.further import further_metrics
from ablations.cell.scoring.scorer import Scorer, judge_for, sentences_for
from ablations.cell.shared import Shared
from ablations.comparing.files import save_picture, write_results
from ablations.comparing.methods import make_methods, reads_data
from ablations.comparing.plan import Comparison, answer_store
from ablations.comparing.results import MethodResult, Results, Unit
from ablations.results.conditions import REFINED
from ablations.results.prompts_and_scores import Drawing
from ablations.runtime.console import Console
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest
from datamodules.records import EvalPrompt
from lightning_modules.backbones.backbones import Backbones

# Bytes of pictures that are held at a time.
_MEMORY = 512 * 1024 * 1024


def carry_out(comparison: Comparison, console: Console, stop: StopRequest, shared: Shared | None = None) -> Results:
    """Do everything but write the tables; leaves prompts.jsonl, scores.parquet and images/ in the comparison's folder.

    Raises UserError for what cannot be had, before anything long begins where it can be known then. What was drawn, scored and
    answered before it stopped is taken from the caches by the next call.
    """
    carried_out = _CarryingOut(comparison, console, stop, shared or Shared())
    carried_out.prepare()
    return carried_out.results()


class _CarryingOut:
    """The networks, prompts and methods of a comparison, and what is done with them."""

    def __init__(self, comparison: Comparison, console: Console, stop: StopRequest, shared: Shared):
        self.comparison, self.console, self.stop, self.shared = comparison, console, stop, shared
        self._backbones: Backbones | None = None
        self.prompts: list[EvalPrompt] = []
        self.train_prompts: list[str] = []
        self.methods: list[Baseline] = []
        self.unavailable: dict[str, str] = {}

    @property
    def backbones(self) -> Backbones:
        assert self._backbones is not None, "prepare() comes first"
        return self._backbones

    def prepare(self) -> None:
        comparison, config = self.comparison, self.comparison.config
        torch.set_num_threads(config.trainer.threads or self.shared.threads)
        self.further = further_metrics(comparison.scoring_config)
        context = Context(
            config,
            ready(device_of(config)),
            sources=comparison.sources,
            num_modifiers=comparison.num_modifiers,
            chat=comparison.chat,
            train_prompts=lambda: self.train_prompts,
            count_tokens=lambda text: len(self.backbones.tokenize_t5([text])[0]) - 1,
            load_refiner=lambda seed: load_refiner(comparison.configs[seed], comparison.checkpoint(seed), self.backbones),
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
            run_cell(comparison.configs[seed], self.stop, self.shared, self.console)
        torch.set_num_threads(config.trainer.threads or self.shared.threads)
        self._load()

    def _load(self) -> None:
        comparison, config = self.comparison, self.comparison.config
        try:
            self._backbones = self.shared.backbones(config)
            for seed in comparison.seeds:
                checked_checkpoint(comparison.checkpoint(seed), self.backbones)  # an unfit one is said before anything is written
            data = build_data(config, build_module(config, self.backbones), self.console.say)
            self.backbones.to(device_of(config))
            self.shared.read_records(config, data)
            self.prompts = data.eval_prompts("test", comparison.num_prompts, config.eval.coarse_length)
            self.train_prompts = [record.fine_prompt for record in data.train_records]
            self.data_digest = data.digest
            self.sentences = sentences_for(comparison.scoring_config, self.backbones)
        except (ValueError, FileNotFoundError) as error:
            raise UserError(str(error)) from error

    def results(self) -> Results:
        comparison = self.comparison
        methods = [self._written_by(method) for method in self.methods]
        pictures: dict[tuple[str, int], np.ndarray] = {}
        groups = self._groups([method.units[seed] for seed in comparison.seeds for method in methods])
        for number, group in enumerate(groups, start=1):
            label = f"drawing, part {number} of {len(groups)}" if len(groups) > 1 else "drawing"
            pictures |= self._draw_and_score(group, label)
        write_results(comparison.to, methods)
        return Results(comparison, self.prompts, methods, pictures, self.data_digest, self.backbones.digest, self.unavailable)

    def _groups(self, units: Sequence[Unit]) -> list[list[Unit]]:
        """Units whose pictures fit in memory together: drawn at once they fill batches, and equal ones are drawn once."""
        per_picture = 3 * self.backbones.text_to_image.image_size**2
        groups: list[list[Unit]] = [[]]
        used = 0
        for unit in units:
            size = per_picture * len(unit.drawings(self.comparison.num_candidates))
            if groups[-1] and used + size > _MEMORY:
                groups.append([])
                used = 0
            groups[-1].append(unit)
            used += size
        return groups

    def _written_by(self, method: Baseline) -> MethodResult:
        """All prompts of a method, a candidate at a time as a cell writes them."""
        method.prepare()
        units = {seed: Unit(method.name, seed, [], []) for seed in self.comparison.seeds}
        started = time.monotonic()
        batches = [(seed, candidate) for seed in self.comparison.seeds for candidate in range(self.comparison.num_candidates)]
        for seed, candidate in self.console.track(batches, len(batches), f"writing, {method.title}"):
            self.stop.check("writing prompts")
            asked = [
                Asked(p.prompt_id, candidate, p.coarse_prompt, p.fine_prompt, prompt_seed(seed, p.prompt_id, candidate))
                for p in self.prompts
            ]
            written = method.write(seed, asked)
            assert len(written) == len(asked), method.name
            units[seed].asked += asked
            units[seed].written += written
        method.close()
        result = MethodResult(method.name, method.title, method.about, units, time.monotonic() - started, method.cost())
        if result.num_failed:
            reason, count = result.failures.most_common(1)[0]
            self.console.say(f"{method.title}: {result.num_failed} of {result.num_asked} prompts failed ({count} times: {reason})")
        if result.cost:
            self.console.say(f"{method.title}: {result.cost}")
        return result

    def _draw_and_score(self, group: Sequence[Unit], label: str) -> dict[tuple[str, int], np.ndarray]:
        """Fills in the units' scores, saves their pictures, and gives those of the figure."""
        comparison = self.comparison
        stores = self.shared.stores(comparison.config, self.backbones)
        parts = [unit.drawings(comparison.num_candidates) for unit in group]
        if not any(parts):
            return {}
        images = draw_pictures(
            self.backbones,
            [drawing for part in parts for drawing in part],
            comparison.config.eval,
            lambda items, count, what: self.console.track(items, count, label),
            lambda: self.stop.check("drawing"),
            store=stores.pictures,
        )
        reused = f", {stores.reused['pictures']} different ones of them drawn before" if stores.reused["pictures"] else ""
        self.console.say(f"{label}: {len(images)} pictures{reused}")
        check = lambda: self.stop.check("scoring")  # noqa: E731
        suits = fitting_for(comparison.config)
        judge = judge_for(comparison.scoring_config, str(self.backbones.text_to_image.device))
        scorer = Scorer(self.backbones, stores.scores, self.further, self.sentences, check=check, fitting=suits, judge=judge)
        shown: dict[tuple[str, int], np.ndarray] = {}
        start = 0
        units = list(zip(group, parts, strict=True))
        for unit, part in self.console.track(units, len(units), label.replace("drawing", "scoring")):
            if part:
                shown |= self._score(scorer, unit, part, images[start : start + len(part)])
            start += len(part)
        return shown

    def _score(self, scorer: Scorer, unit: Unit, drawings: Sequence[Drawing], images: np.ndarray) -> dict[tuple[str, int], np.ndarray]:
        """Score a unit's pictures and save them; gives those that the figure shows, by method and prompt."""
        comparison = self.comparison
        scored = scorer.score(self.prompts, drawings, images)
        self.unavailable |= scored.unavailable
        unit.take_scores(scored.table, self.prompts)
        shown: dict[tuple[str, int], np.ndarray] = {}
        for drawing, pixels in zip(drawings, images, strict=True):
            if drawing.condition != REFINED:
                continue
            save_picture(comparison.to, unit, drawing, pixels)
            if unit.seed == comparison.seeds[0] and drawing.candidate == 0:
                shown[unit.method, drawing.prompt_id] = pixels
        return shown
