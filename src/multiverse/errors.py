"""Everything this package raises on purpose.

    MultiverseError
    ├── StructureError      a document or a token sequence breaks the grammar (also a ValueError)
    ├── DialectError        a dialect does not fit a tokenizer (also a ValueError)
    ├── ModelError          a model cannot be found, loaded, or joined (also a ValueError)
    ├── RequestError        a prompt or a sampling parameter cannot be honoured (also a ValueError)
    ├── ConfigError         a training configuration cannot be honoured (also a ValueError)
    ├── DataError           a data set holds faults, or cannot be written or published (also a ValueError)
    ├── ExtraError          a library is missing that an extra of this package installs (also an ImportError)
    └── EngineError         the engine failed while it worked on a request (also a RuntimeError)

Each message names the offending value and the remedy.
"""

from __future__ import annotations

from importlib import import_module
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


class ConfigError(MultiverseError, ValueError):
    """A training configuration cannot be read, or names what cannot be done."""


class DataError(MultiverseError, ValueError):
    """A data set holds faults, which the message lists, or cannot be written or published."""


class ExtraError(MultiverseError, ImportError):
    """A library is missing.

    Args:
        library: what could not be imported.
        extra: the extra of this package that installs it.
    """

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"this needs {library}, which is not installed: pip install 'multiverse-llm[{extra}]'")


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
        raise ExtraError(name.partition(".")[0].replace("_", "-"), extra) from error


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its class if it has no message."""
    return str(error).strip().partition("\n")[0].rstrip() or type(error).__name__
