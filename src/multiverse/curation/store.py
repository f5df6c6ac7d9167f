"""The store of completions: one SQLite file.

A completion is committed before it is returned, so that a run that was killed never pays for it again. Failures are not stored.
Commits do not wait for the disk: a killed process loses nothing, a power failure perhaps the last completions but never the
file.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StoreError
from .types import Completion, Request, Usage

_APPLICATION = 0x4D554C54  # marks the file as a store of this program
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, row TEXT, stage TEXT, attempt INTEGER,
    text TEXT, finish_reason TEXT, prompt_tokens INTEGER, completion_tokens INTEGER
)
"""


class Store:
    """Completions by the key of their request.

    Raises:
        StoreError: the file cannot be opened, is no store, is damaged, or is locked by another run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._locks: dict[str, tuple[asyncio.Lock, list[None]]] = {}
        with self._store_errors():
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
            raise StoreError(f"{str(self.path)!r} is not a store of completions: move it away, or give another folder")
        file.execute("PRAGMA locking_mode = EXCLUSIVE")  # one run at a time; the lock ends with the process
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.execute("BEGIN EXCLUSIVE")
        file.execute(f"PRAGMA application_id = {_APPLICATION}")
        file.execute(_SCHEMA)
        file.execute("COMMIT")

    async def get_or_create(self, key: str, request: Request, create: Callable[[], Awaitable[Completion]]) -> Completion:
        """The stored completion, else what `create` returns, stored. `create` runs once at a time for a key."""
        lock, holders = self._locks.setdefault(key, (asyncio.Lock(), []))
        holders.append(None)
        try:
            async with lock:
                found = self.get(key)
                if found is None:
                    found = await create()
                    self.put(key, request, found)
                return found
        finally:
            holders.pop()
            if not holders:
                del self._locks[key]

    def get(self, key: str) -> Completion | None:
        """The completion stored under a key."""
        with self._store_errors():
            row = self._file.execute(
                "SELECT text, finish_reason, prompt_tokens, completion_tokens FROM answers WHERE key = ?", (key,)
            ).fetchone()
            return None if row is None else Completion(json.loads(row[0]), *row[1:])._replace(cached=True)

    def put(self, key: str, request: Request, completion: Completion) -> None:
        """Store a completion; it is committed when this returns."""
        # The text as JSON: it may hold lone surrogates, which SQLite's UTF-8 cannot.
        values = (key, request.row, request.stage, request.attempt, json.dumps(completion.text), *completion[1:4])
        with self._store_errors():
            self._file.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def usage(self) -> Usage:
        """Usage of all stored completions."""
        with self._store_errors():
            totals = "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) FROM answers"
            return Usage(*self._file.execute(totals).fetchone())

    def close(self) -> None:
        """Close the file and release its lock."""
        self._file.close()

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            name, reason = str(self.path), str(error)
            if "locked" in reason:
                raise StoreError(f"{name!r} is locked by another run: wait for its end, or give another folder") from None
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in reason:
                raise StoreError(f"{name!r} cannot be used ({reason}): check the folder and the free disk space") from error
            raise StoreError(f"{name!r} is damaged or not a store ({reason}): move it away, or give another folder") from error
