"""Whatever W&B, its server and its variables do, a cell goes on: it costs one line, and the tracking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablations.config import parse
from ablations.results import wandb_run_id
from ablations.results.tracking import Asked, Tracker
from ablations.results.wandb_settings import forget_the_agents_run, mode_here
from ablations.runtime.errors import UserError
from helpers.odd_servers import ANSWERS, KEY, TRACKED_CELL, odd_server, without_wandb

ROOT = Path(__file__).resolve().parents[2]

ODD_VARIABLES = {
    "WANDB_PROJECT": "a/b",
    "WANDB_RUN_ID": "a/b",
    "WANDB_RESUME": "true",
    "WANDB_MODE": "sometimes",
    "WANDB_SILENT": "perhaps",
    "WANDB_CONSOLE": "loud",
    "WANDB_TAGS": "a" * 65,
    "WANDB_BASE_URL": "not an address",
    "WANDB_START_METHOD": "wish",
    "WANDB_INIT_TIMEOUT": "soon",
    "WANDB_API_KEY": " ",
    "WANDB_SWEEP_ID": " ",
    "WANDB_RESUME_FROM": "nowhere",
    "WANDB_FORK_FROM": "a?_step=b",
    "WANDB_HTTP_TIMEOUT": "-x",
    "WANDB_REINIT": "maybe",
    "WANDB_SERVICE": "7-gone",
}


@pytest.fixture(autouse=True)
def clean_wandb(monkeypatch, tmp_path):
    import wandb

    without_wandb(monkeypatch, tmp_path / "home")
    wandb.teardown()
    yield
    for name in ODD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    wandb.teardown()


def track(folder: Path, **asked) -> Tracker:
    """A cell as W&B sees it."""
    tracker = Tracker(init_timeout=2, finish_timeout=20).start({"seed": 0}, folder, Asked("n", **asked))
    tracker.log({"train": {"loss": 1.0}}, step=0)
    tracker.summary({"refined": {"fidelity": 0.5}})
    tracker.finish()
    return tracker


def one_line_of(capfd) -> str:
    said = capfd.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("W&B: ") and len(said.err) < 300, said
    return said.err


@pytest.mark.parametrize("kind", sorted(ANSWERS))
def test_a_server_that_is_not_one_costs_one_line_and_the_run_goes_on_offline(kind, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with odd_server(kind) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        tracker = track(tmp_path / "run")
        assert server.knocks
    assert tracker.mode == "offline" and "going on offline" in one_line_of(capfd)
    (written,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    assert written.stat().st_size > 0 and wandb_run_id.run_id(tmp_path / "run" / "wandb") in written.name


@pytest.mark.parametrize("name", ODD_VARIABLES)
def test_an_odd_variable_costs_one_line_at_most_that_names_it_and_never_the_run(name, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv(name, ODD_VARIABLES[name])
    tracker = track(tmp_path / "run")
    said = capfd.readouterr().err
    assert said.count("\n") <= 1 and len(said) < 300 and "Traceback" not in said
    assert tracker.mode == "disabled" or said == ""
    if said:
        assert name in said or name == "WANDB_SERVICE"


def test_a_secret_is_in_no_line(tmp_path, monkeypatch, capfd):
    secret = "local-0123456789 abcdef"
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB__EXTRA_HTTP_HEADERS"):
        with monkeypatch.context() as context:
            context.setenv(name, secret)
            track(tmp_path / name)
    assert secret not in capfd.readouterr().err


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_process_that_is_not_online_opens_no_connection_not_even_at_its_end(mode, tmp_path):
    with odd_server("no W&B") as server:
        variables = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url, "WANDB_MODE": mode, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", TRACKED_CELL, str(tmp_path / "run"), '{"name": "n"}']
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout, done.stderr, server.knocks) == (0, "the cell is done\n", "", [])


TWO_CELLS = """
import os, signal, sys
from pathlib import Path
from ablations.results.tracking import Asked, Tracker
from ablations.runtime.leaving import leave_within
for name in ("first", "second"):
    tracker = Tracker().start({}, Path(sys.argv[1]) / name, Asked("n", mode="offline"))
    tracker.log({"a": 1.0}, step=0)
    assert tracker.wait(60)
    if name == "first":
        commands = {path.parent.name: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")}
        (service,) = (int(number) for number, command in commands.items() if b"--pid\\0%d\\0" % os.getpid() in command)
        os.kill(service, signal.SIGKILL)
    tracker.log({"a": 2.0}, step=1)
    tracker.finish()
leave_within(4, 0)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked up in /proc")
def test_wandbs_own_service_may_die_and_the_next_cell_gets_another(tmp_path):
    command = [sys.executable, "-c", TWO_CELLS, str(tmp_path)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and done.stderr.count("\n") == 1 and done.stderr.startswith("W&B: "), done.stderr
    assert len(list(tmp_path.glob("second/wandb/offline-run-*/*.wandb"))) == 1


@pytest.mark.parametrize(
    ("mode", "becomes"), [("offline", "offline"), ("disabled", "disabled"), ("dryrun", "offline"), ("online", "online")]
)
def test_what_wandb_offline_left_in_the_folder_counts_more_than_a_login(mode, becomes, tmp_path, monkeypatch, capfd):
    settings = tmp_path / "home" / "wandb" / "settings"
    settings.parent.mkdir()
    settings.write_text(f"[default]\nmode = {mode}\n")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with odd_server("refuses") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert mode_here("auto") == becomes
        track(tmp_path / "run")
        assert bool(server.knocks) == (becomes == "online")
    assert capfd.readouterr().err.count("\n") == (becomes == "online")


@pytest.mark.parametrize("content", [b"mode = offline\n", b"[default\nmode", b"[default]\nmode = sometimes", b"\xff\xfe\x00[default]"])
def test_settings_that_cannot_be_read_may_have_said_offline_so_nothing_is_sent(content, tmp_path, monkeypatch, capfd):
    settings = tmp_path / "home" / "wandb" / "settings"
    settings.parent.mkdir()
    settings.write_bytes(content)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with odd_server("refuses") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert track(tmp_path / "run").mode == "disabled" and server.knocks == []
    assert "settings file" in one_line_of(capfd) or b"\xff" in content


def test_a_silent_server_delays_neither_the_start_nor_a_step_and_the_end_for_as_long_as_was_said(tmp_path, monkeypatch, capfd):
    import wandb  # noqa: F401  (importing it takes a second, whatever the server does)

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with odd_server("silent") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        began = time.monotonic()
        tracker = Tracker().start({}, tmp_path / "run", Asked("n"))
        for step in range(100):
            tracker.log({"train/loss": 1.0}, step=step)
        assert time.monotonic() - began < 1
        began = time.monotonic()
        tracker.finish(143, within=0.5)
        assert 0.5 <= time.monotonic() - began < 2
    assert "did not answer within" in one_line_of(capfd)


@pytest.mark.parametrize(
    "error", [SystemExit(1), KeyError("x"), MemoryError(), AssertionError(), UnicodeDecodeError("utf-8", b"", 0, 1, "x")]
)
@pytest.mark.parametrize("where", ["setup", "init", "Settings", "log", "finish"])
def test_whatever_wandb_raises_wherever_costs_one_line(where, error, tmp_path, monkeypatch, capfd):
    import wandb

    def fail(*arguments, **named):
        raise error

    if where in ("log", "finish"):
        tracker = Tracker().start({}, tmp_path / "run", Asked("n", mode="offline"))
        assert tracker.wait(60)
        monkeypatch.setattr(tracker._run, where, fail)
        tracker.log({"a": 1.0}, step=0)
        tracker.log({"a": 1.0}, step=1)
        tracker.finish()
    else:
        with monkeypatch.context() as context:
            context.setattr(wandb, where, fail)
            assert track(tmp_path / "run", mode="offline").mode == "disabled"
    assert type(error).__name__ in one_line_of(capfd)


def test_every_cell_has_an_id_of_its_own_that_its_folder_keeps(tmp_path):
    ids = [wandb_run_id.run_id(tmp_path / str(seed)) for seed in range(50)]
    assert len(set(ids)) == 50
    assert [wandb_run_id.run_id(tmp_path / str(seed)) for seed in range(50)] == ids
    assert wandb_run_id.run_id(tmp_path / "0", anew=True) != ids[0]
    for damage in (b"", b"{", b"[]", b'{"id": 5}', b'{"id": "../../up"}', b'{"id": ""}', b"\xff"):
        (tmp_path / "1" / "run_id.json").write_bytes(damage)
        drawn = wandb_run_id.run_id(tmp_path / "1")
        assert json.loads((tmp_path / "1" / "run_id.json").read_text()) == {"id": drawn}


def test_an_exported_id_is_not_shared_by_cells(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_RUN_ID", "shared00")
    for seed in range(2):
        track(tmp_path / str(seed), mode="offline")
    assert list(tmp_path.glob("*/wandb/*shared00*")) == []
    assert len({path.name.rpartition("-")[2] for path in tmp_path.glob("*/wandb/offline-run-*")}) == 2
    assert capfd.readouterr().err.count("WANDB_RUN_ID is not used") == 2


def test_a_sweep_here_takes_no_run_of_an_agent_for_all_its_cells(monkeypatch):
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_ENTITY"):
        monkeypatch.setenv(name, "abc")
    forget_the_agents_run()
    assert [name for name in os.environ if name.startswith("WANDB_")].count("WANDB_ENTITY") == 1
    assert not {"WANDB_SWEEP_ID", "WANDB_RUN_ID"} & set(os.environ)


@pytest.mark.parametrize("key", ["wandb.project", "wandb.entity"])
@pytest.mark.parametrize("value", ["a/b", "a:b", "50%", "a#", "what?", "a\\b", "x" * 129])
def test_a_name_that_wandb_would_refuse_is_refused_with_the_arguments(key, value):
    with pytest.raises(UserError, match=f"^{key}=") as told:
        parse([f"{key}={value}"])
    assert len(str(told.value)) < 300
    if len(value) < 129:
        assert parse([f"wandb.name={value}", f"wandb.group={value}"]).wandb.name == value
