"""What is printed never decides how a command ends, and every error is a line that fits on a screen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ablations.runtime.command_line import OneLineParser, run_command
from ablations.runtime.errors import LONGEST_LINE, UserError, shortened
from helpers.imports import ROOT

PROGRAM = """
import sys
from ablations.runtime.command_line import OneLineParser, run_command
from ablations.runtime.console import Console
from rich.table import Table

def work(arguments, stop):
    console, table = Console("plain"), Table("metric", "refined")
    table.add_row("fidelit\\u00e9", "\\u732b \\U0001f642")
    for number in range(2000):
        console.say(f"step {number} \\u2264 caf\\u00e9 \\udcff")
        print("\\u732b", flush=number % 100 == 0)
    console.table(table)
    open(sys.argv[1], "w").write("finished")

sys.exit(run_command(OneLineParser("run", words=list), work, [], "goes on"))
"""


def run(redirected: str, tmp_path, **environment: str) -> tuple[int, str]:
    """Exit code and errors of the program, started by a shell with its output redirected so; what it finished, it has finished."""
    done = tmp_path / "done"
    command = f'"$PYTHON" -c "$PROGRAM" "{done}" {redirected}'
    settings = {**os.environ, "PYTHON": sys.executable, "PROGRAM": PROGRAM, "PYTHONPATH": str(ROOT), **environment}
    ended = subprocess.run(["bash", "-o", "pipefail", "-c", command], env=settings, capture_output=True, timeout=120)
    assert done.exists(), ended.stderr
    return ended.returncode, ended.stderr.decode(errors="replace")


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1:strict", "utf-8:strict"])
def test_a_screen_that_lacks_characters_gets_others(encoding, tmp_path):
    assert run("", tmp_path, PYTHONIOENCODING=encoding) == (0, "")


@pytest.mark.parametrize("redirected", ["| head -n 3", "| true", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "> /dev/full", "2> /dev/full"])
def test_output_that_nobody_reads_or_that_finds_no_room_costs_itself_alone(redirected, tmp_path):
    assert run(redirected, tmp_path) == (0, "")


@pytest.mark.parametrize(
    "message",
    [
        "no metric 'x': give one of " + ", ".join(f"metric_{number}" for number in range(900)) + " (python -m ablations.run --help)",
        f"unknown key 'a{'b' * 5000}' (python -m ablations.run --help)",
        f"there is no {'/very/long' * 90} in {'/other/path' * 90}: set data.images",
        "z" * 1000,
    ],
)
def test_a_long_error_is_shortened_where_it_is_longest_and_keeps_its_end(message):
    short = shortened(message)
    assert len(f"error: {short}") <= LONGEST_LINE and short[:15] == message[:15] and short[-18:] == message[-18:]
    assert "..." in short


def test_an_error_that_fits_is_said_as_it_is():
    assert shortened("prompt_len=0 must be\nat least 1") == "prompt_len=0 must be at least 1"
    assert shortened("y" * 293) == "y" * 293


def test_a_command_says_a_long_error_on_one_line(capsys):
    def work(arguments, stop):
        raise UserError(f"value {'v' * 9000} is not known")

    assert run_command(OneLineParser("run", words=list), work, [], stoppable=False) == 2
    assert len(capsys.readouterr().err) <= LONGEST_LINE + 1


@pytest.mark.parametrize("number, code", [(28, 1), (13, 1), (30, 1)])
def test_a_write_that_nobody_explained_is_one_line(number, code, capsys):
    def work(arguments, stop):
        raise OSError(number, os.strerror(number), "/data/file.bin")

    assert run_command(OneLineParser("run", words=list), work, [], stoppable=False) == code
    assert capsys.readouterr().err == f"error: cannot read or write /data/file.bin: {os.strerror(number)} (free space or permissions)\n"
