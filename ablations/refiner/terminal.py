"""A refining session on a terminal: shows the candidates with their new words set apart, reads what to do, does it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ablations.config.parsing import Key, convert
from ablations.refiner.arguments import setting_value
from ablations.refiner.distinct import num_redrawn, said_of_redraws
from ablations.refiner.own_words import marked, said_of_unknown
from ablations.refiner.pictures import grid_row, write_grid
from ablations.refiner.session import RefiningSession, RefiningSettings, candidate_record
from ablations.refiner.texts import prepare
from ablations.runtime.errors import UserError
from ablations.runtime.files import write_json

if TYPE_CHECKING:
    from ablations.figures.diversity_grid import GridRow
    from ablations.refiner.candidates import RefinedPrompt
    from ablations.refiner.prompt_refiner import PromptRefiner
    from ablations.refiner.session import Step

HELP = """\
  1, 2, 3    go on from this candidate
  r          other candidates of the same prompt (the next seed); r 7: those of seed 7
  b          back: undo the latest step
  any text   takes the prompt's place (the up arrow brings the prompt back, to change it)
  mode=rewrite, prompt_len=12, ...   other settings: mode, prompt_len, max_new_tokens, num_candidates, seed, any_piece, distinct
  keep=WORDS, ban=WORDS   words that rewriting must keep, words that are never written, with commas between them; null for none
  Enter      finish: print the prompt as it stands
  ?          this help
  q          leave without a prompt"""
_NEW = "bold cyan"
_UNKNOWN = "underline"
_SETTING, _WORDS = re.compile(r"(\w+)\s*=\s*(\S*)"), re.compile(r"(keep|ban)\s*=\s*(.*)")


class TerminalSession:
    """Talks with one person. `read` asks for a line with a prompt in front, as `input` does; it may raise EOFError.

    `keys` are the settings that may be typed, by name. With `history` (a JSON file) and `grid` (a PNG), these are written anew after
    every step.
    """

    def __init__(
        self,
        refiner: PromptRefiner,
        settings: RefiningSettings,
        *,
        keys: dict[str, Key],
        console: Console,
        read: Callable[[str], str] = input,
        history: Path | None = None,
        grid: Path | None = None,
    ):
        self._refiner, self._settings, self._keys, self._console = refiner, settings, keys, console
        self._read, self._history, self._grid = read, history, grid
        self._session: RefiningSession | None = None
        self._rows: dict[tuple[str, RefiningSettings, bool], GridRow] = {}

    def run(self, prompt: str) -> str | None:
        """Refine from `prompt` on until the person finishes; returns the prompt they leave with, None where they leave without one.

        Raises UserError where the first prompt cannot be refined, and RunFolderError where a file cannot be written.
        """
        self._session = session = RefiningSession(self._refiner, self._prepared(prompt, self._settings), self._settings)
        self._show()
        while True:
            try:
                line = self._read(f"1-{len(session.candidates)}, r, b, text, Enter, ? or q > ")
            except EOFError:
                self._console.print()
                return None
            except UnicodeDecodeError:
                self._console.print(Text("that was not valid UTF-8: check the terminal's encoding", style="yellow"))
                continue
            command = line.strip()
            if not command:
                self._save(finished=True)
                return session.prompt
            if command in ("q", "Q"):
                return None
            if command in ("?", "h", "H"):
                self._console.print(Text(HELP))
                continue
            try:
                self._do(command, line)
            except UserError as error:
                self._console.print(Text(str(error), style="yellow"))
                continue
            self._show()

    def _do(self, command: str, line: str) -> None:
        session = self._session
        assert session is not None
        redraw, setting = re.fullmatch(r"[rR](?:\s+(\d+))?", command), _WORDS.fullmatch(command) or _SETTING.fullmatch(command)
        if command.isascii() and command.isdigit() and len(command) <= 3:
            session.pick(int(command) - 1)
        elif redraw:
            session.redraw(None if redraw[1] is None else convert(self._keys["seed"], redraw[1]))
        elif command in ("b", "B"):
            session.back()
        elif setting and setting[1] in self._keys:
            session.change(**{setting[1]: setting_value(setting[1], convert(self._keys[setting[1]], setting[2]))})
        elif len(command) == 1 and command.isascii() and command.isprintable():
            raise UserError(f"there is no command {command!r}: type ? for those that there are, or a longer text as the prompt")
        else:
            session.edit(self._prepared(line, session.settings))

    def _prepared(self, text: str, settings: RefiningSettings) -> str:
        """The text as it can be refined, with a note on what was done to it. Raises UserError where nothing is left."""
        prepared = prepare(text, self._refiner, settings)
        if prepared.text is None:
            raise UserError(f"this cannot be refined: {prepared.reason}")
        if prepared.reason:
            self._console.print(Text(f"note: {prepared.reason}", style="yellow"))
        return prepared.text

    def _show(self) -> None:
        session = self._session
        assert session is not None
        s = session.settings
        how = f"{s.prompt_len} more tokens" if s.mode == "extend" else f"written anew, at most {s.max_new_tokens} tokens"
        self._console.print()
        unknown = session.candidates[0].unknown_words or ()
        self._console.print(_with_marks(session.prompt, unknown), Text(f"({how}, seed {s.seed})", style="dim"))
        if unknown:
            self._console.print(Text(f"  {said_of_unknown(unknown)}", style="yellow"))
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(justify="right")
        table.add_column(overflow="fold")
        first: dict[str, int] = {}
        for number, candidate in enumerate(session.candidates, start=1):
            same = first.setdefault(candidate.refined, number)
            table.add_row(Text(f"  {number}"), shown(candidate, self._console, "" if same == number else f"  (as {same})"))
        self._console.print(table)
        if redrawn := said_of_redraws(*num_redrawn([candidate_record(candidate) for candidate in session.candidates])):
            self._console.print(Text(f"  {redrawn}", style="dim"))
        _remember(session.prompt)
        self._save(finished=False)

    def _save(self, finished: bool) -> None:
        """Write the history and the grid of the steps that led here."""
        session = self._session
        assert session is not None
        if self._history is not None:
            content = {"refiner": self._refiner.source, "original": session.original, "refined": session.prompt, "finished": finished}
            content["steps"] = session.history
            write_json(self._history, content)
        if self._grid is not None and not finished:
            with self._console.status("drawing"):
                rows = [self._row(step) for step in session.steps]
            write_grid(self._refiner, rows, self._grid, session.original)
            self._console.print(f"  pictures: [bold]{escape(str(self._grid))}[/bold]")

    def _row(self, step: Step) -> GridRow:
        """A step's pictures, drawn once: what is left by going back may be come upon again."""
        key = step.prompt, step.settings, step.unfinished
        if key not in self._rows:
            self._rows[key] = grid_row(self._refiner, step.candidates)
        return self._rows[key]


def _with_marks(prompt: str, unknown: Sequence[str]) -> Text:
    """The prompt in bold, with the words marked that the refiner never saw."""
    pieces = marked(prompt, unknown)
    return Text.assemble(*((piece, f"bold {_UNKNOWN}" if is_unknown else "bold") for piece, is_unknown in pieces))


def shown(candidate: RefinedPrompt, console: Console, remark: str = "") -> Text:
    """The candidate with its new words set apart: by style, or in brackets where the terminal has none."""
    text = Text()
    for piece, is_new in candidate.pieces():
        if is_new and console.color_system is None:
            lead = len(piece) - len(piece.lstrip())
            text.append(f"{piece[:lead]}[{piece[lead:]}]" if piece.strip() else piece)
        else:
            text.append(piece, style=_NEW if is_new else "")
    if candidate.truncated:
        text.append("\u2026", style="dim")  # the last word is cut
    return text.append(remark, style="dim")


def _remember(prompt: str) -> None:
    """Put the prompt where the up arrow finds it, on systems whose `input` has a history."""
    try:
        import readline
    except ImportError:  # Windows
        return
    readline.add_history(prompt)
