"""The page without a browser: its command line, and what its refining tab does."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablations import PromptRefiner, app
from ablations.refiner.exporting import export
from ablations.results.trained_run import find_trained_run
from ablations.runtime.errors import UserError
from ablations.web import starting
from ablations.web.arguments import PageArguments, parse_arguments
from ablations.web.sessions import MAX_TABS, OutdatedTab, RefiningSessions, UnknownTab
from helpers.commands import run
from helpers.page_server import ask
from helpers.trained_runs import make_run

INJECTION = '<img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, small_backbones) -> Path:
    return make_run(tmp_path_factory.mktemp("outputs"), small_backbones)


@pytest.fixture(scope="module")
def refiner(run_dir, small_backbones) -> PromptRefiner:
    return PromptRefiner.from_run(run_dir, backbones=small_backbones, device="cpu")


@pytest.fixture
def sessions(refiner) -> RefiningSessions:
    return RefiningSessions(refiner, "a test's refiner")


def act(sessions: RefiningSessions, state: dict, action: str, **more) -> dict:
    return sessions.act(state["tab"], {"action": action, "revision": state["revision"], **more}) | {"tab": state["tab"]}


def refined(state: dict) -> list[str]:
    return [candidate["refined"] for candidate in state["candidates"]]


# The command line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prot=1"], "did you mean 'port'?"),
        (["port"], "'port' has no '='; arguments are written key=value"),
        (["port=1", "--port=2"], "port is given twice"),
        (["port=65536"], "port must be an integer from 0 to 65535, not '65536'"),
        (["run=a", "from=b"], "run= and from= both name a refiner"),
        (["run=absent"], "absent holds no run.json that can be read"),
        (["from=absent"], "absent is no exported refiner"),
        (["runs=absent"], "runs: there is no folder 'absent'"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(arguments, said, capsys):
    assert app.main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == "" and said in error and error.startswith("error: ") and len(error.splitlines()) == 1


def test_help_and_mistakes_come_without_heavy_imports():
    code, out, error, seconds = run("--help", module="ablations.app")
    assert (code, error) == (0, "") and "runs=OUTPUT_DIR" in out and seconds < 1
    code, out, error, seconds = run("prot=1", module="ablations.app")
    assert (code, out) == (2, "") and seconds < 1


def test_without_the_extra_one_line_says_how_to_get_it(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    assert app.main([]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "the page needs uvicorn, of the optional extra app" in error and "pip install -e '.[app]'" in error


def test_a_busy_port_is_one_line_that_names_another_before_anything_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr(starting, "load_refiner", lambda arguments: pytest.fail("loaded"))
    with starting.listen(0) as busy:
        port = busy.getsockname()[1]
        assert busy.getsockname()[0] == "127.0.0.1"
        assert app.main([f"port={port}"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and f"port {port} on 127.0.0.1 cannot be used" in error and "port=0" in error


def test_the_runs_are_those_beside_the_refiner_unless_others_are_named(run_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_arguments([f"run={run_dir}"]).runs == run_dir.parent.parent
    assert parse_arguments([f"run={run_dir}", f"runs={tmp_path}"]).runs == tmp_path
    assert parse_arguments([]) == PageArguments(runs=None, port=7860)
    (tmp_path / "outputs").mkdir()
    assert parse_arguments(["port=0"]) == PageArguments(runs=Path("outputs"), port=0)


def test_each_source_gives_its_refiner(run_dir, tmp_path, small_backbones, monkeypatch):
    monkeypatch.setattr("ablations.refiner.prompt_refiner.load_backbones", lambda *_: small_backbones)
    export(find_trained_run(run_dir), tmp_path / "exported", False, lambda text: None)
    by_run, by_export = parse_arguments([f"run={run_dir}"]), parse_arguments([f"from={tmp_path / 'exported'}"])
    assert (by_run.source, by_export.source) == (f"run {run_dir.parent.name}/seed-0", "exported refiner exported")
    assert starting.load_refiner(by_run).refine("a cat") == starting.load_refiner(by_export).refine("a cat")


@pytest.mark.slow
def test_the_command_answers_until_it_is_interrupted(run_dir, tmp_path):
    command = [sys.executable, "-m", "ablations.app", f"run={run_dir}", "port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        try:
            lines = [process.stdout.readline(), process.stdout.readline()]
            assert lines[0] == f"loading the run {run_dir.parent.name}/seed-0 ...\n"
            port = int(re.search(r"http://127\.0\.0\.1:(\d+) ", lines[1])[1])
            status, content, _ = ask(port, "/api/start", {"prompt": "a cat", "settings": {"seed": 3}})
            assert status == 200 and len(json.loads(content)["candidates"]) == 3
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out, error) == (0, "stopped\n", "")


# What the refining tab does


def test_the_page_gives_the_candidates_that_python_gives_for_the_same_seed(sessions, refiner):
    first = sessions.start({"prompt": "a cat", "settings": {"seed": 5, "prompt_len": 4}})
    assert refined(first) == [c.refined for c in refiner.refine("a cat", seed=5, prompt_len=4)]
    second = act(sessions, first, "pick", candidate=1)
    assert second["prompt"] == refined(first)[1]
    assert refined(second) == [c.refined for c in refiner.refine(second["prompt"], seed=5, prompt_len=4)]
    other = act(sessions, second, "redraw")
    assert other["settings"]["seed"] == 6 and act(sessions, other, "redraw", seed=9)["settings"]["seed"] == 9
    rewritten = sessions.start({"prompt": "a cat", "settings": {"mode": "rewrite", "max_new_tokens": 20}})
    assert refined(rewritten) == [c.refined for c in refiner.refine("a cat", mode="rewrite", max_new_tokens=20)]


def test_back_undoes_every_action_and_new_words_are_those_since_the_person_last_typed(sessions):
    states = [sessions.start({"prompt": "a cat"})]
    for action, more in [
        ("pick", {"candidate": 2}),
        ("redraw", {}),
        ("change", {"settings": {"mode": "rewrite", "max_new_tokens": 20}}),
        ("edit", {"prompt": "a boat"}),
    ]:
        states.append(act(sessions, states[-1], action, **more))
    assert [state["typed"] for state in states] == ["a cat"] * 4 + ["a boat"]
    assert states[0]["pieces"] == [("a cat", False)]
    assert states[1]["pieces"] == [("a cat", False), (states[1]["prompt"].removeprefix("a cat"), True)]
    assert states[0]["candidates"][0]["pieces"][0] == ("a cat", False)
    undone = states[-1]
    for before in states[-2::-1]:
        undone = act(sessions, undone, "back")
        assert {**undone, "revision": 0} == {**before, "revision": 0}
    with pytest.raises(UserError, match="there is nothing to go back to"):
        act(sessions, undone, "back")


@pytest.mark.parametrize(
    ("action", "more", "said"),
    [
        ("pick", {"candidate": 3}, "there is no candidate 4"),
        ("pick", {"candidate": "1"}, "candidate must be a whole number"),
        ("pick", {"candidate": True}, "candidate must be a whole number"),
        ("redraw", {"seed": -1}, "seed must be an integer from 0"),
        ("edit", {"prompt": " \n"}, "the prompt is empty"),
        ("edit", {"prompt": None}, "prompt must be text"),
        ("edit", {"prompt": "\ud800"}, "half a character"),
        ("edit", {"prompt": "cat " * 10_000}, "at most 512 can be extended"),
        ("change", {"settings": {"prompt_len": None}}, "prompt_len must be an integer"),
        ("change", {"settings": {"num_candidates": 10**9}}, "settings may have mode, prompt_len, max_new_tokens, seed"),
        ("change", {"settings": [1]}, "settings may have"),
        ("explode", {}, "there is no action 'explode'"),
    ],
)
def test_an_action_that_is_refused_changes_nothing(sessions, action, more, said):
    state = sessions.start({"prompt": "a cat"})
    with pytest.raises(UserError, match=said):
        act(sessions, state, action, **more)
    assert sessions.state(state["tab"]) | {"tab": state["tab"]} == state


def test_tabs_know_nothing_of_each_other(sessions):
    mine, theirs = sessions.start({"prompt": "a cat"}), sessions.start({"prompt": "a boat"})
    assert mine["tab"] != theirs["tab"] and len(mine["tab"]) >= 22
    act(sessions, mine, "pick", candidate=0)
    assert sessions.state(theirs["tab"])["revision"] == 0
    assert "a cat" not in json.dumps([sessions.state(theirs["tab"]), sessions.history(theirs["tab"])])
    for token in ("", "x", mine["tab"][:-1]):
        with pytest.raises(UnknownTab):
            sessions.state(token)


def test_a_click_on_candidates_that_are_gone_is_refused(sessions):
    state = sessions.start({"prompt": "a cat"})
    now = act(sessions, state, "redraw")
    with pytest.raises(OutdatedTab):
        act(sessions, state, "pick", candidate=0)
    with pytest.raises(OutdatedTab):
        sessions.picture(state["tab"], {"revision": 0, "text": "refined", "candidate": 0})
    assert sessions.state(state["tab"])["revision"] == now["revision"] == 1


def test_the_tabs_used_least_recently_are_forgotten(sessions, monkeypatch):
    monkeypatch.setattr("ablations.web.sessions.MAX_TABS", 2)
    first, second = (sessions.start({"prompt": "a cat"})["tab"] for _ in range(2))
    sessions.state(first)
    sessions.start({"prompt": "a cat"})
    assert sessions.state(first)["prompt"] == "a cat" and MAX_TABS >= 100
    with pytest.raises(UnknownTab, match="start again"):
        sessions.state(second)


def test_pictures_are_those_that_python_draws_before_and_after_by_either_encoder(sessions, refiner):
    state = sessions.start({"prompt": "a cat"})

    def pixels(text: str, candidate: int, plug_in: bool = False, of: dict = state) -> np.ndarray:
        question = {"revision": of["revision"], "text": text, "candidate": candidate, "plug_in": plug_in}
        return np.asarray(Image.open(io.BytesIO(sessions.picture(of["tab"], question))))

    candidate = refiner.refine("a cat")[2]
    for text, name in ((candidate.refined, "refined"), ("a cat", "typed")):
        for plug_in in (False, True):
            (wanted,) = refiner.draw(text, candidate.image_seed, plug_in=plug_in, batch_size=1)
            assert np.array_equal(pixels(name, 2, plug_in), wanted)
    on_card = pixels("refined", 1)
    picked = act(sessions, state, "pick", candidate=1)
    assert np.array_equal(pixels("prompt", 0, of=picked), on_card)
    assert np.array_equal(pixels("prompt", 0, of=act(sessions, picked, "redraw")), on_card)


def test_the_history_holds_what_it_takes_to_repeat_every_step(sessions, refiner):
    state = act(sessions, sessions.start({"prompt": INJECTION, "settings": {"seed": 2}}), "pick", candidate=1)
    history = json.loads(json.dumps(sessions.history(state["tab"])))
    assert (history["original"], history["prompt"], history["profile"]) == (INJECTION, state["prompt"], "tiny")
    assert "claims nothing about Stable Diffusion" in history["note"]
    assert [(step["action"], step["picked"]) for step in history["steps"]] == [("start", 1), ("pick", None)]
    for step in history["steps"]:
        names = ("seed", "mode", "prompt_len", "max_new_tokens", "num_candidates", "unfinished")
        again = refiner.refine(step["coarse"], **{name: step[name] for name in names})
        assert [c["refined"] for c in step["candidates"]] == [c.refined for c in again]
        assert [c["image_seed"] for c in step["candidates"]] == [c.image_seed for c in again]
