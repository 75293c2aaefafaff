"""PromptRefiner in Python: what it reads, that its chance is a function of seed, text and candidate, and what it refuses."""

from __future__ import annotations

import dataclasses
import doctest
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import ablations.refiner.prompt_refiner as api
from ablations import PromptRefiner
from ablations.cell.drawing.pictures import draw_pictures
from ablations.cell.refining.keys import image_seed, prompt_key, prompt_seed
from ablations.cell.refining.refine import refine_settings
from ablations.refiner.candidates import RefinedPrompt
from ablations.refiner.exporting import export
from ablations.results.prompts_and_scores import Drawing
from ablations.results.trained_run import find_trained_run
from ablations.runtime.errors import UserError
from helpers.trained_runs import make_run
from lightning_modules.backbones.loading import BackboneChoice

PROMPTS = [
    "a green tree",
    'Caf\u00e9  du  "Mar\u00e9" \U0001f98a, \u732b!!',
    "a red boat in the snow at noon, oil painting",
    "castle,",
    "a tree ",
]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, small_backbones):
    return make_run(tmp_path_factory.mktemp("outputs"), small_backbones)


@pytest.fixture(scope="module")
def refiner(run_dir, small_backbones) -> PromptRefiner:
    return PromptRefiner.from_run(run_dir, backbones=small_backbones, device="cpu")


def test_the_examples_in_the_docstrings_run(tmp_path, monkeypatch, small_backbones):
    made = make_run(tmp_path / "outputs", small_backbones)
    made.parent.rename(tmp_path / "outputs" / "my-arm")
    monkeypatch.chdir(tmp_path)
    export(find_trained_run("outputs/my-arm/seed-0"), tmp_path / "my-refiner", False, lambda text: None)
    # One second for the networks is enough: the examples load them again and again. The embedded refiner needs those it was trained on.
    shipped = api.load_backbones(BackboneChoice())
    monkeypatch.setattr(api, "load_backbones", lambda choice: small_backbones if choice.init == "random" else shipped)
    results = [
        doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(example)
        for example in doctest.DocTestFinder().find(PromptRefiner, globs={})
        if example.examples
    ]
    assert len(results) == 5
    assert sum(result.attempted for result in results) >= 23
    assert [result.failed for result in results] == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("settings", [{}, {"prompt_len": 3, "rounds": 3}, {"mode": "rewrite", "max_new_tokens": 20}])
def test_a_list_gives_exactly_what_its_prompts_give_one_by_one(refiner, settings):
    together = refiner.refine(PROMPTS, seed=5, **settings)
    assert together == [refiner.refine(prompt, seed=5, **settings) for prompt in PROMPTS]
    assert together == refiner.refine(PROMPTS, seed=5, batch_size=4, **settings)
    assert refiner.refine(PROMPTS[::-1], seed=5, **settings) == together[::-1]


def test_what_comes_back_says_what_is_new_and_where_its_chance_comes_from(refiner):
    for prompt, candidates in zip(PROMPTS, refiner.refine(PROMPTS, seed=9, rounds=2), strict=True):
        assert [c.candidate for c in candidates] == [0, 1, 2]
        for c in candidates:
            assert (c.coarse, c.seed, c.mode, c.num_new_tokens) == (prompt, 9, "extend", 12)
            assert c.refined == prompt + c.new_text == "".join(text for text, _ in c.pieces())
            assert c.pieces() == [(prompt, False), (c.new_text, True)]
            assert len(c.rounds) == 2 and c.rounds[-1] == c.refined
            assert (c.prompt_seed, c.image_seed) == tuple(key(9, prompt_key(prompt), c.candidate) for key in (prompt_seed, image_seed))
    (rewritten,) = refiner.refine("a cat", num_candidates=1, mode="rewrite", max_new_tokens=9)
    assert rewritten.new_text == rewritten.refined and rewritten.num_new_tokens <= 9
    with pytest.raises(dataclasses.FrozenInstanceError):
        rewritten.refined = "x"


def test_a_candidate_is_what_the_module_writes_from_the_key_of_seed_text_and_number(refiner):
    key = prompt_seed(4, prompt_key("a cat"), 1)
    settings = refine_settings(6, refiner.config.eval)
    (written,) = refiner.module.refine(["a cat"], [(key,)], settings)
    assert refiner.refine("a cat", seed=4)[1].refined == written.text
    # Pinned: the command line, the page and later versions must give the same candidates for the same seed.
    assert prompt_key("a cat") == int("51e467415607798220a3776f6ae1a2a09ddc7e5dcdc955d685477b4cf05ade22"[:16], 16) >> 1


