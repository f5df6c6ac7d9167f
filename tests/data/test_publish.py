"""The folder of a data set is what `datasets` and the hub read as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
from pyarrow import parquet

from multiverse.data import Fault, Message, Row, card, publish, push, read, survey
from multiverse.errors import DataError
from multiverse.structure import Block, Document, word_tokens

FORK = Document((Block(("a", "b"), (("x",), ("y",)), "z"),), "Answer: 1")
ROWS = [Row((Message("user", f"question {number}"),), FORK, "x", number) for number in range(1, 4)]
SPLITS = {"train": ROWS[:2], "validation": ROWS[2:]}


def built(folder: Path, splits: dict[str, list[Row]] = SPLITS, faults: list[Fault] | None = None) -> Path:
    statistics = survey([row for rows in splits.values() for row in rows], word_tokens())
    publish(splits, folder, card("some {documents}", splits, statistics, counted="words"), faults=faults or [])
    return folder


def test_datasets_reads_the_folder(tmp_path: Path) -> None:
    folder = built(tmp_path / "set", faults=[Fault("x", 1, "not for training")])
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {name: len(table) for name, table in found.items()} == {"train": 2, "validation": 1}
    assert [record["messages"] for record in found["train"]] == [row.messages() for row in ROWS[:2]]
    assert found["validation"].column_names == ["messages"]


def test_the_folder_reads_back(tmp_path: Path) -> None:
    folder = built(tmp_path / "set", faults=[Fault("x", 1, "y")])
    assert (folder / "faults.jsonl").read_text() == '{"source": "x", "line": 1, "problem": "y"}\n'
    loaded = read(folder)
    assert not loaded.faults
    assert [(row.question, row.document) for row in loaded.rows] == [(row.question, FORK) for row in ROWS]
    assert [row.question for row in read(folder, split="validation").rows] == ["question 3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_the_card(tmp_path: Path) -> None:
    text = (built(tmp_path / "set") / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    loaded = huggingface_hub.DatasetCard(text).data.to_dict()
    assert loaded["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train.parquet"},
        {"split": "validation", "path": "data/validation.parquet"},
    ]
    assert loaded["size_categories"] == ["n<1K"]
    assert "configs:" in header
    assert "# some {documents}" in body
    assert "2 in train, 1 in validation" in body
    assert "| parallelism | 1." in body
    assert "100% of the documents fork. Counted in words" in body


def test_a_split_without_rows_is_no_split(tmp_path: Path) -> None:
    folder = built(tmp_path / "set", {"train": ROWS, "validation": []})
    assert [path.name for path in (folder / "data").iterdir()] == ["train.parquet"]
    assert "validation" not in (folder / "README.md").read_text()


def test_an_older_data_set_is_replaced_whole(tmp_path: Path) -> None:
    folder = built(tmp_path / "set", faults=[Fault("x", 1, "y")])
    built(folder, {"train": ROWS})
    assert sorted(path.name for path in folder.rglob("*")) == ["README.md", "data", "train.parquet"]
    assert len(read(folder).rows) == 3


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"holds 'thesis.tex', which does not belong to a data set"):
        built(tmp_path)
    with pytest.raises(DataError, match="is a file"):
        built(tmp_path / "thesis.tex")
    with pytest.raises(DataError, match="cannot be written"):
        built(tmp_path / "thesis.tex" / "set")


@pytest.mark.parametrize("old", [True, False])
def test_an_interrupt_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    folder = tmp_path / "set"
    if old:
        built(folder, {"train": ROWS[:1]})

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parquet, "write_table", interrupt)
    with pytest.raises(KeyboardInterrupt):
        built(folder)
    assert [path.name for path in tmp_path.iterdir()] == (["set"] if old else [])
    assert not old or len(read(folder).rows) == 1


class Hub:
    """Takes down what it is asked."""

    asked: list[tuple[str, dict[str, Any]]]

    def __init__(self) -> None:
        self.asked = []

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.asked.append((repo_id, options))

    def upload_folder(self, **options: Any) -> None:
        self.asked.append(("upload", options))


def test_push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    folder = built(tmp_path / "set")
    assert push(folder, "owner/name", private=True) == "https://huggingface.co/datasets/owner/name"
    (name, creation), (_, upload) = hub.asked
    assert (name, creation) == ("owner/name", {"repo_type": "dataset", "private": True, "exist_ok": True})
    assert (upload["repo_id"], upload["repo_type"], upload["folder_path"]) == ("owner/name", "dataset", str(folder))
    assert upload["allow_patterns"] == ["README.md", "data/*.parquet"]


def test_push_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no data set: give a folder that `multiverse data build` has written"):
        push(tmp_path, "owner/name")


def test_push_that_the_hub_refuses(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'owner/name' could not be uploaded \(.+\): check the id"):
        push(built(tmp_path / "set"), "owner/name")
