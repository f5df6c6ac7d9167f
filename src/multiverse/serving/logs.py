"""State of the current HTTP request, and log lines as JSON.

The middleware opens an `Exchange` for each HTTP request. Handlers add fields to its log line, and callbacks that run when it is
over, however it ends: above all when the client disconnects.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TextIO

LOGGER = logging.getLogger("multiverse.serving")


class Exchange:
    """One HTTP request and its answer.

    Attributes:
        id: the request id.
        fields: further fields of its log line.
    """

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.fields: dict[str, Any] = {}
        self._endings: list[Callable[[], None]] = []

    def at_end(self, undo: Callable[[], None]) -> None:
        """Call this when the exchange is over."""
        self._endings.append(undo)

    def end(self) -> None:
        """Run the callbacks, last first. May be called again."""
        while self._endings:
            with suppress(Exception):
                self._endings.pop()()


_current: ContextVar[Exchange | None] = ContextVar("multiverse_exchange", default=None)


def current() -> Exchange | None:
    """The exchange of this task; `None` if there is none."""
    return _current.get()


def enter(exchange: Exchange) -> None:
    """Make this the exchange of this task, and of those that it starts."""
    _current.set(exchange)


def note(**fields: Any) -> None:
    """Add fields to the log line of the current exchange, if there is one."""
    exchange = current()
    if exchange is not None:
        exchange.fields.update(fields)


class JsonFormatter(logging.Formatter):
    """One line of JSON a record: time, level, event, and the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        exchange = current()
        if exchange is not None:
            line["request_id"] = exchange.id
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """One line a record, for people: time, event, and the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items() if value is not None)
        level = f"{record.levelname} " if record.levelno > logging.INFO else ""
        line = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {level}{record.getMessage()} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def log(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Write a line."""
    LOGGER.log(level, event, extra={"fields": fields})


def warn_loudly(message: str) -> None:
    """A warning between two bars."""
    bar = "!" * 78
    for line in (bar, message, bar):
        LOGGER.warning(line)


def set_up(level: str = "info", *, as_json: bool = True, stream: TextIO | None = None) -> None:
    """Send our own log and uvicorn's to `stream` (stderr), as JSON or as text for people."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    for name in (LOGGER.name, "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    # It logs every start and end, which we log in fewer lines.
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, LOGGER.level))
