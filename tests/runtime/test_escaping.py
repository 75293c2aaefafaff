"""Text of others is plain text wherever it is written."""

from __future__ import annotations

import csv
import io
from xml.etree import ElementTree

import pytest

from ablations.runtime.escaping import csv_cell, csv_text, escaping_environment, html, latex, markdown

HOSTILE = ("<script>alert(1)</script>", "\" onload='x'", "a & b", "]]>", "\x00\x07b", "\ud800", "\ufffe", "é漢\N{RIGHT-TO-LEFT OVERRIDE}")


@pytest.mark.parametrize("text", HOSTILE)
def test_html_is_shown_as_it_is_between_tags_and_in_attributes_also_in_xml(text):
    parsed = ElementTree.fromstring(f"<a title=\"{html(text)}\" alt='{html(text)}'>{html(text)}</a>".encode())
    shown = "".join(c if c.isprintable() else "?" for c in text.encode("utf-8", "replace").decode())
    assert {parsed.text, parsed.get("title"), parsed.get("alt")} <= {shown, text.replace("\ufffe", "?")} and len(parsed) == 0


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a|b", r"a\|b"),
        ("[x](javascript:y)", r"\[x\](javascript:y)"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("&lt;", "&amp;lt;"),
        ("# a\n- b", r"\# a - b"),
        ("$x$ `y` ~z~ _w_ L_mse", r"\$x\$ \`y\` \~z\~ \_w\_ L_mse"),
        ("a\x00\ud800", "a??"),
    ],
)
def test_markdown_is_one_line_of_plain_text(text, written):
    assert markdown(text) == written


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("a\n\n$b%", r"a \$b\%"),
        ("\ud800漢", "??"),
        ("a_b^c~", r"a\_b\textasciicircum{}c\textasciitilde{}"),
    ],
)
def test_latex_runs_nothing(text, written):
    assert latex(text) == written


@pytest.mark.parametrize("text", ["=1+1", '=HYPERLINK("x")', "+cmd|' /C calc'!A0", "-x", "@SUM(A1)", "\t=1", " =1"])
def test_no_cell_of_a_csv_is_a_formula(text):
    assert csv_cell(text) == f"'{text}"
    (row,) = csv.reader(io.StringIO(csv_text(["a", "b"], [(text, 0.1)]).partition("\n")[2]))
    assert row == [f"'{text}", "0.1"]
    assert csv_text(["a"], [("a\rb",)]) == "a\na b\n"


@pytest.mark.parametrize("value", [-0.5, 3, None, True, "-0.5", "+3", "-1e-05", "a=b", "tiny-len6", ""])
def test_numbers_and_other_text_stay_as_they_are(value):
    assert csv_cell(value) == value


def test_a_template_escapes_every_value_but_what_it_calls_safe(tmp_path):
    (tmp_path / "a.j2").write_text('<p title="{{ a }}">{{ a }}{{ b | safe }}{{ 3 }}</p>')
    page = escaping_environment(tmp_path).get_template("a.j2").render(a='<b>"\x00', b="<i></i>")
    assert page == '<p title="&lt;b&gt;&quot;?">&lt;b&gt;&quot;?<i></i>3</p>'
