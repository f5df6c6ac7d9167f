"""What is written reads back, is there whole or not at all, and splits the same for ever."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.data import Message, Row, read, split, write_jsonl, write_parquet, write_rows
from multiverse.data.write import whole, whole_folder
from multiverse.errors import DataError
from multiverse.structure import DIALECTS, Block, Dialect, Document, place, sequential_baseline
from tests.strategies import WORDS, documents


@st.composite
def rows(draw: st.DrawFn) -> Row:
    roles = draw(st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=3))
    prompt = tuple(Message(role, draw(WORDS)) for role in roles)
    document = draw(documents(depth=2))
    return Row(prompt, document, "x", 1, sequential_baseline(document) if draw(st.booleans()) else None)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@settings(max_examples=30)
@given(written=st.lists(rows(), min_size=1, max_size=4))
def test_rows_read_back(tmp_path_factory: pytest.TempPathFactory, suffix: str, written: list[Row]) -> None:
    file = tmp_path_factory.mktemp("rows") / f"rows{suffix}"
    write_rows(written, file)
    loaded = read(file)
    assert not loaded.faults
    assert loaded.rows == [replace(row, source=str(file), line=number) for number, row in enumerate(written, 1)]
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_every_dialect_reads_back(tmp_path: Path, dialect: Dialect) -> None:
    document = place((Block(("a",), (("x",),), "z" if dialect.conclusion else ""),), "", dialect)
    for write, name in ((write_jsonl, "a.jsonl"), (write_parquet, "a.parquet")):
        write([Row((Message("user", "Q"),), document, "x", 1)], tmp_path / name, dialect)
        assert [row.document for row in read(tmp_path / name, dialect).rows] == [document]


def test_json_lines_are_chats(tmp_path: Path) -> None:
    write_jsonl([Row((Message("user", "é?"),), Document(None, "ja"), "x", 1)], tmp_path / "a.jsonl")
    text = (tmp_path / "a.jsonl").read_text(encoding="utf-8")
    assert "é" in text
    assert json.loads(text) == {"messages": [{"role": "user", "content": "é?"}, {"role": "assistant", "content": "ja"}]}


def test_an_unsupported_file_type(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a supported file type: use .jsonl or .parquet"):
        write_rows([], tmp_path / "rows.csv")
    with pytest.raises(DataError, match="cannot be written"):
        write_rows([], tmp_path / "no" / "rows.jsonl")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_of_half_a_file(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("old")

    def write() -> None:
        with whole(file) as part:
            part.write_text("half of the n")
            raise error

    with pytest.raises(error):
        write()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    with whole(file) as part:
        part.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def asked(questions: Sequence[str]) -> list[Row]:
    return [Row((Message("user", question),), Document(None, str(line)), "x", line) for line, question in enumerate(questions)]


def test_a_row_stays_on_its_side() -> None:
    some = asked([f"question {number}" for number in range(300)])
    before = split(some[:150], 0.3, seed=4)
    after = split(reversed(some), 0.3, seed=4)
    assert {row.line for row in before.train} <= {row.line for row in after.train}
    assert {row.line for row in before.validation} <= {row.line for row in after.validation}
    assert 60 < len(after.validation) < 120
    assert len(after.train) + len(after.validation) == 300
    assert split(some, 0.3, seed=5).validation != split(some, 0.3, seed=4).validation


def test_the_split_is_the_same_on_every_machine() -> None:
    sides = split(asked(["a", "b", "c", "d", "e", "f", "g", "h"]), 0.5)
    assert [row.question for row in sides.validation] == ["c", "d", "f", "h"]


def test_one_question_is_never_on_both_sides() -> None:
    for number in range(50):
        plain, spaced = asked([f"question {number}", f" question  {number}\n"])
        system = replace(plain, prompt=(Message("system", "Be brief."), *plain.prompt))
        assert sorted(map(len, split([plain, spaced, system], 0.5))) == [0, 3]


def test_rows_without_a_question_are_split_by_their_documents() -> None:
    some = [Row((), Document(None, str(number)), "x", 1) for number in range(100)]
    sides = split([*some, *some], 0.5)
    assert 20 < len({row.document for row in sides.train}) < 80
    assert not {row.document for row in sides.train} & {row.document for row in sides.validation}


def test_all_on_one_side() -> None:
    assert split(asked(["a", "b"]), 0).validation == []
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match="at least 0 and below 1"):
            split([], share)


def test_a_folder_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "old").touch()
    rename = Path.rename

    def refuse_new(path: Path, target: Path) -> Path:
        if ".new." in path.name:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(DataError, match="No space left"), whole_folder(folder) as part:
        (part / "new").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["data", "data/old"]
