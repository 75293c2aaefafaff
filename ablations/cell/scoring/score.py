"""The fifth stage: every picture is scored, and every set of candidates."""

from __future__ import annotations

from collections.abc import Sequence

from ablations.cell.scoring.fitting import fitting_for
from ablations.cell.scoring.further import FurtherMetrics, further_metrics
from ablations.cell.scoring.score_store import ScoreStore
from ablations.cell.scoring.scorer import CellScores, Scorer, judge_for, sentences_for
from ablations.cell.work import Work
from ablations.metrics.base import NOT_AVAILABLE
from ablations.metrics.judge import JUDGED, judge_asked_for, problem_of, refusal
from ablations.metrics.weights import weights_folder
from ablations.results.picture_files import PictureFiles
from ablations.results.prompts_and_scores import Drawing, write_scores
from ablations.runtime.errors import UserError
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
    """All scores of a cell, which go to scores.parquet; `pictures` are as in `Scorer.score`, which raises."""
    with work.timings.stage("scoring"):
        scores = scorer.score(prompts, drawings, pictures)
    write_scores(work.folder.scores, scores.table)
    return scores
