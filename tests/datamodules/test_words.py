"""What is a word of a prompt: letters, marks and digits; where each stands; and which spellings are one word."""

from __future__ import annotations

import pytest

from datamodules.words import word_key, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a lonely lighthouse, 8k", ["a", "lonely", "lighthouse", "8k"]),
        ("art-nouveau_style (1920s)", ["art", "nouveau", "style", "1920s"]),
        ("it's a cat's hat, 'quoted'", ["it's", "a", "cat's", "hat", "quoted"]),
        ("it\u2019s rock\u2019n\u2019roll", ["it\u2019s", "rock\u2019n\u2019roll"]),
        ("caf\u00e9 cafe\u0301 \u732b\u306e\u76ee \U0001f98a!", ["caf\u00e9", "cafe\u0301", "\u732b\u306e\u76ee"]),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u0645\u0631\u062d\u0628\u0627",
            ["\u0939\u093f\u0928\u094d\u0926\u0940", "\u0645\u0631\u062d\u0628\u0627"],
        ),
        ("a sign with'hello'written on it, d'Art", ["a", "sign", "with", "hello", "written", "on", "it", "d'Art"]),
        ("\u201c queen \u2019 s garden \u201d, the 80's", ["queen", "s", "garden", "the", "80's"]),
        (" ,. -- \u2019 '", []),
        ("", []),
    ],
)
def test_the_words_of_a_text_stand_where_they_say(text, words):
    found = list(words_of(text))
    assert [word.text for word in found] == words
    assert [text[word.start : word.end] for word in found] == words


def test_ascii_and_other_texts_are_cut_alike():
    text = "it's 3 o'clock, don't -- 'a' rock'n'roll's x' 'y, _z_ 4k"
    assert [word.text for word in words_of(text)] == [word.text for word in words_of(text + "\u3002")]


def test_case_width_apostrophes_and_a_possessive_make_no_other_word():
    assert {word_key(word) for word in ("Cat", "CAT", "cat's", "cat\u2019s", "\uff23at")} == {"cat"}
    assert word_key("'s") == "'s" and word_key("cats") != word_key("cat") and word_key("Stra\u00dfe") == word_key("STRASSE")
