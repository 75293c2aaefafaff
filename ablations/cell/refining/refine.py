"""The fourth stage: the evaluation prompts are refined, and every picture planned that is to be drawn and scored.

What the conditions are stands in `ablations.results.conditions`, and how much of each is read in `ablations.results.comparisons`; here
each is asked to write, candidate by candidate. The first `eval.num_prompts` prompts get pictures, those after them texts alone.

All draws are keyed: candidate c of prompt p samples its tokens from f(seed, p, c) and its picture from the image noise
f(seed, p, c), which is the same for every condition. So conditions, and arms at one seed, are paired picture by picture.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ablations.cell.processes.share import ALL, ALONE, FOLDER, Share, read_drawings, refined_file, write_drawings
from ablations.cell.refining.keys import image_seed, prompt_seed
from ablations.cell.work import Work
from ablations.config import Config, EvalConfig
from ablations.results.comparisons import Reads, what_is_read
from ablations.results.conditions import Condition, all_conditions
from ablations.results.prompts_and_scores import Drawing
from ablations.results.seen_words import SeenWords
from ablations.results.seen_words import read as read_seen_words
from ablations.runtime.errors import UserError
from datamodules.records import EvalPrompt
from datamodules.tiny_world.grammar import SceneDescription
from datamodules.tiny_world.worlds import World, world
from lightning_modules.prompt_refiner import PromptRefinerModule
from lightning_modules.settings import PieceRules, Refinement, RefineSettings

# So many prompts are refined at a time: memory does not grow with their number.
AT_ONCE = 64


def refine_settings(prompt_len: int, config: EvalConfig, mode: str | None = None, seen: SeenWords | None = None) -> RefineSettings:
    """How the arm refines, or how it would in another mode. `seen` is the training's, which eval.any_piece=false needs.

    Raises UserError where it is needed and not there.
    """
    if not config.any_piece and seen is None:
        raise UserError("eval.any_piece=false: what this training read is not known (seen_words.json): run its cell again with force=true")
    return RefineSettings(
        prompt_len=prompt_len,
        mode=mode or config.mode,
        extend_by=config.extend_by,
        rounds=config.rounds,
        max_new_tokens=config.max_new_tokens,
        top_p=config.top_p,
        top_k=config.top_k,
        exact_length=config.exact_length,
        rules=PieceRules() if config.any_piece or seen is None else PieceRules(seen.pieces, new_word=True),
    )


def shuffled_prompts(coarse: Sequence[str]) -> list[str] | None:
    """For each prompt the next one, cyclically, that is another text; None where all prompts are the same."""
    if len(set(coarse)) < 2:
        return None
    twice = [*coarse, *coarse]
    return [next(other for other in twice[i + 1 :] if other != text) for i, text in enumerate(coarse)]


@dataclass(frozen=True)
class Sources:
    """What is refined and by what: the evaluation prompts, the trained refiner, and what makes it anew as it was before its first step.

    `known_phrases()` gives the phrases of the training prompts with the number of prompts that have them. Both functions are called at
    most once, and only where a condition asks. `seen`: which words and pieces the training read, where eval.any_piece=false.
    """

    prompts: Sequence[EvalPrompt]
    module: PromptRefinerModule
    at_step_0: Callable[[], PromptRefinerModule]
    known_phrases: Callable[[], Mapping[str, int]] = dict
    seen: SeenWords | None = None


def seen_by(work: Work) -> SeenWords | None:
    """What a cell's finished training read, where its arm asks for that."""
    return None if work.config.eval.any_piece else read_seen_words(work.folder.training_path)


