"""Claims about run folders: whole files, the states of run.json, and locks between processes."""

import errno
import json
import os
import socket
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from ablations.config import arm_name, parse, to_flat_dict, train_id
from ablations.results import provenance
from ablations.results import run_folder as run_folder_module
from ablations.results.provenance import code_revision
from ablations.results.run_folder import RunFolder, is_finished, read_run
from ablations.runtime.errors import RunFolderError, UserError
from ablations.runtime.files import whole_file, write_atomically, write_json

ROOT = Path(run_folder_module.__file__).parents[2]
HOLDER = """
import sys
from ablations.config import parse
from ablations.results.run_folder import RunFolder
folder = RunFolder(parse([f"output_dir={sys.argv[2]}", "seed=3"]))
with getattr(folder, sys.argv[1])():
    if sys.argv[1] == "lock":
        folder.start()
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(parse([f"output_dir={tmp_path / 'out'}", "seed=3"]))


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds the cell's "lock" or "training_lock" until its stdin closes."""
    started = []

    def start(which: str) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLDER, which, str(tmp_path / "out")]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def names(path: Path) -> list[str]:
    return sorted(item.name for item in path.iterdir())


# Layout


def test_cell_and_training_lie_where_the_design_says(folder, tmp_path):
    out, c = tmp_path / "out", folder.config
    assert folder.path == out / arm_name(c) / "seed-3"
    assert folder.training_path == out / "trainings" / train_id(c) / "seed-3"
    assert folder.checkpoints == folder.training_path / "checkpoints"
    files = (folder.run_json, folder.prompts, folder.scores, folder.images, folder.diversity_grid, folder.metrics_csv, folder.wandb)
    assert " ".join(file.name for file in files) == "run.json prompts.jsonl scores.parquet images diversity_grid.png metrics.csv wandb"
    assert not out.exists()


def test_arms_that_differ_in_eval_keys_share_a_training_folder(folder, tmp_path):
    longer = RunFolder(parse([f"output_dir={tmp_path / 'out'}", "seed=3", "prompt_len=12"]))
    assert longer.training_path == folder.training_path and longer.path != folder.path


# Whole files


def test_file_appears_whole_and_nothing_else_stays(tmp_path):
    write_atomically(tmp_path / "new" / "a.txt", "grün")
    write_atomically(tmp_path / "new" / "a.txt", b"green")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"green" and names(tmp_path / "new") == ["a.txt"]


