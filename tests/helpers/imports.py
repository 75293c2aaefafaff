"""What the project's modules import, read from their text: at the top, in functions and under TYPE_CHECKING alike."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("ablations", "datamodules", "lightning_modules")


@dataclass(frozen=True)
class Import:
    """One name that a module takes from another: `name` is None where it takes the module itself."""

    module: str
    name: str | None
    line: int


@functools.cache
def modules() -> Mapping[str, Path]:
    """{dotted name: file} of all modules; a package stands for its `__init__.py`."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """The module that a `from ... import` names, a relative one spelt out."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if modules()[module].name == "__init__.py" else module.split(".")[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def _imports(module: str) -> Iterator[Import]:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, None, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(module, node)
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield Import(inner, None, node.lineno) if inner in modules() else Import(source, alias.name, node.lineno)


@functools.cache
def imports_of(module: str) -> tuple[Import, ...]:
    """What a module of ours takes from other modules of ours.

    Importing `a.b` runs `a/__init__.py` too; that is not counted, or a package that shows its modules' names would be a circle.
    """
    return tuple(entry for entry in _imports(module) if entry.module in modules() and entry.module != module)


@functools.cache
def graph() -> Mapping[str, tuple[str, ...]]:
    """{module: the modules of ours that it imports}."""
    return {module: tuple(sorted({entry.module for entry in imports_of(module)})) for module in modules()}


def circles(edges: Mapping[str, tuple[str, ...]]) -> list[list[str]]:
    """Groups of nodes that reach each other, each sorted."""
    reached = {node: reachable(edges, [node]) for node in edges}
    groups = {tuple(sorted(other for other in reached[node] if node in reached[other])) for node in edges if node in reached[node]}
    return [list(group) for group in sorted(groups)]


def reachable(edges: Mapping[str, tuple[str, ...]], start: list[str]) -> set[str]:
    """All nodes that can be reached in one step or more from the nodes in `start`."""
    found: set[str] = set()
    ahead = [other for node in start for other in edges[node]]
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead.extend(edges[node])
    return found
