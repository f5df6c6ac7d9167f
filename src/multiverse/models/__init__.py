"""Models as users name them: by registry name, folder, adapter or hub id. Everything that reads weights starts here.

What is imported here needs no torch; `weights` does.
"""

from .registry import ENTRIES
from .resolve import pull, resolve

__all__ = ["ENTRIES", "pull", "resolve"]