class _Evaluation:
    """What all rounds of a cell share."""

    def __init__(self, config: Config, sources: Sources):
        self.config, self.prompts, self.module = config, sources.prompts, sources.module
        self.settings, self.rewriting = (refine_settings(config.prompt_len, config.eval, mode, sources.seen) for mode in (None, "rewrite"))
        self.world = world(config.data.world) if config.data.source == "tiny" else None
        self._sources = sources

    @property
    def num_with_pictures(self) -> int:
        return min(self.config.eval.num_prompts, len(self.prompts))

    @cached_property
    def untrained(self) -> PromptRefinerModule:
        return self._sources.at_step_0()

    @cached_property
    def known_phrases(self) -> Mapping[str, int]:
        return self._sources.known_phrases()

    @cached_property
    def shuffled(self) -> list[str | None]:
        """Another prompt for each, among those with pictures and among the others; None where there is no other."""
        coarse, count = [prompt.coarse_prompt for prompt in self.prompts], self.num_with_pictures
        return [other for part in (coarse[:count], coarse[count:]) for other in shuffled_prompts(part) or [None] * len(part)]


@dataclass(frozen=True)
class CandidateRound:
    """One candidate of some prompts, as the conditions see it: see `conditions.Round`. `positions` are the prompts' places."""

    shared: _Evaluation
    candidate: int
    positions: Sequence[int]

    @cached_property
    def prompts(self) -> list[EvalPrompt]:
        return [self.shared.prompts[i] for i in self.positions]

    @cached_property
    def seeds(self) -> list[tuple[int, ...]]:
        return [(prompt_seed(self.shared.config.seed, prompt.prompt_id, self.candidate),) for prompt in self.prompts]

    @cached_property
    def written(self) -> Written:
        return Written(self)

    @property
    def module(self) -> PromptRefinerModule:
        return self.shared.module

    @property
    def untrained(self) -> PromptRefinerModule:
        return self.shared.untrained

    @property
    def known_phrases(self) -> Mapping[str, int]:
        return self.shared.known_phrases

    @property
    def coarse(self) -> list[str]:
        return [prompt.coarse_prompt for prompt in self.prompts]

    @property
    def fine(self) -> list[str]:
        return [prompt.fine_prompt for prompt in self.prompts]

    @property
    def scenes(self) -> list[SceneDescription | None]:
        return [prompt.scene for prompt in self.prompts]

    @property
    def world(self) -> World | None:
        return self.shared.world

    @property
    def shuffled(self) -> list[str] | None:
        found = [self.shared.shuffled[i] for i in self.positions]
        texts = [text for text in found if text is not None]
        return texts if len(texts) == len(found) else None

    @property
    def settings(self) -> RefineSettings:
        return self.shared.settings

    @property
    def rewriting(self) -> RefineSettings:
        return self.shared.rewriting


class Written(Mapping[str, Sequence[Refinement]]):
    """What conditions write of a round, each asked once, and only when it is wanted.

    Raises UserError for what is not a refinement for each prompt, and where a condition is wanted that has nothing for these prompts.
    """

    def __init__(self, one: CandidateRound):
        self._round = one
        self._found: dict[str, Sequence[Refinement] | None] = {}

    def of(self, condition: Condition) -> Sequence[Refinement] | None:
        """What a condition writes, or None where it cannot be had."""
        if condition.name not in self._found:
            refinements, count = condition.write(self._round), len(self._round.prompts)
            if refinements is not None and (len(refinements) != count or not all(isinstance(one, Refinement) for one in refinements)):
                raise UserError(f"condition {condition.name} must write a Refinement for each of the {count} prompts")
            self._found[condition.name] = refinements
        return self._found[condition.name]

    def __getitem__(self, name: str) -> Sequence[Refinement]:
        refinements = self.of(all_conditions()[name])
        if refinements is None:
            raise UserError(f"condition {name} is read by another one, but has nothing for these prompts")
        return refinements

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def plan_drawings(config: Config, sources: Sources, share: Share = ALONE, only: Collection[str] | None = None) -> list[Drawing]:
    """The prompts under every condition that is read of the cell (of `only` these), candidate by candidate and condition by condition.

    Of several processes each writes the prompts of its own share.
    """
    shared = _Evaluation(config, sources)
    read = {name: reads for name, reads in what_is_read(config).items() if only is None or name in only}
    drawings: list[Drawing] = []
    for candidate in range(config.eval.num_candidates):
        found: dict[str, dict[int, Drawing]] = {name: {} for name in read}
        for names, positions in _blocks(shared, read, candidate, share):
            for start in range(0, len(positions), AT_ONCE):
                one = CandidateRound(shared, candidate, positions[start : start + AT_ONCE])
                for name in names:
                    found[name] |= _drawings_of(one, all_conditions()[name], read[name])
        drawings += [of_condition[i] for of_condition in found.values() for i in sorted(of_condition)]
    return drawings


