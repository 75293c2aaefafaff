"""The paper profile: other sizes by config, the rehearsal, long prompts, and switches for speed that keep the numbers."""

from __future__ import annotations

import functools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import AutoTokenizer, CLIPTokenizer, T5Config, T5ForConditionalGeneration

from ablations.cell.cell import run_cell
from ablations.cell.drawing.pictures import Sampling, draw_pictures, draw_texts
from ablations.cell.loading.device import require_precision
from ablations.cell.loading.module import build_module
from ablations.config import arm_name, parse, train_id
from ablations.results.prompts_and_scores import Drawing
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest
from lightning_modules.backbones import random_paper as random_backbones
from lightning_modules.backbones.assembling import T5, EndPaddedTokenizer, ImageNetworks, OpenClip, assemble
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.backbones.loading import BackboneChoice, load_backbones
from lightning_modules.backbones.random_paper import ARCHITECTURES, random_paper_backbones, rehearsal_tokenizer
from lightning_modules.backbones.sources import PaperSources

OPEN_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3},
}
SMALL = {
    "unet": {
        "sample_size": 8,
        "block_out_channels": [8, 8],
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    },
    "vae": {
        "block_out_channels": [8, 8],
        "norm_num_groups": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    },
    "scheduler": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "prediction_type": "v_prediction"},
    "text_encoder": {"hidden_act": "gelu", "hidden_size": 32, "num_hidden_layers": 2},
    "pad_token": "!",
}
SMALL_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 32128, "decoder_start_token_id": 0}
SOURCES = PaperSources("test/small", "small-for-rehearsals/none", "test/small-t5")


@pytest.fixture
def small_sizes(tmp_path, monkeypatch) -> Path:
    """Small architectures written down beside the real ones, as the rehearsal finds them by name."""
    folder = tmp_path / "architectures"
    shutil.copytree(ARCHITECTURES, folder)
    (folder / "small.json").write_text(json.dumps(SMALL))
    (folder / "small-t5.json").write_text(json.dumps({"t5": SMALL_T5}))
    (folder / "small-for-rehearsals.json").write_text(json.dumps(OPEN_CLIP))
    open_clip.add_model_config(folder / "small-for-rehearsals.json")
    monkeypatch.setattr(random_backbones, "ARCHITECTURES", folder)
    return folder


def test_data(*parts: str) -> Path:
    path = Path(os.environ.get("UF_FGTG_TEST_DATA", "/nowhere")).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"UF_FGTG_TEST_DATA does not name a folder with {'/'.join(parts)}")
    return path


test_data.__test__ = False  # type: ignore[attr-defined]


