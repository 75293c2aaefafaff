"""A refiner of a hub: out of its cache without a network, and from a server, through the real library."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ablations.refiner import hub_refiner
from ablations.refiner.arguments import parse_arguments
from ablations.refiner.exporting import export
from ablations.refiner.hub_refiner import is_on_hub
from ablations.refiner.prompt_refiner import PromptRefiner
from ablations.results.trained_run import find_trained_run
from ablations.runtime.errors import UserError
from ablations.web.arguments import PageArguments
from helpers.trained_runs import make_run

NAME, COMMIT, OLDER = "a-lab/my-refiner", "1" * 40, "0" * 40
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, small_backbones) -> Path:
    return make_run(tmp_path_factory.mktemp("outputs"), small_backbones)


@pytest.fixture(scope="module")
def exported(run_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "refiner"
    export(find_trained_run(run_dir), folder, False, lambda text: None)
    return folder


def lay_out(cache: Path, exported: Path, revisions: dict[str, str]) -> Path:
    """A repository as the library lays it out in its cache; `revisions` are branches and tags with their commits."""
    repository = cache / f"models--{NAME.replace('/', '--')}"
    for revision, commit in revisions.items():
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
        for file in (file for file in exported.rglob("*") if file.is_file()):
            blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, blob)
            link = repository / "snapshots" / commit / file.relative_to(exported)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    return repository


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Path:
    """An empty cache and no network, as HF_HUB_OFFLINE=1 says."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def test_a_refiner_of_the_cache_is_the_exported_one_and_knows_its_commit(offline, exported, small_backbones):
    lay_out(offline, exported, {"main": COMMIT, "v1": OLDER})
    refiner = PromptRefiner.from_pretrained(NAME, small_backbones, device="cpu")
    folder = PromptRefiner.from_pretrained(exported, small_backbones, device="cpu")
    assert refiner.source == f"{NAME}@{COMMIT}" and folder.source.endswith("/seed-0")
    assert refiner.refine("a cat", seed=3) == folder.refine("a cat", seed=3)
    for revision, commit in (("v1", OLDER), (OLDER, OLDER), ("main", COMMIT)):
        assert PromptRefiner.from_pretrained(f"{NAME}@{revision}", small_backbones, device="cpu").source == f"{NAME}@{commit}"


def test_without_a_network_what_the_cache_lacks_is_one_line(offline, exported, small_backbones):
    for name in (NAME, f"{NAME}@v2"):
        with pytest.raises(UserError, match=r"is not whole in the hub's cache .*run once with a network, or give a folder") as error:
            PromptRefiner.from_pretrained(name, small_backbones)
        assert str(error.value).startswith(name) and len(str(error.value)) < 300 and "\n" not in str(error.value)
    repository = lay_out(offline, exported, {"main": COMMIT})
    (repository / "snapshots" / COMMIT / "prompt_refiner" / "config.json").unlink()
    with pytest.raises(UserError, match=rf"{NAME}@{COMMIT} is no exported refiner: it has no prompt_refiner/config.json"):
        PromptRefiner.from_pretrained(NAME, small_backbones)
    with pytest.raises(UserError, match="absent is no exported refiner"):
        PromptRefiner.from_pretrained("absent", small_backbones)
    for name in (f"a-lab/{'x' * 300}", "a-lab/x.git"):  # names that the hub allows to nobody
        with pytest.raises(UserError, match=r"could not be fetched from .* \(HFValidationError: ") as error:
            PromptRefiner.from_pretrained(name, small_backbones)
        assert len(str(error.value)) < 300


def test_a_folder_here_comes_before_a_repository_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [is_on_hub(name) for name in (NAME, f"{NAME}@refs/pr/1", "x/y@v1.0")] == [True, True, True]
    assert not any(
        is_on_hub(name) for name in ("./a/b", "/a/b", "a", "a/b/c", "~/b", "../a", "a b/c", Path(NAME), None, f"{NAME}@", "a//b")
    )
    (tmp_path / NAME).mkdir(parents=True)
    assert not is_on_hub(NAME)


def test_the_command_line_and_the_page_take_a_hubs_name():
    assert parse_arguments(["a cat", f"from={NAME}@v1"]).source == f"{NAME}@v1"
    assert PageArguments(exported=f"{NAME}@v1").source == f"exported refiner {NAME}@v1"
    with pytest.raises(UserError, match="absent is no exported refiner"):
        parse_arguments(["a cat", "from=absent"])


