"""How close E_T(T_C) comes to the frozen encoder's features of the fine prompt, before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.figures.plot_style import ACCENT, QUIET, SOFT_INK, house_style, new_figure, panel, save_png
from ablations.results.conditions import FINE
from ablations.results.prompts_and_scores import PROMPTS, read_prompts
from ablations.results.trained_run import TrainedRun, find_trained_run
from ablations.runtime.command_line import announce_libraries
from ablations.runtime.errors import UserError
from ablations.runtime.files import whole_file, write_json
from ablations.runtime.foreign import is_file, is_there, within

if TYPE_CHECKING:
    import numpy as np

    from ablations.runtime.console import Console
    from lightning_modules.backbones.backbones import Backbones
    from lightning_modules.text_encoder import FineGrainedTextEncoder

MEASURES = {"pooled": "pooled features", "states": "text states"}


AGAINST = {"own": "its own fine prompt", "other": "another fine prompt (control)", "own - other": "own - other (specific)"}


_AT_ONCE = 32


_COLOURS = {"own": ACCENT, "other": QUIET}


@dataclass(frozen=True)
class Pair:
    """An evaluation prompt, coarse and fine."""

    coarse: str
    fine: str


@dataclass(frozen=True)
class Comparison:
    """One measure against one kind of fine prompt: means, and the paired difference trained - step 0.

    `low` and `high` are the 95% interval, None where there is none; `note` says what it covers, or why it is missing.
    """

    measure: str
    against: str
    step0: float
    trained: float
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    num_seeds: int
    num_prompts: int
    note: str


def cosines(encoder: FineGrainedTextEncoder, backbones: Backbones, coarse: Sequence[str], fine: Sequence[str]) -> dict[str, np.ndarray]:
    """Cosines between an encoder's features of coarse prompts and the frozen encoder's features of as many fine ones, float64 (N,) each.

    "pooled" and "states", as the docstring of `ablations.alignment` defines them: states that are equal at step 0 by causality, those of
    the tokens that both prompts begin with, are left out, unless there are no others. Texts beyond the encoder's positions are cut, as
    everywhere. Raises ValueError where there are not as many fine as coarse prompts.
    """
    import numpy as np
    import torch
    from torch.nn.functional import cosine_similarity

    from lightning_modules.text_encoder import text_mask

    if len(coarse) != len(fine):
        raise ValueError(f"{len(coarse)} coarse but {len(fine)} fine prompts")
    device = encoder.positional_embedding.device
    parts: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
    for start in range(0, len(coarse), _AT_ONCE):
        coarse_BS = backbones.tokenize(list(coarse[start : start + _AT_ONCE])).to(device)
        fine_BS = backbones.tokenize(list(fine[start : start + _AT_ONCE])).to(device)
        with torch.inference_mode():
            own, target = encoder(coarse_BS), backbones.text_encoder(fine_BS)
            pooled_B = cosine_similarity(own.pooled_BE.double(), target.pooled_BE.double(), dim=-1)
            states_BS = cosine_similarity(own.states_BSD.double(), target.states_BSD.double(), dim=-1)
            mask_BS = text_mask(fine_BS)
            own_mask_BS = mask_BS & (coarse_BS == fine_BS).long().cumprod(dim=1).eq(0)
            mask_BS = torch.where(own_mask_BS.any(dim=1, keepdim=True), own_mask_BS, mask_BS)
            states_B = (states_BS * mask_BS).sum(dim=1) / mask_BS.sum(dim=1)
        for name, values_B in (("pooled", pooled_B), ("states", states_B)):
            parts[name].append(values_B.cpu().numpy())
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def aligned(encoder: FineGrainedTextEncoder, backbones: Backbones, pairs: Sequence[Pair]) -> dict[tuple[str, str], np.ndarray]:
    """`cosines` of every prompt, by (measure, against), float64 (N,): with its own fine prompt, with another's, and their difference.

    The other fine prompt is that of the next coarse prompt, cyclically, that is another text; where all are the same there is no control.
    """
    from ablations.cell.refining.refine import shuffled_prompts

    coarse, fine = [pair.coarse for pair in pairs], [pair.fine for pair in pairs]
    found = {(name, "own"): values for name, values in cosines(encoder, backbones, coarse, fine).items()}
    fine_of = {pair.coarse: pair.fine for pair in pairs}
    others = shuffled_prompts(coarse)
    if others is not None:
        found |= {(name, "other"): v for name, v in cosines(encoder, backbones, coarse, [fine_of[text] for text in others]).items()}
        found |= {(name, "own - other"): found[name, "own"] - found[name, "other"] for name in MEASURES}
    return found


def compare_alignment(
    step0: Sequence[dict[tuple[str, str], np.ndarray]], trained: Sequence[dict[tuple[str, str], np.ndarray]], coarse: Sequence[str]
) -> list[Comparison]:
    """What training changed, for every measure: `step0` and `trained` are `aligned` of each seed, over the coarse prompts `coarse`.

    Prompts of equal text are averaged first: they are one unit.
    """
    import numpy as np

    from ablations.reporting.statistics import MIN_SEEDS, average_equal_prompts, paired_difference

    comparisons = []
    for key in trained[0]:
        before_SP, after_SP = (average_equal_prompts(np.stack([one[key] for one in seeds]), coarse)[0] for seeds in (step0, trained))
        num_seeds, num_prompts = after_SP.shape
        difference, low, high, p_value, note = float((after_SP - before_SP).mean()), None, None, None, ""
        if 1 < num_seeds < MIN_SEEDS:
            note = f"{num_seeds} seeds: no interval below {MIN_SEEDS}"
        elif after_SP.size < 2:
            note = "one seed and one prompt: no interval"
        else:
            found = paired_difference(after_SP, before_SP)
            low, high, p_value, note = found.low, found.high, found.p_value, found.note
        means = float(before_SP.mean()), float(after_SP.mean())
        comparisons.append(Comparison(*key, *means, difference, low, high, p_value, num_seeds, num_prompts, note))
    return comparisons


def find_runs(folders: Sequence[Path]) -> list[TrainedRun]:
    """The trained runs of one arm by seed; an arm's folder stands for all of its runs.

    Raises UserError for what is no trained run, for a seed that is there twice, and for runs that cannot be pooled.
    """
    runs: list[TrainedRun] = []
    for folder in folders:
        seeds = [] if is_there(folder / "run.json") else [path.parent for path in within(folder, "seed-*/run.json")]
        runs += [find_trained_run(seed) for seed in seeds or [folder]]
    first = runs[0]
    for run in runs[1:]:
        if run.run["arm"] != first.run["arm"]:
            raise UserError(f"{run} is of another arm than {first}: only seeds of one arm are pooled")
        if run.run.get("digests") != first.run.get("digests"):
            raise UserError(f"{run} was made from other data or weights than {first}: run one of them again with force=true")
    seeds_seen = [run.config.seed for run in runs]
    if len(set(seeds_seen)) < len(seeds_seen):
        raise UserError(f"the same seed is there twice among {', '.join(map(str, runs))}: give each run once")
    return sorted(runs, key=lambda run: run.config.seed)


def evaluated_pairs(run: TrainedRun) -> list[Pair]:
    """The prompts that a run was evaluated on. Raises UserError where it was not."""
    path = run.folder / PROMPTS
    if not is_file(path):
        raise UserError(f"{run} was not evaluated, so it has no prompts of its own: give --num-prompts N")
    pairs: dict[int, Pair] = {}
    try:
        for line in read_prompts(path, ("prompt_id", "condition", "coarse", "refined")):
            if line["condition"] == FINE:
                pairs[line["prompt_id"]] = Pair(line["coarse"], line["refined"])
    except UserError as error:
        raise UserError(f"{path} is not readable ({error}): give --num-prompts N, or run the cell again") from error
    if not pairs:
        raise UserError(f"{path} holds no fine prompt: give --num-prompts N")
    return [pairs[prompt_id] for prompt_id in sorted(pairs)]


def held_out_pairs(run: TrainedRun, module: Any, count: int, console: Console) -> list[Pair]:
    """The first `count` held-out prompts of the run's data, at its coarse length. Raises UserError where the data has no such."""
    from ablations.cell.loading.data import build_data

    data = build_data(run.config, module, console.say)  # no manifest: the run's own stays as it is
    try:
        prompts = data.eval_prompts("test", count, run.config.eval.coarse_length)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from error
    if not all(prompt.fine_prompt for prompt in prompts):
        raise UserError(f"{run.config.data.test_source} has prompts alone, and no fine ones that coarse ones could be aligned with")
    return [Pair(prompt.coarse_prompt, prompt.fine_prompt) for prompt in prompts]


