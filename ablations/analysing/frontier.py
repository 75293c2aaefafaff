"""Quality against diversity of what a trained refiner writes, over top-p: a frontier, as one picture and as a table.

Diversity is no merit alone, and quality can be bought with sameness: a refiner is better than another where its curve lies further out, not
where one number does. Texts alone are scored, so that the image model's noise is not in it.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablations.figures.plot_style import ACCENT, CONTRAST, QUIET, SOFT_INK, house_style, new_figure, panel, save_png
from ablations.metrics.added_words import AddedWords
from ablations.metrics.references import TRUTH, UNIFORM, reference_lines
from ablations.results.trained_run import TrainedRun, find_trained_run
from ablations.runtime.errors import UserError
from ablations.runtime.files import whole_file
from datamodules.records import EvalPrompt
from datamodules.tiny_world.worlds import World, world

_Z = 1.96
FRONTIER, FINE, GUESS = "refined", "fine prompts", "uniform guess"


@dataclass(frozen=True)
class Point:
    """A point of the picture: `fit` is the share of the known added words that suit, `styles` the number of different fitting styles among
    `candidates` candidates of a prompt. Half-widths are of 95% intervals over `prompts` prompts, for this training; 0 where exact."""

    name: str
    top_p: float | None
    fit: float
    styles: float
    fit_half_width: float = 0.0
    styles_half_width: float = 0.0
    prompts: int = 0
    candidates: int = 0


def frontier(folder: Path, top_ps: Sequence[float], num_prompts: int, candidates: int, check: Callable[[], None]) -> list[Point]:
    """The points of a run at each top-p, then the fine prompts' and a uniform guess's. `check()` may raise between them to stop.

    Raises UserError for a folder that holds no trained run, and a run that was not trained in the tiny world.
    """
    run = find_trained_run(folder)
    if run.config.data.source != "tiny":
        raise UserError(f"{run} was trained on {run.config.data.source}: which words suit is known in the tiny world alone")
    from ablations.refiner.prompt_refiner import PromptRefiner

    module = PromptRefiner.from_run(run.folder).module
    here = world(run.config.data.world)
    prompts = _prompts(run, module, num_prompts)
    points = []
    for top_p in top_ps:
        check()
        texts = [_written(run, module, prompts, top_p, candidate) for candidate in range(candidates)]
        points.append(_point(prompts, texts, here, top_p))
    return [*points, *_references(prompts, here, candidates)]


def _prompts(run: TrainedRun, module, count: int) -> list[EvalPrompt]:
    from ablations.cell.loading.data import build_data

    try:
        return build_data(run.config, module, lambda line: None).eval_prompts("test", count, run.config.eval.coarse_length)
    except ValueError as error:
        raise UserError(str(error)) from error


def _written(run: TrainedRun, module, prompts: Sequence[EvalPrompt], top_p: float, candidate: int) -> list[str]:
    from ablations.cell.refining.keys import prompt_seed
    from ablations.cell.refining.refine import refine_settings

    config = run.config
    settings = refine_settings(config.prompt_len, dataclasses.replace(config.eval, top_p=top_p), seen=run.seen_words())
    keys = [(prompt_seed(config.seed, prompt.prompt_id, candidate),) for prompt in prompts]
    return [written.text for written in module.refine([prompt.coarse_prompt for prompt in prompts], keys, settings)]


def _point(prompts: Sequence[EvalPrompt], texts_CN: Sequence[Sequence[str]], here: World, top_p: float) -> Point:
    """Of `texts_CN`, a text for each candidate and prompt."""
    fits, styles = [], []
    for i, prompt in enumerate(prompts):
        assert prompt.scene is not None and prompt.scene.scene is not None
        added = [AddedWords.of(prompt.coarse_prompt, texts[i], prompt.scene, here) for texts in texts_CN]
        fits.append(np.mean([own.fit for own in added]))
        styles.append(len({own.style for own in added} & set(here.fitting_styles[prompt.scene.scene])))
    half = [_Z * float(np.std(values, ddof=1)) / len(values) ** 0.5 for values in (fits, styles)]
    return Point(FRONTIER, top_p, float(np.mean(fits)), float(np.mean(styles)), *half, len(prompts), len(texts_CN))


def _references(prompts: Sequence[EvalPrompt], here: World, candidates: int) -> list[Point]:
    fine = [AddedWords.of(prompt.coarse_prompt, prompt.fine_prompt, prompt.scene, here).fit for prompt in prompts]
    styles = reference_lines("distinct_fitting_styles", here, candidates)
    guess = reference_lines("added_words_fit", here)[UNIFORM]
    return [
        Point(FINE, None, float(np.mean(fine)), styles[TRUTH], prompts=len(prompts), candidates=candidates),
        Point(GUESS, None, guess, styles[UNIFORM], candidates=candidates),
    ]


def frontier_table(points: Sequence[Point]) -> str:
    """The points as lines of text."""
    lines = [f"{'':<14}{'top-p':>6}  {'words that fit':<18}fitting styles among {points[0].candidates} candidates"]
    for point in points:
        top_p = "" if point.top_p is None else f"{point.top_p:g}"
        fit, styles = (_value(*pair) for pair in ((point.fit, point.fit_half_width), (point.styles, point.styles_half_width)))
        lines.append(f"{point.name:<14}{top_p:>6}  {fit:<18}{styles}")
    return "\n".join(lines)


def _value(mean: float, half_width: float) -> str:
    return f"{mean:.3f} ± {half_width:.3f}" if half_width else f"{mean:.3f}"


def leave_frontier(points: Sequence[Point], folder: Path) -> tuple[Path, Path]:
    """Write frontier.csv and frontier.png to `folder`, whole or not at all. Raises RunFolderError where they cannot be written."""
    table, picture = folder / "frontier.csv", folder / "frontier.png"
    with whole_file(table) as aside, open(aside, "w", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in dataclasses.fields(Point)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(point) for point in points)
    with whole_file(picture) as aside:
        draw_frontier(points, aside)
    return table, picture


def draw_frontier(points: Sequence[Point], path: Path) -> None:
    """Draw the points as a PNG, just where it is told: diversity to the right, quality upwards."""
    curve = [point for point in points if point.top_p is not None]
    with house_style():
        figure = new_figure(6.4, 4.6, 150)
        axes = figure.add_subplot()
        axes.errorbar(
            [point.styles for point in curve],
            [point.fit for point in curve],
            xerr=[point.styles_half_width for point in curve],
            yerr=[point.fit_half_width for point in curve],
            color=ACCENT,
            marker="o",
            markersize=5,
            elinewidth=0.8,
            label="refined, by top-p",
        )
        for point in curve:
            axes.annotate(f"{point.top_p:g}", (point.styles, point.fit), (5, 5), textcoords="offset points", fontsize=8, color=SOFT_INK)
        for point, colour, marker in zip(points[len(curve) :], (CONTRAST, QUIET), ("*", "x"), strict=True):
            axes.plot([point.styles], [point.fit], marker, color=colour, markersize=10, label=point.name)
        axes.set_xlabel(f"different fitting styles among {points[0].candidates} candidates of a prompt")
        axes.set_ylabel("share of the added words that fit")
        axes.set_ylim(0, 1.03)
        axes.set_title("Quality against diversity", loc="left", fontsize=11, fontweight="bold")
        axes.legend(loc="lower left", fontsize=9, frameon=False)
        panel(axes)
        save_png(figure, path)
