"""What every stage of a cell is handed. Imports no stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from ablations.cell.processes.crew import Crew
from ablations.cell.processes.place import Place
from ablations.config import Config
from ablations.results.checkpoints import asked_for
from ablations.results.provenance import Timings
from ablations.results.run_folder import RunFolder
from ablations.results.tracking import Tracker
from ablations.runtime.console import Console
from ablations.runtime.stopping import StopRequest


@dataclass(frozen=True)
class Work:
    """One cell to be run: what is asked for, where it goes, who hears of it, when to stop, who takes part, and what each stage took."""

    config: Config
    folder: RunFolder
    console: Console
    tracker: Tracker
    stop: StopRequest
    crew: Crew
    timings: Timings = field(default_factory=lambda: Timings({}))
    is_beside: bool = False

    @classmethod
    def unheard(cls, config: Config, stop: StopRequest | None = None, crew: Crew | None = None, is_beside: bool = False) -> Work:
        """Work that says and tracks nothing; in one process unless there is a crew. `is_beside`: of a process beside rank 0, which owns
        run.json."""
        stop, crew = stop or StopRequest(), crew or Crew(config, Place())
        return cls(config, RunFolder(config), Console("none"), Tracker(), stop, crew, is_beside=is_beside)

    @property
    def checkpoint(self) -> str:
        """The file of the trained weights that are evaluated."""
        return str(asked_for(self.folder.checkpoints, self.config.eval.checkpoint))

    def record(self, **content: object) -> None:
        """Put something into run.json, where it is this process's."""
        if not self.is_beside:
            self.folder.record(**content)