@contextmanager
def served(files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """The part of a hub that the libraries ask for, on 127.0.0.1, with one repository; (address, what was asked for)."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, content: bytes = b"", code: int = 200, **headers: str) -> None:
            self.send_response(code)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked.append(path)
            if path in {f"/api/models/{NAME}", *(f"/api/models/{NAME}/revision/{revision}" for revision in ("main", COMMIT))}:
                self.answer(json.dumps({"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}).encode())
            elif path == f"/api/models/{NAME}/tree/{COMMIT}":
                tree = [{"type": "file", "path": name, "size": len(data), "oid": self._digest(data)} for name, data in files.items()]
                self.answer(json.dumps(tree).encode())
            elif (found := re.fullmatch(rf"/{NAME}/resolve/(?:main|{COMMIT})/(.+)", path)) and found[1] in files:
                data = files[found[1]]
                self.answer(data, X_Repo_Commit=COMMIT, ETag=f'"{self._digest(data)}"')
            else:
                code = "RevisionNotFound" if path.startswith(f"/api/models/{NAME}/") else "RepoNotFound"
                self.answer(code=404, X_Error_Code=code)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

        @staticmethod
        def _digest(data: bytes) -> str:
            return hashlib.sha1(data, usedforsecurity=False).hexdigest()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def hub(exported) -> Iterator[tuple[str, list[str]]]:
    with served(files_of(exported) | {"pipeline.py": b"raise SystemExit('code of a hub was run')\n"}) as found:
        yield found


def python(hub: str, home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, with this hub and its cache in `home`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | environment
    environment |= {"HF_ENDPOINT": hub, "HF_HOME": str(home)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=home, env=environment, stdin=subprocess.DEVNULL)


def refine(hub: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(hub, home, "-m", "ablations.refine", *arguments, PYTHONPATH=str(ROOT))


def test_a_refiner_is_fetched_from_a_hub_once_and_its_commit_is_said_and_recorded(hub, tmp_path, run_dir, small_backbones):
    address, asked = hub
    result = refine(address, tmp_path, "a cat", f"from={NAME}", "num_candidates=2")
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["refiner"] == f"{NAME}@{COMMIT}" and f"refiner {NAME}@{COMMIT}" in result.stderr.splitlines()
    own = PromptRefiner.from_run(run_dir, small_backbones, device="cpu").refine("a cat", num_candidates=2)
    assert [candidate["refined"] for candidate in record["candidates"]] == [candidate.refined for candidate in own]
    fetched = {path.rpartition(COMMIT + "/")[2] for path in asked if "/resolve/" in path}
    assert fetched == {
        "README.md",
        *("text_encoder/config.json", "text_encoder/model.safetensors"),
        *(f"tokenizer/{name}" for name in ("tokenizer_config.json", "vocab.json", "merges.txt")),
        *(
            f"prompt_refiner/{name}"
            for name in ("config.json", "seen_words.json", "adapter.safetensors", "afe.safetensors", "pooled.safetensors")
        ),
    }


WITHOUT_THE_PROJECT = f"""
import json
from diffusers import DiffusionPipeline, StableDiffusionPipeline

commit = {{"revision": "{COMMIT}", "custom_revision": "{COMMIT}"}}
pipe = DiffusionPipeline.from_pretrained("{NAME}", custom_pipeline="{NAME}", trust_remote_code=True, **commit)
StableDiffusionPipeline.from_pretrained("{NAME}")
result = pipe("a cat", num_candidates=2, num_inference_steps=2)
print(json.dumps([result.prompts, [image.size for image in result.images]]))
"""


@pytest.mark.slow
def test_diffusers_takes_the_pipeline_from_a_hub_by_its_name(run_dir, tmp_path, small_backbones):
    export(find_trained_run(run_dir), tmp_path / "e", True, lambda text: None)
    with served(files_of(tmp_path / "e")) as (address, asked):
        result = python(address, tmp_path, "-I", "-c", WITHOUT_THE_PROJECT)
    assert result.returncode == 0, result.stderr
    own = PromptRefiner.from_run(run_dir, small_backbones, device="cpu").refine("a cat", num_candidates=2)
    assert json.loads(result.stdout.splitlines()[-1]) == [[candidate.refined for candidate in own], [[64, 64], [64, 64]]]
    assert not any("/prompt_refiner/" in path for path in asked)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a-lab/no-such-refiner", "there is no folder a-lab/no-such-refiner, and http://127.0.0.1"),
        (f"{NAME}@v9", f"{NAME} on http://127.0.0.1"),
    ],
)
def test_what_a_hub_has_not_is_one_line_and_exit_code_2(hub, tmp_path, name, said):
    result = refine(hub[0], tmp_path, "a cat", f"from={name}")
    assert result.returncode == 2 and result.stdout == ""
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"error: {said}") and len(line) < 300 and "Traceback" not in result.stderr


def test_a_hub_that_cannot_be_reached_leaves_what_the_cache_has(tmp_path, exported):
    lay_out(tmp_path / "hub", exported, {"main": COMMIT})
    closed = "http://127.0.0.1:9"
    found = refine(closed, tmp_path, "a cat", f"from={NAME}")
    assert json.loads(found.stdout)["refiner"] == f"{NAME}@{COMMIT}" and "Retrying" not in found.stderr
    result = refine(closed, tmp_path, "a cat", "from=a-lab/other")
    assert result.returncode == 2 and "a-lab/other is not whole in the hub's cache" in result.stderr.splitlines()[-1]


def test_the_hub_is_asked_of_a_commit_only_where_the_cache_lacks_a_file_of_it(tmp_path, exported, monkeypatch):
    repository = lay_out(tmp_path / "hub", exported, {"main": COMMIT})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    folder = repository / "snapshots" / COMMIT
    assert hub_refiner._whole_in_cache(NAME, COMMIT) == folder
    assert hub_refiner._whole_in_cache(NAME, "main") is None and hub_refiner._whole_in_cache(NAME, OLDER) is None
    (folder / "prompt_refiner" / "adapter.safetensors").unlink()
    assert hub_refiner._whole_in_cache(NAME, COMMIT) is None


def test_a_disk_that_is_full_is_one_line_too(offline, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(UserError, match=r"could not be fetched from .* \(OSError: \[Errno 28\] No space left on device\)"):
        hub_refiner.fetch(NAME)
