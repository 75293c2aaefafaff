"""`python -m ablations`: lists the commands. `python -m ablations COMMAND ...` is `python -m ablations.COMMAND ...`."""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its folder's path
    __import__("runtime.by_path")

from ablations.runtime.command_line import say_error
from ablations.runtime.errors import UserError

_HERE = Path(__file__).parent
# As one comes to need them. A command that is not named here stands at the end.
_ORDER = (
    *("run", "plan", "sweep", "report", "compare", "significance", "controls", "alignment", "frontier", "prompt_lengths", "metrics"),
    *("refine", "app", "export", "build_cfp", "pretrain_tiny", "show_tiny_world", "check_statistics", "benchmark"),
)


def commands() -> dict[str, str]:
    """Every command with its line: what the first line of its docstring says after the command itself. Imports none of them."""
    found = {path.stem: path for path in sorted(_HERE.glob("*.py")) if not path.stem.startswith("__")}
    found |= {path.parent.name: path for path in sorted(_HERE.glob("*/__main__.py"))}
    order = [*(name for name in _ORDER if name in found), *(name for name in found if name not in _ORDER)]
    return {name: _line(found[name]) for name in order}


def _line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].rpartition("`: ")[2].rstrip(".")


def help_text() -> str:
    """The list of commands."""
    lines = commands()
    width = max(map(len, lines))
    listed = "\n".join(f"  {name:<{width}}  {line}" for name, line in lines.items())
    return f"usage: python -m ablations.COMMAND ...\n\n{listed}\n\npython -m ablations.COMMAND --help explains a command."


def main(argv: list[str] | None = None) -> int:
    """List the commands, or run the one that is named; returns the exit code."""
    is_the_process = argv is None
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(help_text())
        return 0
    name, known = argv[0], commands()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        say_error(f"there is no command {name!r}{f'; did you mean {near[0]!r}?' if near else ''} (python -m ablations lists all)")
        return UserError.exit_code
    module = f"ablations.{name}" if (_HERE / f"{name}.py").exists() else f"ablations.{name}.__main__"
    command = importlib.import_module(module).main
    if not is_the_process:
        return command(argv[1:])
    del sys.argv[1]
    return command()


if __name__ == "__main__":
    sys.exit(main())
