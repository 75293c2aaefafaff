"""`python -m ablations.refine`: a person at a pseudo-terminal, a program at a pipe, and the mistakes that both make."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import types

import pytest
from PIL import Image
from rich.console import Console

from ablations import PromptRefiner
from ablations.refine import main
from ablations.refiner import exported_refiner, refining
from ablations.refiner.arguments import OWN_KEYS, SETTINGS, RefineArguments, parse_arguments
from ablations.refiner.session import RefiningSettings, candidate_record
from ablations.refiner.terminal import TerminalSession, shown
from ablations.runtime.errors import RunFolderError, UserError
from helpers.trained_runs import make_run

LONG = b"cat " * 10_000
# A line, and what becomes of it: its status, and the prompt that is refined.
ODD_LINES = [
    (b"", "skipped", None),
    (b"   \t", "skipped", None),
    (b"\x00\x1b[2J", "skipped", None),
    (b"\x1b[31ma red\x00 boat\x07\r", "cleaned", "a red boat"),
    (b"caf\xe9 at night", "skipped", None),
    ("caf\u00e9 at night".encode(), "ok", "caf\u00e9 at night"),
    ("\u4e00\u53ea\u732b".encode(), "ok", "\u4e00\u53ea\u732b"),
    ("\u0645\u0631\u062d\u0628\u0627".encode(), "ok", "\u0645\u0631\u062d\u0628\u0627"),
    ("\U0001f98a\U0001f468\u200d\U0001f469\u200d\U0001f467".encode(), "ok", "\U0001f98a\U0001f468\u200d\U0001f469\u200d\U0001f467"),
    ("a\u2028b".encode(), "ok", "a\u2028b"),
    (b'"a", {"b": 1}', "ok", '"a", {"b": 1}'),
    (LONG, "shortened", None),
]
LINES = [(f"a green tree {i}".encode(), "ok", f"a green tree {i}") for i in range(200)]
LINES[10 : 10 + 13 * len(ODD_LINES) : 13] = ODD_LINES


@pytest.fixture(scope="module")
def refiner(tmp_path_factory, small_backbones) -> PromptRefiner:
    return PromptRefiner.from_run(make_run(tmp_path_factory.mktemp("outputs"), small_backbones), backbones=small_backbones, device="cpu")


@pytest.fixture
def call(monkeypatch, capsysbinary, refiner):
    """Run the command on random networks that are loaded already; returns exit code, records and standard error."""
    monkeypatch.setattr(refining, "load_refiner", lambda arguments: refiner)

    def run(given, *arguments: str) -> tuple[int, list[dict], str]:
        stream = io.BytesIO(given) if isinstance(given, bytes) else given
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: False, buffer=stream))
        code = main(list(arguments))
        out, error = capsysbinary.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], error.decode()

    return run


def check_records(records: list[dict]) -> None:
    assert [record["line"] for record in records] == list(range(1, 201))
    for record, (line, status, coarse) in zip(records, LINES, strict=True):
        assert record["status"] == status, line[:40]
        assert record["reason"] or status == "ok"
        assert len(record["candidates"]) == (0 if status == "skipped" else 3)
        if status == "shortened":
            assert LONG.decode().startswith(record["coarse"]) and record["coarse"].count("cat") > 100
        else:
            assert record["coarse"] == coarse
        for number, candidate in enumerate(record["candidates"]):
            assert candidate["candidate"] == number and candidate["num_new_tokens"] == record["prompt_len"]
            assert candidate["refined"] == record["coarse"] + candidate["new_text"]
            assert {"prompt_seed", "image_seed", "truncated"} < set(candidate)


def test_two_hundred_lines_give_two_hundred_records_in_order_whatever_is_in_them(call, refiner):
    code, records, error = call(b"\n".join(line for line, *_ in LINES), "seed=3", "prompt_len=2")
    assert code == 0
    check_records(records)
    assert "200 lines in" in error and "1 cleaned" in error and "1 shortened" in error and "4 skipped" in error
    for record in records[:12]:
        if record["candidates"]:
            assert record["candidates"] == [candidate_record(c) for c in refiner.refine(record["coarse"], prompt_len=2, seed=3)]


def test_a_prompt_on_the_command_line_is_one_record_and_a_file_is_read_past_its_byte_order_mark(call, tmp_path, refiner):
    code, (record,), _ = call(b"not read", "a", "cat", "mode=rewrite", "max_new_tokens=9", "num_candidates=2")
    assert (code, record["coarse"], record["mode"], len(record["candidates"])) == (0, "a cat", "rewrite", 2)
    prompts, output = tmp_path / "prompts.txt", tmp_path / "made" / "refined.jsonl"
    prompts.write_bytes(b"\xef\xbb\xbfa cat\r\na boat")
    code, records, _ = call(b"", f"input={prompts}", f"output={output}", "prompt_len=2")
    assert (code, records) == (0, [])
    assert [json.loads(line)["coarse"] for line in output.read_text().splitlines()] == ["a cat", "a boat"]
    assert [path.name for path in output.parent.iterdir()] == ["refined.jsonl"]


def test_every_record_is_there_before_the_next_line_is_read(call, monkeypatch, refiner):
    monkeypatch.setattr(refining, "load_refiner", lambda arguments: refiner)
    read_end, write_end = os.pipe()
    seen: list[bytes] = []

    def lines():
        for text in (b"a cat\n", b"a boat\n"):
            yield text
            seen.append(os.read(read_end, 100_000))

    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: False, buffer=lines()))
    with os.fdopen(write_end, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["prompt_len=2"]) == 0
    os.close(read_end)
    assert [json.loads(part)["line"] for part in seen] == [1, 2]


def test_a_reader_that_goes_away_ends_the_work_without_a_word(call, monkeypatch, refiner, capsysbinary):
    read_end, write_end = os.pipe()
    os.close(read_end)
    endless = itertools.repeat(b"a cat\n")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: False, buffer=endless))
    with os.fdopen(write_end, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["prompt_len=1"]) == 141
    assert b"Traceback" not in capsysbinary.readouterr().err


def test_interrupting_keeps_what_was_done(call, tmp_path):
    def lines():
        yield b"a cat\n"
        raise KeyboardInterrupt

    output = tmp_path / "refined.jsonl"
    code, _, error = call(lines(), f"output={output}", "prompt_len=1")
    assert code == 130 and "interrupted after 1 lines in" in error and f"{output}.partial" in error
    assert json.loads((tmp_path / "refined.jsonl.partial").read_text())["coarse"] == "a cat"
    assert not output.exists()


def test_pictures_are_drawn_in_a_grid_that_the_record_names(call, tmp_path):
    grid = tmp_path / "grid.png"
    code, records, error = call(b"a cat\n\na boat\n", "images=true", f"grid={grid}", "num_candidates=2", "prompt_len=2")
    assert code == 0 and f"pictures: {grid}" in error
    assert [record["grid"] for record in records] == [str(grid), None, str(grid)]
    width, height = Image.open(grid).size
    assert width > 3 * 192 and height > 2 * 192


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a cat", "promt_len=6"], "did you mean 'prompt_len'"),
        (["a cat", "prompt_len=six"], "prompt_len must be an integer from 1 to 256, not 'six'"),
        (["a cat", "mode=write"], "mode must be one of extend, rewrite"),
        (["a cat", "seed=1", "seed=2"], "seed is given twice"),
        (["a cat", "run=absent"], "absent holds no run.json"),
        (["a cat", "from=absent"], "absent is no exported refiner"),
        (["a cat", "run=a", "from=b"], "give one of them"),
        (["a cat", "input=absent.txt"], "no effect beside a prompt"),
        (["input=absent.txt"], "there is no file 'absent.txt'"),
        ([" "], "the prompt is empty"),
        (["a \udce9"], "not valid UTF-8"),
        (["a cat", "output=."], "'.' is a folder"),
        (["a cat", "images=true", "grid=a.jpg"], "must end in .png"),
        (["a cat", "grid=a.png"], "no effect without images=true"),
        (["e=mc2"], "write --"),
        (["--verbose"], "'--verbose' has no '='"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr(refining, "load_refiner", lambda arguments: pytest.fail("libraries are loaded only for what can be done"))
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and said in error and len(error.strip().splitlines()) == 1


def test_what_is_a_prompt_and_what_is_a_setting():
    def prompt_of(*argv: str) -> RefineArguments:
        return parse_arguments(argv)

    assert prompt_of("a", "green", "tree", "--seed=4", "prompt_len=6.0").prompt == "a green tree"
    assert prompt_of("a", "--seed=4", "prompt_len=6.0").settings == RefiningSettings(seed=4)
    assert prompt_of("the law e=mc2 on a wall").prompt == "the law e=mc2 on a wall"
    assert prompt_of("seed=2", "--", "e=mc2").prompt == "e=mc2"
    assert prompt_of("run=null").prompt is None


def test_help_and_mistakes_take_under_a_second_and_load_nothing_heavy():
    probe = (
        "import sys; from ablations.refine import main; main(['--help']); code = main(['x=1']);"
        "print(code, sorted({'torch', 'numpy', 'rich', 'diffusers'} & set(sys.modules)))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.stdout.strip().splitlines()[-1] == "2 []"
    assert all(f"  {name}=" in result.stdout for name in OWN_KEYS)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


class Terminal:
    """A person who types `lines`, and a screen of 100 columns."""

    def __init__(self, refiner: PromptRefiner, *lines: str, settings: RefiningSettings | None = None, **files):
        self.lines, self.asked = list(lines), []
        self.console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard", highlight=False)
        self.session = TerminalSession(
            refiner, settings or RefiningSettings(), keys=SETTINGS, console=self.console, read=self.read, **files
        )

    def read(self, prompt: str) -> str:
        self.asked.append(prompt)
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)

    @property
    def screen(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.console.file.getvalue())


def test_picking_redrawing_going_back_and_editing_lead_to_the_prompt_that_was_chosen(refiner, tmp_path):
    history = tmp_path / "history.json"
    lines = ["2", "r", "b", "r 7", "zebra at night", "prompt_len=3", "3", ""]
    terminal = Terminal(refiner, *lines, history=history)
    assert terminal.session.run("a green tree") == refiner.refine("zebra at night", prompt_len=3, seed=7)[2].refined
    written = json.loads(history.read_text())
    assert [step["action"] for step in written["steps"]] == ["start", "pick", "redraw", "edit", "change", "pick"]
    assert [step["picked"] for step in written["steps"]] == [1, None, None, None, 2, None]
    assert written["finished"] and written["original"] == "a green tree"
    for candidate in refiner.refine("a green tree"):
        assert candidate.new_text.split()[0] in terminal.screen


def test_what_is_not_understood_is_said_and_changes_nothing(refiner):
    terminal = Terminal(refiner, "9", "b", "x", "prompt_len=0", "seed=1.5", "?", "\x07", "q")
    assert terminal.session.run("a green tree") is None
    for said in ("there is no candidate 9", "nothing to go back to", "no command 'x'", "prompt_len must be", "seed must be", "this help"):
        assert said in terminal.screen
    assert "this cannot be refined: it is empty but for control characters" in terminal.screen
    assert terminal.screen.count("6 more tokens, seed 0") == 1
    assert Terminal(refiner).session.run("a green tree") is None  # the end of the input
    with pytest.raises(UserError, match="it is empty"):
        Terminal(refiner).session.run(" ")


def test_pictures_of_all_steps_are_in_one_grid_and_drawn_once(refiner, tmp_path, monkeypatch):
    drawn: list[int] = []
    draw = PromptRefiner.draw
    monkeypatch.setattr(PromptRefiner, "draw", lambda self, texts, *rest: drawn.append(len(texts)) or draw(self, texts, *rest))
    grid = tmp_path / "grid.png"
    settings = RefiningSettings(num_candidates=2, prompt_len=2)
    Terminal(refiner, "1", "b", "1", "", settings=settings, grid=grid).session.run("a green tree")
    assert drawn == [3, 3]
    assert Image.open(grid).size[1] > 2 * 192


def test_a_grid_that_cannot_be_written_is_an_error_of_one_line(refiner, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write"):
        Terminal(refiner, "", grid=tmp_path / "file" / "grid.png").session.run("a cat")


def test_new_words_stand_out_in_colour_in_bold_or_in_brackets(refiner):
    (candidate,) = refiner.refine("a cat", num_candidates=1)

    def printed(**how) -> str:
        console = Console(file=io.StringIO(), width=200, force_terminal=True, highlight=False, **how)
        console.print(shown(candidate, console))
        return console.file.getvalue()

    assert "\x1b[1;36m" in printed(color_system="standard")
    without_colour = printed(color_system="standard", no_color=True)
    assert "\x1b[1m" in without_colour and "36m" not in without_colour
    plain = printed(color_system=None)
    assert "\x1b" not in plain and "[" in plain and plain.replace("[", "").replace("]", "").startswith("a cat")


def test_the_embedded_refiner_says_where_it_comes_from_and_fits_the_shipped_networks():
    exported = exported_refiner.read(exported_refiner.EMBEDDED)
    described = exported.description
    assert (described["arm"].startswith("tiny-len6-mse-text-clip-afe-"), described["seed"], described["status"]) == (True, 0, "finished")
    assert described["made_by"].startswith("python -m ablations.export ") and described["made_by"].endswith(" --compact")
    assert described["train_id"] and described["code_revision"] and described["metrics"]["refined"]
    refiner = PromptRefiner.embedded()
    assert refiner.backbones.digest == exported.weights_digest
    assert refiner.refine("a green tree") == PromptRefiner.from_pretrained(exported_refiner.EMBEDDED, refiner.backbones).refine(
        "a green tree"
    )


def test_the_shipped_weights_take_25_megabytes_at_most():
    from ablations.metrics.word_oracle import WEIGHTS
    from lightning_modules.backbones.tiny import TINY

    weights = [path for folder in (TINY, exported_refiner.EMBEDDED) for path in folder.rglob("*.safetensors")]
    assert len(weights) == 6 and sum(path.stat().st_size for path in (*weights, WEIGHTS)) <= 25e6


@pytest.mark.slow
def test_at_a_terminal_one_picks_redraws_goes_back_edits_and_finishes(tmp_path):
    pexpect = pytest.importorskip("pexpect", reason="a pseudo-terminal needs pexpect, which Windows has not")
    history = tmp_path / "history.json"
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    child = pexpect.spawn(
        sys.executable,
        ["-m", "ablations.refine", "a green tree", f"output={history}"],
        env=environment,
        encoding="utf-8",
        dimensions=(40, 160),
        timeout=600,
    )
    asks = r"Enter, \? or q > "
    for typed in ("2", "r", "b", "a red boat", "1", ""):
        child.expect(asks)
        screen = child.before
        child.sendline(typed)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "\x1b[1;36m" in screen  # new words, in bold and colour
    embedded = PromptRefiner.embedded()
    final = embedded.refine("a red boat")[0].refined
    assert child.before.strip().splitlines()[-1] == final
    written = json.loads(history.read_text())
    assert [step["action"] for step in written["steps"]] == ["start", "pick", "edit", "pick"]
    for step in written["steps"]:
        assert step["candidates"] == [candidate_record(candidate) for candidate in embedded.refine(step["coarse"])]


@pytest.mark.slow
def test_in_a_pipe_two_hundred_lines_stream_through_the_embedded_refiner():
    process = subprocess.Popen(
        [sys.executable, "-m", "ablations.refine"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    first, *others = (line for line, *_ in LINES)
    process.stdin.write(first + b"\n")
    process.stdin.flush()
    answered = json.loads(process.stdout.readline())  # before the second line was written
    out, error = process.communicate(b"\n".join(others), timeout=600)
    assert process.returncode == 0
    records = [answered, *map(json.loads, out.splitlines())]
    check_records(records)
    assert b"Traceback" not in error and b"200 lines in" in error
    assert records[0]["candidates"] == [candidate_record(candidate) for candidate in PromptRefiner.embedded().refine("a green tree 0")]
