"""The paper's networks are read as they lie about: every layout loads, or fails with one line that says what is there and what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from diffusers import UNet2DConditionModel
from huggingface_hub import constants

from lightning_modules.backbones import hub
from lightning_modules.backbones.loading import BackboneChoice, load_backbones
from lightning_modules.backbones.sources import PaperSources
from lightning_modules.backbones.weight_files import DIFFUSERS, STABLE_DIFFUSION_PARTS, TRANSFORMERS, WeightForm, form_of
from lightning_modules.published import IMAGE_MODEL, OPEN_CLIP
from tests.helpers.paper_folders import CLIP_CONFIG, in_half, pickled, put_in_cache, save_paper_folder

IMAGE_REPOSITORY, _, IMAGE_COMMIT = IMAGE_MODEL.partition("@")
CLIP_COMMIT = OPEN_CLIP.partition("@")[2]
OTHER_COMMIT = "a" * 40


@pytest.fixture(scope="module")
def paper_folder(tmp_path_factory, small_backbones) -> Path:
    """A folder of the paper's layout with small networks."""
    return save_paper_folder(tmp_path_factory.mktemp("paper"), small_backbones)


@pytest.fixture
def folder(paper_folder, tmp_path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(paper_folder, tmp_path / "paper"))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty hub cache, and no hub to be reached."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def small_listed(monkeypatch, tmp_path) -> None:
    """OpenCLIP's list says that the paper's OpenCLIP is as small as the folder's."""
    monkeypatch.setattr(open_clip.factory, "get_model_config", lambda name: json.loads(json.dumps(CLIP_CONFIG)))


def in_cache(cache: Path, folder: Path, image: str = IMAGE_REPOSITORY, t5: str = "google-t5/t5-base", commit: str = IMAGE_COMMIT) -> None:
    """The folder's networks as a cache has them: the image model and OpenCLIP by their pinned commits, T5 by a branch."""
    put_in_cache(cache, image, commit, folder / "stable-diffusion", ref=None if commit == IMAGE_COMMIT else "main")
    put_in_cache(cache, "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", CLIP_COMMIT, folder / "open_clip")
    put_in_cache(cache, t5, OTHER_COMMIT, folder / "t5", ref="main")


def one_line(choice: BackboneChoice, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        load_backbones(choice)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_papers_layout_is_loaded_from_a_folder_frozen_and_in_float32(paper_folder, small_backbones):
    loaded = load_backbones(BackboneChoice("paper", str(paper_folder)))
    assert loaded.name == "paper"
    networks = (loaded.clip_model, loaded.text_to_image.vae, loaded.text_to_image.unet, loaded.decoder.t5)
    assert {(p.dtype, p.requires_grad) for network in networks for p in network.parameters()} == {(torch.float32, False)}
    assert not any(network.training for network in networks)
    assert loaded.image_mean == (0.1, 0.2, 0.3)
    assert loaded.text_to_image.noise_scheduler.config.prediction_type == "epsilon"
    assert loaded.text_to_image.noise_scheduler.alphas_cumprod[0].item() == pytest.approx(1 - 0.00085, abs=1e-6)
    assert loaded.tokenize(["a cat"])[0, :4].tolist() == [49406, 320, 2368, 49407]
    assert loaded.tokenize_t5(["a cat"]) == small_backbones.tokenize_t5(["a cat"])
    assert torch.equal(loaded.decoder.t5.shared.weight, small_backbones.decoder.t5.shared.weight)
    saved = UNet2DConditionModel.from_pretrained(paper_folder / "stable-diffusion" / "unet")
    assert torch.equal(loaded.text_to_image.unet.conv_in.weight, saved.conv_in.weight)


def test_the_paper_profile_trains_refines_and_draws_through_the_same_module(paper_folder):
    from lightning_modules.prompt_refiner import PromptRefinerModule
    from lightning_modules.settings import AFESettings, LossSettings, OptimizerSettings, RefineSettings

    loaded = load_backbones(BackboneChoice("paper", str(paper_folder)))
    module = PromptRefinerModule(loaded, LossSettings(afe=AFESettings(grid=2)), OptimizerSettings(), seed=0)
    labels = torch.tensor([ids[:5] for ids in loaded.tokenize_t5(["a cat in the snow", "a red boat in snow"])])
    batch = {
        "draw_seeds": torch.tensor([[0, 1], [0, 2]]),
        "text_tokens_BS": loaded.tokenize(["a cat", "a boat"]),
        "target_tokens_BT": labels,
        "target_mask_BT": torch.ones_like(labels, dtype=torch.bool),
        "coarse_groups_B": torch.tensor([1, 2]),
        "images_BCHW": torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16),
    }
    terms, _ = module.compute_terms(batch)
    assert set(terms) == {"l_mse", "l_text", "l_clip"}
    assert all(torch.isfinite(value) for value in terms.values())
    assert module.refine(["a cat"], [(0,)], RefineSettings())[0].num_new_tokens == 6
    encoder = loaded.text_encoder
    with torch.no_grad():
        texts = encoder(loaded.tokenize(["a cat", ""])).states_BSD
    assert loaded.text_to_image.generate(texts[:1], texts[1:], [0], steps=2, guidance_scale=7.0).shape == (1, 16, 16, 3)