@dataclass(frozen=True)
class Measured:
    """The prompts, `aligned` of every run at step 0 and after training, and the share of the UNet's error gap that each run closes
    (`cell.checking.noise_gap`; None where there is no gap). At step 0 that is 0.
    """

    pairs: list[Pair]
    step0: list[dict]
    trained: list[dict]
    gaps_closed: list[float | None]


def measure_alignment(
    runs: Sequence[TrainedRun], num_prompts: int | None, console: Console, backbones: Backbones | None = None
) -> Measured:
    """Measure every run at step 0 and after training. `backbones`: networks that are loaded already.

    Raises UserError as `find_runs`, `evaluated_pairs` and `PromptRefiner.from_run` do.
    """
    from ablations.cell.checking.noise_gap import mse_gap_closed
    from ablations.cell.loading.data import build_data
    from ablations.refiner.prompt_refiner import PromptRefiner

    pairs = None if num_prompts is not None else evaluated_pairs(runs[0])
    for run in runs[1:] if pairs is not None else ():
        if evaluated_pairs(run) != pairs:
            raise UserError(f"{run} was evaluated on other prompts than {runs[0]}: give --num-prompts N, which is the same for all")
    step0, trained, gaps = [], [], []
    for run in console.track(runs, len(runs), "reading with the trained encoders"):
        refiner = PromptRefiner.from_run(run.folder, backbones)
        backbones = refiner.backbones
        if pairs is None:
            assert num_prompts is not None
            pairs = held_out_pairs(run, refiner.module, num_prompts, console)
        # E_T starts as a copy of the frozen encoder, in every seed.
        step0.append(step0[0] if step0 else aligned(backbones.text_encoder, backbones, pairs))
        trained.append(aligned(refiner.module.text_encoder, backbones, pairs))
        gaps.append(mse_gap_closed(refiner.module.text_encoder, backbones, build_data(run.config, refiner.module, console.say)))
    assert pairs is not None
    return Measured(pairs, step0, trained, gaps)


