"""The command line of `app`: which refiner, which runs, which port. Imports no heavy library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ablations.config.parsing import Key, Option, convert, read_command_line
from ablations.refiner.hub_refiner import check_exported, is_on_hub
from ablations.results.trained_run import find_trained_run
from ablations.runtime.command_line import hint
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import is_folder

HOST = "127.0.0.1"
DEFAULT_RUNS = Path("outputs")
_KEYS = {
    key.name: key
    for key in (
        Key("run", str, False, "", Option("run", "a run folder", path=True)),
        Key("from", str, False, "", Option("run", "an exported refiner, a folder or OWNER/NAME[@REVISION] on a hub", path=True)),
        Key("runs", str, False, "", Option("run", "an output folder", path=True)),
        Key("port", int, False, 7860, Option("run", "where to listen", least=0, most=65535)),
    )
}


@dataclass(frozen=True)
class PageArguments:
    """What the command line asked for: at most one of `run` and `exported`; `runs` is the folder to browse, None for none."""

    run: Path | None = None
    exported: str | None = None
    runs: Path | None = None
    port: int = 7860

    @property
    def source(self) -> str:
        """The refiner's origin in words."""
        if self.run is not None:
            return f"run {self.run.resolve().parent.name}/{self.run.resolve().name}"
        if self.exported is None:
            return "embedded tiny refiner"
        return f"exported refiner {self.exported if is_on_hub(self.exported) else Path(self.exported).resolve().name}"


def parse_arguments(argv: list[str]) -> PageArguments:
    """The arguments. Raises UserError for a mistake, before anything is loaded; folders are looked at, networks are not."""
    given = read_command_line(argv, _KEYS, hint("app"))
    if "run" in given and "from" in given:
        raise UserError(f"run= and from= both name a refiner: give one {hint('app')}")
    values = {name: convert(_KEYS[name], text) for name, text in given.items()}
    run, runs = (Path(values[name]) if name in values else None for name in ("run", "runs"))
    exported = values.get("from")
    if run is not None:
        find_trained_run(run)
    if exported is not None:
        check_exported(exported)
    if runs is not None and not is_folder(runs):
        raise UserError(f"runs: there is no folder {str(runs)!r}: give the output_dir of your runs")
    if runs is None:
        runs = run.resolve().parent.parent if run is not None else DEFAULT_RUNS if is_folder(DEFAULT_RUNS) else None
    return PageArguments(run, exported, runs, values.get("port", _KEYS["port"].default))