def test_without_a_config_beside_it_a_bin_file_is_read_as_the_openclip_that_the_config_names(paper_folder, tmp_path):
    folder = tmp_path / "paper"
    shutil.copytree(paper_folder, folder)
    clip_folder = folder / "open_clip"
    torch.manual_seed(5)
    clip_model = open_clip.model.CLIP(**CLIP_CONFIG)
    torch.save(clip_model.state_dict(), clip_folder / "open_clip_pytorch_model.bin")
    (clip_folder / "open_clip_pytorch_model.safetensors").unlink()
    (clip_folder / "open_clip_config.json").unlink()
    (tmp_path / "small-openclip-of-a-test.json").write_text(json.dumps(CLIP_CONFIG))
    open_clip.add_model_config(tmp_path / "small-openclip-of-a-test.json")
    sources = PaperSources(open_clip="small-openclip-of-a-test/none")
    loaded = load_backbones(BackboneChoice("paper", str(folder), sources=sources))
    assert torch.equal(loaded.clip_model.text_projection, clip_model.text_projection)
    assert loaded.image_mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))


def test_everything_that_a_folder_lacks_is_named_in_one_line(paper_folder, tmp_path):
    folder = tmp_path / "paper"
    shutil.copytree(paper_folder, folder)
    (folder / "open_clip" / "open_clip_pytorch_model.safetensors").unlink()
    shutil.rmtree(folder / "stable-diffusion" / "unet")
    with pytest.raises(FileNotFoundError) as error:
        load_backbones(BackboneChoice("paper", str(folder)))
    message = str(error.value)
    assert "\n" not in message
    assert "stable-diffusion/unet/config.json; stable-diffusion/unet/diffusion_pytorch_model.safetensors or " in message
    assert "open_clip/open_clip_model.safetensors or open_clip_pytorch_model.safetensors or open_clip_pytorch_model.bin" in message
    assert str(folder) in message
    assert "backbones.dir" in message


def test_a_damaged_file_in_a_folder_is_named_in_one_line(paper_folder, tmp_path):
    folder = tmp_path / "paper"
    shutil.copytree(paper_folder, folder)
    (folder / "open_clip" / "open_clip_pytorch_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"backbones.dir: OpenCLIP .* cannot be read") as error:
        load_backbones(BackboneChoice("paper", str(folder)))
    assert "\n" not in str(error.value)


VAE, UNET = "stable-diffusion/vae/diffusion_pytorch_model", "stable-diffusion/unet/diffusion_pytorch_model"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("open_clip/open_clip_model.safetensors", Path.rename),
        ("open_clip/open_clip_pytorch_model.bin", lambda path, to: pickled(path, to.name)),
        ("open_clip/open_clip_pytorch_model.pth", lambda path, to: pickled(path, to.name)),
    ],
)
def test_every_name_of_openclips_is_read(folder, paper_folder, name, change):
    change(folder / "open_clip" / "open_clip_pytorch_model.safetensors", folder / name)
    whole, loaded = (load_backbones(BackboneChoice("paper", str(path))) for path in (paper_folder, folder))
    assert loaded.digest == whole.digest


