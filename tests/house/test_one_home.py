"""Functions are short and take few arguments, and a mechanism has one home: it is written in one file and called from the others."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

import pytest

from helpers.imports import modules, tree

LONGEST, MOST_PARAMETERS = 60, 7
# diffusers reads the parts of a pipeline off its constructor, and hands them over by name: there is no caller who must remember them.
READ_BY_DIFFUSERS = {"ablations.refiner.drawing_pipeline.__init__"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[str, Function]]:
    """Every function, method and inner function as (MODULE.NAME, its syntax)."""
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, Function):
                yield f"{module}.{node.name}", node


def num_parameters(function: Function) -> int:
    """What a caller may hand in, each `*` and `**` aside."""
    a = function.args
    given = [argument.arg for argument in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    return len(given) - (given[:1] in (["self"], ["cls"]))


def called(node: ast.AST) -> str:
    """The last name of what is called, as in `replace` for `os.replace(a, b)`; "" where nothing is."""
    function = node.func if isinstance(node, ast.Call) else None
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def names_of(nodes: list[ast.expr]) -> set[str]:
    return {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in nodes}


def renames(node: ast.AST) -> bool:
    """os.replace(a, b), or path.replace(b): texts are replaced by two arguments, and fields of dataclasses by keywords."""
    if called(node) != "replace":
        return False
    assert isinstance(node, ast.Call)
    of_os = isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) and node.func.value.id == "os"
    return of_os or (isinstance(node.func, ast.Attribute) and len(node.args) == 1 and not node.keywords)


def names_prompts(node: ast.AST) -> bool:
    """The file's name, or that of its lines' fields alone: whoever reads or writes it asks the one file that has them."""
    return isinstance(node, ast.Constant) and node.value in ("prompts.jsonl", "scores.parquet")


def makes_a_parser(node: ast.AST) -> bool:
    return called(node) == "ArgumentParser" or (isinstance(node, ast.ClassDef) and "ArgumentParser" in names_of(node.bases))


# What is looked for, and where alone it may be. `datamodules` must not import `ablations`, so renaming has two files: the mechanism,
# and what the experiments add to it. `build_cfp` has a prompts.jsonl of its own, in the folder that it builds.
HOMES: dict[str, tuple[Callable[[ast.AST], bool], set[str]]] = {
    "aside, then rename": (renames, {"datamodules.files", "ablations.runtime.files"}),
    "the names of prompts.jsonl and scores.parquet": (
        names_prompts,
        {"ablations.results.prompts_and_scores", "ablations.building_cfp.folder"},
    ),
    "the reader of scores.parquet": (lambda node: called(node) == "read_parquet", {"ablations.results.prompts_and_scores"}),
    "the writer of scores.parquet": (lambda node: called(node) == "to_parquet", {"ablations.results.prompts_and_scores"}),
    "the parser of a command line": (makes_a_parser, {"ablations.runtime.command_line"}),
    "the look of plots": (lambda node: called(node) == "rc_context", {"ablations.figures.plot_style"}),
    "the colour of plots": (lambda node: isinstance(node, ast.Constant) and node.value == "#0a607a", {"ablations.figures.plot_style"}),
}


def test_no_function_is_longer_than_a_screen():
    lengths = {name: node.end_lineno - node.lineno + 1 for name, node in functions() if node.end_lineno is not None}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_no_function_takes_more_parameters_than_one_can_remember():
    counts = {name: num_parameters(node) for name, node in functions() if name not in READ_BY_DIFFUSERS}
    assert {name: count for name, count in counts.items() if count > MOST_PARAMETERS} == {}


@pytest.mark.parametrize("what", list(HOMES))
def test_it_has_one_home(what):
    is_it, homes = HOMES[what]
    places = [f"{module}:{node.lineno}" for module in modules() for node in ast.walk(tree(module)) if is_it(node)]
    assert [place for place in places if place.partition(":")[0] not in homes] == []
    assert places, f"nothing was found at all: does the search still fit {what}?"
