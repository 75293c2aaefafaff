"""The fourth stage: every evaluation prompt is refined, and every picture planned that is to be drawn and scored.

What the conditions are stands in `ablations.results.conditions`; here each is asked to write, candidate by candidate.

All draws are keyed: candidate c of prompt p samples its tokens from f(seed, p, c) and its picture from the image noise
f(seed, p, c), which is the same for every condition. So conditions, and arms at one seed, are paired picture by picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ablations.cell.refining.keys import image_seed, prompt_seed
from ablations.cell.work import Work
from ablations.config import EvalConfig
from ablations.results.conditions import Condition, conditions_of
from ablations.results.prompts_and_scores import Drawing
from ablations.runtime.errors import UserError
from datamodules.records import EvalPrompt
from lightning_modules.prompt_refiner import PromptRefinerModule
from lightning_modules.settings import Refinement, RefineSettings


def refine_settings(prompt_len: int, config: EvalConfig, mode: str | None = None) -> RefineSettings:
    """How the arm refines, or how it would in another mode."""
    return RefineSettings(
        prompt_len=prompt_len,
        mode=mode or config.mode,
        extend_by=config.extend_by,
        rounds=config.rounds,
        max_new_tokens=config.max_new_tokens,
        top_p=config.top_p,
        top_k=config.top_k,
    )


def shuffled_prompts(coarse: Sequence[str]) -> list[str] | None:
    """For each prompt the next one, cyclically, that is another text; None where all prompts are the same."""
    if len(set(coarse)) < 2:
        return None
    twice = [*coarse, *coarse]
    return [next(other for other in twice[i + 1 :] if other != text) for i, text in enumerate(coarse)]


@dataclass(frozen=True)
class _Evaluation:
    """What all rounds of a cell share. `make_untrained` gives the refiner at step 0, and is called at most once."""

    module: PromptRefinerModule
    make_untrained: Callable[[], PromptRefinerModule]
    prompts: Sequence[EvalPrompt]
    settings: RefineSettings
    rewriting: RefineSettings

    @cached_property
    def untrained(self) -> PromptRefinerModule:
        return self.make_untrained()

    @cached_property
    def coarse(self) -> list[str]:
        return [prompt.coarse_prompt for prompt in self.prompts]

    @cached_property
    def shuffled(self) -> list[str] | None:
        return shuffled_prompts(self.coarse)


@dataclass(frozen=True)
class CandidateRound:
    """One candidate of every prompt, as the conditions see it: see `conditions.Round`."""

    shared: _Evaluation
    candidate: int
    seeds: list[tuple[int, ...]]
    written: dict[str, Sequence[Refinement]] = field(default_factory=dict)

    @property
    def module(self) -> PromptRefinerModule:
        return self.shared.module

    @property
    def untrained(self) -> PromptRefinerModule:
        return self.shared.untrained

    @property
    def coarse(self) -> list[str]:
        return self.shared.coarse

    @property
    def fine(self) -> list[str]:
        return [prompt.fine_prompt for prompt in self.shared.prompts]

    @property
    def shuffled(self) -> list[str] | None:
        return self.shared.shuffled

    @property
    def settings(self) -> RefineSettings:
        return self.shared.settings

    @property
    def rewriting(self) -> RefineSettings:
        return self.shared.rewriting


def plan_drawings(
    module: PromptRefinerModule,
    untrained: Callable[[], PromptRefinerModule],
    prompts: Sequence[EvalPrompt],
    prompt_len: int,
    config: EvalConfig,
    seed: int,
) -> list[Drawing]:
    """Refine every prompt under every condition. `untrained` gives the same refiner at step 0 (called only where a condition asks)."""
    settings, rewriting = (refine_settings(prompt_len, config, mode) for mode in (None, "rewrite"))
    shared = _Evaluation(module, untrained, prompts, settings, rewriting)
    drawings: list[Drawing] = []
    for candidate in range(config.num_candidates):
        keys = [prompt_seed(seed, prompt.prompt_id, candidate) for prompt in prompts]
        written = _written(CandidateRound(shared, candidate, [(key,) for key in keys]), conditions_of(config))
        for condition, refinements in written.items():
            noise_candidate = 0 if condition.shared_noise else candidate
            for prompt, key, refinement in zip(prompts, keys, refinements, strict=True):
                drawings.append(
                    Drawing(
                        prompt_id=prompt.prompt_id,
                        condition=condition.name,
                        candidate=candidate,
                        coarse=prompt.coarse_prompt,
                        text=refinement.text,
                        prompt_seed=key,
                        image_seed=image_seed(seed, prompt.prompt_id, noise_candidate),
                        num_new_tokens=refinement.num_new_tokens,
                        truncated=refinement.truncated,
                        by_trained_encoder=condition.by_trained_encoder,
                    )
                )
    return drawings


def refine(
    work: Work, module: PromptRefinerModule, at_step_0: Callable[[], PromptRefinerModule], prompts: Sequence[EvalPrompt]
) -> list[Drawing]:
    """The prompts under every condition, as what is to be drawn; `module` is ready to refine from now on."""
    config = work.config
    module.to(module.backbones.text_to_image.device).eval()
    with work.timings.stage("refining"):
        work.console.say(f"refining {len(prompts)} prompts, {config.eval.num_candidates} candidates each")
        drawings = plan_drawings(module, at_step_0, prompts, config.prompt_len, config.eval, config.seed)
    work.stop.check("refining")
    return drawings


def _written(one: CandidateRound, conditions: Sequence[Condition]) -> Mapping[Condition, Sequence[Refinement]]:
    """What each condition writes of a round. Raises UserError where it is not a refinement for each prompt."""
    found: dict[Condition, Sequence[Refinement]] = {}
    for condition in conditions:
        refinements = condition.write(one)
        if refinements is None:
            continue
        if len(refinements) != len(one.coarse) or not all(isinstance(refinement, Refinement) for refinement in refinements):
            raise UserError(f"condition {condition.name} must write a Refinement for each of the {len(one.coarse)} prompts")
        one.written[condition.name] = found[condition] = refinements
    return found
