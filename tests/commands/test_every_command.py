"""Every command has one anatomy: a main, a help, one line for a mistake, and one way to end."""

from __future__ import annotations

import ast
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.__main__ import commands, help_text, main
from ablations.runtime.command_line import OneLineParser, number, run_command, whole_number, whole_numbers
from ablations.runtime.errors import OneLineError, RunFolderError, UserError
from helpers.commands import run

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "ablations"
FILES = {path.stem: path for path in FOLDER.glob("*.py") if not path.stem.startswith("__")} | {"metrics": FOLDER / "metrics/__main__.py"}


@pytest.mark.parametrize("name", FILES)
def test_every_file_at_the_top_is_a_command_that_holds_help_arguments_and_one_call(name):
    tree = ast.parse(FILES[name].read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "main" in functions and ast.get_docstring(functions["main"])
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run_command"]
    assert len(calls) == 1
    assert not any(isinstance(node, ast.Try | ast.ClassDef) for node in ast.walk(tree))
    assert len(FILES[name].read_text().splitlines()) < 150
    assert name == "metrics" or "runtime.by_path" in FILES[name].read_text()


@pytest.mark.parametrize("name", FILES)
def test_help_says_how_the_command_is_typed_and_a_mistake_is_one_line_that_names_the_help(name, capsys):
    command = importlib.import_module(f"ablations.{name}" + (".__main__" if name == "metrics" else ""))
    assert command.main(["--help"]) == 0
    out, error = capsys.readouterr()
    assert out.startswith(f"usage: python -m ablations.{name}") and error == ""
    assert command.main(["--no-such-option"]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and error.startswith("error: ")
    assert f"(python -m ablations.{name} --help" in error


def test_no_module_at_the_top_bears_the_name_of_a_standard_one():
    assert not {path.stem for path in FOLDER.glob("*.py")} & sys.stdlib_module_names


def test_the_list_has_every_command_with_a_line_and_takes_half_a_second():
    assert set(commands()) == set(FILES) and next(iter(commands())) == "run"
    assert all(20 < len(line) < 100 for line in commands().values())
    code, out, error, seconds = run(module="ablations")
    assert (code, error) == (0, "") and seconds < 0.5
    assert out == help_text() + "\n" and all(f"\n  {name} " in out for name in FILES)


def test_a_command_may_be_named_after_the_package(capsys):
    assert main(["check_statistics", "--draws", "0"]) == 2
    assert capsys.readouterr().err == (
        "error: argument --draws: '0' is no whole number of at least 1 (python -m ablations.check_statistics --help)\n"
    )
    assert main(["metrics", "--help"]) == 0 and "python -m ablations.metrics" in capsys.readouterr().out
    assert main(["swep"]) == 2
    assert capsys.readouterr().err == "error: there is no command 'swep'; did you mean 'sweep'? (python -m ablations lists all)\n"


def by_path(*words: str, installed: bool = True) -> subprocess.CompletedProcess:
    """A command started by its path, in a folder that has nothing to do with it; without `installed`, the packages are not installed."""
    start = [sys.executable, str(FOLDER / words[0]), *words[1:]]
    if not installed:
        # What an editable installation adds to the path goes, before the command begins.
        hide = (
            "import runpy, sys; from pathlib import Path\n"
            f"sys.path = [p for p in sys.path if Path(p).resolve() != Path({str(ROOT)!r})]\n"
            "sys.meta_path = [f for f in sys.meta_path if not getattr(f, '__name__', '').startswith('_Editable')]\n"
            f"sys.path[0] = {str(FOLDER)!r}; sys.argv = {start[1:]!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        start = [sys.executable, "-c", hide]
    return subprocess.run(start, capture_output=True, text=True, cwd="/", timeout=120)


@pytest.mark.parametrize("installed", [True, False])
def test_a_command_runs_by_its_path(installed):
    for file in ("run.py", "sweep.py"):
        done = by_path(file, "--help", installed=installed)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"usage: python -m ablations.{file.removesuffix('.py')} ")
    done = by_path("run.py", "promt_len=6", installed=installed)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown key 'promt_len'; did you mean 'prompt_len'? (python -m ablations.run --help)\n"


def test_started_by_path_our_folders_shadow_nothing():
    probe = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n"
        "import statistics; assert 'ablations' not in statistics.__file__, statistics.__file__\n"
        "import runtime.by_path, importlib.util, ablations\n"
        f"assert sys.path[0] == {str(ROOT)!r} and {str(FOLDER)!r} not in sys.path\n"
        "names = ('metrics', 'web', 'config', 'cell', 'figures', 'results', 'run', 'app', 'report')\n"
        "found = [s.origin for s in map(importlib.util.find_spec, names) if s]\n"
        f"assert not [origin for origin in found if str(origin).startswith({str(FOLDER)!r})], found\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr


# How a command ends


def ended(work, argv=(), capsys=None, **how) -> tuple[int, str]:
    parser = OneLineParser("run", words=lambda words: words)
    code = run_command(parser, work, list(argv), **how)
    return code, capsys.readouterr().err


def failing(error: BaseException):
    def work(arguments, stop):
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("a\nb"), 2),
        (RunFolderError("a b"), 1),
        (OneLineError("a b"), 1),
        (FloatingPointError("a\n b"), 1),
    ],
)
def test_what_the_user_is_told_is_one_line_and_its_exit_code(error, code, capsys):
    assert ended(failing(error), capsys=capsys) == (code, "error: a b\n")


