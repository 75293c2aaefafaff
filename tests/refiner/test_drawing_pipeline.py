"""The pipeline that an export carries along: it refines and draws without this project as PromptRefiner does with it."""

from __future__ import annotations

import ast
import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline, UniPCMultistepScheduler
from open_clip.tokenizer import basic_clean
from transformers import CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerFast, T5ForConditionalGeneration

from ablations.refiner import bundling, exported_refiner
from ablations.refiner.bundling import bundle
from ablations.refiner.drawing_pipeline import PromptRefinerPipeline, clean
from ablations.refiner.exporting import export
from ablations.refiner.prompt_adapter import PromptAdapter
from ablations.refiner.prompt_refiner import PromptRefiner
from ablations.results.trained_run import find_trained_run
from helpers.trained_runs import make_run

PROMPTS = [
    "a lonely lighthouse",
    "Caf\u00e9 \u201cof the king\u2019s\u201d &amp; wow! !!",
    "castle,",
    "a tree ",
    "a red boat in a harbour at sunset",
]
FRESH = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ablations", "lightning_modules", "datamodules", "open_clip"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
import numpy as np
from diffusers import DiffusionPipeline

folder, out, asked = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
answers = []
for number, arguments in enumerate(asked):
    result = pipe(**arguments)
    answers.append({"prompts": result.prompts, "seeds": [one.image_seed for one in result.candidates]})
    answers[-1]["unknown"] = [one.unknown_words for one in result.candidates]
    if result.images is not None:
        np.save(f"{out}/{number}.npy", np.stack([np.asarray(image) for image in result.images]))
