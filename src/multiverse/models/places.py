"""Where models that were fetched or converted are kept. No torch.

Below the cache folder, ``models/NAME`` is a model's folder that a user has put there, ``models/NAME@package`` one converted
from a package, and ``gguf/`` holds conversions of GGUF files. Hub repositories stay in the hub's own cache.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from filelock import FileLock

from ..errors import writing

VARIABLE = "MULTIVERSE_CACHE"
OFFLINE = "HF_HUB_OFFLINE is set, so nothing is downloaded"

Progress = Callable[[str, int, int | None], None]
"""Called during a long job with a description, what is done, and the total if it is known; in bytes."""


def cache_folder() -> Path:
    """``$MULTIVERSE_CACHE``, else ``multiverse`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "multiverse"


def offline() -> bool:
    """Whether nothing may be fetched."""
    return any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def complete(folder: Path) -> bool:
    """Whether a folder holds a whole model, or a whole adapter; weights that were cut short are found when they are loaded."""
    if (folder / "adapter_config.json").is_file():
        return (folder / "adapter_model.safetensors").is_file()
    if not (folder / "config.json").is_file():
        return False
    for index in folder.glob("*.index.json"):
        try:
            return all((folder / name).is_file() for name in set(json.loads(index.read_text())["weight_map"].values()))
        except (OSError, ValueError, KeyError):
            return False
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


@contextmanager
def made_whole(target: Path, progress: Progress) -> Iterator[Path | None]:
    """Context that makes a folder whole or not at all; only one process at a time is in it.

    Yields:
        An empty folder that becomes `target` at the end, or is removed if the block fails; `None` if another process has made
        `target` meanwhile. What a killed process has left of an earlier one is removed first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target.parent / f".{target.name}.lock")
    if not _acquired(lock, 0):
        progress(f"waiting for another process that makes {target.name}", 0, None)
        _acquired(lock, -1)
    try:
        if target.exists():
            yield None
            return
        for left in target.parent.glob(f".{target.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        partial = Path(mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            with writing(target):
                yield partial
            partial.chmod(0o755)
            partial.replace(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    finally:
        lock.release()


def _acquired(lock: FileLock, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds)
    except TimeoutError:
        return False
    return True
