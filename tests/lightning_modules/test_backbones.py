"""Backbones are loaded or built in one place, and what is not there is named in one line."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import open_clip
import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file

from lightning_modules.backbones import paper as paper_backbones
from lightning_modules.backbones.loading import BackboneChoice, load_backbones
from lightning_modules.backbones.sources import PaperSources
from lightning_modules.backbones.tiny import build_tiny_networks, load_weights, random_tiny_backbones
from lightning_modules.published import IMAGE_MODEL

CLIP_CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def test_random_backbones_are_a_function_of_the_seed_and_leave_the_global_state(small_backbones):
    before = torch.get_rng_state()
    assert random_tiny_backbones(0).digest == small_backbones.digest
    assert load_backbones(BackboneChoice("tiny", None, "random", seed=1)).digest != small_backbones.digest
    assert torch.equal(torch.get_rng_state(), before)


def test_the_digest_does_not_depend_on_the_order_in_which_a_process_lists_defaults(small_backbones):
    other = random_tiny_backbones(0)
    other.text_to_image.noise_scheduler.register_to_config(_use_default_values=["b", "a"])
    assert other.digest == small_backbones.digest
    changed = random_tiny_backbones(0)
    changed.text_to_image.noise_scheduler.register_to_config(prediction_type="epsilon")
    assert changed.digest != small_backbones.digest


def saved_tiny(folder: Path) -> Path:
    torch.manual_seed(3)
    for part, network in build_tiny_networks()[0].items():
        state = {name: value.half().contiguous() if value.is_floating_point() else value for name, value in network.state_dict().items()}
        if part == "t5":  # one name for a tied weight, as transformers saves it
            state = {name: value for name, value in state.items() if "embed_tokens" not in name and "lm_head" not in name}
        save_file(state, folder / f"{part}.safetensors")
    return folder


def test_tiny_weights_are_half_precision_on_disk_and_float32_in_memory(tmp_path):
    loaded = load_backbones(BackboneChoice("tiny", str(saved_tiny(tmp_path))))
    torch.manual_seed(3)
    t5 = build_tiny_networks()[0]["t5"]
    assert {parameter.dtype for parameter in loaded.decoder.t5.parameters()} == {torch.float32}
    assert torch.equal(loaded.decoder.t5.lm_head.weight, t5.shared.weight.half().float())
    assert not any(parameter.requires_grad for parameter in loaded.clip_model.parameters())


def test_a_file_without_one_of_the_weights_is_refused_tied_weights_or_not(tmp_path):
    t5 = build_tiny_networks()[0]["t5"]
    state = {name: value.clone() for name, value in t5.state_dict().items() if name != "encoder.final_layer_norm.weight"}
    save_file(state, tmp_path / "t5.safetensors")
    with pytest.raises(ValueError, match=r"missing \['encoder.final_layer_norm.weight'\], unexpected \[\]"):
        load_weights(t5, tmp_path / "t5.safetensors")


def test_missing_tiny_weights_are_named(tmp_path):
    saved_tiny(tmp_path)
    (tmp_path / "unet.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="tiny weights unet are not in") as error:
        load_backbones(BackboneChoice("tiny", str(tmp_path)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("profile", "directory", "init", "message"),
    [
        ("large", None, "pretrained", "profile=large .* unknown"),
        ("tiny", None, "zeros", "backbones.init=zeros is unknown"),
        ("tiny", "somewhere", "random", "backbones.dir=somewhere has no effect"),
    ],
)
def test_what_there_is_not_is_refused_in_one_line(profile, directory, init, message):
    with pytest.raises(ValueError, match=message) as error:
        load_backbones(BackboneChoice(profile, directory, init))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def paper_folder(tmp_path_factory, small_backbones) -> Path:
    """A folder of the paper's layout with small networks."""
    folder = tmp_path_factory.mktemp("paper")
    torch.manual_seed(4)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    vae.save_pretrained(folder / "stable-diffusion" / "vae")
    unet.save_pretrained(folder / "stable-diffusion" / "unet")
    # 2.1-base ships the config of this scheduler; training reads the noise schedule out of it.
    PNDMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, steps_offset=1).save_pretrained(
        folder / "stable-diffusion" / "scheduler"
    )
    (folder / "open_clip").mkdir()
    clip_model = open_clip.model.CLIP(**CLIP_CONFIG)
    save_file(clip_model.state_dict(), folder / "open_clip" / "open_clip_pytorch_model.safetensors")
    config = {"model_cfg": CLIP_CONFIG, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (folder / "open_clip" / "open_clip_config.json").write_text(json.dumps(config))
    small_backbones.decoder.t5.save_pretrained(folder / "t5")
    small_backbones.decoder.tokenizer.save_pretrained(folder / "t5")
    return folder


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
    assert "stable-diffusion/unet/config.json, stable-diffusion/unet/*.safetensors, " in message
    assert "open_clip/open_clip_pytorch_model.safetensors or open_clip/open_clip_pytorch_model.bin" in message
    assert str(folder) in message
    assert "backbones.dir" in message


def test_a_damaged_file_in_a_folder_is_named_in_one_line(paper_folder, tmp_path):
    folder = tmp_path / "paper"
    shutil.copytree(paper_folder, folder)
    (folder / "open_clip" / "open_clip_pytorch_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"backbones.dir: OpenCLIP .* cannot be read") as error:
        load_backbones(BackboneChoice("paper", str(folder)))
    assert "\n" not in str(error.value)


def test_a_hub_that_cannot_be_reached_is_one_line_that_says_where_it_looked_and_what_to_do(monkeypatch, tmp_path):
    cached_only = partial(paper_backbones.snapshot_download, local_files_only=True, cache_dir=tmp_path)
    monkeypatch.setattr(paper_backbones, "snapshot_download", cached_only)
    with pytest.raises(FileNotFoundError) as error:
        load_backbones(BackboneChoice("paper"))
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"Stable Diffusion ({IMAGE_MODEL}) is not in the local cache")
    assert "could not be fetched from https://" in message
    assert "set backbones.dir" in message
    assert "run once with a network" in message


def test_moving_backbones_moves_every_frozen_network():
    moved = random_tiny_backbones(0).to(torch.device("meta"))
    networks = (moved.clip_model, moved.text_to_image.vae, moved.text_to_image.unet, moved.decoder.t5, moved.text_encoder)
    assert {parameter.device.type for network in networks for parameter in network.parameters()} == {"meta"}
    assert moved.text_to_image.noise_scheduler.alphas_cumprod.device.type == "meta"


def test_the_frozen_text_encoder_takes_no_memory_of_its_own_and_e_t_is_a_copy(small_backbones):
    original = {parameter.data_ptr() for parameter in small_backbones.clip_model.parameters()}
    assert {parameter.data_ptr() for parameter in small_backbones.text_encoder.parameters()} <= original
    assert original.isdisjoint(parameter.data_ptr() for parameter in small_backbones.new_text_encoder().parameters())


def test_half_precision_is_for_what_is_never_trained_and_t5_is_kept_from_overflow(small_backbones):
    precisions = {}
    for name in ("bfloat16", "float16"):
        loaded = load_backbones(BackboneChoice("tiny", None, "random", frozen_dtype=name))
        model = loaded.text_to_image
        networks = {"unet": model.unet, "vae": model.vae, "visual": loaded.clip_model.visual, "t5": loaded.decoder.t5}
        networks["text"] = loaded.new_text_encoder()
        precisions[name] = {part: {p.dtype for p in network.parameters()} for part, network in networks.items()}
        # E_T starts from exactly the weights that it has at full precision.
        assert torch.equal(networks["text"].positional_embedding, small_backbones.clip_model.positional_embedding)
    half = {torch.bfloat16}
    assert precisions["bfloat16"] == {"unet": half, "vae": half, "visual": half, "t5": half, "text": {torch.float32}}
    assert precisions["float16"]["unet"] == {torch.float16}
    assert precisions["float16"]["t5"] == {torch.float32}
    with pytest.raises(ValueError, match=r"backbones.frozen_dtype=int8 is unknown"):
        load_backbones(BackboneChoice("tiny", None, "random", frozen_dtype="int8"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("ViT-Z/openai", "OpenCLIP has no model 'ViT-Z'"), ("ViT-H-14/openai", "ViT-H-14 has no weights 'openai'; it has laion2b_s32b_b79k")],
)
def test_an_openclip_model_that_is_not_listed_is_named_before_anything_is_fetched(name, message):
    with pytest.raises(ValueError, match=message):
        load_backbones(BackboneChoice("paper", sources=PaperSources(open_clip=name)))
