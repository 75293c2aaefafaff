"""README and docs/: links lead somewhere, what is shown can be typed, and messages that are explained exist."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from ablations.config import KEYS, parse
from ablations.runtime.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
RUN = "-m ablations.run"
# The command that extending.md shows how to write.
EXAMPLE = "ablations.hello"
# What pip, the shell and torch say: not ours.
FOREIGN = ("error: externally-managed-environment", "uv: command not found")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose_and_code(page: Path) -> tuple[list[str], list[str]]:
    """The lines of a page outside and inside of fenced blocks, the fences themselves left out."""
    prose, code, inside = [], [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = not inside
        else:
            (code if inside else prose).append(line)
    assert not inside, f"a fenced block of {_name(page)} does not end"
    return prose, code


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = [line.lstrip("#").strip() for line in prose_and_code(page)[0] if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """The targets of its links and pictures, those to other sites left out."""
    prose = re.sub(r"`[^`]*`", "", "\n".join(prose_and_code(page)[0]))
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose) if not re.match(r"[a-z]+:", target)]


def command_lines(page: Path) -> list[str]:
    """What the page shows to be typed: lines of code, continued ones joined and comments left out, and code within sentences."""
    prose, code = prose_and_code(page)
    joined = "\n".join(code).replace("\\\n", " ")
    lines = [re.sub(r"\s#\s.*", "", line) for line in joined.splitlines()]
    return lines + re.findall(r"`([^`]*)`", "\n".join(prose))


def run_arguments(line: str) -> list[str]:
    """The key=value arguments of a command line that starts a run; of any other line, none."""
    return [word for word in shlex.split(line.partition(RUN)[2]) if "=" in word]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_and_anchors_of_a_page_lead_somewhere(page):
    for link in links(page):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{_name(page)}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{_name(page)}: {link}"


def test_readme_is_a_door_and_no_manual():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 220


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_no_line_of_prose_is_longer_than_140_characters(page):
    prose, _ = prose_and_code(page)
    assert [line for line in prose if len(line) > 140 and not line.startswith("|")] == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_page_begins_with_a_title_and_a_sentence_of_what_it_is_for(page):
    title, blank, first = page.read_text(encoding="utf-8").splitlines()[:3]
    assert title.startswith("# ") and blank == "" and re.match(r"[A-Z]\w+ \w+", first)
    if page is not README:
        assert first.startswith("This page ")


def test_every_page_is_in_the_index_and_has_a_way_from_the_readme():
    own = {page.name for page in PAGES if page.parent.name == "docs" and page.name != "README.md"}
    assert own <= set(links(ROOT / "docs" / "README.md"))
    assert {f"docs/{name}" for name in own} <= {link.partition("#")[0] for link in links(README)}


def test_every_picture_of_the_pages_is_shown():
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    assert {path for path in (ROOT / "docs" / "pictures").iterdir()} <= shown


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_that_is_shown_exists(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"-m (ablations\.\w+)", text):
        assert name == EXAMPLE or importlib.util.find_spec(name), f"{_name(page)}: {name}"


def test_readme_names_every_command_once():
    files = {path.stem for path in (ROOT / "ablations").glob("*.py") if not path.stem.startswith("_")} | {"metrics"}
    named = re.findall(r"^\| `(\w+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(files)


def test_house_in_the_readme_is_the_house():
    tree = README.read_text(encoding="utf-8").partition("## The house")[2].split("```")[1]
    rooms = set(re.findall(r"(?:^|  )(\w+)/ +[\w%]", tree, re.MULTILINE))
    packages = {path.parent.name for path in (ROOT / "ablations").glob("*/__init__.py")}
    assert rooms == packages | {"ablations", "datamodules", "docs", "lightning_modules", "sweeps", "tests"}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_sweep_file_that_is_shown_exists(page):
    for name in re.findall(r"sweeps/\w+\.yaml", page.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), f"{_name(page)}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_arguments_of_runs_that_are_shown_are_accepted(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _make_files_of(page)
    for line in command_lines(page):
        arguments = run_arguments(line)
        # Lines that begin with $ show mistakes. Those with a plug-in are run by the tests of plug-ins.
        if not arguments or line.startswith("$") or any(argument.startswith("plugins=") for argument in arguments):
            continue
        config = parse(arguments)
        assert config.profile == ("paper" if "profile=paper" in arguments else "tiny")


def _make_files_of(page: Path) -> None:
    """In the working directory: the YAML file that the page shows, under its name, and files and folders that its commands name."""
    for name, content in re.findall(r"```yaml\n# (\w+\.yaml).*?\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        Path(name).write_text(content)
    for argument in (argument for line in command_lines(page) for argument in run_arguments(line)):
        name, _, value = argument.partition("=")
        if name in ("data.source", "eval.prompts"):
            Path(value).touch()
        elif name in ("data.images", "backbones.dir"):
            Path(value).mkdir(exist_ok=True)


def test_mistakes_that_are_shown_get_the_answers_that_are_shown():
    code = [line for page in PAGES for line in prose_and_code(page)[1]]
    shown = [(line, code[at + 1]) for at, line in enumerate(code) if line.startswith("$ ") and RUN in line]
    assert len(shown) == 2
    for line, answer in shown:
        with pytest.raises(UserError) as raised:
            parse(run_arguments(line))
        assert answer == f"error: {raised.value}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_key_of_a_group_that_a_page_names_exists(page):
    groups = "|".join(sorted({name.partition(".")[0] for name in KEYS if "." in name}))
    for span in re.findall(r"`([^`\n]*)`", "\n".join(prose_and_code(page)[0])):
        for name in re.findall(rf"(?:^|\s)((?:{groups})\.(?!yaml)[a-z]\w*)(?=[=\s]|$)", span):
            assert name in KEYS, f"{_name(page)}: {name}"


def messages_of_the_code() -> str:
    """Every text in the code, one a line, with ... for what it fills in."""
    texts = []
    for folder in ("ablations", "datamodules", "lightning_modules"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(re.sub(r"%[sd]", "...", node.value))
                elif isinstance(node, ast.JoinedStr):
                    texts.append("".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values))
    return "\n".join(text.replace("\n", " ") for text in texts)


def test_every_message_that_is_explained_exists_in_the_code():
    texts = messages_of_the_code()
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    explained = [message for message in re.findall(r"^\| `([^`]*)`", page, re.MULTILINE) if message not in FOREIGN]
    assert len(explained) > 40
    for message in explained:
        pattern = "[^\n]*".join(re.escape(part) for part in message.split("..."))
        assert re.search(pattern, texts), f"no message of the code reads: {message}"


def test_the_pages_show_every_example_as_the_tests_run_it():
    page = "".join((ROOT / "docs" / name).read_text() for name in ("extending.md", "comparing.md", "configuring.md"))
    shown = dict(re.findall(r"<!-- example: (\w+\.py) -->\n```python\n(.*?)```", page, flags=re.DOTALL))
    files = {path.name: path.read_text() for path in (ROOT / "docs" / "examples").glob("*.py")}
    assert len(files) == 8 and shown == files
