"""Scores of what suits: of texts, of the refiner's own probabilities, and of what the word oracle sees in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ablations.cell.scoring.candidates import sets_of_candidates, st_lpips_of
from ablations.cell.scoring.pictures import Pictures
from ablations.cell.scoring.score_store import ScoreStore
from ablations.config import Config
from ablations.metrics import word_oracle
from ablations.metrics.added_words import AddedWords
from ablations.metrics.style_text import exact_style_scores, is_head, style_probabilities
from ablations.results.conditions import COARSE, REFINED, all_conditions, is_shared_noise
from ablations.results.made_by import AT_ONCE, full_batches, text_key
from ablations.results.prompts_and_scores import Drawing
from ablations.results.scores import Score
from datamodules.records import EvalPrompt
from datamodules.tiny_world.grammar import QUALITIES, STYLES
from datamodules.tiny_world.worlds import World, world
from lightning_modules.frozen_features import digest_of
from lightning_modules.prompt_refiner import PromptRefinerModule

# What no more than so many tokens of the fine prompt could say: the ceiling of what is written at a length.
CEILING = "fine_prefix"


@dataclass(frozen=True)
class Fitting:
    """What is needed to score what suits: the world that the prompts are of and, for the exact scores, the trained refiner."""

    world: World
    module: PromptRefinerModule | None = None


def fitting_for(config: Config, module: PromptRefinerModule | None = None) -> Fitting | None:
    """None where nobody knows what suits: of tables."""
    return Fitting(world(config.data.world), module) if config.data.source == "tiny" else None


def fitting_text_scores(
    fitting: Fitting, prompts: Sequence[EvalPrompt], drawings: Sequence[Drawing], store: ScoreStore | None = None
) -> list[Score]:
    """Of every text that was meant to add something, and of every set of candidates; of the refiner's probabilities after every head."""
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    added: list[tuple[Drawing, AddedWords, AddedWords]] = []
    repeated = {name for name, condition in all_conditions().items() if is_shared_noise(name) and not condition.is_bound}
    for drawing in drawings:
        prompt = by_id[drawing.prompt_id]
        if prompt.scene is None or drawing.condition in repeated:
            continue
        own = AddedWords.of(drawing.coarse, drawing.text, prompt.scene, fitting.world)
        # What was meant to add something and did not has a value; the user's own prompt, however it is drawn, has none.
        if own.phrases or drawing.text != drawing.coarse or drawing.condition not in _as_typed():
            added.append((drawing, own, AddedWords.of(drawing.coarse, prompt.fine_prompt, prompt.scene, fitting.world)))
    ceilings = [own.f1(fine) for drawing, own, fine in added if drawing.condition == CEILING]
    ceiling = float(np.mean([value for value in ceilings if value is not None] or [0.0]))
    scores = [score for row in added for score in _of_text(*row, ceiling)]
    return scores + _of_text_sets(added) + _exact(fitting, prompts, store or ScoreStore(None, {}))


def _as_typed() -> set[str]:
    """The conditions that draw the user's own prompt."""
    return {name for name, condition in all_conditions().items() if name == COARSE or condition.by_trained_encoder}


def _of_text(drawing: Drawing, own: AddedWords, fine: AddedWords, ceiling: float) -> list[Score]:
    f1 = own.f1(fine)
    values = {"added_words_fit": own.fit, "added_words_recall": own.recall(fine), "words_f1": f1, "phrases_cut": own.cut}
    values["words_f1_of_ceiling"] = f1 / ceiling if ceiling and f1 is not None else None
    return [Score.of_picture(drawing, name, value) for name, value in values.items() if value is not None]


def _of_text_sets(added: Sequence[tuple[Drawing, AddedWords, AddedWords]]) -> list[Score]:
    found = []
    for (prompt_id, condition), members in sets_of_candidates([drawing for drawing, _, _ in added]).items():
        styles = {added[i][1].style for i in members}
        scene = added[members[0]][1].scene.scene
        number = len(styles & set(added[members[0]][1].world.fitting_styles[scene]))
        found.append(Score.of_set(prompt_id, condition, "distinct_fitting_styles", number))
    return found


def _exact(fitting: Fitting, prompts: Sequence[EvalPrompt], store: ScoreStore) -> list[Score]:
    heads, module = [prompt for prompt in prompts if is_head(prompt)], fitting.module
    if module is None or not heads:
        return []
    texts = [prompt.coarse_prompt for prompt in heads]
    # The same for every length of a training.
    name = f"styles_written-{digest_of(('trained', str(module.adapter_settings)), module)}"
    probabilities = store.remember(name, [text_key(text) for text in texts], lambda at: style_probabilities(module, [texts[i] for i in at]))
    return [
        Score.of_set(prompt.prompt_id, REFINED, name, value)
        for prompt, row in zip(heads, probabilities, strict=True)
        for name, value in exact_style_scores(row, prompt.scene.scene, fitting.world).items()
    ]


def fitting_picture_scores(
    fitting: Fitting, prompts: Sequence[EvalPrompt], pictures: Pictures, store: ScoreStore, device: str = "cpu"
) -> list[Score]:
    """Of every picture, and of every set of candidates, by the words that are seen."""
    if not len(pictures.images):
        return []

    def compute(positions: np.ndarray) -> np.ndarray:
        return np.concatenate([_seen(part)[:count] for part, count in full_batches(pictures.images[positions], AT_ONCE)])

    seen = store.remember("words_seen", pictures.keys, compute)
    scene_of = {prompt.prompt_id: prompt.scene for prompt in prompts}
    scores: list[Score] = []
    fits = np.zeros(len(seen), dtype=bool)
    for i, (drawing, row) in enumerate(zip(pictures.drawings, seen, strict=True)):
        truth = scene_of[drawing.prompt_id]
        suited = np.array([word in fitting.world.fitting_qualities[truth.subject] for word in QUALITIES])
        fits[i] = (*STYLES, None)[int(row[0])] in fitting.world.fitting_styles[truth.scene]
        there = row[1:] > 0
        values = {"style_fits": float(fits[i]), "qualities_fit": there[suited].mean()}
        values["quality_precision"] = suited[there].mean() if there.any() else 0.0
        scores += [Score.of_picture(drawing, name, value) for name, value in values.items()]
    fitting_sets = {group: [i for i in members if fits[i]] for group, members in sets_of_candidates(pictures.drawings).items()}
    for group, members in fitting_sets.items():
        scores.append(Score.of_set(*group, "fitting_styles_drawn", len({seen[i][0] for i in members})))
    several = {group: members for group, members in fitting_sets.items() if len(members) > 1}
    for group, distance in zip(several, st_lpips_of(pictures, list(several.values()), store, device), strict=True):
        scores.append(Score.of_set(*group, "st_lpips_fitting", distance))
    return scores


def _seen(images: np.ndarray) -> np.ndarray:
    """The style's class and whether each quality word is there, float64 (N, 7), of uint8 pictures (N, 64, 64, 3)."""
    seen = word_oracle.words_seen(images)
    rows = [
        [word_oracle.style_class(style), *(float(word in words) for word in QUALITIES)]
        for style, words in zip(seen.styles, seen.qualities, strict=True)
    ]
    return np.array(rows, dtype=np.float64)