@pytest.mark.parametrize(
    "files",
    [
        {f"{UNET}.safetensors": "diffusion_pytorch_model.bin"},
        {f"{VAE}.safetensors": "diffusion_pytorch_model.bin", "t5/model.safetensors": "pytorch_model.bin"},
    ],
)
def test_pickles_are_read_where_there_is_nothing_else(folder, paper_folder, files):
    for file, name in files.items():
        pickled(folder / file, name)
    whole, loaded = (load_backbones(BackboneChoice("paper", str(path))) for path in (paper_folder, folder))
    assert loaded.digest == whole.digest


class _Runs:
    """What a pickle can do to who reads it."""

    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.parametrize("file", [f"{UNET}.bin", "t5/pytorch_model.bin", "open_clip/open_clip_pytorch_model.bin"])
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(folder, file, capsys):
    for path in (folder / file).parent.glob("*.safetensors"):
        path.unlink()
    torch.save({"weight": _Runs()}, folder / file)
    message = one_line(BackboneChoice("paper", str(folder)), ValueError)
    assert "cannot be read" in message
    assert "this ran" not in capsys.readouterr().out


def test_what_there_is_in_half_precision_alone_is_read_and_equals_float32_rounded(folder, paper_folder):
    in_half(folder / f"{VAE}.safetensors", "diffusion_pytorch_model.fp16.safetensors")
    in_half(folder / f"{UNET}.safetensors", "diffusion_pytorch_model.fp16.safetensors")
    in_half(folder / "t5/model.safetensors", "model.fp16.safetensors")
    whole, loaded = (load_backbones(BackboneChoice("paper", str(path))) for path in (paper_folder, folder))
    for network in ("vae", "unet"):
        theirs, ours = (getattr(one.text_to_image, network).state_dict() for one in (whole, loaded))
        assert all(value.dtype == torch.float32 and torch.equal(value, theirs[name].half().float()) for name, value in ours.items())
    assert torch.equal(loaded.decoder.t5.shared.weight, whole.decoder.t5.shared.weight.half().float())


def test_full_precision_is_taken_where_both_are_there(folder, paper_folder):
    for file in (f"{UNET}.safetensors", f"{VAE}.safetensors"):
        shutil.copy(folder / file, folder / "kept")
        in_half(folder / file, "diffusion_pytorch_model.fp16.safetensors")
        shutil.move(folder / "kept", folder / file)
    whole, loaded = (load_backbones(BackboneChoice("paper", str(path))) for path in (paper_folder, folder))
    assert loaded.digest == whole.digest


def test_shards_are_read_by_their_index_and_without_it_named(folder, paper_folder, small_backbones):
    (folder / "t5" / "model.safetensors").unlink()
    small_backbones.decoder.t5.save_pretrained(folder / "t5", max_shard_size="200KB")
    assert len(list((folder / "t5").glob("model-*-of-*.safetensors"))) > 1
    whole, loaded = (load_backbones(BackboneChoice("paper", str(path))) for path in (paper_folder, folder))
    assert loaded.digest == whole.digest
    (folder / "t5" / "model.safetensors.index.json").unlink()
    message = one_line(BackboneChoice("paper", str(folder)), FileNotFoundError)
    assert "t5/model.safetensors or pytorch_model.bin" in message
    assert "there is model-00001-of-" in message


@pytest.mark.parametrize(
    ("forms", "names", "chosen"),
    [
        (
            DIFFUSERS,
            ["diffusion_pytorch_model.non_ema.safetensors", "diffusion_pytorch_model.fp16.bin"],
            "diffusion_pytorch_model.fp16.bin",
        ),
        (DIFFUSERS, ["diffusion_flax_model.msgpack", "diffusion_pytorch_model.non_ema.bin"], None),
        (TRANSFORMERS, ["model.fp16.safetensors", "pytorch_model.bin"], "model.fp16.safetensors"),
        (TRANSFORMERS, ["tf_model.h5", "rust_model.ot", "flax_model.msgpack"], None),
    ],
)
def test_the_first_form_that_is_whole_is_taken(forms, names, chosen):
    form = form_of(names, forms)
    assert (form and form.whole) == chosen


@pytest.mark.parametrize(
    ("form", "names"),
    [
        (WeightForm("model"), ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]),
        (WeightForm("model", True, "fp16"), ["model.safetensors.index.fp16.json", "model.fp16-00001-of-00001.safetensors"]),
        (WeightForm("u", True, "fp16"), ["u.safetensors.index.fp16.json", "u-00001-of-00001.fp16.safetensors"]),
        (WeightForm("pytorch_model", False), ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"]),
    ],
)
def test_shards_of_other_forms_are_not_fetched(form, names):
    others = ["model-00001-of-00009.bin", "model.fp32-00001-of-00001.safetensors", "x-00001-of-00001.safetensors"]
    assert form.files([*names, *others]) == names