def test_random_weights_are_a_function_of_the_seed_all_filled_and_of_a_size_that_signals_survive(small_sizes):
    before = torch.get_rng_state()
    first, second, other = (random_paper_backbones(SOURCES, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.digest == second.digest != other.digest
    for network in first.frozen_networks().values():
        for name, parameter in network.named_parameters():
            assert torch.isfinite(parameter).all(), name
            assert parameter.ndim < 2 or parameter.std() > 1e-3, name
    features = first.text_encoder(first.tokenize(["a red cat"]))
    assert 0.1 < features.pooled_BE.std() < 10
    assert first.text_to_image.noise_scheduler.config.prediction_type == "v_prediction"


def test_a_rehearsal_trains_draws_and_is_marked_as_one(small_sizes, tmp_path, capsys):
    names = ["backbones.image_model=test/small", "backbones.open_clip=small-for-rehearsals/none", "backbones.t5=test/small-t5"]
    rest = ["data.image_size=16", "afe.grid=2", f"output_dir={tmp_path / 'out'}", "wandb.mode=disabled", "trainer.accelerator=cpu"]
    config = parse(["profile=paper", "backbones.init=random", *names, *rest, "trainer.progress=plain"])
    assert (config.train.max_steps, config.train.batch_size, config.loss.clip_bank, config.train.precision) == (2, 1, 15, "32-true")
    metrics = run_cell(config, StopRequest())
    run = json.loads((tmp_path / "out" / arm_name(config) / "seed-0" / "run.json").read_text())
    assert (run["status"], run["rehearsal"], metrics["training"]["steps"]) == ("finished", True, 2)
    assert "refined" in metrics
    norms = run["gradient_norms"]
    assert set(norms) == {"l_mse", "l_text", "l_clip"}
    assert all(parts["E_T"] > 0 for parts in norms.values())
    assert (norms["l_text"]["A"] > 0, norms["l_clip"]["N"] > 0, norms["l_mse"]["A"], norms["l_mse"]["N"]) == (True, True, 0, 0)
    assert run["seconds_per_step"] > 0
    assert run["peak_memory_gb"]["process"] > 0.1
    parts = run["parameters"]
    assert (parts["UNet"]["trained"], parts["E_T (text encoder)"]["frozen"]) == (0, 0)
    assert parts["E_T (text encoder)"]["trained"] == parts["OpenCLIP text tower"]["frozen"] - 1  # all but the scale of its logits
    shown = capsys.readouterr().out
    assert "no table takes it in" in shown
    assert "gradient of l_clip: " in shown
    assert "s a step, peak memory" in shown


def test_an_architecture_that_is_not_written_down_is_named_in_one_line():
    with pytest.raises(ValueError, match=r"only the shapes of stable-diffusion-2-1-base, .* are written down, not of other") as error:
        random_paper_backbones(PaperSources(image_model="me/other@main"), 0)
    assert "\n" not in str(error.value)


def test_the_rehearsals_pieces_number_as_t5s_and_read_as_the_tiny_worlds(small_backbones):
    tokenizer = rehearsal_tokenizer()
    assert len(tokenizer) == 32_100
    assert tokenizer.convert_ids_to_tokens([32_000, 32_099]) == ["<extra_id_0>", "<extra_id_99>"]
    for text in ("a lighthouse on a beach at sunset, highly detailed", "zebra crossing"):
        assert tokenizer(text).input_ids == small_backbones.decoder.tokenizer(text).input_ids


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image_model", "unet_parameters", "image_size", "prediction"),
    [
        ("stable-diffusion-2-1-base", 865_910_724, 512, "epsilon"),
        ("stable-diffusion-2-1", 865_910_724, 768, "v_prediction"),
        ("stable-diffusion-v1-5", 859_520_964, 512, "epsilon"),
    ],
)
def test_the_image_models_that_are_written_down_have_the_published_sizes(image_model, unet_parameters, image_size, prediction):
    written = json.loads((ARCHITECTURES / f"{image_model}.json").read_text())
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**written["unet"]), AutoencoderKL(**written["vae"])
    assert sum(parameter.numel() for parameter in unet.parameters()) == unet_parameters
    assert sum(parameter.numel() for parameter in vae.parameters()) == 83_653_863
    assert unet.config.sample_size * 8 == image_size
    assert written["scheduler"]["prediction_type"] == prediction
    assert written["text_encoder"]["hidden_size"] == unet.config.cross_attention_dim


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parameters"), [("t5-base", 222_903_552), ("t5-large", 737_668_096)])
def test_the_t5_sizes_that_are_written_down_have_the_published_numbers_of_parameters(name, parameters):
    with torch.device("meta"):
        t5 = T5ForConditionalGeneration(T5Config(**json.loads((ARCHITECTURES / f"{name}.json").read_text())["t5"]))
    assert sum(parameter.numel() for parameter in t5.parameters()) == parameters


def test_the_configs_of_stable_diffusion_2_1_are_those_that_it_was_published_with():
    folder = test_data("sd21")
    written = json.loads((ARCHITECTURES / "stable-diffusion-2-1.json").read_text())
    for part, file in (("unet", "config.json"), ("vae", "config.json"), ("scheduler", "scheduler_config.json")):
        published = json.loads((folder / part / file).read_text())
        assert written[part] == {key: value for key, value in published.items() if not key.startswith("_")}


def assembled(small_sizes, **changes) -> Backbones:
    """Small networks put together, with some of the image model's changed."""
    base = random_paper_backbones(SOURCES, 0)
    model = base.text_to_image
    image = ImageNetworks(model.vae, model.unet, model.noise_scheduler, SMALL["text_encoder"], "!")
    open_clip_model, t5 = OpenClip(base.clip_model, base.tokenize), T5(base.decoder.t5, base.decoder.tokenizer)
    return assemble("paper", replace(image, **changes), open_clip_model, t5, str(SOURCES))


def test_an_image_model_with_as_many_text_layers_as_the_tower_reads_the_last_one_and_pads_with_the_end(small_sizes):
    text = {**SMALL["text_encoder"], "num_hidden_layers": 3}
    loaded = assembled(small_sizes, text_config=text, pad_token="<|endoftext|>")
    tokens = loaded.tokenize(["a cat"])
    assert tokens[0, :5].tolist() == [49406, 320, 2368, 49407, 49407]
    assert isinstance(loaded.tokenize, EndPaddedTokenizer)
    assert (loaded.pad_id, loaded.count_tokens("a cat"), loaded.count_tokens("cat " * 200)) == (49407, 2, 75)
    seen: list[torch.Tensor] = []
    with loaded.clip_model.transformer.resblocks[-1].register_forward_hook(lambda _m, _i, output: seen.append(output)), torch.no_grad():
        pooled = loaded.clip_model.encode_text(loaded.tokenize(["a cat"]))
        features = loaded.new_text_encoder()(tokens)
        assert (features.states_BSD - loaded.clip_model.ln_final(seen[0])).abs().max() <= 1e-6
    assert (features.pooled_BE - pooled).abs().max() <= 1e-6
    penultimate = assembled(small_sizes)
    assert (penultimate.conditioning_blocks, penultimate.pad_id) == (None, 0)
    assert penultimate.digest != loaded.digest


