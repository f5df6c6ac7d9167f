"""Every row of every kind of source is read, or reported with its file and line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from multiverse.data import Fault, Loaded, Message, Row, read, scan
from multiverse.errors import ExtraError
from multiverse.structure import DIALECTS, NPR, Block, Document, place, render

FORK = Document((Block(("a", "b"), (("x",), ("y",)), "z"),), "Answer: 1")
TEXT = render(FORK)
UNCLOSED = TEXT.replace("2: b\n</Outline>", "2: b")
PLAIN = Document(None, "only text")
SAMPLES = Path(__file__).parents[3] / "shared" / "samples"


def line_of(record: Any) -> str:
    return json.dumps(record) + "\n"


def one(loaded: Loaded) -> Row:
    assert not loaded.faults
    (row,) = loaded.rows
    return row


def fault(loaded: Loaded) -> Fault:
    assert not loaded.rows
    (found,) = loaded.faults
    assert "\n" not in str(found)
    return found


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize(
    "record",
    [
        {"question": "Q", "structured": TEXT},
        {"prompt": "Q", "completion": TEXT, "id": 7},
        {"question": "Q", "solution": TEXT, "text": "not this one"},
        {"question": "Q", "structured": None, "text": TEXT, "messages": None},
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": TEXT}]},
        {"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": TEXT}]},
    ],
)
def test_records_of_every_form(lines: Path, record: dict[str, Any]) -> None:
    lines.write_text(line_of(record))
    assert one(read(lines)) == Row((Message("user", "Q"),), FORK, str(lines), 1)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("apart", ["{0}", "\n{0}\n", "<Think>\n{0}\n</Think>"])
@pytest.mark.parametrize("content", ["Answer: 1", "\n\nAnswer: 1"])
def test_reasoning_beside_the_content(lines: Path, field: str, apart: str, content: str) -> None:
    inner = TEXT.removeprefix("<Think>\n").partition("\n</Think>")[0]
    answer = {"role": "assistant", field: apart.format(inner), "content": content}
    lines.write_text(line_of({"messages": [{"role": "user", "content": "Q"}, answer]}))
    assert one(read(lines)).document == FORK


def test_reasoning_without_an_answer(lines: Path) -> None:
    lines.write_text(line_of({"messages": [{"role": "assistant", "reasoning": "hm", "content": None}]}))
    assert one(read(lines)) == Row((), Document(("hm",)), str(lines), 1)


def test_a_whole_chat(lines: Path) -> None:
    chat = [("system", "Be brief."), ("user", "Q"), ("assistant", "What?"), ("user", "Q!"), ("assistant", TEXT)]
    lines.write_text(line_of({"messages": [{"role": role, "content": content} for role, content in chat]}))
    row = one(read(lines))
    assert row.prompt == tuple(Message(role, content) for role, content in chat[:-1])
    assert row.question == "Q\nQ!"
    assert [(message["role"], message["content"]) for message in row.messages()] == chat


def test_a_sequential_solution_of_its_own(lines: Path) -> None:
    lines.write_text(line_of({"question": "Q", "structured": TEXT, "sequential": "in a line"}))
    assert one(read(lines)).sequential == Document(None, "in a line")


def test_rows_keep_their_lines_and_faults_theirs(lines: Path) -> None:
    good = line_of({"question": "é", "structured": "only text"}).encode()
    bad = line_of({"question": "Q", "structured": UNCLOSED}).encode()
    lines.write_bytes(b"\xef\xbb\xbf" + good + b"\n" + bad + b"{half\n" + b"\r\n" + good.rstrip(b"\n"))
    loaded = read(str(lines))
    assert [(row.line, row.document) for row in loaded.rows] == [(1, PLAIN), (6, PLAIN)]
    assert [found.line for found in loaded.faults] == [3, 4]
    assert list(scan(lines)) == [loaded.rows[0], *loaded.faults, loaded.rows[1]]
    problem = "line 9 of the document, offset 67: found </Goal>, expected </Outline>"
    assert str(loaded.faults[0]) == f"{lines}:3: {problem}"


def chat(*turns: Any) -> bytes:
    return line_of({"messages": list(turns)}).encode()


ASKED = {"role": "user", "content": "Q"}
BAD_LINES: dict[str, tuple[bytes, str]] = {
    "half a line": (b'{"question": "Q", "struc\n', "the line breaks off in column 24: write one whole object per line"),
    "half an object": (b'{"question": "Q"\n', "the line breaks off in column 16"),
    "no json": (b"hello\n", "not JSON (column 1: Expecting value)"),
    "not utf-8": (b'{"question": "\xff"}\n', "not UTF-8 text (byte 14): save the file as UTF-8"),
    "a zero byte": (b'{"question": "\0"}\n', "a zero byte (offset 14)"),
    "no object": (b"[1]\n", "the record is a list: it must be an object"),
    "nested too deeply": (b"[" * 200_000 + b"]" * 200_000 + b"\n", "nested too deeply"),
    "other columns": (line_of({"problem": "Q", "answer": "1"}).encode(), "has 'problem', 'answer': rename or fill them"),
    "no question": (line_of({"structured": TEXT, "id": 1}).encode(), "needs the columns 'messages', or 'question' or 'prompt'"),
    "no columns": (b"{}\n", "has none at all"),
    "no messages": (line_of({"messages": []}).encode(), "'messages' is empty: it needs the question"),
    "messages of another kind": (line_of({"messages": 3}).encode(), "'messages' is a number: it must be a text or a list"),
    "a message that is none": (chat(ASKED, "x"), "message 2 of 'messages' is a text: it must be an object"),
    "unknown role": (chat({"role": "gpt", "content": "x"}), "has the role 'gpt': it must be one of system"),
    "content in parts": (
        chat(ASKED, {"role": "assistant", "content": [TEXT]}),
        "the 'content' of message 2 of 'messages' is a list",
    ),
    "last is the user's": (chat(ASKED), "the last message is the user's: it must be the assistant's"),
    "empty document": (chat(ASKED, {"role": "assistant", "content": " \n"}), "the document is empty"),
    "no document": (chat(ASKED, {"role": "assistant", "content": None}), "the document is empty"),
    "thought twice": (chat(ASKED, {"role": "assistant", "content": TEXT, "reasoning": "hm"}), "<Think> is in 'content'"),
    "unbalanced": (line_of({"question": "Q", "text": UNCLOSED}).encode(), "found </Goal>, expected </Outline>"),
    "wrong count": (
        line_of({"question": "Q", "text": TEXT.replace("<Path>\n2: y\n</Path>\n", "")}).encode(),
        "line 14 of the document, offset 106: found <Conclusion>, expected <Path> number 2 of 2",
    ),
    "another dialect": (
        line_of({"question": "Q", "text": render(Document(FORK.thinking), NPR)}).encode(),
        "forks nowhere in dialect 'multiverse' (it is written in dialect 'npr': use that dialect)",
    ),
    "a zero character": (line_of({"question": "Q", "text": "a\0b"}).encode(), "the document holds a zero character (offset 1)"),
    "an unpaired surrogate": (
        line_of({"question": "a\ud800", "text": "x"}).encode(),
        "the prompt holds an unpaired surrogate ('\\ud800', offset 1)",
    ),
    "sequential forks": (line_of({"question": "Q", "text": "x", "sequential": TEXT}).encode(), "'sequential' forks"),
    "sequential is broken": (
        line_of({"question": "Q", "text": "x", "sequential": UNCLOSED}).encode(),
        "'sequential' is not a document: line 9",
    ),
    "sequential is no text": (line_of({"question": "Q", "text": "x", "sequential": 1}).encode(), "'sequential' is a number"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_lines(lines: Path, name: str) -> None:
    data, problem = BAD_LINES[name]
    lines.write_bytes(line_of({"question": "Q", "text": "good"}).encode() + data)
    loaded = read(lines)
    assert len(loaded.rows) == 1
    found = fault(Loaded([], loaded.faults))
    assert (found.source, found.line) == (str(lines), 2)
    assert problem in found.problem


def test_a_dialect_without_think_tag_cannot_hold_reasoning_apart(lines: Path) -> None:
    lines.write_bytes(chat(ASKED, {"role": "assistant", "content": "x", "reasoning": "hm"}))
    assert "dialect 'npr' has no think tag" in fault(read(lines, NPR)).problem


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_every_dialect_is_read_as_itself_and_named_elsewhere(lines: Path, dialect: Any) -> None:
    document = place((Block(("a",), (("x",),), "z" if dialect.conclusion else ""),), "", dialect)
    lines.write_text(line_of({"question": "Q", "text": render(document, dialect)}))
    assert one(read(lines, dialect)).document == document
    for other in DIALECTS.values():
        if other.optional_conclusion and dialect.conclusion is None and other.path == dialect.path:
            assert one(read(lines, other)).document == document  # a block without a conclusion is one with an empty one
        elif other is not dialect:
            assert f"it is written in dialect {dialect.name!r}: use that dialect" in fault(read(lines, other)).problem


def test_a_list_in_json(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    good = {"question": "Q", "text": "only text"}
    file.write_text(json.dumps([good, {"a": 1}, good], indent=1))
    loaded = read(file)
    assert [row.line for row in loaded.rows] == [2, 9]
    assert [found.line for found in loaded.faults] == [6]
    file.write_text(json.dumps(good, indent=1))
    assert one(read(file)).line == 1
    file.write_text(line_of(good) + line_of(good))
    assert [row.line for row in read(file).rows] == [1, 2]
    file.write_text("[\n" + line_of(good) + ", oops]")
    loaded = read(file)
    assert ([row.line for row in loaded.rows], loaded.faults[0].line) == ([2], 3)
    assert "not JSON from here on" in loaded.faults[0].problem
    file.write_text(" [ ] ")
    assert "the list is empty" in fault(read(file)).problem
    file.write_bytes(b'["\xff"]')
    assert "not UTF-8" in fault(read(file)).problem


def test_xml(tmp_path: Path) -> None:
    file = tmp_path / "one.xml"
    file.write_text(render(Document(("hm",))) + "\n")
    assert one(read(file)) == Row((), Document(("hm",)), str(file), 1)
    (tmp_path / "one.txt").write_text("How many?\n")
    assert one(read(file)).prompt == (Message("user", "How many?"),)
    (tmp_path / "one.txt").write_bytes(b"\xff")
    assert fault(read(file)) == Fault(str(tmp_path / "one.txt"), 1, "not UTF-8 text (byte 0): save the file as UTF-8")


@pytest.mark.parametrize(
    ("data", "line", "problem"),
    [
        (UNCLOSED.encode(), 9, "offset 67: found </Goal>, expected </Outline>"),
        (b"a\0b", 1, "a zero byte (offset 1)"),
        (b"\x89PNG", 1, "not UTF-8"),
        (b" \n", 1, "the document is empty"),
        (b"", 1, "the file is empty"),
    ],
)
def test_bad_xml(tmp_path: Path, data: bytes, line: int, problem: str) -> None:
    file = tmp_path / "bad.xml"
    file.write_bytes(data)
    found = fault(read(file))
    assert (found.source, found.line) == (str(file), line)
    assert problem in found.problem


def write_table(path: Path, **columns: list[Any]) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet(tmp_path: Path) -> None:
    file = write_table(tmp_path / "rows.parquet", question=["Q", "R", "S"], text=["one", None, UNCLOSED], id=[1, 2, 3])
    loaded = read(file)
    assert [(row.question, row.line) for row in loaded.rows] == [("Q", 1)]
    assert [found.line for found in loaded.faults] == [2, 3]
    assert "line 9 of the document" in loaded.faults[1].problem


def test_bad_parquet(tmp_path: Path) -> None:
    problem = fault(read(write_table(tmp_path / "other.parquet", problem=["Q"], answer=["1"]))).problem
    assert "has 'problem', 'answer'" in problem
    assert (
        "no rows" in fault(read(write_table(tmp_path / "none.parquet", messages=pyarrow.array([], pyarrow.string())))).problem
    )
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(b"PAR1 and no more")
    assert "not Parquet from here on" in fault(read(torn)).problem


def test_parquet_with_a_text_that_is_none(tmp_path: Path) -> None:
    # Arrow takes whatever bytes it is given for a string.
    broken = pyarrow.Array.from_buffers(
        pyarrow.string(), 2, [None, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"\xffx")]
    )
    loaded = read(write_table(tmp_path / "rows.parquet", question=["Q", "R"], text=broken))
    assert [row.line for row in loaded.rows] == [2]
    assert [(found.line, "not UTF-8" in found.problem) for found in loaded.faults] == [(1, True)]


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.json", "empty.xml", "empty.parquet"])
def test_an_empty_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.touch()
    assert fault(read(file)) == Fault(str(file), 1, "the file is empty")


def test_a_file_of_blank_lines(lines: Path) -> None:
    lines.write_text("\n \n")
    assert "only blank lines" in fault(read(lines)).problem


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.parquet", "no/such/folder/", "/no/such/file", "./missing"])
def test_missing_sources(name: str) -> None:
    assert "there is no such file" in fault(read(name)).problem


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a,b")
    assert fault(read(file)).problem == "the file type is not supported: give .xml, .jsonl, .json or .parquet"


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "old.jsonl").write_text("not to be read")
    (tmp_path / "faults.jsonl").write_text(line_of(Fault("x", 1, "y")._asdict()))
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "b.jsonl").write_text(line_of({"question": "b", "text": "x"}))
    (tmp_path / "a.xml").write_text("x")
    (tmp_path / "a.txt").write_text("a")
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation"):
        write_table(tmp_path / "data" / f"{name}.parquet", question=[name], text=["x"])
    loaded = read(tmp_path)
    assert not loaded.faults
    parts = ["train-00000-of-00002", "train-00001-of-00002", "validation"]
    assert [row.question for row in loaded.rows] == ["a", "b", *parts]
    assert [row.question for row in read(tmp_path, split="train").rows] == parts[:2]
    assert [row.question for row in read(tmp_path, split="data").rows] == parts
    assert "no split 'test': choose one of a, b, train, validation" in fault(read(tmp_path, split="test")).problem


def test_a_folder_without_documents(tmp_path: Path) -> None:
    assert "holds no data: it needs .xml, .jsonl, .json or .parquet files" in fault(read(tmp_path)).problem


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    good = datasets.Dataset.from_list([{"question": "Q", "text": "x", "other": 1}, {"question": "R", "text": UNCLOSED}])
    bad = datasets.Dataset.from_list([{"problem": "Q"}])
    none = datasets.Dataset.from_dict({"messages": []})
    found = datasets.DatasetDict({"train": good, "test": bad, "dev": none})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split, **__: found if split is None else found[split])
    loaded = read("owner/name")
    assert loaded.rows == [Row((Message("user", "Q"),), Document(None, "x"), "owner/name/train", 1)]
    assert [(found.source, found.line) for found in loaded.faults] == [
        ("owner/name/train", 2),
        ("owner/name/test", 1),
        ("owner/name/dev", 1),
    ]
    assert "has 'problem'" in loaded.faults[1].problem
    assert "has no rows" in loaded.faults[2].problem
    assert [row.source for row in read("owner/name", split="train").rows] == ["owner/name/train"]


def test_an_unreachable_hub() -> None:
    found = fault(read("nobody/nothing"))
    assert (found.source, found.line) == ("nobody/nothing", 1)
    assert "cannot be loaded from the hub" in found.problem
    assert "check the id" in found.problem


def test_a_library_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_table(tmp_path / "rows.parquet", question=["Q"], text=["x"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExtraError, match=r"pip install 'multiverse-llm\[train\]'"):
        read(file)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no sample documents beside the repository")
def test_samples() -> None:
    loaded = read(SAMPLES)
    assert not loaded.faults
    assert len(loaded.rows) == len(list(SAMPLES.glob("*.xml")))
    assert all(row.document.branches > 1 for row in loaded.rows)


def test_windows_line_ends_are_read(tmp_path: Path, lines: Path) -> None:
    lines.write_text(line_of({"question": "Q", "structured": TEXT.replace("\n", "\r\n")}))
    assert one(read(lines)).document == FORK
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "a.xml").write_bytes(TEXT.replace("\n", "\r\n").encode() + b"\r\n")
    (tmp_path / "alone" / "a.txt").write_bytes(b"one\r\ntwo\r\n")
    row = one(read(tmp_path / "alone"))
    assert (row.document, row.question) == (FORK, "one\ntwo")


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ('"score": NaN', "NaN is no JSON: write a number, a text or null"),
        ('"score": [1, -Infinity]', "-Infinity is no JSON: write a number, a text or null"),
        ('"question": "again"', "the key 'question' stands 2 times in one object: keep one of them"),
        ('"more": {"a": 1, "b": 2, "a": 3}', "the key 'a' stands 2 times in one object: keep one of them"),
    ],
)
def test_what_python_reads_and_json_is_not_is_a_fault(tmp_path: Path, field: str, problem: str) -> None:
    good, bad = (
        line_of({"question": "Q", "structured": TEXT}),
        line_of({"question": "Q", "structured": TEXT})[:-2] + f", {field}}}\n",
    )
    forms = {"a.jsonl": good + bad + good, "b.json": f"[\n{good},{bad},{good}]", "c.json": good + bad + good}
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        loaded = read(tmp_path / name)
        assert len(loaded.rows) == 2, name
        assert [(found.source, found.problem) for found in loaded.faults] == [(str(tmp_path / name), problem)], name
    assert read(tmp_path / "a.jsonl").faults[0].line == 2
    (tmp_path / "d.json").write_text(json.dumps(json.loads(good), indent=1)[:-2] + f", {field}}}")
    assert fault(read(tmp_path / "d.json")).problem == problem
