"""Everything this package raises on purpose.

    MultiverseError
    ├── StructureError      a document or a token sequence breaks the grammar (also a ValueError)
    ├── DialectError        a dialect does not fit a tokenizer (also a ValueError)
    ├── ModelError          a model cannot be found, loaded, or joined (also a ValueError)
    ├── RequestError        a prompt or a sampling parameter cannot be honoured (also a ValueError)
    ├── ConfigError         a training configuration cannot be honoured (also a ValueError)
    ├── DataError           a data set holds faults, or cannot be written or published (also a ValueError)
    ├── DiskError           the disk is full (also an OSError)
    ├── RewardError         a reward function fails for everything, or what it needs does (also a RuntimeError)
    ├── ExtraError          a library is missing that an extra of this package installs (also an ImportError)
    └── EngineError         the engine failed while it worked on a request (also a RuntimeError)
        └── UpstreamError   a server that generates for us cannot be reached, refuses, or failed for good

Each message names the offending value and the remedy.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any


class MultiverseError(Exception):
    """Base of every error that this package raises on purpose."""


class StructureError(MultiverseError, ValueError):
    """The grammar is broken.

    Attributes:
        offset: where, as a character offset (parser) or a token index (machine, layout); `None` if unknown.
        line: line number from 1, for text; `None` for tokens.
        expected: what the grammar allows there.
    """

    def __init__(self, problem: str, *, expected: str, offset: int | None = None, line: int | None = None) -> None:
        self.problem, self.expected, self.offset, self.line = problem, expected, offset, line
        super().__init__(problem, expected, offset, line)

    def __str__(self) -> str:
        if self.line is not None:
            where = f"line {self.line}, offset {self.offset}: "
        elif self.offset is not None:
            where = f"token {self.offset}: "
        else:
            where = ""
        return f"{where}{self.problem}, expected {self.expected}"


class DialectError(MultiverseError, ValueError):
    """A dialect's tags are not single tokens of a tokenizer."""


class ModelError(MultiverseError, ValueError):
    """A model cannot be found, loaded, or run with fork and join."""


class RequestError(MultiverseError, ValueError):
    """A prompt or a sampling parameter cannot be honoured."""


class EngineError(MultiverseError, RuntimeError):
    """The engine failed while it worked on a request; the failure itself is the cause."""


class UpstreamError(EngineError):
    """A server that generates for us cannot be reached, refuses, or failed as often as it was asked.

    Attributes:
        status: its HTTP status; `None` if it gave none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ConfigError(MultiverseError, ValueError):
    """A training configuration cannot be read, or names what cannot be done."""


class DataError(MultiverseError, ValueError):
    """A data set holds faults, which the message lists, or cannot be written or published."""


class RewardError(MultiverseError, RuntimeError):
    """A reward function fails for all rollouts that it is called for, or what it needs cannot be had.

    Attributes:
        groups: the groups of rollouts that were being judged, with scores if they have any: they need not be generated again.
    """

    groups: tuple[Any, ...] = ()


class DiskError(MultiverseError, OSError):
    """The disk is full, or a quota or the largest size of a file is reached."""

    def __str__(self) -> str:
        return str(self.args[0])


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Libraries in Rust and C++ say it in words of their own: safetensors, tokenizers; torch's writer of checkpoints.
_SAYS_FULL = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|PytorchStreamWriter failed|inline_container\.cc"
)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Around code that writes a file or a folder, that of libraries included: an error of a full disk names the path.

    Raises:
        DiskError: the disk is full.
    """
    try:
        yield
    except MultiverseError:
        raise
    except Exception as error:
        reason = _full(error)
        if reason is None:
            raise
        written = error.filename if isinstance(error, OSError) and isinstance(error.filename, str) else str(path)
        raise DiskError(
            f"{written!r} cannot be written ({reason}{_free(Path(path))}): free some space, or choose another place"
        ) from error


def _full(error: BaseException | None) -> str | None:
    """What an error says about a full disk; `None` if it is about something else."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error.strerror or os.strerror(error.errno)
        if (found := _SAYS_FULL.search(str(error))) is not None:
            return (
                found[0] if found[0][0].isupper() and " " in found[0] and "Writer" not in found[0] else "the disk may be full"
            )
        error = error.__cause__ or error.__context__
    return None


def _free(path: Path) -> str:
    """The space that is free where a path is to be."""
    for folder in (path, *path.absolute().parents):
        try:
            return f"; {shutil.disk_usage(folder).free / 1e6:,.0f} MB are free"
        except OSError:
            continue
    return ""


preferred_extra: ContextVar[str | None] = ContextVar("preferred_extra", default=None)
"""The extra of the command that runs. Some libraries are in several extras: this one is named if it installs the library."""


class ExtraError(MultiverseError, ImportError):
    """A library is missing.

    Args:
        library: what could not be imported.
        extra: the extra of this package that installs it; that of the command that runs is named instead if it does, too.
    """

    def __init__(self, library: str, extra: str) -> None:
        preferred = preferred_extra.get()
        if preferred is not None and library.lower() in _installed_by(preferred):
            extra = preferred
        super().__init__(f"this needs {library}, which is not installed: pip install 'multiverse-llm[{extra}]'")


@cache
def _installed_by(extra: str) -> frozenset[str]:
    """Names of the libraries that an extra of this package installs."""
    try:
        needed = metadata.requires("multiverse-llm") or []
    except metadata.PackageNotFoundError:
        return frozenset()
    wanted = re.compile(rf"extra == ['\"]{re.escape(extra)}['\"]")
    return frozenset(re.split(r"[^\w.-]", one)[0].lower() for one in needed if wanted.search(one))


_DISTRIBUTIONS = {"PIL": "pillow", "yaml": "PyYAML"}
"""Names of libraries as they are installed, where those of their modules differ by more than a line."""


def require(name: str, extra: str) -> Any:
    """Import an optional library and return the module.

    Args:
        name: of the module, such as ``pyarrow.parquet``.
        extra: the extra of this package that installs it.

    Raises:
        ExtraError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        module = name.partition(".")[0]
        raise ExtraError(_DISTRIBUTIONS.get(module, module.replace("_", "-")), extra) from error


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its class if it has no message."""
    return str(error).strip().partition("\n")[0].rstrip() or type(error).__name__