def content_of(runs: Sequence[TrainedRun], measured: Measured, comparisons: Sequence[Comparison]) -> dict:
    """What alignment.json holds."""
    pairs = measured.pairs
    rows = []
    for run, before, after in zip(runs, measured.step0, measured.trained, strict=True):
        for i, pair in enumerate(pairs):
            row = {"seed": run.config.seed, "coarse": pair.coarse, "fine": pair.fine}
            for measure, against in after:
                key = (measure, against)
                row[f"{measure}, {against}"] = {"step0": float(before[key][i]), "trained": float(after[key][i])}
            rows.append(row)
    return {
        "arm": runs[0].run["arm"],
        "profile": runs[0].config.profile,
        "seeds": [run.config.seed for run in runs],
        "num_prompts": len(pairs),
        "num_distinct_coarse_prompts": comparisons[0].num_prompts,
        "definition": "cosine between E_T's features of the coarse prompt and the frozen encoder's features of a fine prompt, text states "
        "over positions that are not equal by causality; differences are trained - step 0, paired, with 95% intervals",
        "gap_closed": {str(run.config.seed): gap for run, gap in zip(runs, measured.gaps_closed, strict=True)},
        "gap_closed_definition": "share of the UNet's error gap from the coarse prompt to the fine one, both read by the frozen encoder, "
        "that E_T(coarse) closes on held-out pictures at fixed noise",
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "prompts": rows,
    }


