"""Claims about the comparison: one path for every method, equal noise, failures shown, honest intervals, going on after a kill."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ablations import compare
from ablations.baselines.chat_settings import chat_models
from ablations.baselines.register import all_methods
from ablations.cell.drawing import pictures as drawing
from ablations.cell.refining.keys import image_seed
from ablations.comparing import plan
from ablations.comparing.figure import Shown, draw_figure
from ablations.config import parse
from ablations.reporting.statistics import paired_difference
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import Preempted
from helpers.chat_server import Server, ok
from helpers.language_models import save_chat_model, save_gpt2, save_t5
from helpers.trained_runs import make_run

SEEDS, PROMPTS, CANDIDATES = (0, 1, 2), 2, 2
CHAT = "gpt-test"
METHODS = [name for name, method in all_methods().items() if method.in_all]
ORDER = [*METHODS[:-3], f"chat-{CHAT}", *METHODS[-3:]]


def said(call) -> tuple[int, str]:
    """What a call returns, and what it prints on both streams."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        return call(), out.getvalue()


class Compared:
    """An arm of three seeds with random networks, compared with everything: killed after two batches of pictures, then started again."""

    def __init__(self, folder: Path, backbones, server: Server) -> None:
        for seed in SEEDS:
            run = make_run(folder / "outputs", backbones, f"seed={seed}", "prompt_len=4", "eval.max_new_tokens=8", "eval.num_candidates=2")
        self.arm, self.models = run.parent, folder / "models"
        for number, name in enumerate(("gpt2", "promptist", "magicprompt")):
            save_gpt2(self.models / name, seed=number, tokenizer=name != "promptist")
        save_t5(self.models / "flan_t5", seed=7)
        save_chat_model(self.models / "smollm2", seed=8)
        server.replies = [ok("a very fine picture, 8k"), ok("I'm sorry, I can't."), ok("another fine picture, oil painting")]
        self.to = self.arm.parent / "comparisons" / self.arm.name
        self.arguments = [str(self.arm), "--prompts", str(PROMPTS), "--methods", "all", "--models", str(self.models), "--progress", "plain"]
        self.arguments += ["--chat", CHAT, "--chat-url", server.url, "--chat-price", "1,2", "--figure-prompts", "2"]
        self.killed, self.killed_output = said(self._killed_after_two_batches)
        self.left = sorted(path.name for path in self.to.rglob("*")) if self.to.exists() else []
        self.code, self.output = said(lambda: compare.main(self.arguments))
        self.lines = [json.loads(line) for line in (self.to / "prompts.jsonl").read_text().splitlines()]
        self.scores = pd.read_parquet(self.to / "scores.parquet")
        self.table = pd.read_csv(self.to / "comparison.csv")
        self.page = (self.to / "comparison.md").read_text()

    def _killed_after_two_batches(self) -> int:
        draw_texts, calls = drawing.draw_texts, []

        def killed(*arguments, **settings):
            calls.append(1)
            if len(calls) > 2:
                raise Preempted("drawing")
            return draw_texts(*arguments, **settings)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(drawing, "draw_texts", killed)
            return compare.main(self.arguments)


@pytest.fixture(scope="module")
def compared(tmp_path_factory, small_backbones) -> Iterator[Compared]:
    server = Server()
    yield Compared(tmp_path_factory.mktemp("compared"), small_backbones, server)
    server.stop()


def lines_of(compared: Compared, **wanted) -> list[dict]:
    return [line for line in compared.lines if all(line[name] == value for name, value in wanted.items())]


@pytest.mark.slow
def test_a_killed_comparison_goes_on_where_it_was(compared):
    assert compared.killed == 143 and "the same command goes on from there" in compared.killed_output
    assert compared.left == []  # no table, no picture: only the caches
    assert compared.code == 0
    assert "8 different ones of them drawn before" in compared.output


