"""What comes of a comparison: what each method wrote at each seed, its scores, and the pictures that the figure shows.

Every method's prompts take the place of the refined ones (conditions `refined` and `refined_shared_noise`), so that all are drawn and
scored by the code of a cell, and one table machinery reads them. Candidate c of prompt p at a seed has the same image noise whatever
the method: methods are paired picture by picture, with each other and with the arm's own run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ablations.baselines.base import Asked, Written
from ablations.baselines.register import REFERENCE
from ablations.cell.refining.keys import image_seed
from ablations.comparing.plan import Comparison
from ablations.reporting.collect import WHOLE_SEED
from ablations.results.conditions import REFINED, SHARED_NOISE
from ablations.results.prompts_and_scores import Drawing
from ablations.results.scores import COLUMNS, SEVERAL, WHOLE_SET
from datamodules.records import EvalPrompt


@dataclass
class Unit:
    """A method at a seed: what was asked and written, and the scores (columns of scores.parquet, with `coarse`)."""

    method: str
    seed: int
    asked: list[Asked]
    written: list[Written]
    scores: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*COLUMNS, "coarse"]))

    @property
    def failures(self) -> Counter[str]:
        return Counter(one.failure for one in self.written if one.failure)

    def drawings(self, num_candidates: int) -> list[Drawing]:
        """What is drawn of it; with several candidates also each at the first one's image noise."""
        drawings = []
        for asked, written in zip(self.asked, self.written, strict=True):
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
                        image_seed=image_seed(self.seed, asked.prompt_id, noise_of),
                        num_new_tokens=written.num_new_tokens,
                        truncated=written.truncated,
                    )
                )
        return drawings

    def take_scores(self, table: pd.DataFrame, prompts: Sequence[EvalPrompt]) -> None:
        """Keep scores, but not the diversity of prompts of which a candidate failed: fewer candidates are no fair set."""
        broken = {asked.prompt_id for asked, written in zip(self.asked, self.written, strict=True) if written.failure}
        self.scores = table[~((table.candidate == SEVERAL) & table.prompt_id.isin(broken))].reset_index(drop=True)
        coarse = {prompt.prompt_id: prompt.coarse_prompt for prompt in prompts} | {WHOLE_SET: WHOLE_SEED}
        self.scores["coarse"] = self.scores.prompt_id.map(coarse)


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
