"""The wheel: it holds all that the commands read, has one console command for all of them, and works from any folder, unpacked alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ablations", "datamodules", "lightning_modules")
# What a build reads: not the rest of the checkout, so that nothing else can find its way in.
SOURCES = (*PACKAGES, "sweeps", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of these sources, built in a copy by the backend that pyproject.toml names, as `python -m build -n -w` does."""
    pytest.importorskip("setuptools", reason="the build backend is not installed, and an isolated build would fetch it")
    folder = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, folder / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, "dist"], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return next((folder / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    """The wheel's content in a folder within somebody else's repository, whose revision is none of ours."""
    repository = tmp_path_factory.mktemp("somebody")
    for words in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", *words], cwd=repository, check=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(repository / "site")
    return repository / "site"


def run_there(unpacked: Path, folder: Path, *words: str, typed: str = "") -> subprocess.CompletedProcess:
    """Python, in `folder`, with the unpacked wheel in place of this checkout."""
    env = {**os.environ, "PYTHONPATH": str(unpacked), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, *words], cwd=folder, env=env, input=typed, capture_output=True, text=True, timeout=300)


def test_the_wheel_holds_every_file_of_the_packages_and_the_sweep_files_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name and ".egg-info" not in name}
    files |= {f"ablations/sweeping/files/{path.name}" for path in (ROOT / "sweeps").glob("*.yaml")}
    assert {name for name in names if ".dist-info/" not in name} == files
    assert sum(name.endswith(".safetensors") for name in files) == 8 and "ablations/reporting/page.html.j2" in files


def test_one_console_command_runs_every_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert archive.read(name).decode().split() == ["[console_scripts]", "uf-fgtg", "=", "ablations.__main__:main"]


def test_from_another_folder_the_wheel_alone_refines_a_prompt_and_says_what_code_it_is(unpacked, tmp_path):
    done = run_there(
        unpacked, tmp_path, "-m", "ablations", "refine", "seed=3", "num_candidates=2", typed="a lonely lighthouse on a beach\n"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = map(json.loads, done.stdout.splitlines())
    assert line["status"] == "ok" and len(line["candidates"]) == 2
    assert all(c["refined"].startswith("a lonely lighthouse on a beach") for c in line["candidates"])
    says = "import ablations; from ablations.results.provenance import code_revision; print(ablations.__file__); print(*code_revision())"
    file, revision = run_there(unpacked, tmp_path, "-c", says).stdout.splitlines()
    assert Path(file).is_relative_to(unpacked) and revision == "uf-fgtg-ablations-0.1.0 None"


def test_from_another_folder_the_sweep_files_of_the_wheel_are_found_by_name(unpacked, tmp_path):
    for name in ("losses.yaml", "sweeps/losses.yaml"):
        done = run_there(unpacked, tmp_path, "-m", "ablations.plan", name, "--no-probe")
        assert (done.returncode, done.stderr) == (0, "") and "4 cells: 0 finished, 4 to do" in done.stdout
    (tmp_path / "losses.yaml").write_text((ROOT / "sweeps" / "losses.yaml").read_text().replace("[true, false]", "[true]"))
    own = run_there(unpacked, tmp_path, "-m", "ablations.plan", "losses.yaml", "--no-probe")
    assert "4 cells" not in own.stdout
    done = run_there(unpacked, tmp_path, "-m", "ablations.plan", "loses.yaml")
    assert done.returncode == 2 and done.stderr.startswith("error: there is no sweep file 'loses.yaml'; there are ")
    assert len(done.stderr) < 300