def table_of(title: str, comparisons: Sequence[Comparison]):
    """The table that is printed; * marks an interval that excludes 0."""
    from rich.table import Table

    table = Table("features", "against", "step 0", "trained", "difference", "95% interval", title=title, title_justify="left")
    for c in comparisons:
        interval = "" if c.low is None else f"[{c.low:+.4f}, {c.high:+.4f}]" + (" *" if c.low > 0 or c.high < 0 else "")
        table.add_row(MEASURES[c.measure], AGAINST[c.against], f"{c.step0:.4f}", f"{c.trained:.4f}", f"{c.difference:+.4f}", interval)
    return table


def draw_alignment(path: Path, title: str, step0: Sequence[dict], trained: Sequence[dict], comparisons: Sequence[Comparison]) -> None:
    """A panel for each measure: a thin line for every prompt and seed, a thick one for the mean as compared, the control in grey."""
    import numpy as np

    with house_style():
        figure = new_figure(8, 4.2, dpi=120, h_pad=0.08)
        figure.suptitle(title, x=0.02, ha="left", fontsize=10, color=SOFT_INK, parse_math=False)
        for place, (measured, heading) in enumerate(MEASURES.items(), start=1):
            axes = figure.add_subplot(1, 2, place)
            for against in ("other", "own"):
                if (measured, against) not in trained[0]:
                    continue
                before_N, after_N = (np.concatenate([one[measured, against] for one in seeds]) for seeds in (step0, trained))
                faint = min(0.5, 6 / len(after_N) + 0.04)
                axes.plot([0, 1], np.stack([before_N, after_N]), color=_COLOURS[against], alpha=faint, linewidth=0.8)
                means = next([c.step0, c.trained] for c in comparisons if (c.measure, c.against) == (measured, against))
                label = f"{AGAINST[against]}: {means[0]:.3f} to {means[1]:.3f}"
                dashes = "-" if against == "own" else "--"
                axes.plot([0, 1], means, color=_COLOURS[against], linewidth=2.6, marker="o", linestyle=dashes, label=label)
            axes.set_title(f"Cosine of {heading}", loc="left", fontsize=11, fontweight="bold")
            axes.set_xticks([0, 1], ["step 0", "trained"])
            axes.set_xlim(-0.12, 1.12)
            panel(axes)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8.5, frameon=False)
        with whole_file(path) as aside:
            save_png(figure, aside)


def study_alignment(folders: Sequence[Path], num_prompts: int | None, to: Path) -> None:
    """Measure the runs in `folders`, print the table, and write alignment.json and alignment.png to `to`.

    Raises UserError as `measure_alignment` does, and RunFolderError where a file cannot be written.
    """
    runs = find_runs(folders)
    if num_prompts is None:
        evaluated_pairs(runs[0])  # a missing file is said before the libraries are loaded
    announce_libraries()
    from ablations.runtime.console import Console

    console = Console()
    measured = measure_alignment(runs, num_prompts, console)
    step0, trained = measured.step0, measured.trained
    comparisons = compare_alignment(step0, trained, [pair.coarse for pair in measured.pairs])
    size = f"N = {len(runs)} seed{'s' if len(runs) > 1 else ''} x {comparisons[0].num_prompts} distinct coarse prompts"
    title = f"{runs[0].run['arm']}" + (", tiny world" if runs[0].config.profile == "tiny" else "") + f", {size}"
    write_json(to / "alignment.json", content_of(runs, measured, comparisons))
    draw_alignment(to / "alignment.png", title, step0, trained, comparisons)
    console.table(table_of(title, comparisons))
    gaps = ", ".join("no gap" if gap is None else f"{gap:.2f}" for gap in measured.gaps_closed)
    console.say(f"share of the UNet's error gap between coarse and fine prompt that E_T closes, by seed: {gaps}")
    notes = dict.fromkeys(comparison.note for comparison in comparisons if comparison.note)
    console.say("; ".join([*notes, "* the interval excludes 0"] if any(c.low is not None for c in comparisons) else notes))
    console.say(f"figure: {to / 'alignment.png'}, figures in numbers: {to / 'alignment.json'}")
