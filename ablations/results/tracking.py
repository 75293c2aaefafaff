"""Weights & Biases: one run per cell, offline unless there is a login, and never in the way of the cell itself.

Nothing here asks a question, and no failure of W&B or of the network ends a run: what cannot be sent stays in the run folder
(`wandb sync RUN_FOLDER/wandb/offline-run-*` sends it later). wandb is imported only when a run is tracked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.figures.typesetting import checked_picture
from ablations.results.logged import flatten
from ablations.runtime.errors import UserError, one_line

if TYPE_CHECKING:
    from ablations.figures.diversity_grid import GridRow

MODES = ("auto", "online", "offline", "disabled")
TABLE_COLUMNS = ("prompt_id", "condition", "candidate", "coarse", "text", "image")
# Seconds to wait for the server at the start, and for the last uploads at the end.
INIT_TIMEOUT, FINISH_TIMEOUT = 20.0, 120.0
# Older names of modes that W&B still takes from the environment.
_ALIASES = {"dryrun": "offline", "run": "online"}


def resolve_mode(mode: str, environment: Mapping[str, str], has_login: bool) -> str:
    """ "online", "offline" or "disabled" for the configured mode.

    "auto" is what WANDB_MODE says where that is set; else online under a W&B agent (WANDB_SWEEP_ID) or with a login, else
    offline. Every other mode is taken as it is. Raises UserError for a mode that is unknown.
    """
    if mode not in MODES:
        raise UserError(f"wandb.mode={mode!r} is unknown; it may be {', '.join(MODES)}")
    if mode != "auto":
        return mode
    asked = environment.get("WANDB_MODE", "").strip().lower()
    if asked:
        asked = _ALIASES.get(asked, asked)
        if asked not in ("online", "offline", "disabled"):
            raise UserError(f"WANDB_MODE={environment['WANDB_MODE']!r} is unknown; it may be online, offline or disabled")
        return asked
    return "online" if has_login or environment.get("WANDB_SWEEP_ID") else "offline"


def _has_login() -> bool:
    """Whether W&B knows a key for its server: environment, settings or netrc; reads files, asks nobody, sends nothing."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    wandb = _quiet_wandb()
    try:
        return bool(wandb.api.api_key)
    except (wandb.Error, OSError, ValueError):
        return False


def _quiet_wandb():
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True, quiet=True))
    return wandb


def _say(line: str) -> None:
    print(f"W&B: {one_line(line)}", file=sys.stderr, flush=True)