print(json.dumps(answers))
"""
ASKED = [
    {"prompt": "a lonely lighthouse", "num_candidates": 3},
    {"prompt": "a lonely lighthouse", "num_candidates": 2, "seed": 4, "plug_in": True, "num_inference_steps": 3, "guidance_scale": 1.0},
    {"prompt": PROMPTS, "seed": 7, "rounds": 2, "prompt_len": 4, "draw": False},
    {"prompt": PROMPTS, "mode": "rewrite", "max_new_tokens": 12, "draw": False},
    {"prompt": PROMPTS, "mode": "rewrite", "max_new_tokens": 30, "draw": False, "keep": "a red boat, ox", "ban": ["q", "at n"]},
    {"prompt": [f"a (lonely:1.2) {text} <lora:x:1> --ar 16:9" for text in PROMPTS], "draw": False, "any_piece": True, "distinct": False},
]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, small_backbones) -> Path:
    return make_run(tmp_path_factory.mktemp("outputs"), small_backbones)


@pytest.fixture(scope="module")
def refiner(run_dir, small_backbones) -> PromptRefiner:
    return PromptRefiner.from_run(run_dir, small_backbones, device="cpu")


@pytest.fixture(scope="module")
def exported(run_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "refiner"
    export(find_trained_run(run_dir), folder, True, lambda text: None)
    return folder


@pytest.fixture
def pipe(exported) -> PromptRefinerPipeline:
    """Put together from the files, by the class that the file in the folder was made of."""
    theirs = StableDiffusionPipeline.from_pretrained(exported)
    parts = {name: theirs.components[name] for name in ("vae", "unet", "scheduler", "text_encoder", "tokenizer")}
    return PromptRefinerPipeline(
        **parts,
        original_text_encoder=CLIPTextModel.from_pretrained(exported / "original_text_encoder"),
        adapter=PromptAdapter.from_pretrained(exported / "adapter"),
        decoder=T5ForConditionalGeneration.from_pretrained(exported / "decoder"),
        decoder_tokenizer=PreTrainedTokenizerFast.from_pretrained(exported / "decoder_tokenizer"),
    )


@pytest.fixture(scope="module")
def fresh(exported, tmp_path_factory) -> tuple[list[dict], Path]:
    """What a process answers that can import neither this project nor open_clip, and the folder of its pictures."""
    out = tmp_path_factory.mktemp("fresh")
    environment = os.environ | {"HF_HOME": str(out / "hf"), "HF_MODULES_CACHE": str(out / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", FRESH, str(exported), str(out), json.dumps(ASKED)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=out, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1]), out


@pytest.mark.parametrize("number", range(len(ASKED)))
def test_a_process_without_this_project_writes_the_same_texts(fresh, refiner, number):
    names = {"num_candidates", "seed", "rounds", "prompt_len", "mode", "max_new_tokens", "keep", "ban", "any_piece", "distinct"}
    asked = ASKED[number]["prompt"]
    found = refiner.refine([asked] if number < 2 else asked, **{k: v for k, v in ASKED[number].items() if k in names})
    wanted = [candidate for candidates in found for candidate in candidates]
    answer = fresh[0][number]
    assert answer["unknown"] == [list(candidate.unknown_words) for candidate in wanted]
    assert answer["prompts"] == [candidate.refined for candidate in wanted]
    assert answer["seeds"] == [candidate.image_seed for candidate in wanted]


@pytest.mark.parametrize("number", [0, 1])
def test_a_process_without_this_project_draws_the_same_pictures_to_one_level_of_256(fresh, refiner, number, monkeypatch):
    answers, out = fresh
    how = ASKED[number]
    steps, guidance = (
        how.get("num_inference_steps", refiner.config.eval.steps),
        how.get("guidance_scale", refiner.config.eval.guidance_scale),
    )
    monkeypatch.setattr(refiner, "config", _drawn_with(refiner.config, steps, guidance))
    pictures = refiner.draw(answers[number]["prompts"], answers[number]["seeds"], plug_in=how.get("plug_in", False))
    theirs, wanted = np.load(out / f"{number}.npy").astype(int), np.stack([np.asarray(picture) for picture in pictures])
    assert np.abs(theirs - wanted).max() <= 1 and (theirs == wanted).mean() > 0.99
    other = refiner.draw(answers[number]["prompts"], answers[number]["seeds"], plug_in=not how.get("plug_in", False))
    assert np.abs(theirs - np.stack([np.asarray(picture) for picture in other])).max() > 1


def _drawn_with(config, steps: int, guidance: float):
    return dataclasses.replace(config, eval=dataclasses.replace(config.eval, steps=steps, guidance_scale=guidance))


def test_the_folder_holds_no_pickle_and_its_code_needs_nothing_of_ours(exported):
    assert [path.name for path in exported.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")] == []
    allowed = set(sys.stdlib_module_names) | {"torch", "numpy", "PIL", "transformers", "diffusers"}
    for file in (exported / "pipeline.py", exported / "adapter" / "prompt_adapter.py"):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        imported = {alias.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        imported |= {(node.module or "").partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
        assert imported <= allowed


def test_the_plug_in_use_is_as_silent_as_it_was(exported, caplog):
    with caplog.at_level(logging.INFO, logger="diffusers"):
        logging.getLogger("diffusers").addHandler(caplog.handler)
        pipeline = StableDiffusionPipeline.from_pretrained(exported)
        logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert set(pipeline.components) == {
        "vae",
        "text_encoder",
        "tokenizer",
        "unet",
        "scheduler",
        "safety_checker",
        "feature_extractor",
        "image_encoder",
    }


def test_a_folder_whose_code_is_not_trusted_is_not_run(exported, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(exported, custom_pipeline=str(exported))


def test_adapter_and_original_encoder_are_those_of_the_run(refiner, exported):
    adapter = PromptAdapter.from_pretrained(exported / "adapter")
    assert all(torch.equal(value, refiner.module.adapter.state_dict()[name]) for name, value in adapter.adapter.state_dict().items())
    ids_BS = CLIPTokenizer.from_pretrained(exported / "tokenizer")(PROMPTS[:1], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        states = CLIPTextModel.from_pretrained(exported / "original_text_encoder")(ids_BS).last_hidden_state
        assert (states - refiner.backbones.text_encoder(ids_BS).states_BSD).abs().max() <= 1e-5


def test_a_generator_takes_the_place_of_the_seeds_noise_and_another_scheduler_that_of_the_runs(pipe):
    pipe.set_progress_bar_config(disable=True)

    def drawn(**how) -> np.ndarray:
        return pipe("a cat", num_candidates=2, num_inference_steps=2, output_type="np", **how).images

    own = drawn()
    assert own.shape == (2, 64, 64, 3) and own.dtype == np.float32 and 0 <= own.min() <= own.max() <= 1
    one = drawn(generator=torch.Generator().manual_seed(3))
    assert np.array_equal(one, drawn(generator=torch.Generator().manual_seed(3))) and not np.array_equal(one, own)
    each = drawn(generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)])
    assert not np.array_equal(each, one)
    with pytest.raises(ValueError, match="2 pictures but 3 generators"):
        drawn(generator=[torch.Generator()] * 3)
    assert not np.array_equal(drawn(negative_prompt="a dog"), own)
    for scheduler in (DDIMScheduler, UniPCMultistepScheduler):
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
        assert np.isfinite(drawn()).all() and not np.array_equal(drawn(), own)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": ["a cat", 3]}, "prompt 1 is no text but int"),
        ({"prompt": "a cat", "num_candidates": 0}, "num_candidates must be an integer of at least 1, not 0"),
        ({"prompt": "a cat", "prompt_len": 257}, "prompt_len must be an integer from 1 to 256, not 257"),
        ({"prompt": "a cat", "mode": "write"}, "mode must be extend or rewrite, not 'write'"),
        ({"prompt": "a cat", "seed": True}, "seed must be an integer from 0 to 4294967295, not True"),
        ({"prompt": "cat " * 600}, "at most 512 can be extended"),
        ({"prompt": "a cat", "output_type": "latent"}, "output_type must be pil or np, not 'latent'"),
    ],
)
def test_what_cannot_be_refined_is_one_clear_value_error(pipe, arguments, message):
    with pytest.raises(ValueError) as error:
        pipe(**arguments)
    assert message in str(error.value) and len(str(error.value).splitlines()) == 1
    with pytest.raises(TypeError, match="no_such"):
        pipe("a cat", no_such=1)


def test_a_compact_export_draws_and_refines_as_prompt_refiner_reads_it(run_dir, tmp_path, small_backbones):
    export(find_trained_run(run_dir), tmp_path / "e", True, lambda text: None, compact=True)
    adapter = PromptAdapter.from_pretrained(tmp_path / "e" / "adapter")
    restored = PromptRefiner.from_pretrained(tmp_path / "e", small_backbones, device="cpu")
    assert all(torch.equal(value, restored.module.adapter.state_dict()[name]) for name, value in adapter.adapter.state_dict().items())


def test_texts_are_cleaned_as_openclip_cleans_them_or_with_a_word_on_it(monkeypatch, caplog):
    for text in (*PROMPTS, "  \u201ccurly\u201d ", "&lt;b&gt; &amp;amp;", "\u00c3\u00a9t\u00c3\u00a9"):
        assert clean(text) == basic_clean(text)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert clean("caf\u00e9 &amp;") == "caf\u00e9 &"
    assert "pip install ftfy" in caplog.text
    caplog.clear()
    assert clean("a cat") == "a cat" and caplog.text == ""


def test_a_bundle_is_one_file_in_the_order_of_its_needs_and_refuses_what_it_cannot_hold(tmp_path, monkeypatch):
    files = {
        "low": "import math\n\nSIDE = 2\n\n\n# Why.\ndef area(side=SIDE):\n    return side**2\n\n\ndef unused():\n    return math.pi\n",
        "high": '"""Doc."""\n\nfrom __future__ import annotations\n\nfrom ours.low import SIDE, area\n\nBOX = area(SIDE)\n',
        "clash": "from ours.low import area\n\nSIDE = area()\n",
        "other": "from ours.low import area as a\n\nX = a()\n",
    }
    (tmp_path / "ours").mkdir()
    for name, text in files.items():
        (tmp_path / "ours" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(bundling, "OUR_PACKAGES", ("ours",))
    text, names = bundle("ours.high"), {}
    exec(compile(text, "bundle", "exec"), names)
    assert names["BOX"] == 4 and text.startswith('"""Doc."""\n\nfrom __future__')
    assert "# Why.\ndef area" in text and "unused" not in text and "import" not in text.replace("from __future__ import annotations", "")
    with pytest.raises(ValueError, match=r"SIDE is defined in ours\.\w+ and in ours\.\w+"):
        bundle("ours.clash")
    with pytest.raises(ValueError, match=r"ours\.other imports ours\.low whole or under another name"):
        bundle("ours.other")


def test_the_exported_folder_says_where_things_lie(exported):
    assert {path.name for path in exported.iterdir()} >= {"pipeline.py", "decoder", "decoder_tokenizer", "adapter", "original_text_encoder"}
    assert (exported / exported_refiner.ADAPTER).is_file()
