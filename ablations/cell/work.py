"""What every stage of a cell is handed: the work itself, and what was loaded for it. Imports no stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ablations.config import Config
from ablations.results.provenance import Timings
from ablations.results.run_folder import RunFolder
from ablations.results.tracking import Tracker
from ablations.runtime.console import Console
from ablations.runtime.stopping import StopRequest
from datamodules.cfp import CFPDataModule
from datamodules.records import EvalPrompt
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule


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


@dataclass(frozen=True)
class Loaded:
    """What a cell works with: frozen networks, the refiner that is trained, its data, and the evaluation prompts (none: train only).

    `at_step_0()` makes the refiner anew as it was before its first step, on the networks' device.
    """

    backbones: Backbones
    module: PromptRefinerModule
    data: CFPDataModule
    prompts: list[EvalPrompt]
    at_step_0: Callable[[], PromptRefinerModule]
