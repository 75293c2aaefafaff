"""Words that the refiner never saw: told as they are typed, and no reason to write what no training text has; equal candidates."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import unicodedata

import pytest
from rich.console import Console

from ablations import PromptRefiner
from ablations.export import main as export
from ablations.refiner import exported_refiner
from ablations.refiner.arguments import SETTINGS
from ablations.refiner.distinct import MOST_REDRAWS, made_distinct, num_redrawn, said_of_redraws
from ablations.refiner.pipe import Tally, records
from ablations.refiner.refining import say_what_is_not_known
from ablations.refiner.seen_again import gather_again
from ablations.refiner.session import RefiningSession, RefiningSettings, candidate_record
from ablations.refiner.terminal import TerminalSession
from ablations.results.seen_words import FILE
from ablations.runtime.errors import UserError
from datamodules.readers.tiny_world import read_tiny_world
from datamodules.tiny_world.worlds import world

UNKNOWN = [
    "elementX9",
    "a zebra",
    "x elementX9",
    "caf\u00e9",
    "\u732b",
    "\U0001f98a!",
    "8 k",
    "art-deco (1920)",
    "semi-",
    "q" * 40,
    "a zebra ",
    "C\u00f4te",
]


@pytest.fixture(scope="module")
def embedded() -> PromptRefiner:
    return PromptRefiner.embedded(device="cpu")


@pytest.fixture(scope="module")
def characters(embedded) -> set[str]:
    """The characters of the training texts."""
    return {character for piece in embedded.seen.pieces for character in piece.replace("\u2581", " ")}


def test_the_embedded_refiner_has_read_the_texts_of_its_training_and_no_others(embedded):
    exported = exported_refiner.read(exported_refiner.EMBEDDED)
    again = gather_again(exported.config, embedded.backbones, exported.description["digests"]["data"], lambda line: None)
    assert embedded.seen == again
    assert (len(again.words), len(again.pieces), again.num_fine) == (54, 55, 1200)
    with pytest.raises(UserError, match="is not what was trained on"):
        gather_again(exported.config, embedded.backbones, "0" * 64, lambda line: None)


def test_an_earlier_export_is_given_what_it_read_by_a_command_and_mistakes_are_one_line(tmp_path, capsys):
    earlier = tmp_path / "earlier"
    shutil.copytree(exported_refiner.EMBEDDED, earlier)
    file = earlier / exported_refiner.REFINER / FILE
    shipped = file.read_bytes()
    file.unlink()
    assert exported_refiner.read_seen_words(earlier) is None
    assert export([str(earlier), "--add-words"]) == 0
    assert file.read_bytes() == shipped
    assert "54 words and 55 pieces of 1200 fine and 2049 coarse prompts" in capsys.readouterr().out
    for arguments, said in (
        ([str(earlier), "--add-words", "--to", "x"], "has no effect with --add-words"),
        ([str(earlier)], "--to DIR is missing"),
        ([str(tmp_path), "--add-words"], "is no exported refiner"),
    ):
        assert export(arguments) == 2
        assert said in capsys.readouterr().err


def test_a_refiner_that_does_not_know_what_it_read_says_so_and_writes_all_the_same(embedded, capsys):
    unaware = PromptRefiner(embedded.module, embedded.config, "cpu")
    say_what_is_not_known(unaware)
    assert "so no word is told as unknown: export it again" in capsys.readouterr().err
    (record,) = records([b"a zebra"], unaware, RefiningSettings(num_candidates=1))
    assert record["unknown_words"] is None and record["candidates"][0]["new_text"][0] in " ,"
    say_what_is_not_known(embedded)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("prompt", UNKNOWN)
@pytest.mark.parametrize("how", [{"prompt_len": 8}, {"mode": "rewrite", "max_new_tokens": 12}])
def test_after_an_unknown_word_nothing_is_written_that_the_training_texts_lack(embedded, characters, prompt, how):
    for seed in range(3):
        for candidate in embedded.refine(prompt, seed=seed, **how):
            assert set(candidate.new_text) <= characters, candidate
            assert candidate.mode == "rewrite" or candidate.new_text[:1] in " ," or prompt.endswith(" "), candidate
            words = {word for word in candidate.new_text.replace(",", " ").split()}
            assert words <= embedded.seen.words, candidate


def test_any_piece_writes_as_the_papers_protocol_does(embedded):
    settings = {"num_candidates": 2, "prompt_len": 4, "distinct": False}
    free = embedded.refine(UNKNOWN, **settings, any_piece=True)
    as_a_run_does = PromptRefiner(embedded.module, embedded.config, "cpu", seen=None)
    assert [one.refined for two in free for one in two] == [
        one.refined for two in as_a_run_does.refine(UNKNOWN, **settings, any_piece=True) for one in two
    ]
    assert as_a_run_does.refine("a zebra")[0].unknown_words is None


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a lonely lighthouse on a beach at sunset, comic book, 8k", ()),
        ("A Castle's robot, WATERCOLOR", ()),
        ("elementX9 and a zebra, elementx9", ("elementX9", "and", "zebra")),
        ("a cats' castle, 8 k, oil-painting", ("cats", "8", "k")),
        ("caf\u00e9 \u732b \U0001f98a", ("caf\u00e9", "\u732b")),
        ("\u2026!", ()),
        ("wolves at night, filmed from a kite, grainy", ("wolves", "filmed", "from", "kite", "grainy")),
        ("an old shop with'castle'painted on it", ("shop", "with", "painted", "it")),
        ("\u201c queen \u2019 s castle in the snow \u201d", ("queen", "s")),
        ("\U0001f984 , Pixel ART,cinematic, oil painting \u00a5\u00a5 old", ()),
        ("a bird - cat - fox. vivid Colors", ("bird", "fox")),
        ("D'Art's tree, 4K, the 80's", ("D'Art's", "4K", "80's")),
    ],
)
def test_unknown_words_are_told_as_they_are_typed(embedded, prompt, unknown):
    assert embedded.unknown_words(prompt) == unknown
    assert {candidate.unknown_words for candidate in embedded.refine(prompt, prompt_len=1)} == {unknown}


def test_no_word_of_the_tiny_world_is_unknown(embedded):
    records_of_test = read_tiny_world("test", 100, world(2), embedded.backbones.count_tokens, None)
    assert {embedded.unknown_words(record.fine_prompt) for record in records_of_test} == {()}


def test_a_record_and_the_screen_say_which_words_are_unknown(embedded):
    lines = [b"a zebra on a beach\n", b"a castle\n", b"\n"]
    found = list(records(lines, embedded, RefiningSettings(num_candidates=1, prompt_len=1)))
    assert [record["unknown_words"] for record in found] == [["zebra"], [], None]
    assert json.loads(json.dumps(found)) == found
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard", highlight=False)
    answers = iter(["q"])
    TerminalSession(embedded, RefiningSettings(), keys=SETTINGS, console=console, read=lambda prompt: next(answers)).run("a zebra")
    screen = console.file.getvalue()
    assert "not seen in training: zebra" in screen and "\x1b[1;4mzebra" in screen


def test_equal_candidates_are_drawn_again_and_what_they_become_depends_on_earlier_ones_alone(embedded):
    how = {"num_candidates": 6, "prompt_len": 2, "seed": 3}
    first, made = embedded.refine("a green tree", **how, distinct=False), embedded.refine("a green tree", **how)
    assert len({one.refined for one in first}) < len({one.refined for one in made})
    changed = [i for i in range(6) if first[i].refined != made[i].refined]
    assert changed and all(made[i].redraws > 0 for i in changed)
    assert [one.redraws == 0 for one in made].count(True) >= 1 and max(one.redraws for one in made) <= MOST_REDRAWS
    assert embedded.refine("a green tree", **how | {"num_candidates": 4}) == made[:4]
    assert embedded.refine(["a red boat", "a green tree"], **how)[1] == made
    assert {one.prompt_seed for one in made} == {one.prompt_seed for one in first}


def test_redraws_end_are_counted_and_are_said(embedded):
    (one,) = embedded.refine("a green tree", num_candidates=1)
    candidates = [dataclasses.replace(one, candidate=i) for i in range(3)]
    drawn: list[tuple[int, int]] = []

    def draw(place: int, redraw: int):
        drawn.append((place, redraw))
        return dataclasses.replace(candidates[place], refined="other" if (place, redraw) == (2, 3) else one.refined)

    made = made_distinct(candidates, draw)
    assert [candidate.redraws for candidate in made] == [0, MOST_REDRAWS, 3]
    assert drawn == [(1, n) for n in range(1, MOST_REDRAWS + 1)] + [(2, 1), (2, 2), (2, 3)]
    entries = [candidate_record(candidate) for candidate in made]
    assert num_redrawn(entries) == (2, 1)
    assert said_of_redraws(2, 1) == "2 candidates were drawn again, being equal to another, 1 of them in vain"
    assert said_of_redraws(0, 0) == ""
    tally = Tally(lambda text: None)
    tally.add({"status": "ok", "candidates": entries})
    assert "1 lines in" in str(tally) and str(tally).endswith(said_of_redraws(2, 1))


def test_a_candidate_that_ends_within_a_word_is_gone_on_with_when_it_is_picked(embedded, monkeypatch):
    seen: list[bool] = []
    refine = PromptRefiner.refine

    def watched(self, prompt, **how):
        seen.append(how["unfinished"])
        return [dataclasses.replace(one, truncated=True) for one in refine(self, prompt, **how)]

    monkeypatch.setattr(PromptRefiner, "refine", watched)
    session = RefiningSession(embedded, "a zebra", RefiningSettings(prompt_len=1))
    session.pick(0)
    session.redraw()
    session.change(prompt_len=2)
    session.edit("a boat")
    assert seen == [False, True, True, True, False]
    assert [step["unfinished"] for step in session.history] == seen


def test_what_is_written_has_no_control_characters(embedded):
    assert not any(unicodedata.category(character)[0] == "C" for piece in embedded.seen.pieces for character in piece)
