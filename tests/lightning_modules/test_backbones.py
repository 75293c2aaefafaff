"""Backbones are loaded or built in one place, and what is not there is named in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightning_modules.backbones.loading import BackboneChoice, load_backbones
from lightning_modules.backbones.sources import PaperSources
from lightning_modules.backbones.tiny import build_tiny_networks, load_weights, random_tiny_backbones


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
