"""What suits: words that were added, styles that would be written, and the exact lines that they are read against."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablations.cell.scoring.fitting import Fitting, fitting_for, fitting_text_scores
from ablations.cell.scoring.scorer import Scorer
from ablations.config import parse
from ablations.metrics.added_words import AddedWords, added_phrases
from ablations.metrics.references import kl_bits, reference_lines
from ablations.metrics.register import all_metrics
from ablations.metrics.style_text import exact_style_scores, is_head, style_probabilities
from ablations.results.prompts_and_scores import Drawing
from datamodules.records import EvalPrompt
from datamodules.tiny_world.grammar import SCENES, STYLES, SceneDescription
from datamodules.tiny_world.renderer import render
from datamodules.tiny_world.worlds import world
from helpers.refiner_modules import make_module

HEAD = "a castle in a city at noon"
# In world 2 pixel art and comic book suit a city, dramatic lighting, 8k and cinematic a castle.
CASTLE = SceneDescription("castle", "city", "noon", "pixel art", ("8k", "cinematic"), 3)
FINE = f"{HEAD}, pixel art, 8k, cinematic"


def added(text: str, number: int = 2) -> AddedWords:
    return AddedWords.of(HEAD, text, CASTLE, world(number))


def test_added_phrases_are_what_follows_the_prompt_or_its_rewritten_head():
    assert added_phrases(HEAD, f"{HEAD}, comic book, 8k") == ["comic book", "8k"]
    assert added_phrases(HEAD, "a castle, comic book,8k,") == ["comic book", "8k"]
    assert added_phrases(HEAD, HEAD) == [] == added_phrases(HEAD, "a castle")


@pytest.mark.parametrize(
    ("words", "fit", "recall", "f1", "cut"),
    [
        ("pixel art, 8k, cinematic", 1.0, 1.0, 1.0, 0.0),
        ("comic book, dramatic lighting, 8k", 1.0, 1.0, 1.0, 0.0),  # other words that suit are as right as the fine prompt's
        ("watercolor, 8k", 0.5, 1 / 3, 0.4, 0.0),
        ("pixel art, comic book", 0.5, 1 / 3, 0.4, 0.0),  # a prompt has one style
        ("8k, 8k, 8k", 1 / 3, 1 / 3, 1 / 3, 0.0),  # a word counts once
        ("pixel art, dramatic", 1.0, 1 / 3, 0.4, 0.5),  # cut: no known word, and a phrase all the same
        ("", 0.0, 0.0, 0.0, 0.0),  # a refiner that stops at once has added nothing that fits
        ("seen today", 0.0, 0.0, 0.0, 0.0),
        ("pixel art, 8k, cinematic, dramatic lighting", 1.0, 1.0, 1.0, 0.0),
    ],
)
def test_words_are_scored_against_what_suits(words, fit, recall, f1, cut):
    own, fine = added(f"{HEAD}, {words}"), added(FINE)
    assert (own.fit, own.recall(fine), own.f1(fine), own.cut) == pytest.approx((fit, recall, f1, cut))


def test_the_same_words_suit_in_one_world_and_not_in_the_other():
    assert added(f"{HEAD}, woodblock print", 1).fit == 1 and added(f"{HEAD}, woodblock print", 2).fit == 0


def test_reference_lines_are_exact():
    kl, fit, entropy = (reference_lines(name, world(2)) for name in ("style_kl", "style_fit_probability", "style_entropy_exact"))
    assert kl == pytest.approx({"truth": 0.0, "style marginal": 0.8310, "uniform guess": 0.8313}, abs=1e-4)
    assert fit == pytest.approx({"truth": 0.9, "style marginal": 0.4150, "uniform guess": 15 / 36}, abs=1e-4)
    assert entropy == pytest.approx({"truth": 1.7536, "style marginal": 2.5847, "uniform guess": math.log2(6)}, abs=1e-4)
    assert reference_lines("fitting_styles_drawn", world(2))["truth"] == pytest.approx(1.7669, abs=1e-4)
    assert reference_lines("fitting_styles_drawn", world(2), candidates=1) == pytest.approx(fit)
    assert reference_lines("added_words_fit", world(2)) == {"uniform guess": 0.5}
    assert reference_lines("fidelity", world(2)) == {}


def test_coverage_of_the_truth_is_what_drawing_from_it_covers():
    rng = np.random.default_rng(0)
    found = []
    for scene in SCENES:
        drawn = rng.choice(6, (4000, 3), p=world(2).style_distribution(scene))
        fits = [STYLES.index(style) for style in world(2).fitting_styles[scene]]
        found += [len(set(row) & set(fits)) for row in drawn.tolist()]
    assert np.mean(found) == pytest.approx(reference_lines("distinct_fitting_styles", world(2))["truth"], abs=0.02)


def test_metrics_and_lines_lie_within_the_declared_range():
    for name, metric in all_metrics().items():
        for value in reference_lines(name, world(2)).values():
            assert metric.range[0] <= value <= metric.range[1], name


def test_exact_style_scores_of_the_truth_of_a_guess_and_of_nothing():
    truth = world(2).style_distribution("city")
    assert exact_style_scores(0.3 * truth, "city", world(2)) == pytest.approx(
        {"style_kl": 0.0, "style_fit_probability": 0.9, "style_entropy_exact": 1.543, "style_mass": 0.3}, abs=1e-3
    )
    nothing = exact_style_scores(np.zeros(6), "city", world(2))
    assert nothing["style_kl"] == pytest.approx(kl_bits(truth, np.full(6, 1 / 6))) and nothing["style_mass"] == 0
    certain = exact_style_scores(np.eye(6)[0], "city", world(2))
    assert math.isfinite(certain["style_kl"]) and certain["style_fit_probability"] == pytest.approx(0, abs=1e-9)


def test_the_probabilities_of_phrases_are_those_that_sampling_draws_from(small_backbones):
    """One token at a time by hand: what the decoder says of the first token after the head, then of the second."""
    module = make_module(small_backbones)
    probabilities = style_probabilities(module, [HEAD, "an owl on a beach at night"])
    assert probabilities.shape == (2, 6) and (probabilities > 0).all() and (probabilities.sum(1) < 1).all()
    decoder, (inputs, mask) = small_backbones.decoder, module.read([HEAD])
    ids = decoder.tokenizer([f"{HEAD}, oil painting"], return_tensors="pt").input_ids
    chances = decoder.logits(inputs, ids, mask).softmax(-1)[0]
    by_hand = math.prod(chances[position, ids[0, position]].item() for position in (ids.shape[1] - 3, ids.shape[1] - 2))
    assert probabilities[0, STYLES.index("oil painting")] == pytest.approx(by_hand, rel=1e-4)


def prompts() -> list[EvalPrompt]:
    return [EvalPrompt(0, HEAD, FINE, CASTLE), EvalPrompt(1, HEAD, f"{HEAD}, comic book", CASTLE)]


def test_only_heads_are_asked_for_styles():
    assert is_head(prompts()[0])
    assert not any(is_head(EvalPrompt(0, text, FINE, CASTLE)) for text in ("a castle", f"{HEAD}, pixel art"))
    assert not is_head(EvalPrompt(0, HEAD, FINE, None))


def scored(backbones, fitting: Fitting | None):
    """Two prompts with two candidates each, of which the second prompt's are one that suits and one that does not."""
    styles = {(0, 0): "pixel art", (0, 1): "comic book", (1, 0): "pixel art", (1, 1): "watercolor"}
    drawings = [Drawing(p, "refined", c, HEAD, f"{HEAD}, {style}, 8k", 0, 0) for (p, c), style in styles.items()]
    drawings += [Drawing(p, "coarse", c, HEAD, HEAD, 0, 0) for p, c in styles]
    drawings.append(Drawing(0, "refined_may_stop", 0, HEAD, HEAD, 0, 0))
    drawings += [Drawing(p, "fine_prefix", 0, HEAD, f"{HEAD}, {style}", 0, 0) for p, style in ((0, "pixel art"), (1, "comic book"))]
    pictures = [render(SceneDescription("castle", "city", "noon", styles.get((d.prompt_id, d.candidate)), ("8k",), 3)) for d in drawings]
    table = Scorer(backbones, fitting=fitting).score(prompts(), drawings, np.stack(pictures)).table
    return table.set_index(["metric", "condition", "prompt_id", "candidate"]).value.sort_index()