def test_seeds_texts_and_candidates_each_change_the_draw_and_nothing_else_does(refiner):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = refiner.refine("a cat", num_candidates=4, prompt_len=12)
    assert torch.equal(torch.get_rng_state(), before)
    assert len({c.refined for c in first}) == 4
    torch.manual_seed(2)
    assert refiner.refine("a cat", num_candidates=4, prompt_len=12) == first
    assert not {c.refined for c in first} & {c.refined for c in refiner.refine("a cat", num_candidates=4, prompt_len=12, seed=1)}
    longer = refiner.refine("a cat", num_candidates=6, prompt_len=12)
    assert [c.refined for c in longer[:4]] == [c.refined for c in first]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("",), "the prompt is empty"),
        ((["a cat", " \n"],), "prompt 1 is empty"),
        ((["a cat", None],), "prompt 1 is no text but NoneType"),
        (("a \ud800",), "the prompt has half a character at position 2"),
        (("a cat", 0), "num_candidates must be an integer of at least 1, not 0"),
        (("a cat", 3, 0), "prompt_len must be an integer from 1 to 256, not 0"),
        (("a cat", 3, 6.5), "prompt_len must be an integer from 1 to 256, not 6.5"),
        (("a cat", 3, 6, "write"), "mode must be one of extend, rewrite, not 'write'"),
        (("a cat", 3, 6, "extend", -1), "seed must be an integer from 0 to 4294967295, not -1"),
        (("a cat", 3, 6, "extend", None), "seed must be an integer"),
        (("a cat", 3, 6, "rewrite", 0, 513), "max_new_tokens must be an integer from 1 to 512, not 513"),
        ({"prompts": "a cat", "rounds": 0}, "rounds must be an integer from 1 to 64, not 0"),
        ({"prompts": "a cat", "batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
        (("cat " * 10_000,), "at most 512 can be extended; shorten it, or take mode=rewrite"),
    ],
)
def test_what_cannot_be_refined_is_one_clear_value_error(refiner, arguments, message):
    with pytest.raises(ValueError) as error:
        refiner.refine(**arguments) if isinstance(arguments, dict) else refiner.refine(*arguments)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 200


def test_odd_prompts_are_refined_and_kept_verbatim(refiner):
    for prompt in (
        "\x07 bell",
        "\u200b",
        "\u0645\u0631\u062d\u0628\u0627",
        "\U0001f98a" * 20,
        "<img src=x onerror=alert(1)>",
        "</s> <pad> <extra_id_0>",
    ):
        assert all(c.refined.startswith(prompt) and c.num_new_tokens == 6 for c in refiner.refine(prompt))
    assert len(refiner.refine("cat " * 10_000, mode="rewrite", max_new_tokens=5)) == 3
    assert refiner.refine([]) == []


def test_pictures_are_those_that_an_evaluation_draws_by_either_encoder(refiner):
    candidate = refiner.refine("a cat", num_candidates=1)[0]
    drawings = [
        Drawing(0, "x", number, "a cat", text, 0, candidate.image_seed, by_trained_encoder=trained)
        for number, (text, trained) in enumerate([("a cat", False), (candidate.refined, False), ("a cat", True)])
    ]
    wanted = draw_pictures(
        refiner.backbones, drawings, refiner.config.eval, lambda items, *_: items, lambda: None, refiner.module.text_encoder
    )
    before, after = refiner.draw([candidate.coarse, candidate.refined], [candidate.image_seed] * 2)
    (plug_in,) = refiner.draw("a cat", candidate.image_seed, plug_in=True)
    for picture, pixels in zip((before, after, plug_in), wanted, strict=True):
        assert (picture.mode, picture.size) == ("RGB", (64, 64))
        assert np.abs(np.asarray(picture).astype(int) - pixels).max() <= 1  # other batches, other rounding
    assert not np.array_equal(wanted[0], wanted[2])
    assert refiner.draw([], 3) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "b"], [1]), "2 texts but 1 seeds"),
        (("a", -1), "a seed is a whole number"),
        (("a", [True]), "a seed is a whole number"),
        (("a", 1, False, 0), "batch_size must be"),
        (("\ud800", 1), "the text has half a character"),
    ],
)
def test_what_cannot_be_drawn_is_one_clear_value_error(refiner, arguments, message):
    with pytest.raises(ValueError, match=message):
        refiner.draw(*arguments)


def test_a_run_trained_on_other_networks_is_refused(run_dir, small_backbones):
    other = dataclasses.replace(small_backbones, name="other")
    with pytest.raises(UserError, match=f"digest {small_backbones.digest}, but those here have {other.digest}"):
        PromptRefiner.from_run(run_dir, backbones=other)


def test_what_is_no_trained_run_is_refused_with_the_way_out(tmp_path, small_backbones):
    with pytest.raises(UserError, match=r"holds no run.json that can be read; give OUTPUT_DIR/ARM/seed-SEED"):
        PromptRefiner.from_run(tmp_path)
    made = make_run(tmp_path, small_backbones, "seed=3", finished=False)
    with pytest.raises(UserError, match=r"it is an arm: give one of its runs, as in .*seed-3"):
        PromptRefiner.from_run(made.parent)
    assert find_trained_run(made).run["status"] == "running"
    checkpoint = find_trained_run(made).checkpoint
    checkpoint.unlink()
    with pytest.raises(UserError, match=r"the trained weights of .* are not in .*final.ckpt \(the run is running\): finish its training"):
        PromptRefiner.from_run(made)
    (made / "run.json").write_text(json.dumps({"status": "finished", "config": {"no_such_key": 1}, "metrics": {}}))
    with pytest.raises(UserError, match="written by another version: unknown key 'no_such_key'"):
        PromptRefiner.from_run(made)
    with pytest.raises(UserError, match=r"is no exported refiner: it has no prompt_refiner/config.json"):
        PromptRefiner.from_pretrained(tmp_path)


def test_importing_the_package_loads_nothing_heavy_until_the_refiner_is_asked_for():
    probe = "import sys, ablations; print(ablations.__all__, {'torch', 'omegaconf', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "['PromptRefiner'] set()"
    assert PromptRefiner is api.PromptRefiner
    with pytest.raises(ImportError):
        from ablations import no_such_name  # noqa: F401


def test_results_are_plain_data(refiner):
    fields = {field.name for field in dataclasses.fields(RefinedPrompt)}
    line = json.loads(json.dumps(dataclasses.asdict(refiner.refine("a cat")[0])))
    assert set(line) == fields >= {"coarse", "refined", "new_text", "candidate", "seed", "num_new_tokens", "truncated"}
