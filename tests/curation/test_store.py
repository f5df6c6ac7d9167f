"""Completions are stored before they are used, once each, permanently."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiverse.curation.errors import StoreError
from multiverse.curation.store import Store
from multiverse.curation.types import Completion, Request, Usage

REQUEST = Request("row", "stage", 0, (("user", "question"),))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "answers.sqlite")
    yield opened
    opened.close()


async def ask(store: Store, key: str, made: list[str]) -> Completion:
    async def make() -> Completion:
        made.append(key)
        await asyncio.sleep(0)
        return Completion("yes", "stop", 3, 4)

    return await store.get_or_create(key, REQUEST, make)


def test_an_answer_comes_back(tmp_path: Path) -> None:
    made: list[str] = []
    for opening in range(2):
        store = Store(tmp_path / "answers.sqlite")
        first = asyncio.run(ask(store, "a", made))
        assert first == Completion("yes", "stop", 3, 4, cached=opening > 0)
        assert asyncio.run(ask(store, "a", made)).cached
        store.close()
    assert made == ["a"]


def test_it_is_stored_before_it_is_returned(store: Store) -> None:
    async def make() -> Completion:
        assert store.get("a") is None
        return Completion("yes")

    async def look() -> None:
        await store.get_or_create("a", REQUEST, make)
        assert store.get("a") == Completion("yes", cached=True)

    asyncio.run(look())


@pytest.mark.parametrize("text", ["", "ünïcode 🙂", "half \ud83d", "zero \0", "x" * 1_000_000])
def test_any_text(store: Store, text: str) -> None:
    store.put("a", REQUEST, Completion(text, "length", 1, 2))
    assert store.get("a") == Completion(text, "length", 1, 2, cached=True)


def test_the_same_at_once_is_made_once(store: Store) -> None:
    made: list[str] = []

    async def many() -> list[Completion]:
        return await asyncio.gather(*(ask(store, f"{index % 3}", made) for index in range(30)))

    answers = asyncio.run(many())
    assert sorted(made) == ["0", "1", "2"]
    assert sum(answer.cached for answer in answers) == 27
    assert store.usage() == Usage(3, 9, 12)


def test_a_failure_is_not_stored(store: Store) -> None:
    async def fail() -> Completion:
        raise ValueError("no")

    made: list[str] = []

    async def both() -> list[Completion | BaseException]:
        return await asyncio.gather(store.get_or_create("a", REQUEST, fail), ask(store, "a", made), return_exceptions=True)

    failed, answered = asyncio.run(both())
    assert isinstance(failed, ValueError)
    assert answered == Completion("yes", "stop", 3, 4)
    assert made == ["a"]


def test_a_cancelled_caller_does_not_block_the_next(store: Store) -> None:
    made: list[str] = []

    async def given_up() -> None:
        async def never() -> Completion:
            await asyncio.Event().wait()
            raise AssertionError

        first = asyncio.create_task(store.get_or_create("a", REQUEST, never))
        second = asyncio.create_task(ask(store, "a", made))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).text == "yes"
        assert first.cancelled()

    asyncio.run(given_up())
    assert made == ["a"]


def test_only_one_run_at_a_time(store: Store) -> None:
    with pytest.raises(StoreError, match="locked by another run"):
        Store(store.path)


@pytest.mark.parametrize(
    "content", [b"this is no database, it is a letter to my aunt" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "answers.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"answers\.sqlite.*damaged or not a store.*move it away"):
        Store(path)
    assert path.read_bytes() == content


def test_a_foreign_database(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    file = sqlite3.connect(path)
    file.execute("CREATE TABLE recipes (name TEXT)")
    file.commit()
    file.close()
    with pytest.raises(StoreError, match="is not a store of completions: move it away"):
        Store(path)


def test_a_file_that_is_damaged_inside(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    store = Store(path)
    for index in range(200):
        store.put(f"{index}", REQUEST, Completion("x" * 1000))
    store.close()
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):  # noqa: PT012  (where it shows depends on the page)
        store = Store(path)
        try:
            for index in range(200):
                store.get(f"{index}")
        finally:
            store.close()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path / "nowhere" / "answers.sqlite")
