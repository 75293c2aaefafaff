"""Designs, seeds x prompts x candidates, and the minutes that the arms of a sweep take in each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ablations.config import Config
from ablations.results.comparisons import what_is_read
from ablations.results.run_folder import RunFolder
from ablations.sweeping.cell import Cell
from ablations.sweeping.forecast import EvaluationCosts, TrainingCosts, evaluation_kind, forecast_cells, training_kind

# What --power shows, beside the sweep's own design.
SEEDS, PROMPTS, CANDIDATES = (3, 5, 8, 10), (16, 64, 192), (1, 3)
CostsOf = Callable[[Config], tuple[TrainingCosts, EvaluationCosts]]
# A folder that is not there: nothing is finished in it, so everything is still to be made.
_NOWHERE = "/nowhere/planned"


@dataclass(frozen=True, order=True)
class Design:
    """N of a sweep. `candidates` are those that quality is read off; diversity has all of eval.num_candidates in every design."""

    seeds: int
    prompts: int
    candidates: int

    def __str__(self) -> str:
        return f"{self.seeds} x {self.prompts} x {self.candidates}"


def all_designs() -> list[Design]:
    """The designs that --power shows."""
    return [Design(*each) for each in itertools.product(SEEDS, PROMPTS, CANDIDATES)]


def in_design(config: Config, design: Design) -> Config:
    """The config of a cell of a design: with one candidate what tables read of the arm is drawn, with more all of it."""
    e = dataclasses.replace(config.eval, num_prompts=design.prompts)
    if design.candidates > 1:
        e = dataclasses.replace(e, draw="all", num_candidates=max(design.candidates, e.num_candidates))
    return dataclasses.replace(config, eval=e, output_dir=_NOWHERE)


@dataclass
class Minutes:
    """What designs cost. `arms` are configs of one seed each, by label; `costs_of` gives the costs of a config's training and evaluation,
    None where nothing is known of them. Seeds cost the same; `jobs` processes share the work."""

    arms: Mapping[str, Config]
    costs_of: CostsOf | None
    jobs: int = 1
    _known: dict[tuple, float] = field(default_factory=dict)

    def of(self, design: Design, labels: Sequence[str]) -> float | None:
        """Minutes of these arms from nothing; what they share is made once."""
        if self.costs_of is None:
            return None
        key = (design.prompts, design.candidates, tuple(labels))
        if key not in self._known:
            configs = [in_design(self.arms[label], design) for label in labels]
            self._known[key] = self._seconds_a_seed(configs) / 60
        return design.seeds * self._known[key] / self.jobs

    @property
    def output_dir(self) -> str:
        return next(iter(self.arms.values())).output_dir

    def _seconds_a_seed(self, configs: Sequence[Config]) -> float:
        assert self.costs_of is not None
        cells = [Cell(number, config, RunFolder(config), {}) for number, config in enumerate(configs)]
        # Costs of this machine are kept in the sweep's own folder.
        costs = [self.costs_of(dataclasses.replace(config, output_dir=self.output_dir)) for config in configs]
        training = {training_kind(config): found[0] for config, found in zip(configs, costs, strict=True)}
        evaluation = {evaluation_kind(config): found[1] for config, found in zip(configs, costs, strict=True)}
        together = forecast_cells(cells, None, 0, training, evaluation)[1]
        return sum(together.seconds.values())


def candidates_read(configs: Sequence[Config], conditions: Sequence[str], of_texts: bool) -> int:
    """How many candidates of a condition of each arm are there to be compared, of pictures or of texts: the fewest; at least 1."""
    counts = []
    for config in configs:
        read = what_is_read(config)
        counts += [read[name].texts if of_texts else read[name].pictures for name in conditions if name in read]
    return max(1, min(counts, default=1))
