"""The command line, over the same calls that a script would make.

A command imports what it needs when it runs, so that `--help`, `tasks` and `show` start without torch.
"""

from .entry import main

__all__ = ["main"]