@pytest.mark.slow
def test_every_method_has_a_line_for_every_seed_prompt_and_candidate(compared):
    assert list(dict.fromkeys(line["method"] for line in compared.lines)) == ORDER
    assert len(compared.lines) == len(ORDER) * len(SEEDS) * PROMPTS * CANDIDATES
    assert list(dict.fromkeys(compared.table.row)) == ORDER
    assert all(title in compared.page for title in ("GPT-2", "FLAN-T5-base", "Promptist", "MagicPrompt", CHAT, "our refiner, strategy 1"))


@pytest.mark.slow
def test_methods_are_drawn_at_equal_image_noise_and_asked_with_equal_keys(compared):
    keys = {}
    for line in compared.lines:
        place = (line["seed"], line["prompt_id"], line["candidate"])
        keys.setdefault(place, set()).add((line["prompt_seed"], line["coarse"]))
        if not line["failure"]:
            assert line["image_seed"] == image_seed(*place)
    assert all(len(found) == 1 for found in keys.values()) and len(keys) == 12


@pytest.mark.slow
def test_a_failure_is_counted_and_shown_and_neither_drawn_nor_scored(compared):
    chat = lines_of(compared, method=f"chat-{CHAT}")
    failed = [line for line in chat if line["failure"]]
    assert len(failed) == 1 and failed[0]["failure"] == "refused"
    assert failed[0]["written"] == "" and failed[0]["image"] is None and failed[0]["image_seed"] is None
    own = compared.scores[
        (compared.scores.method == f"chat-{CHAT}") & (compared.scores.metric == "clip_score") & ~compared.scores.shared_noise
    ]
    assert len(own) == 11
    place = {name: failed[0][name] for name in ("seed", "prompt_id", "candidate")}
    assert own[(own.seed == place["seed"]) & (own.prompt_id == place["prompt_id"]) & (own.candidate == place["candidate"])].empty
    sets = compared.scores[(compared.scores.method == f"chat-{CHAT}") & (compared.scores.metric == "st_lpips")]
    assert sets[(sets.seed == place["seed"]) & (sets.prompt_id == place["prompt_id"])].empty and len(sets) == 2 * 5
    assert f"{CHAT} (1 of 12 failed)" in compared.page and "refused (1)" in compared.page
    assert f"{CHAT}: 1 of 12 prompts failed (1 times: refused)" in compared.output
    methods = pd.read_csv(compared.to / "methods.csv").set_index("method")
    assert methods.failed[f"chat-{CHAT}"] == 1 and methods.failed.drop(f"chat-{CHAT}").sum() == sum(
        bool(line["failure"]) for line in compared.lines if line["method"] != f"chat-{CHAT}"
    )


@pytest.mark.slow
def test_pictures_lie_where_the_lines_say_and_equal_texts_at_equal_noise_are_equal_pictures(compared):
    pictures = {}
    for line in compared.lines:
        if not line["failure"]:
            with Image.open(compared.to / line["image"]) as image:
                pictures.setdefault((line["written"], line["image_seed"]), []).append(np.asarray(image))
    assert all(np.array_equal(found[0], other) for found in pictures.values() for other in found[1:])
    assert next(iter(pictures.values()))[0].shape == (64, 64, 3)


@pytest.mark.slow
def test_the_candidates_of_the_bounds_and_of_the_most_frequent_modifiers_differ_in_noise_alone(compared):
    sets = compared.scores[(compared.scores.metric == "st_lpips")]
    for name in ("coarse", "most_frequent", "fine"):
        texts = {(line["prompt_id"], line["written"]) for line in lines_of(compared, method=name)}
        assert len(texts) == PROMPTS
        own = sets[sets.method == name]
        assert (own[own.shared_noise].value == 0).all() and (own[~own.shared_noise].value > 0).all()
    drawn = {(line["prompt_id"], line["written"]) for line in lines_of(compared, method="frequent_drawn")}
    assert len(drawn) > PROMPTS