def test_file_keeps_its_old_content_until_the_new_is_complete(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("old")
    with whole_file(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old" and aside.suffix == ".png" and aside.parent == tmp_path
    assert path.read_text() == "new" and names(tmp_path) == ["a.png"]


def test_interrupted_write_leaves_the_old_file_and_no_partial_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as aside:
        aside.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_full_disk_is_one_line_with_the_path(tmp_path, monkeypatch):
    def full(self, content):
        with open(self, "wb") as file:
            file.write(content[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunFolderError) as caught:
        write_json(tmp_path / "run.json", {})
    advice = "(free space or permissions, or choose another output_dir)"
    assert str(caught.value) == f"cannot write {tmp_path / 'run.json'}: No space left on device {advice}"
    assert names(tmp_path) == [] and caught.value.exit_code == 1


def test_output_folder_that_cannot_be_made_is_one_line_with_the_path(folder, tmp_path):
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(RunFolderError, match=f"^cannot lock {folder.path}: Not a directory"), folder.lock():
        pass


def test_json_has_numbers_for_array_scalars_and_null_for_nan(tmp_path):
    import numpy as np

    write_json(tmp_path / "a.json", {"a": np.float32(0.5), "b": [np.int64(2), float("nan")], "c": (np.float64("inf"),), "d": Path("x")})
    assert (tmp_path / "a.json").read_text() == json.dumps({"a": 0.5, "b": [2, None], "c": [None], "d": "x"}, indent=2) + "\n"


# run.json


def test_finished_cell_holds_everything_that_readers_rely_on(folder):
    with folder.lock():
        folder.start(digests={"weights": "w1"}, threads=2)
        folder.record(digests={"data": "d1"}, timings={"train": 1.5})
        folder.finish({"refined": {"clip_score": 0.25}}, {"score": 0.5})
    run = json.loads(folder.run_json.read_text())
    assert list(run) == (
        ["status", "arm", "seed", "train_id", "config", "digests", "code_revision", "code_digests"]
        + ["code_revision_reason"] * ("code_revision_reason" in run)
        + ["metrics", "timings", "versions", "threads", "started", "finished", "sha256"]
    )
    assert (run["status"], run["arm"], run["seed"], run["train_id"]) == ("finished", folder.arm, 3, folder.train_id)
    assert run["config"] == to_flat_dict(folder.config)
    assert run["digests"] == {"data": "d1", "weights": "w1"}
    assert run["metrics"] == {"refined": {"clip_score": 0.25}} and run["timings"] == {"train": 1.5, "score": 0.5}
    assert run["threads"] == 2 and run["versions"]["python"].startswith("3.") and run["versions"]["omegaconf"]
    started, finished = (datetime.fromisoformat(run[name]) for name in ("started", "finished"))
    assert started <= finished and started.utcoffset().total_seconds() == 0
    assert folder.status() == "finished" and folder.is_finished() and is_finished(folder.config)


def test_each_end_of_a_cell_is_told_apart(folder):
    assert folder.status() == "absent"
    with folder.lock():
        folder.start()
        assert folder.status() == "running"
        folder.preempted("training, step 120")
        assert folder.status() == "preempted" and folder.read()["where"] == "training, step 120"
        folder.start()
        assert "where" not in folder.read()
        folder.fail("loss\nis nan")
    assert folder.status() == "failed" and folder.read()["reason"] == "loss is nan"
    assert not folder.is_finished()


def test_killed_cell_counts_as_interrupted_and_can_be_run_again(folder, holder):
    process = holder("lock")
    assert folder.status() == "running"
    process.kill()
    process.wait()
    assert json.loads(folder.run_json.read_text())["status"] == "running"
    assert folder.status() == "interrupted" and not folder.is_finished()
    left = folder.path / ".partial-1-ab-scores.parquet"
    left.write_text("half")
    with folder.lock():
        folder.start()
        folder.finish({}, {})
    assert folder.is_finished() and not left.exists()


@pytest.mark.parametrize("content", ["", '{"status": "fini', "[]", '{"status": "done", "config": {}}', '{"status": "finished"}', "\udcff"])
def test_torn_run_json_is_not_finished_and_warned_of(folder, content, caplog):
    folder.path.mkdir(parents=True)
    folder.run_json.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert folder.status() == "absent" and not is_finished(folder.config)
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith(f"{folder.run_json} is unreadable (")
    assert caplog.messages[0].endswith("): the cell counts as not finished") and "\n" not in caplog.messages[0]


def test_folder_without_run_json_is_read_in_silence(tmp_path, caplog):
    assert read_run(tmp_path) is None and caplog.messages == []


def test_results_of_another_config_under_the_same_name_are_neither_used_nor_overwritten(folder):
    write_json(folder.run_json, {"status": "finished", "config": {"eval.steps": 99, "output_dir": "elsewhere"}})
    message = f"{folder.path} holds the results of another config (eval.steps=99 there, 15 here): move it away"
    for use in (folder.is_finished, folder.start):
        with pytest.raises(RunFolderError) as caught:
            use()
        assert str(caught.value) == message


def test_finished_cell_is_recognised_wherever_it_was_moved_and_however_it_was_run(folder, tmp_path):
    with folder.lock():
        folder.start()
        folder.finish({}, {})
    (tmp_path / "out").rename(tmp_path / "moved")
    assert is_finished(parse([f"output_dir={tmp_path / 'moved'}", "seed=3", "trainer.threads=1"]))
    assert not is_finished(parse([f"output_dir={tmp_path / 'moved'}", "seed=4"]))


# Locks


def test_second_process_is_refused_at_once_and_told_who_runs_the_cell(folder, holder):
    process = holder("lock")
    with pytest.raises(UserError) as caught, folder.lock():
        pass
    pid = f"pid {process.pid} on {socket.gethostname()}"
    assert str(caught.value) == (
        f"cell {folder.arm}/seed-3 is being run by another process ({pid}): wait until it ends, or stop it, in {folder.path}"
    )
    process.communicate("\n")
    with folder.lock():
        assert folder.path.joinpath(".lock-holder").read_text() == f"pid {os.getpid()} on {socket.gethostname()}"
    assert names(folder.path) == [".lock", "run.json"]


def test_same_process_cannot_run_a_cell_twice_either(folder):
    again = RunFolder(folder.config)
    with folder.lock():
        folder.start()
        with pytest.raises(UserError, match=f"pid {os.getpid()} "), again.lock():
            pass
        assert again.status() == "running"


def test_lock_is_free_after_an_error_within(folder):
    with pytest.raises(ZeroDivisionError), folder.lock():
        _ = 1 / 0
    with folder.lock():
        pass


def test_other_seeds_and_arms_are_not_locked_out(folder, tmp_path):
    with folder.lock(), RunFolder(parse([f"output_dir={tmp_path / 'out'}", "seed=4"])).lock():
        assert folder.path.is_dir()


def test_shared_training_is_waited_for_and_the_wait_is_said_once(folder, holder):
    process = holder("training_lock")
    said = []

    def say_and_let_go(message: str) -> None:
        said.append(message)
        process.communicate("\n")

    with folder.training_lock(say=say_and_let_go):
        pass
    pid = f"pid {process.pid} on {socket.gethostname()}"
    assert said == [f"waiting for training {folder.train_id}/seed-3, which another process is running ({pid})"]
    with folder.training_lock(say=said.append):
        assert len(said) == 1


# Code revision


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", str(root), *identity, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def test_code_revision_is_the_commit_and_marks_changed_code_only(tmp_path):
    for package in ("ablations", "lightning_modules", "datamodules"):
        (tmp_path / package).mkdir()
    (tmp_path / "ablations" / "results").mkdir()
    (tmp_path / "ablations" / "results" / "provenance.py").write_text("1")
    git(tmp_path, "init", "-q")
    assert code_revision(tmp_path)[0] is None or "+" not in code_revision(tmp_path)[0]
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    code_revision.cache_clear()
    (tmp_path / "outputs").write_text("results are not code")
    assert code_revision(tmp_path) == (head, None)
    code_revision.cache_clear()
    (tmp_path / "datamodules" / "new.py").write_text("2")
    assert code_revision(tmp_path) == (f"{head}+dirty", None)


def test_unknown_code_revision_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance.metadata, "packages_distributions", dict)
    revision, reason = code_revision(tmp_path / "gone")
    assert revision is None and reason.startswith("not a git checkout: ") and "\n" not in reason
