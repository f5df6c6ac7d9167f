"""From the name of a model to where its files are. No torch."""

from __future__ import annotations

import os
from pathlib import Path


def looks_local(name: str) -> bool:
    """Whether this can only be a path: no hub id has this form, or something of this name exists."""
    path = Path(name).expanduser()
    return path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.exists()


def resolve(name: str | Path) -> str:
    """The folder of a model, or the hub id itself, which transformers fetches.

    Args:
        name: a folder or a hub id.
    """
    return os.path.expanduser(name)  # noqa: PTH111 (a Path would drop the ./ by which a name is known to be local)
