"""Weights & Biases: one run per cell, offline unless there is a login, and never in the way of the cell itself.

Nothing here asks a question, and nothing that W&B raises, at any call, ends a run or has it wait: W&B is called in a thread of its own, a
failure costs one line and the tracking, and the end waits for some time only. What cannot be sent stays in the run folder (`wandb sync
RUN_FOLDER/wandb/offline-run-*` sends it later). wandb is imported only when a run is tracked.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.figures.typesetting import checked_picture
from ablations.results.logged import flatten
from ablations.results.wandb_run_id import run_id
from ablations.results.wandb_settings import MODES, CannotTrack, has_login, is_disabled, mode_here, reason_of
from ablations.results.wandb_thread import SideThread
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.quiet_libraries import quiet_libraries

if TYPE_CHECKING:
    from ablations.figures.diversity_grid import GridRow

TABLE_COLUMNS = ("prompt_id", "condition", "candidate", "coarse", "text", "image")
# Seconds to wait for the server at the start, in which the cell goes on, for the last uploads at the end, and for anything after a signal:
# whoever sent one has little patience.
INIT_TIMEOUT, FINISH_TIMEOUT, STOP_TIMEOUT = 20.0, 60.0, 3.0
_IMPORTING = threading.Lock()


def _say(line: str) -> None:
    print(f"W&B: {one_line(line)}", file=sys.stderr, flush=True)


def _leave_it_to_the_agent() -> None:
    pass


@dataclass(frozen=True)
class Asked:
    """What a run is to be: its name, what it is grouped by, where it goes, and how (see `resolve_mode`); its kind and its tags.

    `is_anew`: it begins again, as a new run, where the folder has one.
    """

    name: str
    group: str | None = None
    project: str | None = None
    entity: str | None = None
    mode: str = "auto"
    is_anew: bool = False
    job_type: str | None = None
    tags: tuple[str, ...] = ()


class Tracker:
    """The W&B run of one cell; before `start` and in mode "disabled" every method does nothing.

    Every method but `finish` returns at once: W&B's part is done in the background. `mode` is what came of the mode asked for ("online",
    "offline", "disabled"; the last also where W&B has failed), `url` the run's page ("" where there is none); both are known for sure once
    `wait` or `finish` returned.
    """

    def __init__(self, init_timeout: float = INIT_TIMEOUT, finish_timeout: float = FINISH_TIMEOUT) -> None:
        self.mode = "disabled"
        self.url = ""
        self._run: Any = None
        self._folder = Path()
        self._thread: SideThread | None = None
        self._init_timeout, self._finish_timeout = init_timeout, finish_timeout
        self._has_failed = self._is_left = False
        self._data_dir_was_set = True

    def start(self, cfg_flat: Mapping[str, Any], run_dir: str | Path, asked: Asked) -> Tracker:
        """Opens the run and returns self. Under a W&B agent the sweep decides which run it is, and where it goes.

        Args:
            cfg_flat: the configuration with dotted keys, as W&B's table and sweeps show it.
            run_dir: the run folder; W&B's files go to its `wandb` folder, with the id that makes a cell that goes on the same run.
            asked: what the run is to be.

        Without a login, or where the server does not answer in `init_timeout` seconds or refuses, says so in one line and goes on offline.
        Raises UserError for an unknown mode.
        """
        assert self._thread is None, "this tracker has a run already"
        if asked.mode not in MODES:
            raise UserError(f"wandb.mode={asked.mode!r} is unknown; it may be {', '.join(MODES)}")
        if is_disabled(asked.mode, os.environ):
            return self
        quiet_libraries()
        try:
            with _IMPORTING:
                import wandb  # noqa: F401  (here: modules that two threads import at once may see each other half made)
        except Exception as error:
            _say(f"this run is not tracked ({reason_of(error)})")
            return self
        self._folder = Path(run_dir)
        self._keep_data_there()
        self._thread = SideThread("tracking")
        self._do("this run is not tracked", lambda: self._open(dict(cfg_flat), asked))
        return self

    def _open(self, config: dict[str, Any], asked: Asked) -> None:
        resolved = mode_here(asked.mode)
        if resolved == "disabled":
            return
        if resolved == "online" and not has_login():
            # wandb.init would ask for a key on a terminal.
            _say("online was asked for but there is no login (run `wandb login` or set WANDB_API_KEY); going on offline")
            resolved = "offline"
        options: dict[str, Any] = {"config": config, "dir": str(self._folder), "name": asked.name, "group": asked.group}
        options |= {"job_type": asked.job_type, "tags": list(asked.tags) or None}
        is_of_a_sweep = bool(os.environ.get("WANDB_SWEEP_ID"))
        if not is_of_a_sweep:
            if os.environ.get("WANDB_RUN_ID"):
                _say("WANDB_RUN_ID is not used: every cell is a run of its own, whose id is in its folder")
            options |= {"project": asked.project, "entity": asked.entity, "id": run_id(self._folder / "wandb", asked.is_anew)}
        run = None
        if resolved == "online":
            try:
                self._reach_server()
                run = self._init(options | ({} if is_of_a_sweep else {"resume": "allow"}), "online")
            except Exception as error:
                # Whatever W&B trips over (no route, refused key, its own fault): the cell's work does not depend on it.
                _say(f"the server cannot be used, going on offline ({reason_of(error)})")
                resolved = "offline"
        if run is None:
            run = self._init(options, "offline")
        self._run, self.mode = run, resolved
        self.url = (run.url or "") if resolved == "online" else ""

    def _reach_server(self) -> None:
        """Ask the server who we are, before a run is opened: one that fails to open keeps its id from being opened offline."""
        import wandb

        _ = wandb.Api(timeout=max(1, round(self._init_timeout / 2))).viewer

    def _init(self, options: Mapping[str, Any], mode: str) -> Any:
        import wandb

        settings = wandb.Settings(
            silent=True,
            quiet=True,
            console="off",
            use_dot_wandb=False,
            init_timeout=self._init_timeout,
            finish_timeout=0.9 * self._finish_timeout,
            finish_timeout_raises=True,
            # The agent passes a stop on as a signal; a second one would end the process before it has saved.
            stop_fn=_leave_it_to_the_agent if os.environ.get("WANDB_SWEEP_ID") else None,
        )
        Path(options["dir"]).mkdir(parents=True, exist_ok=True)
        # Many cells run in one process; a run that an earlier cell left open must be neither continued nor called finished.
        return wandb.init(**options, mode=mode, reinit="create_new", settings=settings)

    def _keep_data_there(self) -> None:
        """Tables are staged in the run folder rather than in the home folder, so that a folder moved elsewhere is complete."""
        self._data_dir_was_set = "WANDB_DATA_DIR" in os.environ
        if not self._data_dir_was_set:
            os.environ["WANDB_DATA_DIR"] = str(self._folder.resolve() / "wandb" / "data")

    def _do(self, lost: str, call: Callable[[], object]) -> None:
        """Have W&B called in the background; the first failure, whatever it is, is said in a line that begins with `lost`, and the last."""

        def guarded() -> None:
            if self._has_failed or self._is_left:
                return
            try:
                call()
            except BaseException as error:  # W&B may even end the process (SystemExit), and this thread has no signals
                self._has_failed, self.mode, self.url = True, "disabled", ""
                if self._is_left:  # that was said
                    return
                _say(f"{lost} ({error if isinstance(error, CannotTrack) else reason_of(error)})")
                self._close_quietly()

        if self._thread is not None:
            self._thread.soon(guarded)

    def _use(self, use: Callable[[Any], object]) -> None:
        """Use the run, where there is one by then."""
        self._do("logging failed, this run is not tracked any further", lambda: self._run is None or use(self._run))

    def _close_quietly(self) -> None:
        """Close the run after a failure, which has been said, and W&B's service, which may be what failed: the next run gets another.

        Else W&B would talk to it when Python ends, and print a traceback.
        """
        import wandb

        run, self._run = self._run, None
        if run is not None:
            with suppress(BaseException):
                run.finish(exit_code=1)
        with suppress(BaseException):
            wandb.teardown(exit_code=1)

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Logs values, nested or flat, at a training step (steps must not go back)."""
        if metrics:
            flat = flatten(metrics)
            self._use(lambda run: run.log(flat, step=step))

    def log_grid(self, png_path: str | Path, rows: Sequence[GridRow], step: int | None = None) -> None:
        """Logs the diversity grid: the drawn PNG, every picture with its text as caption, and a table of both; those of a training step
        (`step`, None: of its end) without the table.

        The table has the columns prompt_id, condition, candidate, coarse, text, image. The coarse prompt's picture is
        candidate 0 of condition "coarse". Pictures must be uint8: W&B casts floats instead of scaling them.
        """
        if self._thread is None:
            return
        import numpy as np
        from PIL import Image

        table_rows = []
        for i, row in enumerate(rows):
            prompt_id = row.prompt_id if row.prompt_id >= 0 else i
            entries = [("coarse", 0, row.coarse_prompt, row.coarse_image)]
            entries += [(row.condition, candidate, text, image) for candidate, (text, image) in enumerate(row.candidates)]
            for condition, candidate, text, image in entries:
                image = checked_picture(image, f"the picture of prompt {prompt_id}, {condition} {candidate}")
                table_rows.append((prompt_id, condition, candidate, row.coarse_prompt, text, image))
        with Image.open(png_path) as drawn:
            pixels = np.asarray(drawn.convert("RGB"))

        def send(run: Any) -> None:
            import wandb

            # The panel's pictures and the table's are objects of their own: W&B binds each to the key that it is logged under.
            captioned = [wandb.Image(image, caption=f"{condition}: {text}") for _, condition, _, _, text, image in table_rows]
            table = wandb.Table(columns=list(TABLE_COLUMNS), data=[[*row[:-1], wandb.Image(row[-1], caption=row[4])] for row in table_rows])
            panels = {"diversity_grid": wandb.Image(pixels, caption=Path(png_path).stem), "candidates": captioned}
            run.log(panels if step is not None else {**panels, "prompts": table}, step=step)

        self._use(send)

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Sets the run's final figures; nested keys are joined by "/"."""
        flat = flatten(metrics)
        self._use(lambda run: run.summary.update(flat))

    def wait(self, seconds: float) -> bool:
        """Wait until W&B has taken all that it was given, for so long at most; whether it has, and has not failed."""
        return self._thread is not None and self._thread.wait(seconds) and not self._has_failed and self._run is not None

    def finish(self, exit_code: int = 0, within: float | None = None) -> None:
        """Closes the run; any exit code but 0 makes it a failed one. Calling it twice is harmless.

        Waits `within` seconds at most (`finish_timeout` by default); what is not sent by then stays in the run folder, and a line says so.
        """
        thread, within = self._thread, self._finish_timeout if within is None else within
        if thread is None:
            return

        def close() -> None:
            run, self._run = self._run, None
            if run is not None:
                run.finish(exit_code=exit_code)

        self._do(f"the run could not be sent completely; send it with: {self._how_to_send()}", close)
        self._thread = None
        try:
            if not thread.wait(within):
                self._is_left = True
                _say(f"it did not answer within {within:.0f} s and is not waited for; send it with: {self._how_to_send()}")
        finally:
            thread.end()
            if not self._data_dir_was_set:
                os.environ.pop("WANDB_DATA_DIR", None)
                self._data_dir_was_set = True

    def _how_to_send(self) -> str:
        return f"wandb sync {self._folder / 'wandb'}/*run-*"
