"""Every answer that was paid for, in one file.

An answer is committed before anybody sees it, so that a run that was killed, at whatever moment, never asks for it again. Only
answers are stored, no failures. Writing does not wait for the disk: a kill loses nothing, a power cut perhaps the last answers,
and never the file.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .errors import StoreError
from .types import Completion, Request

_APPLICATION = 0x4D554C54  # marks the file as ours
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, row TEXT, stage TEXT, attempt INTEGER,
    text TEXT, finish_reason TEXT, prompt_tokens INTEGER, completion_tokens INTEGER
)
"""


class Usage(NamedTuple):
    """Calls that were answered, and their tokens."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, answer: Completion) -> Usage:
        """With one answer more."""
        prompt, completion = self.prompt_tokens + answer.prompt_tokens, self.completion_tokens + answer.completion_tokens
        return Usage(self.calls + 1, prompt, completion)

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prompt_tokens + self.completion_tokens


class Store:
    """Answers by the key of their request.

    Raises:
        StoreError: the file cannot be opened, is no such file, is damaged, or another run holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._locks: dict[str, tuple[asyncio.Lock, list[None]]] = {}
        with self._told():
            self._file = sqlite3.connect(path, isolation_level=None, timeout=0)
            try:
                self._open()
            except BaseException:
                self._file.close()
                raise

    def _open(self) -> None:
        file = self._file
        (mark,) = file.execute("PRAGMA application_id").fetchone()
        (tables,) = file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if mark != _APPLICATION and (mark or tables):
            raise StoreError(f"{str(self.path)!r} is no file of answers: move it away, or give another folder")
        file.execute("PRAGMA locking_mode = EXCLUSIVE")  # one run at a time; the lock goes with the process
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.execute("BEGIN EXCLUSIVE")
        file.execute(f"PRAGMA application_id = {_APPLICATION}")
        file.execute(_SCHEMA)
        file.execute("COMMIT")

    async def answer(self, key: str, request: Request, make: Callable[[], Awaitable[Completion]]) -> Completion:
        """The stored answer; where there is none, what `make` brings, stored. The same key is never made twice at once."""
        lock, holders = self._locks.setdefault(key, (asyncio.Lock(), []))
        holders.append(None)
        try:
            async with lock:
                found = self.get(key)
                if found is None:
                    found = await make()
                    self.put(key, request, found)
                return found
        finally:
            holders.pop()
            if not holders:
                del self._locks[key]

    def get(self, key: str) -> Completion | None:
        """The answer stored under this key."""
        with self._told():
            row = self._file.execute(
                "SELECT text, finish_reason, prompt_tokens, completion_tokens FROM answers WHERE key = ?", (key,)
            ).fetchone()
            if row is None:
                return None
            text, finish_reason, prompt_tokens, completion_tokens = row
            return Completion(json.loads(text), finish_reason, prompt_tokens, completion_tokens, cached=True)

    def put(self, key: str, request: Request, answer: Completion) -> None:
        """Store an answer, for good once this returns."""
        # As JSON: an answer may hold half a character, which no file of text can.
        values = (key, request.row, request.stage, request.attempt, json.dumps(answer.text), *answer[1:4])
        with self._told():
            self._file.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def usage(self) -> Usage:
        """What all stored answers took."""
        with self._told():
            totals = "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) FROM answers"
            return Usage(*self._file.execute(totals).fetchone())

    def close(self) -> None:
        """Close the file, and let others have it."""
        self._file.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            name, reason = str(self.path), str(error)
            if "locked" in reason:
                raise StoreError(f"{name!r} is in the hands of another run: wait for its end, or give another folder") from None
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in reason:
                raise StoreError(f"{name!r} cannot be used ({reason}): see to the folder and the space on the disk") from error
            raise StoreError(
                f"{name!r} is damaged or no file of answers ({reason}): move it away, or give another folder"
            ) from (error)
