"""`main`: run a command; an error in the input becomes one line on stderr.

Exit codes: 0 done, 1 the reader of standard output closed it, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer

from ..errors import DataError, MultiverseError
from .declared import renamed_option

BAD_INPUT = 2
INTERRUPTED = 130

# Base class of the option parser's exceptions. Its name depends on typer's version, but its public exception is always
# derived from it: BadParameter, UsageError, this one.
_ParserError: Any = typer.BadParameter.__mro__[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A character that the terminal cannot show must not end the command.
            stream.reconfigure(errors="replace")
    # Libraries read these when they are imported, which no command has done yet.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")

    from . import help as helping
    from .app import app

    command = typer.main.get_command(app)
    helping.install(command)
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        code = command.main(args, "multiverse", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        return _output_closed()
    except _ParserError as error:
        return _fail(_usage(error, args))
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)  # a line for each faulty row
        return BAD_INPUT
    except MultiverseError as error:
        return _fail(str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            _discard_output()
            return _fail(f"standard output or a file cannot be written ({error.strerror}): free some space")
        return _fail(str(error))
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return int(code or 0)


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT


def _usage(error: Any, args: list[str]) -> str:
    """The option parser's message, with the value it is about and the remedy."""
    context = getattr(error, "ctx", None)
    remedy = f"see {context.command_path if context is not None else 'multiverse'} --help"
    if hasattr(error, "option_name") and hasattr(error, "possibilities"):
        known = {name for param in context.command.params for name in param.opts} if context is not None else set()
        if (new := renamed_option(error.option_name, known)) is not None:
            return f"{error.option_name} is now called {new}"
        near = " or ".join(error.possibilities or ())
        return f"no such option {error.option_name}: {f'did you mean {near}?' if near else remedy}"
    value = _given_value(error.param, args) if type(error) is typer.BadParameter and error.param is not None else None
    if value is not None:
        name, text = value
        # Typer repeats the words of the library that checks its values.
        wanted = re.sub("^(Value error, |Input )", "", error.message).partition(", unable to parse")[0].rstrip(".")
        wanted = wanted.removeprefix(f"{text!r} ")
        return f"{name} {text!r} is not valid: it {wanted} ({remedy})"
    message = str(error.format_message()).rstrip(".")
    if message == "No such command 'twin'":
        return "data twin is now called data sequential"
    message = message[:1].lower() + message[1:]
    return message.replace(". Did", ": did") if message.endswith("?") else f"{message} ({remedy})"


def _given_value(param: Any, args: list[str]) -> tuple[str, str] | None:
    """The option as it was written, and its value."""
    for index, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name in param.opts and (equals or index + 1 < len(args)):
            return name, value if equals else args[index + 1]
    return None


def _output_closed() -> int:
    _discard_output()
    return 1


def _discard_output() -> None:
    # The interpreter flushes stdout again at exit, which would fail.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
