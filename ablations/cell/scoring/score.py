"""The fifth stage: every picture is scored, and every set of candidates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ablations.cell.processes.share import ALL, FOLDER, Share, read_drawings, scores_file
from ablations.cell.scoring.fitting import fitting_for
from ablations.cell.scoring.further import FurtherMetrics, further_metrics
from ablations.cell.scoring.score_store import ScoreStore
from ablations.cell.scoring.scorer import CellScores, Scorer, ShareScores, judge_for, sentences_for
from ablations.cell.work import Work
from ablations.metrics.base import NOT_AVAILABLE
from ablations.metrics.judge import JUDGED, judge_asked_for, problem_of, refusal
from ablations.metrics.weights import weights_folder
from ablations.results.picture_files import PictureFiles
from ablations.results.prompts_and_scores import Drawing, drawn, read_scores, write_scores
from ablations.results.scores import COLUMNS
from ablations.runtime.errors import UserError
from ablations.runtime.files import whole_file
from datamodules.records import EvalPrompt
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule


def require_metrics(work: Work) -> FurtherMetrics | None:
    """What is to be scored beyond what every cell scores; asked before anything is loaded.

    Says what is not available. Raises UserError where something is not, and is not to be skipped.
    """
    further = further_metrics(work.config) if work.config.eval.num_prompts else None
    if further and further.required.unavailable:
        (first, why), *others = further.required.unavailable.items()
        rest = f"; so are {', '.join(name for name, _ in others)}" if others else ""
        work.console.say(f"metric {first}: {NOT_AVAILABLE}: {why}{rest} (python -m ablations.metrics fetch)")
    _require_judge(work)
    return further


def _require_judge(work: Work) -> None:
    config = work.config
    judge = judge_asked_for(config.eval.judge, config.profile)
    problem = problem_of(judge, weights_folder(config.eval.metrics_dir)) if config.eval.num_prompts else ""
    if problem and config.eval.missing_metrics == "error":
        raise UserError(refusal(problem))
    if problem:
        work.console.say(f"metrics {', '.join(JUDGED)}: {NOT_AVAILABLE}: {problem}")


def require_sentences(work: Work, backbones: Backbones) -> None:
    """Load what embeds sentences, and say it if there is nothing; asked before the training. Raises UserError as `sentences_for` does."""
    with work.timings.stage("data"):
        problem = sentences_for(work.config, backbones).problem if work.config.eval.num_prompts else None
    if problem:
        work.console.say(f"metric sentence_similarity: {NOT_AVAILABLE}: {problem}")


def scorer_for(work: Work, module: PromptRefinerModule, known: ScoreStore, further: FurtherMetrics | None) -> Scorer:
    """What scores the cell's texts and pictures, and stops where the work does. What is `known` of a picture is not computed again."""
    sentences = sentences_for(work.config, module.backbones)
    check, suits = (lambda: work.stop.check("scoring")), fitting_for(work.config, module)
    judge = judge_for(work.config, str(module.backbones.text_to_image.device))
    return Scorer(module.backbones, known, further, sentences, work.console.say, work.console.track, check, suits, judge)


def score(work: Work, scorer: Scorer, prompts: Sequence[EvalPrompt], drawings: Sequence[Drawing], pictures: PictureFiles) -> CellScores:
    """All scores of a cell, which go to scores.parquet; `pictures` are as in `Scorer.score`, which raises. Several processes share the
    prompts out."""
    crew = work.crew
    with work.timings.stage("scoring"):
        if crew.world_size == 1:
            scores = scorer.score(prompts, drawings, pictures)
        else:
            own = crew.do(
                "scoring", lambda: _of_share(work, scorer, prompts, drawings, Share(0, crew.world_size)), checkpoint=work.checkpoint
            )
            others = [_read_share(scores_file(work.folder.path, rank)) for rank in range(1, crew.world_size)]
            scores = scorer.finish(prompts, drawings, [own, *others])
            shutil.rmtree(work.folder.path / FOLDER)
    write_scores(work.folder.scores, scores.table)
    return scores


def score_share(work: Work, scorer: Scorer, prompts: Sequence[EvalPrompt], share: Share) -> None:
    """What a process beside rank 0 scores, left in files."""
    scores = _of_share(work, scorer, prompts, read_drawings(work.folder.path / FOLDER / ALL), share)
    path = scores_file(work.folder.path, share.rank)
    rows = {json.dumps([name, condition]): np.concatenate(parts) for name, of in scores.rows.items() for condition, parts in of.items()}
    with whole_file(path.with_suffix(".npz")) as aside, aside.open("wb") as stream:
        np.savez(stream, unavailable=np.array(json.dumps(scores.unavailable)), **rows)
    write_scores(path, scores.table)


def _of_share(work: Work, scorer: Scorer, prompts: Sequence[EvalPrompt], drawings: Sequence[Drawing], share: Share) -> ShareScores:
    own = share.of(drawings)
    return scorer.score_share(prompts, own, PictureFiles([work.folder.path / drawing.image for drawing in drawn(own)]))


def _read_share(path: Path) -> ShareScores:
    rows: dict[str, dict[str, list[np.ndarray]]] = {}
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as content:
        unavailable = json.loads(str(content["unavailable"]))
        for key in content.files:
            if key != "unavailable":
                name, condition = json.loads(key)
                rows.setdefault(name, {})[condition] = [content[key]]
    return ShareScores(read_scores(path, COLUMNS), rows, unavailable)
