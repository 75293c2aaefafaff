"""The sweep files under the unmodified W&B client: `wandb sweep` and `wandb agent` against a stand-in for its server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from helpers.small_sweeps import ROOT, SMALL, SWEEPS, results_in

TOOLS = os.environ.get("UF_FGTG_TEST_TOOLS", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (Path(TOOLS) / "fake_wandb.py").is_file(),
        reason="no stand-in W&B server: UF_FGTG_TEST_TOOLS does not name a folder with fake_wandb.py",
    ),
]


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    sys.modules.pop("fake_wandb", None)
    import fake_wandb

    server, url = fake_wandb.serve(tmp_path / "server")
    server.url = url
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def wandb_cli(tmp_path, server):
    """Runs the W&B command line, with a home of its own, and returns what it says."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR"):
        environment[name] = str(tmp_path / "home" / name.lower())
    environment |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "OMP_NUM_THREADS": "1"}
    # The agent calls `python`, which must be this one, and it must find the packages from any folder.
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def run(*arguments: str, **more: str) -> str:
        command = [sys.executable, "-m", "wandb", *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment | more, capture_output=True, text=True, timeout=900)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    return run


def small_copy(name: str, folder: Path, **parameters) -> Path:
    """A sweep file with small cells: its own lines, and more parameters with one value each."""
    content = yaml.safe_load((SWEEPS / name).read_text())
    keys = dict(word.split("=", 1) for word in SMALL if not word.startswith("wandb.mode"))
    content["parameters"] |= {key: {"value": yaml.safe_load(text)} for key, text in keys.items()}
    content["parameters"] |= {"output_dir": {"value": str(folder / "outputs")}, **parameters}
    path = folder / name
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def sweep_and_run(wandb_cli, path: Path, count: int) -> None:
    said = wandb_cli("sweep", "--project", "ablations", str(path))
    address = re.search(r"wandb agent (\S+)", said)
    assert address, said
    wandb_cli("agent", "--count", str(count), address.group(1))


def test_the_unmodified_client_runs_the_loss_table_to_four_finished_runs(tmp_path, server, wandb_cli):
    sweep_and_run(wandb_cli, small_copy("losses.yaml", tmp_path), 4)
    runs = list(server.store.runs.values())
    assert [run["state"] for run in runs] == ["finished"] * 4
    configs = [{key: entry["value"] for key, entry in run["config"].items() if key != "_wandb"} for run in runs]
    combinations = [(config["use_mse"], config["use_clip"]) for config in configs]
    assert sorted(combinations) == [(False, False), (False, True), (True, False), (True, True)]
    assert all(config["use_afe"] is config["use_clip"] for config in configs)
    (sweep,) = server.store.sweeps.values()
    assert [run["sweepName"] for run in runs] == [sweep["name"]] * 4
    for run in runs:
        assert 0 <= run["summary"]["refined/fidelity"] <= 1 and run["summary"]["training/steps"] == 2
        assert run["history"][-1]["diversity_grid"]["_type"] == "image-file"
        assert sum(name.startswith("media/images/diversity_grid") for name in run["files"]) == 1
        assert sum(name.startswith("media/images/candidates") for name in run["files"]) >= 3
    assert len(results_in(tmp_path / "outputs")) == 4

    # Another sweep does not run a cell again that is finished, and still has a run with its results.
    before = results_in(tmp_path / "outputs")
    sweep_and_run(wandb_cli, tmp_path / "losses.yaml", 1)
    (again,) = (run for run in server.store.runs.values() if run not in runs)
    (first,) = (run for run in runs if run["displayName"] == again["displayName"])
    assert again["state"] == "finished" and again["summary"]["refined/fidelity"] == first["summary"]["refined/fidelity"]
    assert again["history"][-1]["diversity_grid"]["_type"] == "image-file"
    assert results_in(tmp_path / "outputs") == before


def test_a_run_that_fails_is_seen_as_failed(tmp_path, server, wandb_cli):
    diverging = {"train.learning_rate": {"value": 1e30}, "train.warmup_steps": {"value": 0}, "use_clip": {"value": False}}
    sweep_and_run(wandb_cli, small_copy("losses.yaml", tmp_path, **diverging), 1)
    (run,) = server.store.runs.values()
    assert run["state"] == "failed" and run["exitcode"] == 1


def test_a_cell_that_hyperband_gives_up_saves_what_it_has_and_the_agent_goes_on(tmp_path, server, wandb_cli):
    """W&B's server decides by the values that it has at its brackets; here the stand-in gives up a cell that would take hours."""
    path = small_copy("losses.yaml", tmp_path, **{"train.validate_every": {"value": 1}, "train.log_every": {"value": 1}})
    content = yaml.safe_load(path.read_text())
    content["parameters"] = {
        name: {"value": block["values"][0]} if "values" in block else block for name, block in content["parameters"].items()
    }
    content["parameters"]["train.max_steps"] = {"values": [100000, 3]}
    content |= {"metric": {"name": "val/loss", "goal": "minimize"}, "early_terminate": {"type": "hyperband", "min_iter": 2}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    said = wandb_cli("sweep", "--project", "ablations", str(path))
    over = threading.Event()

    def hyperband() -> None:
        while not over.wait(0.1):
            for run in list(server.store.runs.values()):
                values = [row["val/loss"] for row in list(run["history"]) if "val/loss" in row]
                if len(values) >= 2 and run["args"]["train.max_steps"]["value"] == 100000:
                    run["stop"] = True

    threading.Thread(target=hyperband, daemon=True).start()
    address = re.search(r"wandb agent (\S+)", said)
    assert address, said
    wandb_cli("agent", "--count", "2", address.group(1), WANDB_AGENT_DISABLE_FLAPPING="true", WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL="0.5")
    over.set()
    given_up, done = server.store.runs.values()
    assert (given_up["exitcode"], done["exitcode"], done["state"]) == (143, 0, "finished")
    cells = {
        run["config"]["train.max_steps"]: run
        for run in map(json.loads, (p.read_text() for p in tmp_path.glob("outputs/*/seed-0/run.json")))
    }
    assert (cells[100000]["status"], cells[3]["status"]) == ("preempted", "finished")
    steps = [row["_step"] for row in given_up["history"] if "val/loss" in row]
    assert len(steps) >= 2 and max(steps) < 100000
    assert list(tmp_path.glob("outputs/trainings/*/seed-0/checkpoints/*.ckpt"))
