"""TIPO, RePrompt and PromptEnhancer: what they read, how they are sampled and how their answers are read, as their makers have it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ablations.baselines.base import AnswerStore, Asked, Written
from ablations.baselines.catalogue import HUB_MODELS
from ablations.baselines.chat_settings import ChatSettings
from ablations.baselines.hub import HubBaseline
from ablations.comparing import plan
from ablations.runtime.errors import UserError
from helpers.language_models import save_chat_model

NAMES = [name for name, model in HUB_MODELS.items() if model.sampling is not None]
COARSE = ["a cat in the snow", "a red boat", "a castle on a hill at night"]
TOKENS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small random Llama with a chat template, which stands in for all of them."""
    folder = tmp_path_factory.mktemp("llama")
    save_chat_model(folder, seed=11, positions=2048)
    return folder


def method(folder: Path, name: str, store: Path | None = None, **changes) -> HubBaseline:
    model = replace(HUB_MODELS[name], max_new_tokens=TOKENS, **changes)
    return HubBaseline(model, str(folder), "", AnswerStore(store), torch.device("cpu"))


def asked(number: int, coarse: str = COARSE[0]) -> Asked:
    return Asked(number, 0, coarse, "", key=1000 * number + 2**40)


def raw(baseline: HubBaseline, prompts: list[Asked]) -> list[str]:
    return [answer["text"] for answer in baseline._generate(baseline._load(), prompts)]


def generated(folder: Path, text: str, **settings) -> str:
    """What transformers' own generate writes, greedily."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    output = model.generate(**encoded, max_new_tokens=TOKENS, do_sample=False, **settings)
    return tokenizer.decode(output[0, encoded.input_ids.shape[1] :], skip_special_tokens=True)


def read_by(folder: Path, name: str) -> str:
    """The text that a model reads, with its marks."""
    baseline = method(folder, name)
    tokenizer = baseline._load().tokenizer
    return tokenizer.decode(baseline._encoded(tokenizer, [baseline._model.template.format(COARSE[0])]).input_ids[0])


def test_they_are_the_four_that_their_makers_sample_in_a_way_of_their_own():
    assert NAMES == ["tipo_200m", "tipo_500m", "reprompt", "promptenhancer"]
    assert [HUB_MODELS[name].max_new_tokens for name in NAMES] == [512, 512, 512, 256]


@pytest.mark.parametrize("name", NAMES)
def test_every_one_writes_keyed_by_the_prompt_alone_whatever_the_batch(folder, name, tmp_path):
    baseline = method(folder, name, tmp_path)
    prompts = [asked(number, coarse) for number, coarse in enumerate(COARSE)]
    at_once = 1 if baseline._model.sampling.repetition_penalty != 1 else len(prompts)
    texts = [text for start in range(0, len(prompts), at_once) for text in raw(baseline, prompts[start : start + at_once])]
    assert texts == [raw(baseline, [one])[0] for one in prompts]
    # Where the likeliest token is taken, a key changes nothing.
    changes = raw(baseline, [asked(99, COARSE[0])])[0] != texts[0]
    assert changes == (baseline._model.sampling.temperature > 0)
    written = baseline.write(0, prompts)
    assert len(list(tmp_path.rglob("*.json"))) == len(COARSE) and all(bool(one.failure) != bool(one.text) for one in written)


def test_tipo_reads_its_makers_request_and_its_penalty_is_that_of_transformers(folder):
    assert read_by(folder, "tipo_500m") == "target: <|long|> <|short_to_tag_to_long|>\nshort: a cat in the snow\ntag:"
    # So cold that the draw is the likeliest token.
    for penalty in (1.17, 50.0):
        cold = replace(HUB_MODELS["tipo_500m"].sampling, temperature=1e-4, repetition_penalty=penalty)
        (text,) = raw(method(folder, "tipo_500m", sampling=cold), [asked(0)])
        assert text == generated(folder, read_by(folder, "tipo_500m"), repetition_penalty=penalty)


def test_every_token_of_tipo_is_one_that_its_makers_settings_leave(folder):
    """Of its makers' chain by transformers itself: at the first token, temperature, top-k, top-p and min-p leave so many."""
    from transformers import GenerationConfig

    baseline = method(folder, "tipo_200m")
    loaded = baseline._load()
    ids = baseline._encoded(loaded.tokenizer, [baseline._model.template.format(COARSE[0])]).input_ids
    with torch.no_grad():
        logits = loaded.model(ids).logits[:, -1].float()
    own = baseline._model.sampling
    config = GenerationConfig(do_sample=True, temperature=own.temperature, top_k=own.top_k, top_p=own.top_p, min_p=own.min_p)
    config.repetition_penalty = own.repetition_penalty
    config._eos_token_tensor = None
    chain = loaded.model._get_logits_processor(config, input_ids_seq_length=ids.shape[1])
    theirs = chain(ids, logits.clone())
    ours = logits.clone()
    for processor in baseline._processors([1])[:-1]:
        ours = processor(ids, ours)
    torch.testing.assert_close(ours, theirs)
    assert not torch.equal(baseline._processors([1])[0](ids, logits.clone()), logits)  # the prompt's tokens are penalised
    assert 0 < int(torch.isfinite(theirs).sum()) <= own.top_k


