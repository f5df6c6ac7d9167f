"""`--help`: names on the left, what they do beside them, in paragraphs that fill the width that there is.

Typer draws a table with a column for each part of an option, which leaves no room for the help itself at 80 columns.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

MOST_COLUMNS = 100
_LEFT = 30  # columns of the names; longer ones stand on a line of their own
_MARKUP = re.compile(r"\[/?bold\]")
_HEADING = re.compile(r"\[bold\]([^\[]*)\[/bold\]\s*")


def install(command: Any) -> None:
    """Let a command, and those below it, print its help this way."""
    command.format_help = lambda context, formatter: write(command, context, formatter)
    for below in getattr(command, "commands", {}).values():
        install(below)


def write(command: Any, context: Any, _formatter: Any) -> None:
    """Print the help of a command."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    width = min(console.width, MOST_COLUMNS)
    for style, line in _lines(command, context, width):
        console.print(Text(line, style), soft_wrap=True)


def _lines(command: Any, context: Any, width: int) -> Iterator[tuple[str, str]]:
    """The lines, each with its style."""
    pieces = " ".join(command.collect_usage_pieces(context)).replace("{", "").replace("}", "")
    yield "", f"Usage: {context.command_path} {pieces}".rstrip()
    for paragraph in re.split(r"\n\s*\n", textwrap.dedent(command.help or "").strip()):
        yield "", ""
        heading, _, examples = paragraph.partition("\n")
        if found := _HEADING.fullmatch(heading):
            yield "bold", found[1]
            divide = _example if found[1] == "Examples" else _as_it_is
            yield from (("", line) for example in examples.splitlines() for line in divide(example, width))
        else:
            yield from (("", line) for line in wrap(_MARKUP.sub("", paragraph), width))
    for name, rows in _panels(command, context):
        yield "", ""
        yield "bold", name
        for left, right in rows:
            yield from (("", line) for line in _row(left, right, width))


def _panels(command: Any, context: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Names of groups of arguments, options and commands, each with its rows."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(context):
        if getattr(param, "hidden", False):
            continue
        argument = param.param_type_name == "argument"
        panel = getattr(param, "rich_help_panel", None) or ("Arguments" if argument else "Options")
        record = param.get_help_record(context)
        if record is not None:
            names = record[0].partition(" <")[0] if argument else re.sub(r"\s*<bool>$", "", record[0])
            panels.setdefault(panel, []).append((re.sub("[<>]", "", names), record[1]))
    if general := panels.pop("Options", None):  # --help comes last
        panels["Options"] = general
    yield from panels.items()
    shown = [(name, below) for name, below in getattr(command, "commands", {}).items() if not below.hidden]
    if shown:
        yield "Commands", [(name, _first_sentence(below.help or "")) for name, below in shown]


def _example(line: str, width: int) -> Iterator[str]:
    """A command line; where it is too long it goes on as a shell reads it."""
    while len(line) > width - 2:
        at = line.rfind(" ", 20, width - 5)
        if at < 0:
            break
        yield f"  {line[:at]} \\"
        line = f"    {line[at + 1 :]}"
    yield f"  {line}"


def _as_it_is(line: str, _width: int) -> Iterator[str]:
    yield f"  {line}"


def _first_sentence(text: str) -> str:
    return " ".join(text.strip().partition("\n\n")[0].split()).rstrip(".")


def _row(left: str, right: str, width: int) -> Iterator[str]:
    if len(left) > width - 2:  # more choices than fit
        left, _, choices = left.rpartition(" ")
        about, bracket, default = right.partition("[default:")
        left, right = f"{left} NAME", f"{about}One of {choices.replace('|', ', ')}. {bracket}{default}"
    lines = wrap(right, width - _LEFT - 2)
    if len(left) > _LEFT - 2:
        yield f"  {left}"
    else:
        yield f"  {left:<{_LEFT}}{lines.pop(0) if lines else ''}".rstrip()
    for line in lines:
        yield " " * (_LEFT + 2) + line


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most this width. What stands in brackets is not divided if it fits, and no word is left alone at the end."""
    joined = " ".join(text.split())
    joined = re.sub(r"\[[^\[\]]*\]", lambda found: found[0].replace(" ", "\0") if len(found[0]) <= width else found[0], joined)

    def at(width: int) -> list[str]:
        return textwrap.wrap(joined, width, break_long_words=False, break_on_hyphens=False)

    lines = at(width)
    if len(lines) > 1 and " " not in lines[-1] and not lines[-1].startswith("["):
        for narrower in range(width - 1, width * 2 // 3, -1):
            other = at(narrower)
            if len(other) == len(lines) and " " in other[-1]:
                lines = other
                break
    return [line.replace("\0", " ") for line in lines]
