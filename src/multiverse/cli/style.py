"""Colours, and text that is safe to put on a terminal."""

from __future__ import annotations

import re

COLORS = ("cyan", "magenta", "green", "yellow", "blue", "red")
"""Colours of siblings, in turn."""

# Whatever could move the cursor or change the terminal's state: a model's text is never trusted with that.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """Text without the blanks around it, and without control characters."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.strip().replace("\r\n", "\n"))
