"""Claims about tables in text: every usual dialect is read, and what is no such text is refused with what it is."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablations.building_cfp.prompts import read_prompts
from ablations.runtime.errors import UserError
from datamodules.readers.source import read_source
from datamodules.readers.tables import read_table

ROWS = [
    ["a cat", 'a "red" cat, oil; 8k | x', "1.png"],
    ["an owl", "an owl\non a roof, ß", "2.png"],
    ["a tree", "a tree\twith leaves", "3.png"],
]


def count_tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def text(delimiter: str = ",", header: tuple[str, ...] = ("coarse", "fine", "image"), ending: str = "\r\n") -> str:
    stream = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if ending == "\r" else csv.QUOTE_MINIMAL  # the writer knows no line break but its own
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=ending, quoting=quoting)
    writer.writerow(header)
    writer.writerows(ROWS)
    return stream.getvalue()


def fine_prompts(path: Path) -> list[str]:
    read = read_table(path, None, count_tokens)
    assert read.bad == []
    return [record.fine_prompt for record in read.records]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".tab", ".txt", ".CSV", ""])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_told_by_the_header_whatever_the_suffix(tmp_path, delimiter, suffix):
    path = tmp_path / f"t{suffix}"
    path.write_bytes(text(delimiter).encode())
    assert fine_prompts(path) == [row[1] for row in ROWS]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends_are_told_by_the_content(tmp_path, encoding, ending):
    path = tmp_path / "t.csv"
    path.write_bytes(text(";", ending=ending).encode(encoding))
    assert fine_prompts(path) == [row[1] for row in ROWS]


def test_marked_utf16_of_either_order_is_read(tmp_path):
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        (tmp_path / "t.csv").write_bytes(mark + text().encode(encoding))
        assert fine_prompts(tmp_path / "t.csv") == [row[1] for row in ROWS]


def test_blank_first_lines_the_mark_of_excel_and_other_cases_of_the_header_are_no_obstacle(tmp_path):
    path = tmp_path / "t.csv"
    for content in ("\r\n\r\n" + text(), "sep=;\r\n" + text(";"), '"sep=|"\r\n' + text("|"), text(header=("Coarse", " FINE ", "Image"))):
        path.write_bytes(content.encode())
        assert fine_prompts(path) == [row[1] for row in ROWS]
    path.write_bytes(text(header=("coarse", "fine", "image\nof it")).replace("image\nof it", "image").encode())
    assert fine_prompts(path) == [row[1] for row in ROWS]
    path.write_text('coarse,fine,image,"notes\nof two lines"\ncat,a fine cat,1.png,x\n')
    (record,) = read_table(path, None, count_tokens).records
    assert record.metadata["notes of two lines"] == "x"


def test_quotes_that_quote_nothing_are_kept_in_files_with_tabs(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text('coarse\tfine\timage\ncat\t"Hello" says a cat\t1.png\nowl\tan owl\t2.png\n')
    assert fine_prompts(path) == ['"Hello" says a cat', "an owl"]


def test_torn_utf16_spoils_its_own_row_only(tmp_path):
    content = "coarse,fine,image\ncat,a fine cat,1.png\nowl,a fine owl,2.png".encode("utf-16")
    (tmp_path / "t.csv").write_bytes(content[:-1])
    read = read_table(tmp_path / "t.csv", None, count_tokens)
    assert [record.fine_prompt for record in read.records] == ["a fine cat"]
    assert [(bad.id, bad.reason) for bad in read.bad] == [(1, "encoding")]


def workbook() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    return stream.getvalue()


def parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"fine": ["a"]}), stream)
    return stream.getvalue()


REFUSED = {
    "a workbook or an archive": workbook,
    r"compressed \(gzip\): unpack it first": lambda: gzip.compress(text().encode()),
    r"parquet: give it the suffix \.parquet": parquet,
    "a web page: fetch the file itself": lambda: b"\n<!DOCTYPE html>\n<html><body>Not found</body></html>",
    "a Git LFS pointer: fetch the file with git lfs pull": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
    "unknown table layout: it holds JSON, not CSV": lambda: b'{"prompt": "a", "image": "1.png"}\n{"prompt": "b"}\n',
    r"columns found: none \(the file is empty\)": lambda: b"",
    r"columns found: none \(every line is blank\)": lambda: b"\n \n",
    r"columns found: 'prompt', 'file'": lambda: b"prompt;file\na;b\n",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_such_table_says_what_it_is(tmp_path, reason):
    (tmp_path / "t.csv").write_bytes(REFUSED[reason]())
    with pytest.raises(ValueError, match=reason) as raised:
        read_source(tmp_path / "t.csv", None, count_tokens)
    assert "\n" not in str(raised.value)


def test_a_file_of_json_is_no_csv_whatever_is_in_it(tmp_path):
    (tmp_path / "t.jsonl").write_text("prompt,image\n")
    with pytest.raises(ValueError, match="it holds JSON, not CSV"):
        read_source(tmp_path / "t.jsonl", None, count_tokens)


@pytest.mark.parametrize("name", ["p.tsv", "p.tab", "p.txt", "p.prompts", "p.csv", "p"])
def test_prompts_with_a_header_and_tabs_are_read_by_their_column(tmp_path, name):
    path = tmp_path / name
    path.write_text('Prompt\tCategory\tNote\nbond\tAbstract\tx\n"a" red house, on a hill\tScenes\ty\n')
    prompts, bad = read_prompts(path, None, None)
    assert [prompt.text for prompt in prompts] == ["bond", '"a" red house, on a hill'] and bad == []
    assert [prompt.text for prompt in read_prompts(path, "Category", None)[0]] == ["Abstract", "Scenes"]


def test_prompts_of_any_dialect_and_suffix_of_json_lines_are_read(tmp_path):
    (tmp_path / "p.csv").write_bytes("id;Prompt\n1;a cat, red\n".encode("utf-16"))
    (tmp_path / "p.jsonlines").write_text(json.dumps({"prompt": "a cat, red"}))
    for name in ("p.csv", "p.jsonlines"):
        assert [prompt.text for prompt in read_prompts(tmp_path / name, None, None)[0]] == ["a cat, red"]


def test_plain_text_stays_a_prompt_a_line(tmp_path):
    (tmp_path / "p.txt").write_text("prompt\na cat, red; old\na dog\twith a tab\n")
    assert [prompt.text for prompt in read_prompts(tmp_path / "p.txt", None, None)[0]] == ["prompt", "a cat, red; old", "a dog\twith a tab"]


def test_prompts_in_a_workbook_are_refused_in_one_line(tmp_path):
    (tmp_path / "p.xlsx").write_bytes(workbook())
    with pytest.raises(UserError, match=r"--prompts .*p\.xlsx: it is no text but a workbook"):
        read_prompts(tmp_path / "p.xlsx", None, None)
    with pytest.raises(UserError, match="there is no such file"):
        read_prompts(Path("x" * 5000), None, None)
