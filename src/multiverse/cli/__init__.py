"""The command line: thin, over the same calls that a script would make.

Every command loads what it needs when it runs, so that help, `tasks` and `show` start without torch.
"""

from .entry import main

__all__ = ["main"]
