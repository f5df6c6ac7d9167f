"""Colours, and text made safe to print on a terminal."""

from __future__ import annotations

import re

COLORS = ("cyan", "magenta", "green", "yellow", "blue", "red")
"""Colours of siblings, in turn."""

# Control characters could move the cursor or change the terminal's state, and a model may generate them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """Text without surrounding blanks; control characters are replaced."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.strip().replace("\r\n", "\n"))
