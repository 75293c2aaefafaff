"""Plug-ins: modules from outside the package that add rows to its open tables (loss terms, AFE readings, metrics, ...) when imported."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from ablations.runtime.errors import UserError, one_line

_loaded: dict[str, str] = {}


def plugin_names(value: str | Iterable[str] | None) -> tuple[str, ...]:
    """The modules that a value of `plugins` names: text with commas, a list, or None."""
    if value is None or value in ("null", "None"):
        return ()
    if not isinstance(value, str | list | tuple):
        raise UserError(f"plugins: {value!r:.80} is no name of a module, as in my_module")
    words = value.split(",") if isinstance(value, str) else map(str, value)
    return tuple(dict.fromkeys(word.strip() for word in words if word.strip()))


def load_plugins(value: str | Iterable[str] | None) -> dict[str, str]:
    """Import the modules that `value` names, each once a process; returns {module: digest of its code}.

    They are looked for in the current folder, too. Raises UserError, in one line, for a module that is not there or that fails.
    """
    return {name: _loaded[name] if name in _loaded else _load(name) for name in plugin_names(value)}


def _load(name: str) -> str:
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        hint = f"; write {Path(name).stem}" if name.endswith(".py") else ""
        raise UserError(f"plugins: {name!r} is no name of a module, as in my_module{hint}")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    if not _is_there(name):
        raise UserError(f"plugins: there is no module {name!r}, neither in {here} nor among the installed packages")
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise UserError(f"plugins: {name} cannot be imported: {_where(error)}{type(error).__name__}: {one_line(error)}") from error
    _loaded[name] = digest_of_plugin(module.__file__)
    return _loaded[name]


def _is_there(name: str) -> bool:
    parent = name.rpartition(".")[0]
    if parent and not _is_there(parent):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a parent that is a plain module, or one that fails: the import itself says more
        return True


def _where(error: Exception) -> str:
    """The file and line of the plug-in that failed, as in "my_module.py line 3: "."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name} line {error.lineno}: "
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    return f"{Path(frames[-1].filename).name} line {frames[-1].lineno}: " if len(frames) > 1 else ""


def digest_of_plugin(file: str | None) -> str:
    """16 hex digits of a module's file or, of a package, of all its Python files; "" for a module without a file."""
    if file is None:
        return ""
    path = Path(file)
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    sha = hashlib.sha256()
    for each in files:
        sha.update(each.relative_to(path.parent).as_posix().encode() + hashlib.sha256(each.read_bytes()).digest())
    return sha.hexdigest()[:16]


def belongs_to(module: str, plugin: str) -> bool:
    """Whether a module is the plug-in or a part of its package."""
    return module == plugin or module.startswith(plugin + ".")