@pytest.mark.slow
def test_the_tables_differences_are_those_of_the_crossed_model_against_our_refiner(compared):
    scores = compared.scores[(compared.scores.metric == "fidelity") & ~compared.scores.shared_noise]
    values = scores.groupby(["method", "seed", "coarse"]).value.mean().unstack()
    expected = paired_difference(values.loc["most_frequent"].to_numpy(), values.loc["refiner"].to_numpy())
    row = compared.table[(compared.table.row == "most_frequent") & (compared.table.metric == "fidelity")].iloc[0]
    assert row["mean"] == pytest.approx(values.loc["most_frequent"].to_numpy().mean(), abs=1e-12)
    assert [row.difference, row.low, row.high] == pytest.approx([expected.mean, expected.low, expected.high], abs=1e-12)
    assert (row.seeds, row.prompts, row.candidates, row.reference) == (3, 2, 2, "our refiner, strategy 1")
    assert compared.table[compared.table.row == "refiner"].difference.isna().all()
    tex = (compared.to / "comparison.tex").read_text()
    assert tex.count(r"\begin{tabular}") == 2 and "MagicPrompt" in tex


@pytest.mark.slow
def test_the_page_says_what_networks_without_pre_training_mean_and_how_every_method_writes(compared):
    assert "Networks without pre-training: no figure of it means anything." in compared.page
    assert "instruction ours (the authors' is not published)" in compared.page
    assert "12 requests (0 answers from the cache), 840 tokens read and 144 written, $0.0011" in compared.killed_output
    assert "0 requests (12 answers from the cache)" in compared.page  # the first start had asked them all
    for name in ("most frequent modifiers", "frequent modifiers, drawn", CHAT):
        assert f"our refiner against {name}:" in compared.page


@pytest.mark.slow
def test_the_figure_has_a_column_for_every_method(compared):
    with Image.open(compared.to / "comparison.png") as figure:
        assert figure.width == 2 * 36 + 2 * 18 + len(ORDER) * 192 + (len(ORDER) - 1) * 18
        assert figure.height > 2 * 192


@pytest.mark.slow
def test_below_three_seeds_there_is_no_interval_and_made_again_the_table_is_the_same(compared, tmp_path, capsys):
    arguments = [str(compared.arm), "--prompts", "2", "--seeds", "0,1", "--methods", "coarse", "--to", str(tmp_path), "--progress", "plain"]
    assert compare.main(arguments) == 0
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert list(dict.fromkeys(table.row)) == ["coarse", "refiner"]
    assert table[table.row == "coarse"].difference.notna().all() and table.low.isna().all() and table.mean_low.isna().all()
    assert "No interval for any row: 2 of the 3 seeds that it needs" in (tmp_path / "comparison.md").read_text()
    assert "drawing: 32 pictures" in (out := capsys.readouterr().out) and "of them drawn before" in out and "drawing: 1/" not in out
    first = (tmp_path / "comparison.csv").read_bytes()
    assert compare.main(arguments) == 0
    assert (tmp_path / "comparison.csv").read_bytes() == first


@pytest.mark.slow
def test_a_tiny_seed_that_is_not_trained_is_run_first(compared, tmp_path, monkeypatch):
    from ablations.comparing import carrying_out

    asked = []

    def stop_here(config, *_):
        asked.append(config.seed)
        raise UserError("enough")

    monkeypatch.setattr(carrying_out, "run_cell", stop_here)
    assert compare.main([str(compared.arm), "--seeds", "0,5", "--methods", "coarse", "--to", str(tmp_path), "--progress", "none"]) == 2
    assert asked == [5]


def test_without_a_folder_the_arm_is_the_one_that_ablations_run_would_train(tmp_path):
    arm, configs = plan.configs_of(None, [f"output_dir={tmp_path}", "prompt_len=8"], None)
    assert tuple(configs) == (0, 1, 2) and all(config.seed == seed for seed, config in configs.items())
    from ablations.config import arm_name

    assert arm == arm_name(parse([f"output_dir={tmp_path}", "prompt_len=8"]))
    assert tuple(plan.configs_of(None, ["seed=4"], None)[1]) == (4,)