@pytest.mark.usefixtures("small_listed")
def test_what_the_cache_holds_is_taken_by_pinned_commits_without_asking_a_hub(folder, cache):
    in_cache(cache, folder)
    loaded = load_backbones(BackboneChoice("paper"))
    assert loaded.commits == {
        "image_model": IMAGE_MODEL,
        "open_clip": f"laion/CLIP-ViT-H-14-laion2B-s32B-b79K@{CLIP_COMMIT}",
        "t5": f"google-t5/t5-base@{OTHER_COMMIT}",
    }


@pytest.mark.usefixtures("small_listed")
def test_a_cache_of_half_precision_alone_is_no_absent_one(folder, cache):
    in_half(folder / f"{UNET}.safetensors", "diffusion_pytorch_model.fp16.safetensors")
    in_half(folder / f"{VAE}.safetensors", "diffusion_pytorch_model.fp16.safetensors")
    in_cache(cache, folder)
    assert load_backbones(BackboneChoice("paper")).text_to_image.unet.dtype == torch.float32


@pytest.mark.usefixtures("small_listed")
def test_a_cache_of_the_same_weights_under_another_name_is_pointed_to(folder, cache):
    in_cache(cache, folder, image="stabilityai/stable-diffusion-2-1-base", t5="t5-base", commit=OTHER_COMMIT)
    asked = "stabilityai/stable-diffusion-2-1-base@" + OTHER_COMMIT
    assert f"set backbones.image_model={asked}" in one_line(BackboneChoice("paper"), FileNotFoundError)
    sources = PaperSources(image_model=asked)
    assert f"set backbones.t5=t5-base@{OTHER_COMMIT}" in one_line(BackboneChoice("paper", sources=sources), FileNotFoundError)
    sources = PaperSources(image_model=asked, t5="t5-base")
    assert load_backbones(BackboneChoice("paper", sources=sources)).commits["t5"] == f"t5-base@{OTHER_COMMIT}"


@pytest.mark.usefixtures("small_listed")
def test_a_cache_with_a_part_missing_says_what_it_holds(folder, cache):
    (folder / f"{UNET}.safetensors").rename(folder / f"{UNET}.non_ema.safetensors")
    in_cache(cache, folder)
    message = one_line(BackboneChoice("paper"), FileNotFoundError)
    assert "the cache holds it without unet/diffusion_pytorch_model.safetensors or " in message
    assert "there is diffusion_pytorch_model.non_ema.safetensors" in message


def test_a_hub_that_cannot_be_reached_is_one_line_that_says_where_it_looked_and_what_to_do(cache):
    message = one_line(BackboneChoice("paper"), FileNotFoundError)
    assert message.startswith(f"Stable Diffusion ({IMAGE_MODEL}) is not whole in the local cache {cache}")
    assert "could not be fetched from https://" in message
    assert "set backbones.dir" in message
    assert "run once with a network" in message


def test_a_hubs_files_are_fetched_in_the_first_form_that_it_has(monkeypatch, cache, folder):
    listed = [
        *("vae/config.json", "vae/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.fp16.safetensors"),
        *("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"),
        *("scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder/model.safetensors", "v2-1_512-ema-pruned.ckpt"),
    ]
    asked = {}

    def download(repository, **options):
        if options.get("local_files_only"):
            raise hub.LocalEntryNotFoundError("not there")
        asked.update(options)
        return str(folder / "stable-diffusion")

    monkeypatch.setattr(hub.HfApi, "list_repo_files", lambda self, repository, revision: listed)
    monkeypatch.setattr(hub, "snapshot_download", download)
    hub.snapshot(IMAGE_MODEL, STABLE_DIFFUSION_PARTS)
    assert asked["revision"] == IMAGE_COMMIT
    assert asked["allow_patterns"] == [
        *("vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors"),
        *("unet/config.json", "unet/diffusion_pytorch_model.safetensors"),
        *("scheduler/scheduler_config.json", "text_encoder/config.json"),
    ]
