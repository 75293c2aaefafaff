"""W&B: offline needs nobody and nothing, online reaches the server, and a server that is away stops no run."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablations.figures.diversity_grid import GridRow, draw_grid
from ablations.results.logged import flatten
from ablations.results.tracking import TABLE_COLUMNS, Asked, Tracker
from ablations.results.wandb_settings import CannotTrack, resolve_mode
from ablations.runtime.errors import UserError
from helpers.odd_servers import KEY, odd_server, without_wandb

TOOLS = os.environ.get("UF_FGTG_TEST_TOOLS", "")
needs_server = pytest.mark.skipif(
    not (Path(TOOLS) / "fake_wandb.py").is_file(),
    reason="no stand-in W&B server: UF_FGTG_TEST_TOOLS does not name a folder with fake_wandb.py",
)


@pytest.fixture(autouse=True)
def clean_wandb(monkeypatch, tmp_path):
    import wandb

    without_wandb(monkeypatch, tmp_path / "home")
    wandb.teardown()
    yield
    wandb.teardown()


def _grid(tmp_path: Path) -> tuple[Path, list[GridRow]]:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    rows = [GridRow("a cat", pictures[0], [("a cat, 8k", pictures[1]), ("a cat, oil", pictures[2])], {"ST-LPIPS": 0.1}, prompt_id=42)]
    return draw_grid(rows, tmp_path / "grid.png"), rows


def _run_a_cell(tracker: Tracker, tmp_path: Path, exit_code: int = 0, mode: str = "auto") -> Tracker:
    png, rows = _grid(tmp_path)
    tracker.start(
        {"prompt_len": 6, "loss.mse_weight": 1.0, "seed": 0},
        tmp_path / "run",
        Asked("arm-seed-0", "arm", "ablations", mode=mode, job_type="cell", tags=("tiny", "len6")),
    )
    tracker.log({"train/loss": 2.5}, step=0)
    tracker.log_grid(png, rows, step=0)
    tracker.log({"train": {"loss": 1.5}}, step=1)
    tracker.log_grid(png, rows)
    tracker.summary({"refined": {"piqe": 40.0}})
    tracker.finish(exit_code)
    return tracker


@pytest.fixture
def silent_server():
    with odd_server("silent") as server:
        yield server


def test_auto_is_online_with_a_login_or_under_an_agent_and_else_offline():
    assert resolve_mode("auto", {}, None, has_login=False) == "offline"
    assert resolve_mode("auto", {}, None, has_login=True) == "online"
    assert resolve_mode("auto", {"WANDB_SWEEP_ID": "abc"}, None, has_login=False) == "online"


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        ("offline", "offline"),
        (" Offline", "offline"),
        ("disabled", "disabled"),
        ("online", "online"),
        ("dryrun", "offline"),
        ("run", "online"),
    ],
)
def test_wandb_mode_of_the_environment_wins_over_settings_and_login_under_auto_only(value, mode):
    assert resolve_mode("auto", {"WANDB_MODE": value}, "disabled", has_login=True) == mode
    assert resolve_mode("auto", {}, value, has_login=True) == mode
    assert resolve_mode("disabled", {"WANDB_MODE": value}, "online", has_login=True) == "disabled"


def test_unknown_modes_are_the_users_mistake_here_and_cost_the_tracking_in_wandbs_own_places():
    with pytest.raises(UserError, match=r"wandb\.mode='on' is unknown"):
        resolve_mode("on", {}, None, has_login=False)
    with pytest.raises(CannotTrack, match="WANDB_MODE is 'sometimes'"):
        resolve_mode("auto", {"WANDB_MODE": "sometimes"}, None, has_login=False)
    with pytest.raises(CannotTrack, match="settings file is 'shared'"):
        resolve_mode("auto", {}, "shared", has_login=False)


def test_nested_metrics_are_joined_by_slashes():
    assert flatten({"a": {"b": {"c": 1}}, "d": 2}) == {"a/b/c": 1, "d": 2}


def test_disabled_writes_nothing(tmp_path):
    tracker = _run_a_cell(Tracker(), tmp_path, mode="disabled")
    assert tracker.mode == "disabled" and not (tmp_path / "run").exists()


def test_offline_without_a_login_is_silent_and_writes_the_run_folder(tmp_path, capfd):
    tracker = _run_a_cell(Tracker(), tmp_path)
    assert tracker.mode == "offline" and tracker.url == ""
    assert capfd.readouterr() == ("", "")
    (run,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert next(run.glob("run-*.wandb")).stat().st_size > 0
    assert "WANDB_DATA_DIR" not in os.environ
    assert not (tmp_path / "home" / ".local").exists()


def test_pictures_arrive_as_uint8_and_the_table_names_them(tmp_path):
    _run_a_cell(Tracker(), tmp_path)
    _, rows = _grid(tmp_path)
    (run,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    logged = [np.asarray(Image.open(path).convert("RGB")) for path in (run / "files/media/images").glob("candidates_*.png")]
    for image in (rows[0].coarse_image, *(image for _, image in rows[0].candidates)):
        assert any(np.array_equal(image, other) for other in logged)
    (table,) = (run / "files/media/table").glob("prompts_*.table.json")
    content = json.loads(table.read_text())
    assert tuple(content["columns"]) == TABLE_COLUMNS
    assert [row[:5] for row in content["data"]] == [
        [42, "coarse", 0, "a cat", "a cat"],
        [42, "refined", 0, "a cat", "a cat, 8k"],
        [42, "refined", 1, "a cat", "a cat, oil"],
    ]


def test_pictures_that_are_not_uint8_are_refused(tmp_path):
    png, rows = _grid(tmp_path)
    tracker = Tracker().start({}, tmp_path / "run", Asked("n", mode="offline"))
    floats = GridRow("a cat", rows[0].coarse_image / 255, rows[0].candidates)
    with pytest.raises(ValueError, match="prompt 0, coarse 0 must be a uint8 picture"):
        tracker.log_grid(png, [floats])
    tracker.finish(1)


def test_offline_opens_no_connection_even_with_a_key(tmp_path, monkeypatch, silent_server):
    monkeypatch.setenv("WANDB_BASE_URL", silent_server.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert _run_a_cell(Tracker(), tmp_path).mode == "offline"
    assert silent_server.knocks == []


def test_a_server_that_does_not_answer_costs_one_line_and_the_run_goes_on_offline(tmp_path, monkeypatch, capfd, silent_server):
    monkeypatch.setenv("WANDB_BASE_URL", silent_server.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    tracker = _run_a_cell(Tracker(init_timeout=1), tmp_path)
    assert tracker.mode == "offline" and silent_server.knocks
    output = capfd.readouterr()
    assert output.out == "" and output.err.startswith("W&B: the server cannot be used, going on offline") and output.err.count("\n") == 1
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))) == 1


def test_online_without_a_login_asks_nobody_and_goes_on_offline(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked a question"))
    assert _run_a_cell(Tracker(), tmp_path, mode="online").mode == "offline"
    assert capfd.readouterr().err.count("there is no login") == 1


def test_a_failure_inside_wandb_does_not_end_the_cell(tmp_path, capfd):
    tracker = Tracker().start({}, tmp_path / "run", Asked("n", mode="offline"))
    assert tracker.wait(60)
    tracker._run.finish()
    tracker.log({"train/loss": 1.0}, step=0)
    tracker.log({"train/loss": 1.0}, step=1)
    tracker.finish()
    assert capfd.readouterr().err.count("logging failed") == 1


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    sys.modules.pop("fake_wandb", None)
    import fake_wandb

    server, url = fake_wandb.serve(tmp_path / "server")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    yield server
    server.shutdown()
    server.server_close()


@needs_server
def test_online_sends_config_history_pictures_and_summary(tmp_path, server, capfd):
    tracker = _run_a_cell(Tracker(), tmp_path)
    assert tracker.mode == "online" and "ablations/runs/" in tracker.url
    assert capfd.readouterr().out == ""
    (run,) = server.store.runs.values()
    assert (run["displayName"], run["group"], run["project"], run["state"], run["exitcode"]) == (
        "arm-seed-0",
        "arm",
        "ablations",
        "finished",
        0,
    )
    assert (run["jobType"], run["tags"]) == ("cell", ["tiny", "len6"])
    assert run["config"]["loss.mse_weight"]["value"] == 1.0
    assert [row["train/loss"] for row in run["history"]] == [2.5, 1.5]
    assert [("diversity_grid" in row, "prompts" in row) for row in run["history"]] == [(True, False), (True, True)]
    assert run["summary"]["refined/piqe"] == 40.0
    assert run["history"][-1]["candidates"]["captions"] == ["coarse: a cat", "refined: a cat, 8k", "refined: a cat, oil"]
    assert sum(name.startswith("media/images/") for name in run["files"]) >= 4
    assert next((tmp_path / "run" / "wandb").glob("run-*/run-*.wandb")).stat().st_size > 0


@needs_server
def test_a_failed_cell_is_seen_as_failed(tmp_path, server):
    _run_a_cell(Tracker(), tmp_path, exit_code=3)
    (run,) = server.store.runs.values()
    assert (run["state"], run["exitcode"]) == ("failed", 3)


@needs_server
def test_a_server_lost_during_the_run_neither_hangs_nor_ends_the_cell(tmp_path, server, capfd):
    tracker = Tracker(finish_timeout=1).start({}, tmp_path / "run", Asked("n", project="ablations"))
    assert tracker.wait(60) and tracker.mode == "online"
    server.shutdown()
    server.server_close()
    tracker.log({"train/loss": 1.0}, step=0)
    tracker.finish()
    assert "send it with: wandb sync" in capfd.readouterr().err


@needs_server
def test_a_cell_that_goes_on_is_the_same_run_and_one_that_begins_anew_is_another(tmp_path, server, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "shared00")
    for exit_code, step, is_anew in ((143, 0, False), (0, 1, False), (0, 0, True)):
        tracker = Tracker().start({"seed": 0}, tmp_path / "run", Asked("arm/seed-0", project="ablations", is_anew=is_anew))
        tracker.log({"train/loss": 2.0 - step}, step=step)
        tracker.finish(exit_code)
    first, second = server.store.runs.values()
    assert (first["state"], second["state"]) == ("finished", "finished")
    assert [row["train/loss"] for row in first["history"]] == [2.0, 1.0]
    assert "shared00" not in server.store.runs


@needs_server
def test_under_an_agent_the_run_is_the_one_that_the_agent_gave_out(tmp_path, server, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "given000")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep000")
    _run_a_cell(Tracker(), tmp_path)
    assert list(server.store.runs) == ["given000"]