@pytest.mark.parametrize(
    ("text", "unet_width", "message"),
    [
        ({}, 48, "the UNet reads text states of width 48, the text tower's have width 32"),
        ({"num_hidden_layers": 12}, 32, "own text encoder has 12 layers, the text tower 3"),
        ({"hidden_act": "quick_gelu"}, 32, "computes with quick_gelu, the text tower with gelu"),
    ],
)
def test_networks_that_do_not_belong_together_are_refused_in_one_line(small_sizes, text, unet_width, message):
    unet = UNet2DConditionModel(**{**SMALL["unet"], "cross_attention_dim": unet_width})
    with pytest.raises(ValueError, match=message) as error:
        assembled(small_sizes, unet=unet, text_config={**SMALL["text_encoder"], **text})
    assert "backbones.image_model=test/small" in str(error.value)
    assert "\n" not in str(error.value)


def test_openais_towers_are_built_with_the_activation_that_they_were_trained_with():
    assert PaperSources(open_clip="ViT-L-14/openai").quick_gelu
    assert not PaperSources().quick_gelu


def test_the_tokenizer_of_e_t_gives_the_ids_of_stable_diffusion_2_1s():
    theirs = CLIPTokenizer.from_pretrained(test_data("sd21", "tokenizer"))
    texts = [
        "a green tree",
        "A castle, 8k; trending on artstation (oil painting)",
        "ein schönes bild",
        "it's a cat's life 1234",
        "cat " * 100,
    ]
    ours = open_clip.get_tokenizer("ViT-H-14")(texts)
    expected = theirs(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
    for text, own, other in zip(texts, ours, expected, strict=True):
        length = int(own.argmax()) + 1
        assert own[:length].tolist() == other[:length].tolist(), text
        assert (own[length:] == 0).all()


def test_t5s_tokenizer_gives_the_ids_of_sentencepiece(small_backbones):
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = test_data("t5")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in ("a green tree", "A castle, 8k; trending on artstation (oil painting)", "ein schönes Bild", "  two  spaces "):
        assert tokenizer(text).input_ids == [*pieces.encode(text), 1]
    assert len(tokenizer) == 32_100


def test_l_text_equals_transformers_own_loss(small_backbones, make_batch):
    module, batch = build_module(parse(["use_mse=false", "use_clip=false"]), small_backbones), make_batch()
    terms, _ = module.compute_terms(batch)
    seen: list[dict] = []
    hook = small_backbones.decoder.t5.register_forward_pre_hook(lambda _m, _a, options: seen.append(options), with_kwargs=True)
    with hook, torch.no_grad():
        module.compute_terms(batch)
        labels = batch["target_tokens_BT"].masked_fill(~batch["target_mask_BT"], -100)
        options = {key: value for key, value in seen[0].items() if key not in ("decoder_input_ids", "use_cache")}
        theirs = small_backbones.decoder.t5(labels=labels, **options).loss
    assert terms["l_text"].item() == pytest.approx(theirs.item(), rel=1e-6)


def terms_and_gradients(backbones, batch) -> tuple[dict[str, float], torch.Tensor]:
    module = build_module(parse([]), backbones)
    terms, _ = module.compute_terms(batch)
    gradients = torch.autograd.grad(module.total_loss(terms), list(module.parameters()))
    return {name: value.item() for name, value in terms.items()}, torch.cat([gradient.flatten() for gradient in gradients])


def test_checkpointing_the_unet_gives_the_same_numbers_bit_for_bit(make_batch):
    backbones, batch = load_backbones(BackboneChoice("tiny", init="random")), make_batch()
    plain = terms_and_gradients(backbones, batch)
    backbones.text_to_image.set_speed(checkpoint=True)
    runs: list[int] = []
    # The recomputation stops as soon as it has what it needs, so that its runs are counted where they begin.
    with backbones.text_to_image.unet.mid_block.resnets[-1].register_forward_pre_hook(lambda *_: runs.append(1)):
        checkpointed = terms_and_gradients(backbones, batch)
    assert len(runs) == 2  # once forward, once recomputed
    assert checkpointed[0] == plain[0]
    assert torch.equal(checkpointed[1], plain[1])
    backbones.text_to_image.set_speed()
    assert torch.equal(terms_and_gradients(backbones, batch)[1], plain[1])


@pytest.mark.slow
def test_the_compiled_unet_gives_the_same_numbers_to_rounding(make_batch, monkeypatch):
    # Captured and differentiated as always, but run by torch's own kernels: making C++ of it takes 80 s where no cache has it.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    backbones, batch = load_backbones(BackboneChoice("tiny", init="random")), make_batch()
    plain = terms_and_gradients(backbones, batch)
    backbones.text_to_image.set_speed(compile=True)
    compiled = terms_and_gradients(backbones, batch)
    assert compiled[0]["l_mse"] == pytest.approx(plain[0]["l_mse"], rel=1e-5)
    assert (compiled[1] - plain[1]).norm() <= 1e-4 * plain[1].norm()


def test_frozen_networks_in_bfloat16_stay_within_a_hundredth_of_the_terms(small_backbones, make_batch):
    batch = make_batch(cached=False)
    half_precision = load_backbones(BackboneChoice("tiny", init="random", frozen_dtype="bfloat16"))
    exact, half = (terms_and_gradients(backbones, batch) for backbones in (small_backbones, half_precision))
    for name, value in exact[0].items():
        assert half[0][name] == pytest.approx(value, rel=1e-2), name
    assert torch.nn.functional.cosine_similarity(half[1], exact[1], dim=0) > 0.99


def test_pictures_by_networks_in_bfloat16_are_nearly_those_in_float32(small_backbones):
    sampling = Sampling(steps=3, guidance_scale=3.0, batch_size=2)
    half = load_backbones(BackboneChoice("tiny", init="random", frozen_dtype="bfloat16"))
    pictures = [draw_texts(b, b.text_encoder, ["a cat", "a castle"], [1, 2], sampling).astype(int) for b in (small_backbones, half)]
    assert np.abs(pictures[0] - pictures[1]).mean() < 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.precision=16-mixed", "train.precision=16-mixed needs a CUDA GPU, .* set it to bf16-mixed or 32-true"),
        ("backbones.frozen_dtype=float16", "backbones.frozen_dtype=float16 needs a CUDA GPU"),
    ],
)
def test_float16_without_a_gpu_is_one_clear_line(setting, message):
    config = parse([setting])
    with pytest.raises(UserError, match=message):
        require_precision(config, torch.device("cpu"))
    require_precision(config, torch.device("cuda"))