def test_seeds_of_the_paper_profile_are_not_trained_in_passing(tmp_path):
    _, configs = plan.configs_of(None, ["profile=paper", f"output_dir={tmp_path}"], (0, 1))
    comparison = plan.Comparison("arm", configs, ("refiner",), 1, 1, None, 1, {}, plan.ChatSettings(), tmp_path)
    with pytest.raises(UserError, match=r"seed 0, 1 of arm is not trained: .*leave it out of --seeds"):
        plan.require_training_allowed(comparison)


def test_chat_models_stand_before_our_refiner_and_the_reference_is_always_there():
    chat = plan.ChatSettings(models=chat_models(["gpt-4", "mine=/a/model"]))
    assert plan.methods_of("fine, coarse", chat) == ("coarse", "chat:gpt-4", "chat:mine", "refiner", "fine")
    assert plan.methods_of(None, plan.ChatSettings()) == ("coarse", "most_frequent", "frequent_drawn", "refiner", "refiner_rewrite", "fine")


def test_a_folder_of_models_is_looked_in_before_the_hub(tmp_path):
    (tmp_path / "gpt2").mkdir()
    sources = plan.sources_of(("gpt2", "promptist"), tmp_path, ["promptist=me/mine"])
    assert (sources["gpt2"], sources["promptist"]) == (str(tmp_path / "gpt2"), "me/mine")
    assert sources["magicprompt"] == "Gustavosta/MagicPrompt-Stable-Diffusion"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "gpt3"], "unknown method 'gpt3'"),
        (["a", "b"], "one arm at a time"),
        (["nowhere"], "nowhere holds no trained seed"),
        (["nowhere", "seed=1"], "not both"),
        (["prompt_len=0"], "prompt_len"),
        (["--seeds", "0,x"], "no list of seeds"),
        (["--prompts", "0"], "whole number of at least 1"),
        (["--models", "nowhere"], "--models: there is no folder 'nowhere'"),
        (["--model", "gpt9=x"], "--model 'gpt9=x': write NAME=FOLDER"),
        (["--model", "gpt2=x"], "--model gpt2 has no effect: add gpt2 to --methods"),
        (["--chat", "m", "--chat-price", "1"], "no pair of prices"),
        (["--chat", "m", "--chat-key-variable", "NOT_SET"], "set the environment variable NOT_SET"),
        (["--chat", "m", "--chat-rate", "0"], "no number above 0"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    code = compare.main(arguments)
    captured = capsys.readouterr()
    assert code == 2 and message in captured.err and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_and_mistakes_need_no_heavy_library():
    program = (
        "import sys; from ablations import compare\n"
        "assert compare.main(['--methods', 'x']) == 2\n"
        "assert compare.main(['--help']) == 0\n"
        "heavy = {'torch', 'transformers', 'pandas', 'matplotlib', 'pytorch_lightning'} & set(sys.modules); assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "most_frequent" in done.stdout and "examples:" in done.stdout


def test_the_figure_shows_a_failure_in_place_of_the_picture_and_is_the_same_every_time(tmp_path):
    picture = np.full((64, 64, 3), 90, dtype=np.uint8)
    rows = [("a cat", [Shown("a cat", picture), Shown("a cat, oil painting " * 9, picture), Shown(failure="refused")])]
    first = draw_figure(["coarse", "ours", "a chat model"], rows, tmp_path / "1.png", title="t", subtitle="s").read_bytes()
    assert draw_figure(["coarse", "ours", "a chat model"], rows, tmp_path / "2.png", title="t", subtitle="s").read_bytes() == first
    with Image.open(tmp_path / "1.png") as figure:
        assert figure.width == 72 + 36 + 3 * 192 + 2 * 18
        pixels = np.asarray(figure.convert("RGB")).astype(int)
    third = pixels[:, 36 + 18 + 2 * (192 + 18) : 36 + 18 + 2 * (192 + 18) + 192]
    assert (third.max(axis=(1, 2)) - third.min(axis=(1, 2)))[-60:].max() > 0 or third.std() > 0
    assert not (np.abs(third - 90).max(axis=2) == 0).any()
    with pytest.raises(ValueError, match="a cell for each of its 2 columns"):
        draw_figure(["a", "b"], rows, tmp_path / "3.png")
