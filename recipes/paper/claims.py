"""Who works on which cell: a locked file each, so that several processes can share the work.

The lock belongs to the process and goes with it, however it ends; the file stays, and whoever locks it next goes on.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Hold a file for oneself alone; `False` if another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")  # for whoever wonders; nothing reads it
        file.flush()
        yield True
