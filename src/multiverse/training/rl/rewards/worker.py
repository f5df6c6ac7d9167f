"""The process that calls one reward function, for `workers.Pool`: started as a program, it imports the function once.

It gets pickled calls through a connection and answers in JSON, so that nothing that the function does can reach the process
that trains: neither an exit, a crash or a memory that runs out, nor an object of a class that is unknown there.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import os
import pickle
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from numbers import Real
from pathlib import Path
from typing import Any

_LONGEST = 500
"""Characters of a message."""


def main(descriptor: int) -> None:
    """Answer calls until the connection is closed."""
    os.dup2(2, 1)  # what the function prints goes to standard error
    link = Connection(descriptor)
    setup = pickle.loads(link.recv_bytes())
    sys.path[:] = setup["path"]
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _limit(setup["memory"])
    try:
        function = _resolve(setup["target"])
        _check(function, setup["target"], setup["positional"], setup["arguments"])
    except _RefusedError as error:
        _send(link, {"refused": str(error)})
        return
    _send(link, {"ready": True})
    own = os.getpid()
    while True:
        try:
            data = link.recv_bytes()
        except (EOFError, OSError):
            return
        answer = _call(function, data, setup["arguments"])
        if os.getpid() != own:
            os._exit(0)  # the function has forked, and this is the child
        _send(link, answer)


class _RefusedError(Exception):
    """The function cannot be used at all."""


def _call(function: Callable[..., Any], data: bytes, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        values, seed = pickle.loads(data)
        _seed(seed)
        return {"value": as_number(function(*values, **arguments))}
    except _NoNumberError as error:
        return {"fault": str(error)}
    except BaseException as error:  # SystemExit and KeyboardInterrupt of the function's own among them
        return {"fault": f"it raised {_told(error)}"}


class _NoNumberError(Exception):
    """A function gave something else than a number."""


def as_number(value: Any) -> float:
    """The value of a reward: a finite real number, numpy's included; true is 1 and false 0.

    Raises:
        _NoNumberError: it is something else.
    """
    kind = type(value).__name__
    if value is None:
        raise _NoNumberError("it gave None, not a number: does every way through it return one?")
    if inspect.iscoroutine(value):
        value.close()
        raise _NoNumberError("it gave a coroutine, not a number: make it a plain function")
    if kind == "bool_":  # numpy's, which is no number to Python
        value = bool(value)
    if not isinstance(value, Real):
        hint = ": return its .item()" if hasattr(value, "item") else ""
        raise _NoNumberError(f"it gave {_short(value)}, of type {kind}, not a number{hint}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _NoNumberError(f"it gave {number}, not a finite number")
    return number


def _resolve(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and error.name is not None and (module + ".").startswith(error.name + "."):
            raise _RefusedError(
                f"there is no module {error.name!r} in {str(Path.cwd())!r} or among what is installed: start in the folder "
                f"that has it, or set PYTHONPATH"
            ) from None
        raise _RefusedError(f"the module {module!r} cannot be imported: {_told(error)}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise _RefusedError(f"{module!r} has no {name!r}: it defines {_functions(sys.modules[module])}")
        found = getattr(found, part)
    if inspect.isclass(found) or not callable(found):
        raise _RefusedError(
            f"{name!r} of {module!r} is {'a class' if inspect.isclass(found) else _short(found)}, not a function"
        )
    if inspect.iscoroutinefunction(found):
        raise _RefusedError(f"{name!r} of {module!r} is asynchronous: make it a plain function")
    function: Callable[..., Any] = found
    return function


def _functions(module: Any) -> str:
    own = [name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")]
    return ", ".join(own[:10]) or "no function"


def _check(function: Callable[..., Any], target: str, positional: list[str], arguments: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a built-in that does not tell
    try:
        signature.bind(*positional, **arguments)
    except TypeError as error:
        name = target.rpartition(":")[2].rpartition(".")[2]
        call = ", ".join([*positional, *(f"{key}={value!r}" for key, value in arguments.items())])
        raise _RefusedError(f"{name}{signature} cannot be called as {name}({call}): {error}") from None


def _seed(seed: str) -> None:
    """Seed what functions draw from, so that a value does not depend on which process gave it."""
    random.seed(seed)
    for name, own in (("numpy", "random"), ("torch", "")):
        module = sys.modules.get(name)
        if module is not None:
            (getattr(module, own).seed if own else module.manual_seed)(random.Random(seed).getrandbits(32))


def _told(error: BaseException) -> str:
    """An exception on one line, with the place where it was raised."""
    text = " ".join(str(error).split())
    where = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(where[-1].filename).name}, line {where[-1].lineno})" if len(where) > 1 else ""
    return _cut(f"{type(error).__name__}{': ' if text else ''}{text}") + place


def _short(value: Any) -> str:
    try:
        text = " ".join(repr(value).split())
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _send(link: Connection, value: dict[str, Any]) -> None:
    with suppress(OSError):
        link.send_bytes(json.dumps(value).encode())


def _limit(memory: float | None) -> None:
    """Limit the address space, and have the system kill this process first where memory runs out all the same."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if memory is not None:
        with suppress(ImportError, OSError, ValueError):
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with(parent: int) -> None:
    """End this process when the one that started it has ended, also in the middle of a call."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
