"""What every stage of a cell is handed. Imports no stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from ablations.config import Config
from ablations.results.provenance import Timings
from ablations.results.run_folder import RunFolder
from ablations.results.tracking import Tracker
from ablations.runtime.console import Console
from ablations.runtime.stopping import StopRequest


@dataclass(frozen=True)
class Work:
    """One cell to be run: what is asked for, where it goes, who hears of it, when to stop, and what each stage took."""

    config: Config
    folder: RunFolder
    console: Console
    tracker: Tracker
    stop: StopRequest
    timings: Timings = field(default_factory=lambda: Timings({}))

    @classmethod
    def unheard(cls, config: Config, stop: StopRequest | None = None) -> Work:
        """Work that says and tracks nothing."""
        return cls(config, RunFolder(config), Console("none"), Tracker(), stop or StopRequest())
