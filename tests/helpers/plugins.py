"""Plug-ins in tests: a module for as long as a test lasts, and the open tables as they were before it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ablations.baselines.register import all_methods
from ablations.metrics.register import all_metrics
from ablations.runtime import plugins
from datamodules.readers.register import all_readers

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
# (module, name of its table): what a plug-in may add to.
TABLES = (
    ("lightning_modules.terms", "_TERMS"),
    ("lightning_modules.readings", "_REGISTERED"),
    ("ablations.metrics.register", "_METRICS"),
    ("ablations.results.conditions", "_CONDITIONS"),
    ("ablations.baselines.register", "_METHODS"),
    ("datamodules.readers.register", "_READERS"),
)


@contextmanager
def open_tables(*folders: Path) -> Iterator[None]:
    """Modules in `folders` can be plug-ins within the block; afterwards the tables hold what they held before."""
    # What the packages register themselves is complete beforehand.
    all_metrics(), all_methods(), all_readers()
    tables = [getattr(importlib.import_module(module), name) for module, name in TABLES]
    before = [dict(table) for table in tables]
    modules, path, loaded = set(sys.modules), list(sys.path), dict(plugins._loaded)
    sys.path[:0] = [str(folder) for folder in folders]
    try:
        yield
    finally:
        sys.path[:] = path
        for table, content in zip(tables, before, strict=True):
            table.clear()
            table.update(content)
        plugins._loaded.clear()
        plugins._loaded.update(loaded)
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if any(Path(file).is_relative_to(folder) for folder in folders):
                del sys.modules[name]


@contextmanager
def loaded(folder: Path, *names: str, **written: str) -> Iterator[None]:
    """The examples of docs called `names`, and modules of some text that are written to `folder`, are plug-ins within the block."""
    for name, text in written.items():
        (folder / f"{name}.py").write_text(text)
    with open_tables(EXAMPLES, folder):
        plugins.load_plugins([*names, *written])
        yield
