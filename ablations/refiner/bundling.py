"""One self-contained file out of a module of ours: with what it uses of our other modules, and without what it does not.

So what an export carries along for people who do not have this project is the code that runs here, and no second writing of it.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path

OUR_PACKAGES = ("ablations", "lightning_modules", "datamodules")
_FUTURE = "from __future__ import annotations"


@dataclass
class _Module:
    """A module's text, and where the names at its top come from."""

    name: str
    used: set[str] = field(default_factory=set)

    @cached_property
    def text(self) -> str:
        spec = importlib.util.find_spec(self.name)
        assert spec is not None and spec.origin is not None, self.name
        return Path(spec.origin).read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def definitions(self) -> dict[str, ast.stmt]:
        """{name: the statement at the top that defines it}: classes, functions and constants."""
        found: dict[str, ast.stmt] = {}
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                found[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {one.id: node for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
        return found

    @cached_property
    def imports(self) -> dict[str, tuple[str, str | None]]:
        """{name: (module, what of it as an import writes it, or None for the module itself)}."""
        found: dict[str, tuple[str, str | None]] = {}
        for node in self.tree.body:
            for one in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
                name = one.asname or one.name.partition(".")[0]
                if isinstance(node, ast.Import):
                    found[name] = ast.unparse(one), None
                elif node.module != "__future__":
                    found[name] = node.module or "", ast.unparse(one)
        return found

    def text_of(self, node: ast.stmt) -> str:
        """The statement as it is written, with its decorators and the comment right above it."""
        lines = self.text.splitlines()
        start = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))]) - 1
        while start and lines[start - 1].startswith("#"):
            start -= 1
        return "\n".join(lines[start : node.end_lineno])


def bundle(entry: str) -> str:
    """The text of a file that does what the module `entry` does, importing no package of ours.

    Everything at the top of `entry` is taken, of other modules what that uses. Raises ValueError where two modules give a name to
    different things, and for a module of ours that is imported whole or under another name.
    """
    bundled = _Bundle()
    modules = bundled.modules
    bundled.take(entry, None)
    owners: dict[str, str] = {}
    parts = []
    for module in map(modules.__getitem__, TopologicalSorter(bundled.needs).static_order()):
        for name in sorted(module.used):
            if owners.setdefault(name, module.name) != module.name:
                raise ValueError(f"{name} is defined in {owners[name]} and in {module.name}: one file cannot hold both")
        nodes = dict.fromkeys(module.definitions[name] for name in module.definitions if name in module.used)
        parts.append(f"# From {module.name}\n\n" + "\n\n\n".join(map(module.text_of, nodes)))
    about = ast.get_docstring(modules[entry].tree, clean=False)
    return "\n\n".join([f'"""{about}"""', _FUTURE, "\n".join(bundled.import_lines()), *(f"\n{part}" for part in parts)]) + "\n"


class _Bundle:
    """What is taken: modules with their names in use, which of them needs which, and the imports of other people's modules."""

    def __init__(self) -> None:
        self.modules: dict[str, _Module] = {}
        self.needs: dict[str, set[str]] = {}
        self.whole: set[str] = set()
        self.named: dict[str, set[str]] = {}

    def take(self, source: str, wanted: str | None) -> None:
        """Take a name of a module (None: every name) and all that it needs."""
        module = self.modules.setdefault(source, _Module(source))
        self.needs.setdefault(source, set())
        for name in module.definitions if wanted is None else [wanted]:
            if name in module.used:
                continue
            module.used.add(name)
            for needed in _names_in(module.definitions[name]):
                if needed in module.definitions:
                    self.take(source, needed)
                elif needed in module.imports:
                    self._take_import(module, needed)

    def import_lines(self) -> list[str]:
        """The imports of other people's modules, whole ones first."""
        named = (f"from {source} import {', '.join(sorted(names))}" for source, names in sorted(self.named.items()))
        return [*(f"import {source}" for source in sorted(self.whole)), *named]

    def _take_import(self, module: _Module, name: str) -> None:
        source, original = module.imports[name]
        if source.partition(".")[0] not in OUR_PACKAGES:
            (self.whole if original is None else self.named.setdefault(source, set())).add(original or source)
            return
        if original != name:
            raise ValueError(f"{module.name} imports {source} whole or under another name: import what is needed of it, by its own name")
        self.needs[module.name].add(source)
        self.take(source, name)


def _names_in(node: ast.AST) -> Iterator[str]:
    return (one.id for one in ast.walk(node) if isinstance(one, ast.Name))
