"""Run folders in: every cell under an output folder, its scores by seed and prompt, and what had to be left out and why.

Reads run.json, scores.parquet and prompts.jsonl, nothing else; writes nothing. Cells whose results must not be compared come out in
different sections: another profile, other data, other weights. Rehearsals (networks without pre-training) come into none.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from ablations.config import KEYS, Config, from_flat_dict, to_flat_dict
from ablations.config.parsing import Scalar
from ablations.metrics.oracles import shannon_entropy_bits
from ablations.metrics.register import labels
from ablations.reporting.columns import STYLE_ENTROPY, STYLE_SEEN
from ablations.results.looking import Damaged, Run, is_plain_name, look_at_run
from ablations.results.prompts_and_scores import PROMPTS, SCORES, read_prompts, read_scores
from ablations.results.run_folder import RunFolder
from ablations.runtime.errors import RunFolderError, UserError
from ablations.runtime.foreign import is_file, is_folder, readable

# The one "prompt" of a metric that has a single value per seed.
WHOLE_SEED = "(all prompts)"
# The conditions whose texts are kept, to be compared between arms.
WRITTEN = ("refined", "rewrite")
# More candidates than there are.
MANY = 10**6
_CELL = re.compile(r"seed-\d{1,10}")


@dataclass(frozen=True)
class LeftOut:
    """A cell that enters no table: its folder within the output folder, its status, and what to do about it.

    `profile` and `settings` (train and eval keys) are those of its config where it was meant to enter a table and its config can be read:
    such a cell counts among its arm's seeds. Without settings it does not.
    """

    name: str
    status: str
    reason: str
    profile: str = ""
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    data_digest: str = ""
    weights_digest: str = ""

    @property
    def arm(self) -> str:
        return self.name.rpartition("/")[0]


@dataclass(frozen=True)
class FinishedCell:
    """A finished cell. `settings` are its train and eval keys; digests are those of run.json; `unavailable` says of metrics that it was
    asked for why they have no value; `checks` are its manipulation checks; `texts` what it wrote, by condition, prompt and candidate.
    """

    folder: Path
    arm: str
    seed: int
    profile: str
    settings: Mapping[str, Scalar]
    data_digest: str
    weights_digest: str
    code_revision: str
    timings: Mapping[str, float]
    scores: pd.DataFrame = field(repr=False)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    checks: Mapping[str, float] = field(default_factory=dict)
    texts: Mapping[tuple[str, int, int], str] = field(default_factory=dict, repr=False)

    def values(self, metric: str, condition: str, candidates: int = MANY) -> pd.Series | None:
        """One value per coarse prompt (its text is the index): candidates, and prompts of equal text, are averaged. None if not scored.

        Every prompt has the same number of candidates in it: as many as all have, and at most `candidates`.
        """
        at_most = min(candidates, self.num_candidates(condition, metric))
        if at_most not in self._averaged:
            self._averaged[at_most] = self._average(at_most)
        return self._averaged[at_most].get((condition, metric))

    def num_candidates(self, condition: str, metric: str | None = None) -> int:
        """Candidates per prompt that were drawn in a condition, or that every prompt has a metric's value of there; 0 where none was.

        A value of several candidates together counts those that the condition has.
        """
        return (metric and self._candidates_by_metric.get((condition, metric))) or self._candidates.get(condition, 0)

    @cached_property
    def conditions(self) -> list[str]:
        return list(self.scores.condition.unique())

    @cached_property
    def _candidates(self) -> dict[str, int]:
        per_image = self.scores[self.scores.candidate >= 0]
        return per_image.groupby("condition").candidate.nunique().to_dict()

    @cached_property
    def _candidates_by_metric(self) -> dict[tuple[str, str], int]:
        per_image = self.scores[self.scores.candidate >= 0]
        counts = per_image.groupby(["condition", "metric", "prompt_id"]).candidate.nunique()
        return counts.groupby(level=[0, 1]).min().to_dict()

    @cached_property
    def _averaged(self) -> dict[int, dict[tuple[str, str], pd.Series]]:
        return {}

    def _average(self, candidates: int) -> dict[tuple[str, str], pd.Series]:
        """Values by prompt of every condition and metric, over the first `candidates`."""
        kept = self.scores[self.scores.candidate < candidates]
        averaged = kept[~kept.metric.isin(labels())].groupby(["condition", "metric", "coarse"]).value.mean()
        found = {key: part.droplevel([0, 1]) for key, part in averaged.groupby(level=[0, 1])}
        for condition, seen in kept[kept.metric == STYLE_SEEN].groupby("condition"):
            found[condition, STYLE_ENTROPY] = pd.Series({WHOLE_SEED: shannon_entropy_bits(seen.value.to_numpy())})
        return found

    def metrics(self) -> tuple[set[str], set[str]]:
        """Names of the metrics with a value per image, and per set of candidates or seed."""
        per_image, per_set = self._metrics
        return set(per_image), set(per_set)

    @cached_property
    def tables(self) -> dict[tuple, pd.DataFrame | None]:
        """Whatever was read of several cells, this one first, by what it is: kept by who reads it, not to be made twice."""
        return {}

    @cached_property
    def _metrics(self) -> tuple[set[str], set[str]]:
        per_image = set(self.scores.metric[self.scores.candidate >= 0])
        per_set = set(self.scores.metric[self.scores.candidate < 0]) | ({STYLE_ENTROPY} if STYLE_SEEN in per_image else set())
        return per_image, per_set


@dataclass(frozen=True)
class Section:
    """Cells that may be compared: of one profile, made from the same data and weights. `unfinished` were meant to be among them, `planned`
    are the seeds that were registered, by arm."""

    profile: str
    data_digest: str
    weights_digest: str
    cells: tuple[FinishedCell, ...]
    unfinished: tuple[LeftOut, ...] = ()
    planned: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_tiny(self) -> bool:
        return self.profile == "tiny"

    @property
    def slug(self) -> str:
        """Unique among sections, as in tiny-0a1b2c3d-4e5f6a7b."""
        return f"{self.profile}-{self.data_digest[:8]}-{self.weights_digest[:8]}"


@dataclass(frozen=True)
class Collection:
    """Everything under an output folder: sections with the most cells first, cells left out, and warnings of one line."""

    output_dir: Path
    sections: tuple[Section, ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]


def collect(output_dir: Path) -> Collection:
    """Read every cell under OUTPUT_DIR/ARM/seed-N.

    Raises UserError where there is no such folder, no cell in it, or none that can enter a table.
    """
    if not is_folder(output_dir):
        raise UserError(f"there is no folder {readable(output_dir)!r:.200}: give the output_dir of your runs")
    folders = cell_folders(output_dir)
    if not folders:
        if any(output_dir.glob("seed-*/run.json")):
            raise UserError(f"{output_dir} is the folder of one arm: give the folder above it, {output_dir.resolve().parent}")
        raise UserError(f"{output_dir} holds no run folder ARM/seed-N: give the output_dir of your runs")
    cells, left_out = [], []
    for folder in folders:
        read = read_cell(folder, output_dir)
        (cells if isinstance(read, FinishedCell) else left_out).append(read)
    if not cells:
        counts = {status: sum(item.status == status for item in left_out) for status in dict.fromkeys(item.status for item in left_out)}
        what = ", ".join(f"{count} {status}" for status, count in counts.items())
        raise UserError(f"none of the {len(folders)} cells in {output_dir} can enter a table ({what}); first: {left_out[0].reason}")
    groups: dict[tuple[str, str, str], list[FinishedCell]] = {}
    for cell in cells:
        groups.setdefault((cell.profile, cell.data_digest, cell.weights_digest), []).append(cell)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    sections = tuple(
        Section(*key, tuple(sorted(members, key=lambda c: (c.arm, c.seed))), tuple(item for item in left_out if _belongs(item, *key)))
        for key, members in ordered
    )
    return Collection(output_dir, sections, tuple(left_out), tuple(_warnings(sections)))


def cell_folders(output_dir: Path) -> list[Path]:
    """Every folder OUTPUT_DIR/ARM/seed-..., in order; those of trainings are none."""
    found = output_dir.glob("*/seed-*")
    return sorted(path for path in found if is_folder(path) and path.parent.name != "trainings")


def _belongs(item: LeftOut, profile: str, data_digest: str, weights_digest: str) -> bool:
    """Whether a cell that did not finish was meant for a section; of a cell that ended before its digests were known: by its profile."""
    digests = ((item.data_digest, data_digest), (item.weights_digest, weights_digest))
    return bool(item.settings) and item.profile == profile and all(not own or own == theirs for own, theirs in digests)


def read_cell(folder: Path, output_dir: Path) -> FinishedCell | LeftOut:
    """A finished cell with its scores, or why it enters no table: whatever is in the folder, one of the two comes out."""
    name = readable(folder.relative_to(output_dir))
    if not _CELL.fullmatch(folder.name) or not is_plain_name(folder.parent.name):
        return LeftOut(name, "unreadable", "it is no folder of a cell, which is called ARM/seed-0")
    run = look_at_run(folder)
    if run is None:
        return LeftOut(name, "absent", "no run.json: run the cell (again)")
    if isinstance(run, Damaged):
        return LeftOut(name, "unreadable", f"run.json: {run.reason}: run the cell again")
    if run.is_rehearsal:
        return LeftOut(name, "rehearsal", "a rehearsal: its figures mean nothing and enter no table")
    if run.config.get("backbones.init") == "random":
        return LeftOut(name, "rehearsal", "backbones.init=random: networks without pre-training are a rehearsal and enter no table")
    try:
        config = from_flat_dict(run.config)
    except UserError as error:
        return LeftOut(name, run.status, f"run.json holds a config that this version does not know ({error}): run the cell again")
    if f"seed-{config.seed}" != folder.name:
        return LeftOut(name, "unreadable", f"run.json is that of seed {config.seed}: move the folder back")
    settings = {key: value for key, value in to_flat_dict(config).items() if KEYS[key].option.kind in ("train", "eval")}
    meant_for = (config.profile, settings, run.data_digest, run.weights_digest)
    if run.status != "finished":
        return LeftOut(name, *_unfinished(config, run, output_dir), *meant_for)
    if not config.eval.num_prompts:
        return LeftOut(name, "trained only", "eval.num_prompts=0: it was not evaluated")
    if not (run.data_digest and run.weights_digest):
        return LeftOut(name, "unreadable", "run.json: finished, but without digests of data and weights: run the cell again")
    try:
        scores, texts = _read_scores(folder)
    except UserError as error:
        problem = str(error).replace(f"{folder}{os.sep}", "")
        return LeftOut(name, "unreadable", f"{problem}: run the cell again with force=true", *meant_for)
    return _finished(folder, config, settings, run, scores, texts)


def _finished(
    folder: Path, config: Config, settings: Mapping[str, Scalar], run: Run, scores: pd.DataFrame, texts: Mapping[tuple[str, int, int], str]
) -> FinishedCell:
    return FinishedCell(
        folder=folder,
        arm=folder.parent.name,
        seed=config.seed,
        profile=config.profile,
        settings=settings,
        data_digest=run.data_digest,
        weights_digest=run.weights_digest,
        code_revision=run.code_revision,
        timings=run.timings,
        scores=scores,
        unavailable=run.unavailable,
        checks=run.checks,
        texts=texts,
    )


def _unfinished(config: Config, run: Run, output_dir: Path) -> tuple[str, str]:
    """The status of a cell that has not finished, and the reason or remedy."""
    status = run.status
    if status == "failed":
        return status, run.reason or "no reason was written"
    if status == "preempted":
        return status, f"stopped while {run.where or 'at work'}: the same command goes on from there"
    mine = RunFolder(dataclasses.replace(config, output_dir=str(output_dir)))
    if mine.path.resolve() == run.folder.resolve():
        try:
            status = mine.status()
        except RunFolderError as error:
            return status, str(error)
    if status == "interrupted":
        return status, "its process is gone: the same command goes on from there"
    return status, "not finished yet"


def _read_scores(folder: Path) -> tuple[pd.DataFrame, dict[tuple[str, int, int], str]]:
    """scores.parquet with the column `coarse`, the coarse prompt's text, and the texts that were refined or rewritten.

    Raises UserError where a value is missing or not finite.
    """
    for name in (SCORES, PROMPTS):
        if not is_file(folder / name):
            raise UserError(f"finished, but {name} is missing")
    scores = read_scores(folder / SCORES)
    # A value of all pictures of a condition together, such as an Inception Score, has -1 in place of a prompt.
    lines = read_prompts(folder / PROMPTS)
    coarse = {line["prompt_id"]: line["coarse"] for line in lines} | {-1: WHOLE_SEED}
    scores["coarse"] = scores.prompt_id.map(coarse)
    if scores.coarse.isna().any():
        raise UserError("scores.parquet scores prompts that prompts.jsonl does not have")
    texts = {(line["condition"], line["prompt_id"], line["candidate"]): line["refined"] for line in lines if line["condition"] in WRITTEN}
    return scores, texts


def _warnings(sections: tuple[Section, ...]) -> list[str]:
    warnings = []
    for profile in dict.fromkeys(section.profile for section in sections):
        same = [section for section in sections if section.profile == profile]
        if len(same) > 1:
            what = [f"{len(s.cells)} cells with data {s.data_digest[:8]} and weights {s.weights_digest[:8]}" for s in same]
            warnings.append(
                f"cells of the {profile} profile were made from different data or weights ({'; '.join(what)}): they are kept apart, "
                "never compared. Unless you meant to vary them, run the older ones again with force=true"
            )
    for section in sections:
        revisions = sorted({cell.code_revision for cell in section.cells})
        if len(revisions) > 1:
            shown = ", ".join(revision[:12] + "+dirty" * revision.endswith("+dirty") for revision in revisions)
            warnings.append(f"the cells of {section.slug} were made by {len(revisions)} revisions of the code: {shown}")
    return warnings