def test_tipo_answers_with_the_long_caption_and_fails_without_one(folder, monkeypatch):
    baseline = method(folder, "tipo_500m")
    texts = iter([" cat, snow,\n 8k\nlong: A cat sits\nin the snow.\nquality: best", " cat\nlong: A cat.", " cat, snow", "\nlong: \n"])
    monkeypatch.setattr(baseline, "_generate", lambda loaded, part: [{"text": next(texts), "tokens": 9, "ended": True} for _ in part])
    written = baseline.write(0, [asked(number) for number in range(4)])
    assert [one.text for one in written[:2]] == ["A cat sits in the snow.", "A cat."]
    assert written[2:] == [Written.failed("its answer is not in the form that its makers look for"), Written.failed("wrote no words")]


def test_reprompt_reads_a_begun_reply_and_a_new_one_and_takes_the_likeliest_tokens(folder, monkeypatch):
    text = read_by(folder, "reprompt")
    assert (
        text.startswith("<|im_start|>system\nYou are Prompt Wizard assistant") and "<|im_start|>user\na cat in the snow<|im_end|>" in text
    )
    assert text.endswith("<|im_start|>assistant\nLet me solve this step by step.\n<think><|im_end|>\n<|im_start|>assistant\n")
    assert raw(method(folder, "reprompt"), [asked(0)]) == [generated(folder, text)]
    baseline = method(folder, "reprompt")
    texts = iter(["so it is.</think><answer> a photo of a cat\n in snow </answer>", "<answer>never ends"])
    monkeypatch.setattr(baseline, "_generate", lambda loaded, part: [{"text": next(texts), "tokens": 9, "ended": True} for _ in part])
    found, failed = baseline.write(0, [asked(0), asked(1)])
    assert found.text == "a photo of a cat in snow" and failed.failure.startswith("its answer is not in the form")


def test_promptenhancer_reads_its_makers_instruction_and_its_answer_stands_in_marks_or_alone(folder, monkeypatch):
    assert read_by(folder, "promptenhancer").startswith("<|im_start|>system\n你是一位图像生成提示词撰写专家")
    baseline = method(folder, "promptenhancer")
    texts = iter(["<think>hm</think><answer>A cat.</answer>", "<think>hm</think>\nA dog.", "A boat."])
    monkeypatch.setattr(baseline, "_generate", lambda loaded, part: [{"text": next(texts), "tokens": 9, "ended": True} for _ in part])
    assert [one.text for one in baseline.write(0, [asked(number) for number in range(3)])] == ["A cat.", "A dog.", "A boat."]


def test_all_stands_for_the_methods_that_sample_alike_and_the_others_are_asked_for_by_name(tmp_path):
    assert not set(NAMES) & set(plan.methods_of("all", ChatSettings()))
    named = plan.methods_of("all,tipo_500m", ChatSettings())
    assert "tipo_500m" in named and "gpt2" in named and "tipo_200m" not in named
    (tmp_path / "reprompt").mkdir()
    assert plan.sources_of(("reprompt",), tmp_path, [])["reprompt"] == str(tmp_path / "reprompt")


@pytest.mark.parametrize("name", ["reprompt", "promptenhancer"])
def test_one_that_no_hub_has_is_a_line_that_says_why_and_what_to_give(name):
    baseline = HubBaseline(HUB_MODELS[name], plan.sources_of((name,), None, [])[name], "", AnswerStore(None), torch.device("cpu"))
    with pytest.raises(UserError, match=rf"^{name}: .*: give it by --model {name}=FOLDER$") as raised:
        baseline.prepare()
    assert len(str(raised.value)) < 300
