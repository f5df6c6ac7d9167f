"""Sentences joined are the text; a row that cannot be read is a fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.curation.sentences import cut
from multiverse.curation.trace import read_traces, trace_of
from multiverse.curation.types import Trace
from multiverse.data import Fault
from multiverse.structure import MULTIVERSE, THREADWEAVER, Tag

from .annotator import planted_samples

# -- cutting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two.", 2),
        ("One! Two? Three.", 3),
        ("It is 3.14 here. And 2.5 there.", 2),
        ("It is 3.14159265.\nNext.", 2),
        ("See Fig. 3 and Eq. (2), i.e. the sum. Done.", 2),
        ("Mr. Euler and Dr. Gauss agree, cf. Prof. Noether. Good.", 2),
        ("Wait... no, that holds. Fine.", 2),
        ("Hmm... Let me see.", 2),
        ("1. The first item.\n2. The second item.", 2),
        ("- one\n- two\n* three", 3),
        ("**1.** The case. Then.", 2),
        ("Let $x = 1. 5$ be so. Then $y. Z$ too.", 2),
        ("It costs $5. Then $6. Good.", 3),
        ("We get \\( a. B \\) here. And \\[ c. D\n e. F \\] there. End.", 3),
        ("$$\na. B\n= c\n$$\nEnd.", 2),
        ("\\begin{align}\na. B \\\\\nc. D\n\\end{align}\nEnd.", 2),
        ("```python\nx = 1.\n\nprint(x)\n```\nEnd.", 2),
        ('She said "Stop." He went. (So it is.) Yes.', 4),
        ("No. 7 is it. No. The other.", 3),
        ("e.g. this one", 1),
        ("今日は雨。明日は晴れ！終わり", 3),
        ("No end here", 1),
        ("\n\n  One.\n\n\nTwo.  \n\n", 2),
        ("x = 2.\nSo y = 3.", 2),
        ("J. S. Bach wrote it. Yes.", 2),
        ("15+7=22. Take 19: 22-19=3.", 2),
    ],
)
def test_sentences(text: str, count: int) -> None:
    pieces = cut(text)
    assert len(pieces) == count, pieces
    assert "".join(pieces) == text


@given(st.text(alphabet="ab AB.!?\n$\\()[]{}`0123456789,:*-\"'é。", max_size=200))
def test_sentences_concatenate_to_the_text(text: str) -> None:
    pieces = cut(text)
    assert "".join(pieces) == text
    assert all(piece.strip() for piece in pieces) or not text.strip()


@given(st.lists(st.decimals(min_value=0, max_value=10**9, places=3), min_size=1, max_size=8))
def test_no_number_is_cut(values: list[Any]) -> None:
    text = " and ".join(f"the value {value}" for value in values) + "."
    assert cut(text) == (text,)


@given(st.text(alphabet="ab.!? =+", min_size=1, max_size=60).filter(lambda inner: inner == inner.strip()))
def test_no_formula_is_cut(formula: str) -> None:
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$")):
        text = f"Before. {opening}{formula}{closing} is it. After."
        assert any(f"{opening}{formula}{closing}" in piece for piece in cut(text))


def test_a_fence_that_is_never_closed_hides_nothing() -> None:
    assert len(cut("Start ``` here. Go on. \\[ x. Y. $$ z. End.")) == 6


def test_a_long_text_is_cut_quickly() -> None:
    text = "Some words $$ and \\( more (1.5). Then a \\begin{x} $y. " * 20_000
    assert "".join(cut(text)) == text


# -- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reasoning", "thinking", "trace"])
def test_record_of_columns(name: str) -> None:
    trace = trace_of({"question": "What?", name: "One. Two.", "answer": "2"}, "a.jsonl", 3)
    assert trace == Trace("a.jsonl:3", "What?", ("One. ", "Two."), "2", "a.jsonl", 3)
    assert trace.reasoning == "One. Two."


@pytest.mark.parametrize("tag", [MULTIVERSE.think, THREADWEAVER.think])
def test_record_of_messages(tag: Tag) -> None:
    question = {"role": "user", "content": "What?"}
    tagged = {"role": "assistant", "content": f"{tag.open}\nOne.\nTwo.\n{tag.close}\n\nIt is 2."}
    opened = {"role": "assistant", "content": f"\nOne.\nTwo.\n{tag.close}\n\nIt is 2."}  # the template wrote the opening
    apart = {"role": "assistant", "content": "It is 2.", "reasoning_content": "\nOne.\nTwo.\n"}
    for last in (tagged, opened, apart):
        trace = trace_of({"messages": [{"role": "system", "content": "Be brief."}, question, last]}, "a", 1)
        assert isinstance(trace, Trace)
        assert (trace.question, trace.sentences, trace.answer) == ("What?", ("\nOne.\n", "Two.\n"), "It is 2.")


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ([], "must be an object"),
        ({}, "needs the columns"),
        ({"question": "a"}, "needs the columns"),
        ({"question": "a", "reasoning": " \n"}, "reasoning is empty"),
        ({"question": "a", "reasoning": 3}, "must be a text"),
        ({"question": "a", "reasoning": "b\ud83d."}, "unpaired surrogate"),
        ({"question": "a\0", "reasoning": "b."}, "zero character"),
        ({"messages": []}, "holds no messages"),
        ({"messages": "a"}, "holds no messages"),
        ({"messages": ["a"]}, "message 1"),
        ({"messages": [{"role": "user", "content": "a"}]}, "must be the assistant's"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "needs the question"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "holds no reasoning"),
        ({"messages": [{"role": "user", "content": ["a"]}, {"role": "assistant", "content": "b"}]}, "must be a text"),
    ],
)
def test_faulty_record(record: Any, problem: str) -> None:
    fault = trace_of(record, "a.jsonl", 7)
    assert isinstance(fault, Fault)
    assert problem in fault.problem
    assert (fault.source, fault.line) == ("a.jsonl", 7)


def test_read_json_lines(tmp_path: Path) -> None:
    good = json.dumps({"question": "a", "reasoning": "One. Two.", "answer": 7})
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([good.encode(), b"", b'{"question": "a', b"\xff", b"[1]", good.encode()]))
    found = list(read_traces(tmp_path / "a.jsonl"))
    assert [type(item).__name__ for item in found] == ["Trace", "Fault", "Fault", "Fault", "Trace"]
    assert [item.line for item in found] == [1, 3, 4, 5, 6]
    assert isinstance(found[0], Trace)
    assert (found[0].id, found[0].answer) == ("a.jsonl:1", "7")


def test_read_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"question": ["a", "b", None], "reasoning": ["One. Two.", "", "Three."], "id": [1, 2, 3]})
    parquet.write_table(table, tmp_path / "a.parquet")
    found = list(read_traces(tmp_path / "a.parquet"))
    assert [type(item).__name__ for item in found] == ["Trace", "Fault", "Fault"]
    (tmp_path / "b.parquet").write_bytes(b"nothing of the kind")
    assert "not Parquet" in next(fault.problem for fault in read_traces(tmp_path / "b.parquet") if isinstance(fault, Fault))


def test_read_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    row = json.dumps({"question": "a", "reasoning": "One."})
    (tmp_path / "in" / "b.jsonl").write_text(f"{row}\n{row}\n")
    (tmp_path / "a.jsonl").write_text(f"{row}\n")
    (tmp_path / "faults.jsonl").write_text("not read")
    assert [item.id for item in read_traces(tmp_path) if isinstance(item, Trace)] == [
        "a.jsonl:1",
        "in/b.jsonl:1",
        "in/b.jsonl:2",
    ]
    assert [item.id for item in read_traces(tmp_path, split="in") if isinstance(item, Trace)] == [
        "in/b.jsonl:1",
        "in/b.jsonl:2",
    ]


@pytest.mark.parametrize("name", ["no.jsonl", "./nothing", "empty.jsonl", "blank.jsonl", "a.txt", "folder"])
def test_sources_that_hold_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.jsonl").write_text("\n \n")
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "folder").mkdir()
    found = list(read_traces(name if name.startswith("./") else tmp_path / name))
    assert len(found) == 1
    assert isinstance(found[0], Fault)


ROW = {"question": "a", "reasoning": "One. Two."}


def load_dataset(name: str, _config: None, *, split: str | None, streaming: bool) -> Any:
    """Stands in for `datasets.load_dataset`: two splits, and one whose connection breaks after its first row."""
    assert streaming
    if name == "no/such":
        raise FileNotFoundError("not there")

    def breaking() -> Iterator[Any]:
        yield ROW
        raise ConnectionError("gone")

    make = datasets.IterableDataset.from_generator
    rows = {"train": make(lambda: iter([ROW, {"question": "a", "reasoning": None}])), "test": make(lambda: iter([ROW]))}
    return rows if split is None else make(breaking) if split == "breaking" else rows[split]


@pytest.mark.parametrize(
    ("name", "split", "found"),
    [
        ("some/data", None, ["some/data/train:1", "", "some/data/test:1"]),
        ("some/data", "test", ["some/data/test:1"]),
        ("some/data", "breaking", ["some/data/breaking:1", ""]),
        ("no/such", None, [""]),
    ],
)
def test_read_hub(monkeypatch: pytest.MonkeyPatch, name: str, split: str | None, found: list[str]) -> None:
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [item.id if isinstance(item, Trace) else "" for item in read_traces(name, split=split)] == found


def test_reading_is_lazy(tmp_path: Path) -> None:
    row = json.dumps({"question": "a", "reasoning": "One. Two."})
    (tmp_path / "a.jsonl").write_text(f"{row}\n" * 10_000)
    rows = read_traces(tmp_path / "a.jsonl")
    assert isinstance(next(rows), Trace)
    assert sum(1 for _ in rows) == 9_999


def test_samples_cut_as_they_were_planted() -> None:
    for planted in planted_samples():
        assert cut(planted.trace.reasoning) == planted.trace.sentences
