"""Whether W&B is to be used here and how: WANDB_MODE, else W&B's own settings, else whether there is a login.

Nothing here asks a question or sends anything. What W&B would refuse is found before W&B is set up, and named.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from typing import Any

from ablations.runtime.errors import UserError, one_line

MODES = ("auto", "online", "offline", "disabled")
# Older names of modes that W&B still takes.
_ALIASES = {"dryrun": "offline", "run": "online"}
# Words in names of variables whose values are nobody's business.
_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD", "HEADERS")


class CannotTrack(Exception):
    """W&B cannot be used as it is set up here. Its message is one line that says why."""


def resolve_mode(mode: str, environment: Mapping[str, str], own: str | None, has_login: bool) -> str:
    """ "online", "offline" or "disabled" for the configured mode.

    "auto" is what WANDB_MODE says where that is set, else `own`, the mode in W&B's settings files (`wandb offline`, `wandb disabled`); else
    online under a W&B agent (WANDB_SWEEP_ID) or with a login, else offline. Every other mode is taken as it is. Raises UserError for a
    configured mode that is unknown, and CannotTrack for one of W&B's.
    """
    if mode not in MODES:
        raise UserError(f"wandb.mode={mode!r} is unknown; it may be {', '.join(MODES)}")
    if mode != "auto":
        return mode
    for name, asked in (("WANDB_MODE", environment.get("WANDB_MODE")), ("mode in W&B's settings file", own)):
        if asked and asked.strip():
            asked = asked.strip().lower()
            asked = _ALIASES.get(asked, asked)
            if asked not in MODES[1:]:
                raise CannotTrack(f"{name} is {asked[:40]!r}, which may be online, offline or disabled")
            return asked
    return "online" if has_login or environment.get("WANDB_SWEEP_ID") else "offline"


def is_disabled(mode: str, environment: Mapping[str, str]) -> bool:
    """Whether nothing of W&B is wanted, as far as can be known without W&B."""
    return mode == "disabled" or (mode == "auto" and environment.get("WANDB_MODE", "").strip().lower() == "disabled")


def mode_here(mode: str) -> str:
    """What `resolve_mode` makes of the configured mode here. Sets W&B up, so that it says nothing itself.

    Raises CannotTrack for what W&B would refuse, and whatever W&B trips over.
    """
    _hush()
    _require_accepted(os.environ)
    if os.environ.get("WANDB_MODE", "").strip():
        # W&B reads it again, by itself, and takes no other spelling.
        os.environ["WANDB_MODE"] = resolve_mode("auto", os.environ, None, False)
    own = _own_mode() if mode == "auto" else None
    resolved = resolve_mode(mode, os.environ, own, has_login=mode == "auto" and not own and has_login())
    _set_up()
    return resolved


def _own_mode() -> str | None:
    """The mode that `wandb offline`, `wandb disabled` or a hand left in W&B's settings files, for this user or, which counts, this folder.

    A file that cannot be read raises CannotTrack: it may say that nothing is to leave this machine.
    """
    found = None
    settings = _set_up().settings
    for path in (settings.settings_system, settings.settings_workspace):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(str(path), encoding="utf-8")
            found = parser.get("default", "mode", fallback=found)
        except (OSError, ValueError, configparser.Error) as error:
            raise CannotTrack(f"W&B's settings file {path} cannot be read ({reason_of(error)})") from error
    return found


def has_login() -> bool:
    """Whether W&B knows a key for its server: environment, settings or netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb

    _set_up()
    return bool(wandb.api.api_key)


def _require_accepted(environment: Mapping[str, str]) -> None:
    """Raises CannotTrack where W&B would refuse a WANDB_ variable, naming it.

    WANDB_MODE is left out: what is in it is read by `resolve_mode`, which takes more spellings.
    """
    import wandb

    for name in sorted(environment):
        if name.startswith("WANDB_") and name != "WANDB_MODE":
            try:
                wandb.Settings().update_from_env_vars({name: environment[name]})
            except Exception as error:
                value = "" if any(word in name for word in _SECRET) else f"={environment[name][:40]!r}"
                raise CannotTrack(f"W&B does not take {name}{value} ({reason_of(error, environment)})") from error
    token = environment.get("WANDB_IDENTITY_TOKEN_FILE")
    if token and not os.access(token, os.R_OK):
        raise CannotTrack("W&B does not take WANDB_IDENTITY_TOKEN_FILE (there is no such file, or it cannot be read)")


def reason_of(error: BaseException, environment: Mapping[str, str] = os.environ) -> str:
    """An exception of W&B's in at most 120 characters: its kind and what it says, without any value of a variable that is a secret."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # pydantic: "1 validation error for Settings", the field, then what is wrong with it
    text = " ".join(lines[2:3] if lines and "validation error" in lines[0] else lines[:1]) or "no reason given"
    for name, value in environment.items():
        if any(word in name for word in _SECRET) and len(value) >= 6:
            text = text.replace(value, "...")
    text = f"{type(error).__name__}: {one_line(text)}"
    return text if len(text) <= 120 else f"{text[:117]}..."


def _set_up() -> Any:
    import wandb

    return wandb.setup(settings=_hush())


def _hush() -> Any:
    """Have W&B say nothing itself: it checks variables and reads its files before it looks at the settings that it is set up with."""
    import wandb

    quiet = wandb.Settings(silent=True, quiet=True)
    wandb.termsetup(quiet, None)
    return quiet


def forget_the_agents_run() -> None:
    """For a process of many cells: what a W&B agent, or an export, says of one run is not theirs to share."""
    for name in ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_ID"):
        os.environ.pop(name, None)
