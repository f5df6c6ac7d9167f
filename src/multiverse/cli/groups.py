"""Groups of commands."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class RunByDefault(TyperGroup):
    """A group whose command `run` may be left out: ``eval aime24`` is ``eval run aime24``.

    A first word that is close to a command's name, and names no file, is left alone, so that a typing error is reported as one.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in ctx.help_option_names and not self._means_a_command(args[0]):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def _means_a_command(self, word: str) -> bool:
        if word in self.commands:
            return True
        return bool(get_close_matches(word, self.commands, cutoff=0.8)) and not Path(word).exists()
