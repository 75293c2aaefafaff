"""The house is kept: imports go down only, no stage of a cell knows a later one, and every file at the top of `ablations` is a command.

Rooms from low to high, as a cell's results come about and are read. A room imports itself and lower ones; rooms of one line may import
each other, but not in a circle. Imports in functions and under TYPE_CHECKING count: what a module names, it depends on.
"""

from __future__ import annotations

import ast
import sys
from importlib import metadata

import pytest

from helpers.commands import run
from helpers.imports import ROOT, circles, graph, imports_of, modules, tree

ROOMS = (
    ("runtime",),
    ("metrics",),
    ("config",),
    ("figures",),
    ("results",),
    ("cell",),
    ("refiner",),
    ("baselines", "sweeping", "planning", "reporting", "analysing", "comparing", "benchmarking", "web", "building_cfp", "pretraining"),
    ("commands",),
)
RANKS = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}
STAGES = ("loading", "training", "checking", "refining", "drawing", "scoring")
# The files of `ablations/cell` that may know several stages: their order, what a process beside rank 0 does, what they share, and show, and
# what is drawn on the way.
KNOW_SEVERAL_STAGES = {f"ablations.cell.{name}" for name in ("cell", "beside", "shared", "screen", "on_the_way")}
COMMANDS = sorted(file.stem for file in (ROOT / "ablations").glob("*.py") if file.stem not in ("__init__", "__main__"))
# Folders of tests beside those that bear the name of what they test.
OTHER_TESTS = {"commands", "devices", "docs", "faults", "helpers", "house", "plugins"}


def room_of(module: str) -> str:
    """The room that a module of `ablations` is in; the commands' for a file at the top, for `__main__` and for the package itself."""
    parts = module.split(".")
    is_at_the_top = len(parts) < 3 and modules()[module].parent == ROOT / "ablations"
    return "commands" if is_at_the_top or parts[-1] == "__main__" else parts[1]


def edges_between_rooms() -> dict[str, set[str]]:
    """{room: the other rooms that it imports}."""
    edges: dict[str, set[str]] = {}
    for module, imported in graph().items():
        if module.split(".")[0] == "ablations":
            rooms = {room_of(other) for other in imported if other.split(".")[0] == "ablations"}
            edges.setdefault(room_of(module), set()).update(rooms - {room_of(module)})
    return edges


def stage_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[2] if parts[:2] == ["ablations", "cell"] and len(parts) > 2 and parts[2] in STAGES else None


def test_no_module_reaches_itself_through_its_imports():
    assert circles(graph()) == []


def test_every_room_has_a_rank_and_none_imports_a_higher_one():
    assert {room_of(module) for module in modules() if module.split(".")[0] == "ablations"} == set(RANKS)
    upward = [
        f"{module}:{entry.line} imports {entry.module}"
        for module in modules()
        for entry in imports_of(module)
        if module.startswith("ablations.") and entry.module.split(".")[0] == "ablations"
        if RANKS[room_of(entry.module)] > RANKS[room_of(module)]
    ]
    assert upward == []


def test_rooms_of_one_rank_import_each_other_in_one_direction_only():
    assert circles({room: tuple(sorted(others)) for room, others in edges_between_rooms().items()}) == []


@pytest.mark.parametrize("package", ["datamodules", "lightning_modules"])
def test_networks_and_data_know_neither_each_other_nor_the_experiments(package):
    others = [f"{module} imports {other}" for module in modules() for other in graph()[module] if module.split(".")[0] == package]
    assert [line for line in others if not line.rpartition(" imports ")[2].startswith(package)] == []


def test_no_stage_of_a_cell_imports_a_later_one():
    later = [
        f"{module} imports {other}"
        for module, imported in graph().items()
        for other in imported
        if stage_of(module) and stage_of(other) and STAGES.index(stage_of(other)) > STAGES.index(stage_of(module))
    ]
    assert later == []


def test_in_the_cells_own_folder_only_five_files_know_several_stages():
    stages = {
        module: {stage_of(other) for other in imported} - {None}
        for module, imported in graph().items()
        if module.startswith("ablations.cell.") and stage_of(module) is None
    }
    assert {module for module, known in stages.items() if len(known) > 1} <= KNOW_SEVERAL_STAGES


@pytest.mark.parametrize("command", COMMANDS)
def test_every_file_at_the_top_is_a_command_with_a_main_and_its_own_name_in_its_first_line(command):
    body = tree(f"ablations.{command}").body
    assert f"`python -m ablations.{command}" in (ast.get_docstring(tree(f"ablations.{command}")) or "").partition("\n")[0]
    (main,) = (node for node in body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert [argument.arg for argument in main.args.args] == ["argv"] and not main.args.kwonlyargs
    assert [ast.unparse(default) for default in main.args.defaults] == ["None"]
    assert main.returns is not None and ast.unparse(main.returns) == "int"
    assert ast.unparse(body[-1]) == "if __name__ == '__main__':\n    sys.exit(main())"


@pytest.mark.parametrize("module", [*(f"ablations.{command}" for command in COMMANDS), "ablations.metrics"])
def test_every_command_explains_itself_at_once(module):
    code, out, error, seconds = run("--help", module=module)
    assert (code, error) == (0, "")
    assert f"python -m {module}" in out
    assert seconds < 1


def test_nothing_but_main_is_imported_from_a_command():
    taken = [
        f"{module}:{entry.line} imports {entry.name or 'the module'} of {entry.module}"
        for module in modules()
        for entry in imports_of(module)
        if entry.module.startswith("ablations.") and room_of(entry.module) == "commands" and entry.name != "main"
    ]
    assert taken == []


@pytest.mark.parametrize("folder", [".", "ablations", "tests"])
def test_nothing_of_ours_hides_a_module_of_others_when_its_folder_leads_the_path(folder):
    """`python ablations/run.py` puts `ablations` before the standard library and everything that is installed, pytest the two others."""
    ours = {entry.stem for entry in (ROOT / folder).iterdir() if entry.suffix == ".py" or (entry.is_dir() and entry.name.isidentifier())}
    assert ours & set(sys.stdlib_module_names) == set()
    if folder == "ablations":
        assert ours & set(metadata.packages_distributions()) == set()


def test_tests_lie_where_what_they_test_lies_in_files_of_at_most_400_lines():
    folders = {entry.name for entry in (ROOT / "tests").iterdir() if entry.is_dir() and entry.name.isidentifier()}
    assert folders - {"__pycache__"} <= set(RANKS) | {"datamodules", "lightning_modules"} | OTHER_TESTS
    files = sorted((ROOT / "tests").rglob("*.py"))
    assert [str(file) for file in files if len(file.read_text(encoding="utf-8").splitlines()) > 400] == []