class Tracker:
    """The W&B run of one cell; before `start` and in mode "disabled" every method does nothing.

    `mode` is what came of the mode asked for ("online", "offline", "disabled"), `url` the run's page ("" where there is none).
    """

    def __init__(self, init_timeout: float = INIT_TIMEOUT, finish_timeout: float = FINISH_TIMEOUT) -> None:
        self.mode = "disabled"
        self.url = ""
        self._run: Any = None
        self._init_timeout = init_timeout
        self._finish_timeout = finish_timeout
        self._data_dir_was_set = True

    def start(
        self,
        cfg_flat: Mapping[str, Any],
        run_dir: str | Path,
        name: str,
        group: str | None = None,
        project: str | None = None,
        entity: str | None = None,
        mode: str = "auto",
    ) -> Tracker:
        """Opens the run and returns self.

        Args:
            cfg_flat: the configuration with dotted keys, as W&B's table and sweeps show it.
            run_dir: the run folder; W&B's files go to its `wandb` folder.
            name, group: the run's name, and what it is grouped by (the arm).
            project, entity: where it goes; under a W&B agent the sweep decides.
            mode: see `resolve_mode`.

        Without a login, or where the server does not answer in `init_timeout` seconds or refuses, says so in one line and
        goes on offline.
        """
        assert self._run is None, "this tracker has a run already"
        needs_lookup = mode == "auto" and not os.environ.get("WANDB_MODE")
        resolved = resolve_mode(mode, os.environ, has_login=needs_lookup and _has_login())
        if resolved == "disabled":
            return self
        if resolved == "online" and not _has_login():
            # wandb.init would ask for a key on a terminal.
            _say("online was asked for but there is no login (run `wandb login` or set WANDB_API_KEY); going on offline")
            resolved = "offline"
        self._keep_data_in(Path(run_dir))
        options = {"config": dict(cfg_flat), "dir": str(run_dir), "name": name, "group": group, "project": project, "entity": entity}
        if os.environ.get("WANDB_SWEEP_ID"):
            options.update(project=None, entity=None)
        if resolved == "online":
            try:
                self._run = self._init(options, "online")
            except Exception as error:
                # Whatever W&B trips over (no route, refused key, its own fault): the cell's work does not depend on it.
                _say(f"the server cannot be used, going on offline ({type(error).__name__}: {_first_line(error)})")
                resolved = "offline"
        if self._run is None:
            self._run = self._init(options, "offline")
        self.mode = resolved
        self.url = (self._run.url or "") if resolved == "online" else ""
        return self

    def _init(self, options: Mapping[str, Any], mode: str):
        wandb = _quiet_wandb()
        settings = wandb.Settings(
            silent=True,
            quiet=True,
            console="off",
            use_dot_wandb=False,
            init_timeout=self._init_timeout,
            finish_timeout=self._finish_timeout,
            finish_timeout_raises=True,
        )
        Path(options["dir"]).mkdir(parents=True, exist_ok=True)
        # Many cells run in one process; a run that an earlier cell left open must be neither continued nor called finished.
        return wandb.init(**options, mode=mode, reinit="create_new", settings=settings)

    def _keep_data_in(self, run_dir: Path) -> None:
        """Tables are staged in the run folder rather than in the home folder, so that a folder moved elsewhere is complete."""
        self._data_dir_was_set = "WANDB_DATA_DIR" in os.environ
        if not self._data_dir_was_set:
            os.environ["WANDB_DATA_DIR"] = str(run_dir.resolve() / "wandb" / "data")

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Logs values, nested or flat, at a training step (steps must not go back)."""
        if self._run is not None and metrics:
            self._guard(lambda run: run.log(flatten(metrics), step=step))

    def _guard(self, use: Callable[[Any], object]) -> None:
        """Uses the run; where W&B fails (its service died, the disk is full) says so once and tracks no further."""
        try:
            use(self._run)
        except Exception as error:
            _say(f"logging failed, this run is not tracked any further ({type(error).__name__}: {_first_line(error)})")
            self.finish(exit_code=1)

    def log_grid(self, png_path: str | Path, rows: Sequence[GridRow]) -> None:
        """Logs the diversity grid: the drawn PNG, every picture with its text as caption, and a table of both.

        The table has the columns prompt_id, condition, candidate, coarse, text, image. The coarse prompt's picture is
        candidate 0 of condition "coarse". Pictures must be uint8: W&B casts floats instead of scaling them.
        """
        if self._run is None:
            return
        import numpy as np
        import wandb
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
            # The panel's pictures and the table's are objects of their own: W&B binds each to the key that it is logged under.
            captioned = [wandb.Image(image, caption=f"{condition}: {text}") for _, condition, _, _, text, image in table_rows]
            table = wandb.Table(columns=list(TABLE_COLUMNS), data=[[*row[:-1], wandb.Image(row[-1], caption=row[4])] for row in table_rows])
            run.log({"diversity_grid": wandb.Image(pixels, caption=Path(png_path).stem), "candidates": captioned, "prompts": table})

        self._guard(send)

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Sets the run's final figures; nested keys are joined by "/"."""
        if self._run is not None:
            self._guard(lambda run: run.summary.update(flatten(metrics)))

    def finish(self, exit_code: int = 0) -> None:
        """Closes the run; any exit code but 0 makes it a failed one. Calling it twice is harmless.

        Uploads get `finish_timeout` seconds; what is left by then stays in the run folder, and a line says so.
        """
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.finish(exit_code=exit_code)
        except Exception as error:
            _say(
                f"the run could not be sent completely ({type(error).__name__}: {_first_line(error)}); "
                f"send it with: wandb sync {Path(run.dir).parent}"
            )
        finally:
            if not self._data_dir_was_set:
                os.environ.pop("WANDB_DATA_DIR", None)
                self._data_dir_was_set = True


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no reason given")
