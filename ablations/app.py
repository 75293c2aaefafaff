"""`python -m ablations.app`: the local page, for refining prompts with pictures and for looking at runs. `--help` explains."""

from __future__ import annotations

import difflib
import importlib.util
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.config.parsing import Key, Option, convert
from ablations.refiner import exported_refiner
from ablations.results.trained_run import find_trained_run
from ablations.runtime.errors import RunFolderError, UserError, one_line

if TYPE_CHECKING:
    from ablations.refiner.prompt_refiner import PromptRefiner

HOST = "127.0.0.1"
_DEFAULT_RUNS = Path("outputs")
_NEEDED = ("starlette", "uvicorn")

_HELP = f"""\
usage: python -m ablations.app [run=RUN_DIR | from=DIR] [runs=OUTPUT_DIR] [port=7860]

Serves a page on {HOST}, for browsers on this machine alone; nothing is sent or loaded from elsewhere. Stop it with Ctrl-C.

Refine   type a short prompt, see three ways on with pictures, click one to go on from it; back, redraw, other strategy, length and
         seed; before and after, with the original text encoder and with the trained one; the history as a JSON file
Runs     the diversity grids of an output folder's runs side by side at equal seeds, by prompt or by diversity

  run=RUN_DIR       the refiner that a run trained, OUTPUT_DIR/ARM/seed-SEED; without run= and from= the embedded tiny refiner
  from=DIR          the refiner that python -m ablations.export wrote to DIR
  runs=OUTPUT_DIR   the runs to look at; default: the output folder of run=, else {_DEFAULT_RUNS} if there is one
  port=7860         where to listen; 0 takes any free port

The page needs the optional packages of the extra `app`.

examples:
  uv run --extra app python -m ablations.app
  python -m ablations.app run=outputs/tiny-len6-mse-text-clip-afe-1a2b3c4d/seed-0 port=8000
  python -m ablations.app runs=outputs
"""
_KEYS = {
    key.name: key
    for key in (
        Key("run", str, False, "", Option("run", "a run folder", path=True)),
        Key("from", str, False, "", Option("run", "an exported refiner", path=True)),
        Key("runs", str, False, "", Option("run", "an output folder", path=True)),
        Key("port", int, False, 7860, Option("run", "where to listen", least=0, most=65535)),
    )
}


@dataclass(frozen=True)
class Arguments:
    """What the command line asked for: at most one of `run` and `exported`; `runs` is the folder to browse, None for none."""

    run: Path | None = None
    exported: Path | None = None
    runs: Path | None = None
    port: int = 7860

    @property
    def source(self) -> str:
        """The refiner's origin in words."""
        if self.run is not None:
            return f"run {self.run.resolve().parent.name}/{self.run.resolve().name}"
        return f"exported refiner {self.exported.resolve().name}" if self.exported is not None else "embedded tiny refiner"


def parse_arguments(argv: list[str]) -> Arguments:
    """The arguments. Raises UserError for a mistake, before anything is loaded; folders are looked at, networks are not."""
    given: dict[str, str] = {}
    hint = "(python -m ablations.app --help explains)"
    for argument in argv:
        name, equals, text = argument.removeprefix("--").partition("=")
        if name not in _KEYS:
            near = difflib.get_close_matches(name, _KEYS, n=1)
            raise UserError(f"unknown argument {argument!r}{f'; did you mean {near[0]}=?' if near else ''} {hint}")
        if not equals:
            raise UserError(f"{argument!r} has no '='; write {name}=... {hint}")
        if name in given:
            raise UserError(f"{name} is given twice; give it once")
        given[name] = text
    if "run" in given and "from" in given:
        raise UserError(f"run= and from= both name a refiner: give one {hint}")
    values = {name: convert(_KEYS[name], text) for name, text in given.items()}
    run, exported, runs = (Path(values[name]) if name in values else None for name in ("run", "from", "runs"))
    if run is not None:
        find_trained_run(run)
    if exported is not None:
        exported_refiner.read(exported)
    if runs is not None and not runs.is_dir():
        raise UserError(f"runs: there is no folder {str(runs)!r}: give the output_dir of your runs")
    if runs is None:
        runs = run.resolve().parent.parent if run is not None else _DEFAULT_RUNS if _DEFAULT_RUNS.is_dir() else None
    return Arguments(run, exported, runs, values.get("port", _KEYS["port"].default))


def check_installed() -> None:
    """Raises UserError, with the remedy, where the packages of the extra are missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"the page needs {' and '.join(missing)}, of the optional extra app: start it with uv run --extra app python -m ablations.app, "
            "or install it with pip install -e '.[app]'"
        )


def listen(port: int) -> socket.socket:
    """A socket that listens on 127.0.0.1 alone. Raises UserError for a port that is taken or not allowed."""
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a port stays taken for a minute after a restart
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise UserError(
            f"port {port} on {HOST} cannot be used ({error.strerror}): choose another, as in port={port + 1 if port < 65535 else 7860}, "
            "or port=0 for any free one"
        ) from error
    return listening


def load_refiner(arguments: Arguments) -> PromptRefiner:
    """The refiner that the arguments name. Raises UserError as `PromptRefiner`'s constructors do."""
    from ablations.refiner.prompt_refiner import PromptRefiner

    if arguments.run is not None:
        return PromptRefiner.from_run(arguments.run)
    return PromptRefiner.from_pretrained(arguments.exported) if arguments.exported is not None else PromptRefiner.embedded()


def main(argv: list[str] | None = None) -> int:
    """Serve the page until Ctrl-C; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help", "help"} & set(argv):
        print(_HELP, end="")
        return 0
    try:
        arguments = parse_arguments(argv)
        check_installed()
        # Taken before the networks are loaded: a busy port is known at once.
        with listen(arguments.port) as listening:
            _serve(arguments, listening)
    except (UserError, RunFolderError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # does not come where the shell has the process ignore Ctrl-C: uvicorn alone heard of it then
        pass
    print("stopped")
    return 0


def _serve(arguments: Arguments, listening: socket.socket) -> None:
    # Heavy imports (torch, transformers) only now: --help and mistakes in the arguments come at once.
    from ablations.runtime.console import Console
    from ablations.runtime.quiet_libraries import quiet_libraries
    from ablations.web.server import make_app, serve

    quiet_libraries()
    console = Console(mode="plain")
    console.say(f"loading the {arguments.source} ...")
    sys.stdout.flush()  # where output goes to a file, too, it says what it waits for
    app = make_app(load_refiner(arguments), arguments.source, arguments.runs)
    console.say(f"open http://{HOST}:{listening.getsockname()[1]} in a browser on this machine; Ctrl-C stops it")
    sys.stdout.flush()
    serve(app, listening)


if __name__ == "__main__":
    sys.exit(main())
