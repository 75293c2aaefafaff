"""What W&B takes as names: its own rules, checked with the arguments rather than when a run is opened."""

from __future__ import annotations

from ablations.runtime.errors import UserError

_LONGEST = 128
# wandb 0.31, `validate_project` of its settings; an entity stands in the same addresses. Names and groups are shown, and may have any.
_NOT_IN_ADDRESSES = "/\\#?%:"


def check_name(key: str, name: str | None) -> None:
    """Raises UserError where `name`, given as `key`, cannot name a project, an entity, a group or a run. None is W&B's default."""
    if name is None:
        return
    shown = repr(name) if len(name) <= 60 else f"{name[:57]!r}..."
    if not name.strip() or name != name.strip() or not name.isprintable():
        raise UserError(f"{key}={shown} is no name for W&B: write one without blanks around it")
    if len(name) > _LONGEST:
        raise UserError(f"{key}={shown} has {len(name)} characters: W&B takes {_LONGEST}")
    found = [character for character in _NOT_IN_ADDRESSES if character in name]
    if found and key.rpartition(".")[2].lstrip("-") in ("project", "entity"):
        raise UserError(f"{key}={shown} has {' '.join(found)}, which W&B does not take in a {key.rpartition('.')[2].lstrip('-')}")