def test_a_long_prompt_is_drawn_from_all_its_chunks_and_a_short_one_as_ever(small_backbones, monkeypatch):
    long = "a cat, " * 60
    assert (small_backbones.num_chunks(long), small_backbones.num_chunks("a cat")) == (3, 1)
    read: list[tuple[int, ...]] = []
    model = small_backbones.text_to_image
    generate = model.generate

    def spy(states, empty, *args, **options):
        read.append((*states.shape[:2], empty.shape[1]))
        return generate(states, empty, *args, **options)

    monkeypatch.setattr(model, "generate", spy)
    drawings = [Drawing(number, "fine", 0, "", text, 0, 7) for number, text in enumerate([long, "a cat", "a dog"])]

    def pictures(mode: str) -> np.ndarray:
        config = parse([f"eval.long_prompts={mode}", "eval.steps=1", "eval.batch_size=2"]).eval
        return draw_pictures(small_backbones, drawings, config, lambda items, *_: items, lambda: None)

    chunked, cut = pictures("chunk"), pictures("truncate")
    assert read[:2] == [(2, 77, 77), (2, 231, 231)]
    assert not np.array_equal(chunked[0], cut[0])
    assert np.abs(chunked[1:].astype(int) - cut[1:]).max() <= 1


def test_chunks_are_encoded_one_by_one_and_put_side_by_side(small_backbones):
    encoder, long = small_backbones.text_encoder, "a cat, " * 60
    ids = small_backbones.token_ids(long)
    assert (ids[0], ids[-1]) == (small_backbones.tokenize.sot_token_id, small_backbones.tokenize.eot_token_id)
    seen: list[torch.Tensor] = []
    with encoder.register_forward_hook(lambda _m, args, _o: seen.append(args[0])):
        draw_texts(small_backbones, encoder, [long], [1], Sampling(steps=1, guidance_scale=1.0, batch_size=1, num_chunks=3))
    assert torch.cat(seen[:3], dim=1)[0].tolist() == ids + [0] * (231 - len(ids))
    assert [part.shape[1] for part in seen[:3]] == [77, 77, 77]


def test_the_new_keys_leave_the_names_of_earlier_results():
    assert parse(["profile=paper"]).eval.long_prompts == "chunk"
    base = parse([])
    for run_key in ("trainer.checkpoint_unet=true", "trainer.compile_unet=true", "data.encode_batch_size=4"):
        assert (arm_name(parse([run_key])), train_id(parse([run_key]))) == (arm_name(base), train_id(base))
    assert train_id(parse(["backbones.frozen_dtype=bfloat16"])) != train_id(base)
    assert train_id(parse(["eval.long_prompts=chunk"])) == train_id(base)
    assert arm_name(parse(["eval.long_prompts=chunk"])) != arm_name(base)