def test_an_error_of_ours_keeps_its_traceback_and_a_code_of_the_work_is_handed_on(capsys):
    with pytest.raises(ZeroDivisionError):
        ended(failing(ZeroDivisionError()), capsys=capsys)
    assert ended(lambda arguments, stop: None, capsys=capsys) == (0, "")
    assert ended(lambda arguments, stop: 1, capsys=capsys) == (1, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_work_with_143_and_the_handlers_are_given_back(number, capsys):
    before = signal.getsignal(number)
    code, error = ended(lambda arguments, stop: os.kill(os.getpid(), number), capsys=capsys, then="begins anew")
    assert (code, error) == (143, "stopped by a signal (between steps); the same command begins anew\n")
    assert signal.getsignal(number) is before


def test_help_is_asked_for_by_the_word_alone_and_not_after_two_dashes(capsys):
    read: list[list[str]] = []
    parser = OneLineParser("refine", usage="how", words=read.append)
    for argv in (["--help"], ["a", "-h"], ["help"]):
        assert parser.read(argv) is None
    assert read == [] and capsys.readouterr().out == "howhowhow"
    for argv in (["--", "--help"], ["help", "me"]):
        parser.read(argv)
    assert read == [["--", "--help"], ["help", "me"]]


def test_numbers_of_the_command_line_are_within_their_bounds():
    assert whole_number(1)("7") == 7 and number(least=0)("0") == 0.0 and number(above=0)("1e-3") == 0.001
    assert whole_numbers("seeds", "0,1,2", most=9)("3, 1,3") == (1, 3)
    for read, text, said in (
        (whole_number(1), "0", "no whole number of at least 1"),
        (whole_number(1, 9), "10", "no whole number from 1 to 9"),
        (whole_number(0), "-1", "no whole number of at least 0"),
        (number(least=0), "nan", "no number of at least 0"),
        (number(above=0), "inf", "no number above 0"),
        (whole_numbers("seeds", "0,1,2", most=9), "1;2", "no list of seeds: write 0,1,2"),
    ):
        parser = OneLineParser("run")
        parser.add_argument("--n", type=read)
        with pytest.raises(UserError, match=said):
            parser.read(["--n", text])


def test_keys_and_options_may_come_in_any_order():
    parser = OneLineParser("sweep", takes_keys=True)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--jobs", type=whole_number(1), default=1)
    arguments = parser.read(["a=1", "--jobs=2", "file.yaml", "--b.c=x=y", "d="])
    assert (arguments.files, arguments.jobs, arguments.keys) == (["file.yaml"], 2, ["a=1", "--b.c=x=y", "d="])