def _blocks(shared: _Evaluation, read: Mapping[str, Reads], candidate: int, share: Share) -> list[tuple[tuple[str, ...], list[int]]]:
    """(conditions, places of prompts): the prompts of which the same conditions read this candidate."""
    blocks: dict[tuple[str, ...], list[int]] = {}
    for i in (i for i in range(len(shared.prompts)) if share.has(i)):
        names = tuple(name for name, reads in read.items() if candidate < max(_num_drawn(shared, reads, i), reads.texts))
        if names:
            blocks.setdefault(names, []).append(i)
    return list(blocks.items())


def _num_drawn(shared: _Evaluation, reads: Reads, position: int) -> int:
    """How many candidates of a prompt are drawn."""
    is_drawn = position < shared.num_with_pictures
    return reads.pictures_of(in_grid=position < shared.config.eval.grid_prompts) if is_drawn else 0


def _drawings_of(one: CandidateRound, condition: Condition, reads: Reads) -> dict[int, Drawing]:
    """What a condition writes of a round, by the prompts' places; nothing where it cannot be had."""
    seed, noise_candidate = one.shared.config.seed, 0 if condition.shared_noise else one.candidate
    rows = zip(one.positions, one.prompts, one.seeds, one.written.of(condition) or (), strict=False)
    return {
        i: Drawing(
            prompt_id=prompt.prompt_id,
            condition=condition.name,
            candidate=one.candidate,
            coarse=prompt.coarse_prompt,
            text=refinement.text,
            prompt_seed=key,
            image_seed=image_seed(seed, prompt.prompt_id, noise_candidate),
            num_new_tokens=refinement.num_new_tokens,
            truncated=refinement.truncated,
            by_trained_encoder=condition.by_trained_encoder,
            drawn=one.candidate < _num_drawn(one.shared, reads, i),
        )
        for i, prompt, (key,), refinement in rows
    }


def refine(work: Work, sources: Sources) -> list[Drawing]:
    """The prompts under every condition, as what is to be drawn or read; the module is ready to refine from now on.

    Several processes share the prompts out.
    """
    config, module = work.config, sources.module
    module.to(module.backbones.text_to_image.device).eval()
    with work.timings.stage("refining"):
        num_texts = len(sources.prompts) - config.eval.num_prompts
        more = f", {num_texts} more as texts alone" if num_texts > 0 else ""
        work.console.say(f"refining {config.eval.num_prompts} prompts, up to {config.eval.num_candidates} candidates each{more}")
        crew = work.crew
        own = crew.do("refining", lambda: plan_drawings(config, sources, Share(0, crew.world_size)), checkpoint=work.checkpoint)
        drawings = _in_order(work, sources, own) if crew.world_size > 1 else own
    work.stop.check("refining")
    return drawings


def _in_order(work: Work, sources: Sources, own: list[Drawing]) -> list[Drawing]:
    """The drawings of all processes as one alone has them, which the other stages' processes find in a file."""
    folder, ranks = work.folder.path, range(1, work.crew.world_size)
    together = own + [drawing for rank in ranks for drawing in read_drawings(refined_file(folder, rank))]
    conditions = {name: place for place, name in enumerate(what_is_read(work.config))}
    prompts = {prompt.prompt_id: place for place, prompt in enumerate(sources.prompts)}
    together.sort(key=lambda drawing: (drawing.candidate, conditions[drawing.condition], prompts[drawing.prompt_id]))
    write_drawings(folder / FOLDER / ALL, together)
    return together


def refine_share(work: Work, sources: Sources, share: Share) -> None:
    """What a process beside rank 0 refines, left in a file."""
    sources.module.to(sources.module.backbones.text_to_image.device).eval()
    write_drawings(refined_file(work.folder.path, share.rank), plan_drawings(work.config, sources, share))