def test_texts_are_scored_once_and_those_that_are_forced_to_differ_have_scores_of_their_own():
    fitting, styles = Fitting(world(2)), ("pixel art", "comic book", "watercolor")
    drawings = [
        Drawing(0, condition, c, HEAD, f"{HEAD}, {style}", 0, 0)
        for condition in ("refined", "refined_shared_noise", "fitting_styles")
        for c, style in enumerate(styles)
    ]
    found = [score for score in fitting_text_scores(fitting, prompts(), drawings) if score.metric == "distinct_fitting_styles"]
    assert [(score.condition, score.value) for score in found] == [("refined", 2), ("fitting_styles", 2)]  # watercolor suits no city


def test_a_cell_is_scored_by_what_suits(small_backbones):
    values = scored(small_backbones, Fitting(world(2), make_module(small_backbones)))
    assert values["style_fits", "refined"].tolist() == [1, 1, 1, 0]
    assert values["fitting_styles_drawn", "refined"].tolist() == [2, 1] == values["distinct_fitting_styles", "refined"].tolist()
    assert values["st_lpips_fitting", "refined"].index.tolist() == [(0, -1)]  # one that fits is no pair
    assert values["st_lpips_fitting", "refined", 0, -1] == pytest.approx(values["st_lpips", "refined", 0, -1])
    assert values["qualities_fit", "refined", 0, 0] == pytest.approx(1 / 3) and values["quality_precision", "refined", 0, 0] == 1
    assert values["added_words_fit", "refined"].tolist() == [1, 1, 1, 0.5]
    # The prefixes' own F1 is 0.5 (one of three words) and 1; theirs is a mean, so that the ratio of the means is the mean of the ratios.
    assert values["words_f1", "fine_prefix"].tolist() == [0.5, 1]
    assert values["words_f1_of_ceiling", "refined"].mean() == pytest.approx(values["words_f1", "refined"].mean() / 0.75)
    assert values["style_kl", "refined"].index.tolist() == [(0, -1), (1, -1)]
    assert values["added_words_recall", "refined_may_stop"].tolist() == [0]
    assert "added_words_fit" not in values.xs("coarse", level="condition").index.get_level_values(0)


def test_tables_have_no_such_scores_and_the_old_world_has_its_own(small_backbones, tmp_path):
    (tmp_path / "pairs.csv").touch()
    assert fitting_for(parse([f"data.source={tmp_path / 'pairs.csv'}"])) is None
    assert fitting_for(parse(["data.world=1"])).world is world(1)
    values = scored(small_backbones, fitting_for(parse(["data.world=1"])))
    assert values["style_fits", "refined"].tolist() == [0, 0, 0, 0] and "style_kl" not in values.index.get_level_values(0)
    assert "style_fits" not in scored(small_backbones, None).index.get_level_values(0)
