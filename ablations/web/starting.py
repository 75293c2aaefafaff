"""Starting the page: what it needs is there, the port is free, the refiner is loaded, and it serves until Ctrl-C."""

from __future__ import annotations

import importlib.util
import socket
import sys
from typing import TYPE_CHECKING

from ablations.refiner.hub_refiner import is_on_hub
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest
from ablations.web.arguments import HOST, PageArguments

if TYPE_CHECKING:
    from ablations.refiner.prompt_refiner import PromptRefiner

_NEEDED = ("starlette", "uvicorn")


def start_page(arguments: PageArguments, stop: StopRequest) -> None:
    """Serve the page until Ctrl-C, which uvicorn handles. Raises UserError where it cannot be started."""
    check_installed()
    try:
        # Taken before the networks are loaded: a busy port is known at once.
        with listen(arguments.port) as listening:
            _serve(arguments, listening)
    except KeyboardInterrupt:  # does not come where the shell has the process ignore Ctrl-C: uvicorn alone heard of it then
        pass
    print("stopped")


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


def load_refiner(arguments: PageArguments) -> PromptRefiner:
    """The refiner that the arguments name. Raises UserError as `PromptRefiner`'s constructors do."""
    from ablations.refiner.prompt_refiner import PromptRefiner

    if arguments.run is not None:
        return PromptRefiner.from_run(arguments.run)
    return PromptRefiner.from_pretrained(arguments.exported) if arguments.exported is not None else PromptRefiner.embedded()


def _serve(arguments: PageArguments, listening: socket.socket) -> None:
    # Heavy imports (torch, transformers) only now: --help and mistakes in the arguments come at once.
    from ablations.runtime.console import Console
    from ablations.runtime.quiet_libraries import quiet_libraries
    from ablations.web.server import make_app, serve

    quiet_libraries()
    console = Console(mode="plain")
    console.say(f"loading the {arguments.source} ...")
    sys.stdout.flush()  # where output goes to a file, too, it says what it waits for
    refiner = load_refiner(arguments)
    source = f"exported refiner {refiner.source}" if is_on_hub(arguments.exported) else arguments.source  # with the commit
    app = make_app(refiner, source, arguments.runs)
    console.say(f"open http://{HOST}:{listening.getsockname()[1]} in a browser on this machine; Ctrl-C stops it")
    sys.stdout.flush()
    serve(app, listening)
