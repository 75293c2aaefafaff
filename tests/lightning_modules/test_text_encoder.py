"""E_T reads OpenCLIP's text tower as OpenCLIP and Stable Diffusion do; the adapter maps it to T5's space."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.domain_adapter import DomainAdapter
from lightning_modules.text_encoder import FineGrainedTextEncoder

TEXTS = ["a cat in the snow", "", "a red boat at noon, oil painting, sharp focus"]


@pytest.fixture(scope="module")
def encoder(small_backbones) -> FineGrainedTextEncoder:
    return FineGrainedTextEncoder(small_backbones.clip_model)


def test_the_pooled_feature_is_openclips_own(small_backbones, encoder):
    tokens = small_backbones.tokenize(TEXTS)
    with torch.no_grad():
        difference = encoder(tokens).pooled_BE - small_backbones.clip_model.encode_text(tokens)
    assert difference.abs().max() <= 1e-6


def test_the_states_are_the_last_but_one_block_after_the_final_norm(small_backbones, encoder):
    tokens, clip_model = small_backbones.tokenize(TEXTS), small_backbones.clip_model
    seen: list[torch.Tensor] = []
    with clip_model.transformer.resblocks[-2].register_forward_hook(lambda _m, _i, output: seen.append(output)), torch.no_grad():
        clip_model.encode_text(tokens)
        difference = encoder(tokens).states_BSD - clip_model.ln_final(seen[0])
    assert difference.shape == (3, 77, 128)
    assert difference.abs().max() <= 1e-6


def test_shorter_sequences_give_the_same_features_on_the_positions_they_share(small_backbones, encoder):
    tokens = small_backbones.tokenize(TEXTS)
    with torch.no_grad():
        whole, short = encoder(tokens), encoder(tokens[:, :20])
    assert (whole.states_BSD[:, :20] - short.states_BSD).abs().max() <= 1e-5
    assert (whole.pooled_BE - short.pooled_BE).abs().max() <= 1e-5


def test_it_is_a_copy_and_its_parameters_are_the_text_towers_alone(small_backbones, encoder):
    own = {parameter.data_ptr() for parameter in encoder.parameters()}
    assert own.isdisjoint(parameter.data_ptr() for parameter in small_backbones.clip_model.parameters())
    assert {name.split(".")[0] for name in encoder.state_dict()} == {
        "token_embedding",
        "positional_embedding",
        "transformer",
        "ln_final",
        "text_projection",
    }
    assert (encoder.width, encoder.context_length) == (128, 77)


def test_a_tower_of_one_block_is_refused(small_backbones):
    from open_clip.model import CLIP

    text = {"context_length": 8, "vocab_size": 10, "width": 8, "heads": 1, "layers": 1}
    vision = {"image_size": 8, "layers": 1, "width": 8, "head_width": 8, "patch_size": 8}
    with pytest.raises(ValueError, match="at least two blocks"):
        FineGrainedTextEncoder(CLIP(8, vision, text))


def test_a_prompt_longer_than_the_context_keeps_its_end_token(small_backbones, encoder):
    tokens = small_backbones.tokenize(["cat " * 200])
    assert tokens.shape == (1, 77)
    assert tokens.argmax().item() == 76
    with torch.no_grad():
        assert torch.isfinite(encoder(tokens).pooled_BE).all()


@pytest.mark.parametrize(("text", "count"), [("", 0), ("a cat", 2), ("a cat!", 3), ("! ! !", 3), ("cat " * 200, 75)])
def test_tokens_are_counted_without_the_marks_and_with_exclamation_marks(small_backbones, text, count):
    assert small_backbones.count_tokens(text) == count


def test_the_adapter_maps_every_position_and_ends_in_a_relu():
    torch.manual_seed(0)
    adapter, states = DomainAdapter(6, 10), torch.randn(2, 77, 6)
    output = adapter(states)
    assert output.shape == (2, 77, 10)
    assert output.min() >= 0
    assert torch.allclose(adapter(states[:, 3:4]), output[:, 3:4], atol=1e-6)
    assert [tuple(p.shape) for p in adapter.parameters()] == [(12, 6), (12,), (10, 12), (10,)]
    assert DomainAdapter(6, 10, output_relu=False)(states).min() < 0


def test_the_adapter_starts_at_the_scale_that_it_is_matched_to():
    torch.manual_seed(0)
    for output_relu in (True, False):
        adapter, states = DomainAdapter(6, 10, output_relu), torch.randn(2, 77, 6)
        direction = torch.nn.functional.normalize(adapter(states).flatten(), dim=0)
        adapter.match_scale(states, 1.7)
        assert adapter(states).pow(2).mean().sqrt().item() == pytest.approx(1.7, rel=1e-5)
        assert torch.allclose(torch.nn.functional.normalize(adapter(states).flatten(), dim=0), direction, atol=1e-6)
    with torch.no_grad():
        adapter.layers[2].weight.zero_()
        adapter.layers[2].bias.zero_()
    with pytest.raises(ValueError, match="all zero"):
        adapter.match_scale(states, 1.0)
