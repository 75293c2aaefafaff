"""Other tools' syntax in a prompt: what of it is read, what is passed through, and what is text like any other."""

from __future__ import annotations

import random
import time

import pytest

from ablations.refiner.prompt_syntax import read_prompt

# Prompt, what is read of it, what is passed through, and its tail.
CASES = [
    ("a castle", "a castle", (), ""),
    ("  a castle ,, at night ", "  a castle ,, at night ", (), ""),
    ("a (lonely:1.2) lighthouse", "a lonely lighthouse", ("(lonely:1.2)",), ""),
    ("((a cat:1.2) on a (red) boat :.9), 8k", "a cat on a (red) boat, 8k", ("((a cat:1.2) on a (red) boat :.9)",), ""),
    ("a {red|blue} boat, [cat|dog], on a beach", "a boat, on a beach", ("{red|blue}", "[cat|dog]"), ""),
    ("a [cat:dog:0.5] and [oil painting::10] [8k:0.3]", "a and", ("[cat:dog:0.5]", "[oil painting::10]", "[8k:0.3]"), ""),
    ("<lora:name:0.8> a castle", "a castle", ("<lora:name:0.8>",), ""),
    ("a castle <lora:name:0.8>, <hypernet:x:1>", "a castle", ("<lora:name:0.8>", "<hypernet:x:1>"), " <lora:name:0.8>, <hypernet:x:1>"),
    ("a castle BREAK a beach", "a castle a beach", ("BREAK",), ""),
    ("a castle BREAK", "a castle", ("BREAK",), ""),
    ("a [b|c] ", "a ", ("[b|c]",), ""),
    ("a castle --ar 16:9", "a castle", ("--ar 16:9",), " --ar 16:9"),
    ("a castle, --ar 16:9 --v 5.2 --tile --style raw", "a castle,", ("--ar 16:9", "--v 5.2", "--tile", "--style raw"), None),
    ("a castle --no text, a frame --q 2", "a castle", ("--no text, a frame", "--q 2"), " --no text, a frame --q 2"),
    ("a castle Negative prompt: blurry, (ugly:1.3)", "a castle", ("Negative prompt: blurry, (ugly:1.3)",), None),
    ("a castle\nnegative prompt: bad\nSteps: 20", "a castle", ("negative prompt: bad\nSteps: 20",), "\nnegative prompt: bad\nSteps: 20"),
    ("a castle --ar 3:2 Negative prompt: x", "a castle", ("--ar 3:2", "Negative prompt: x"), " --ar 3:2 Negative prompt: x"),
    ("<lora:x:1> --ar 16:9", "", ("<lora:x:1>", "--ar 16:9"), "<lora:x:1> --ar 16:9"),
    ("--ar 16:9 a castle -- an old one", "a castle -- an old one", ("--ar 16:9",), ""),
]
# Looks like syntax, and is none: it is read as it stands.
PLAIN = [
    *(
        "a (red) boat [in] {a} city",
        "a \\(red:1.2\\) boat",
        "a (red:1.2 boat",
        "red:1.2) boat",
        "(a [b) c:1.2]",
        "BREAKFAST at a beach, break",
    ),
    *("a <3 heart <b>", "a castle -- old", "rock-n--roll", "a negative prompt", "(:1.2)", "at 12:30, 16:9", "(4:three)", "( :1.2)"),
]


@pytest.mark.parametrize(("prompt", "reading", "passed", "tail"), CASES)
def test_what_is_read_and_what_is_passed_through(prompt, reading, passed, tail):
    read = read_prompt(prompt)
    assert (read.reading, read.passed_through) == (reading, passed)
    assert read.head + read.tail == prompt and (tail is None or read.tail == tail)
    assert all(prompt[element.start : element.end] == element.text for element in read.elements)


@pytest.mark.parametrize("prompt", PLAIN)
def test_text_that_looks_like_syntax_is_read_as_it_stands(prompt):
    read = read_prompt(prompt)
    assert (read.reading, read.head, read.elements) == (prompt, prompt, ())


def test_of_a_prompt_that_is_rewritten_the_first_chunk_that_has_words_is_read():
    read = read_prompt("BREAK a (red:1.1) boat <lora:x:1> BREAK on a beach BREAK at night --ar 2:1").first_chunk()
    assert read.reading == "a red boat"
    assert read.head == "BREAK a (red:1.1) boat <lora:x:1>" and read.tail == " BREAK on a beach BREAK at night --ar 2:1"
    assert [element.text for element in read.within()] == ["BREAK", "(red:1.1)", "<lora:x:1>"]
    assert read_prompt("a castle").first_chunk() is read_prompt("a castle")


@pytest.mark.parametrize("seed", range(3))
def test_any_text_is_taken_apart_without_loss(seed):
    rng = random.Random(seed)
    parts = [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "|",
        ":",
        "1.2",
        "<",
        ">",
        "lora:",
        "BREAK",
        " ",
        ", ",
        "--ar",
        "16:9",
        "cat",
        "\\",
        "Negative prompt:",
        "\n",
    ]
    for _ in range(3000):
        text = "".join(rng.choices(parts, k=rng.randint(0, 14)))
        read = read_prompt(text)
        assert read.head + read.tail == text
        assert [e.start for e in read.elements] == sorted(e.start for e in read.elements)
        assert all(one.end <= other.start for one, other in zip(read.elements, read.elements[1:], strict=False))
        assert all(element.end <= len(read.head) or element.start >= len(read.head) for element in read.elements)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 40_000,
        "(:1" * 10_000 + ")" * 10_000,
        "(" * 5_000 + "a" + ":1)" * 5_000,
        " " * 40_000,
        " ," * 20_000 + "<l:x>",
        "--no " * 8_000,
    ],
)
def test_hostile_texts_take_no_longer_than_others(text):
    started = time.process_time()
    read_prompt(text)
    assert time.process_time() - started < 2
