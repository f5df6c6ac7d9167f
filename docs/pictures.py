"""Draw the pictures of docs/concepts.md from the code that they explain: ``python docs/pictures.py``.

A short document is laid out by `structure.encode` and `structure.Contexts`; positions, visibility and what is read again are
theirs. Tokens are words and tags, so that they can be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import NamedTuple

from multiverse.structure import (
    MULTIVERSE,
    Block,
    Contexts,
    Dialect,
    Document,
    Layout,
    Role,
    TokenDialect,
    encode,
    layout,
    resolve,
)

OUT = Path(__file__).parent / "figures"
DOCUMENT = Document((Block(("Mia", "Tom"), (("7+5=12",), ("9*2=18, 18-4=14",)), "12+14=26"),), "26")
INK, LINE, PAPER = "#1f2937", "#9ca3af", "#ffffff"
COLOURS = ("#e5e7eb", "#bfdbfe", "#fde68a", "#bbf7d0", "#fbcfe8")
"""Of the trunk, and of its paths."""
CELL, ROW = 92, 34


class Words:
    """A tokenizer in which every tag and every word is one token."""

    def __init__(self, dialect: Dialect) -> None:
        tags = "|".join(re.escape(tag) for tag in sorted(dialect.tags, key=len, reverse=True))
        self._pattern = re.compile(rf"{tags}|(?:(?!{tags})\S)+")
        self._ids: dict[str, int] = {}

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:  # noqa: ARG002
        return [self._ids.setdefault(word, len(self._ids)) for word in self._pattern.findall(text)]

    def decode(self, token_ids: Sequence[int], **_: bool) -> str:
        words = list(self._ids)
        return " ".join(words[token] for token in token_ids)


class Token(NamedTuple):
    """A token as it is drawn."""

    text: str
    branch: int
    position: int
    again: bool = False


@dataclass
class Example:
    """The document in one dialect; what stands before the end of its goal is drawn as one box."""

    dialect: Dialect

    def __post_init__(self) -> None:
        self.words = Words(self.dialect)
        self.tokens: TokenDialect = resolve(self.words, self.dialect)
        self.ids = encode(DOCUMENT, self.tokens).token_ids
        self.layout: Layout = layout(self.ids, self.tokens)
        self.first = self.ids.index(self.tokens.ids[Role.GOAL_CLOSE])
        self.last = self.ids.index(self.tokens.ids[Role.CONCLUSION_CLOSE]) if self.dialect.conclusion else len(self.ids) - 1

    def shown(self) -> list[Token]:
        """The tokens from the end of the goal to the end of the conclusion."""
        indices = range(self.first, self.last + 1)
        return [
            Token(self.words.decode(self.ids[i : i + 1]), self.layout.branches[i], self.layout.positions[i]) for i in indices
        ]

    def read(self) -> list[Token]:
        """What the trunk has before it at the end of the conclusion, in the order in which it reads it."""
        if self.dialect.join == "kv":
            return self.shown()
        contexts = Contexts.of(self.ids, self.layout, self.tokens)
        trunk = [token for token in contexts.sequence if token.branch == 0][self.first :]
        ends = 0
        found = []
        for token in trunk:
            text = self.words.decode([token.token])
            found.append(Token(text, 0 if token.own else ends + 1, token.position, not token.own))
            ends += not token.own and token.token == self.tokens.ids[Role.PATH_CLOSE]
            if token.own and token.token == self.tokens.ids.get(Role.CONCLUSION_CLOSE):
                break
        return found


def fork() -> str:
    """Tokens as boxes: one column for each position, one row for each branch."""
    example = Example(MULTIVERSE)
    tokens = example.shown()
    start, rows = tokens[0].position, {0: 0, 1: 1, 2: 2}
    width = (tokens[-1].position - start + 2) * CELL + 20
    parts = [text(10, 22, f"What comes before is one line: positions 0 to {start - 1}.", anchor="start")]
    left = {branch: min(token.position for token in tokens if token.branch == branch) for branch in (1, 2)}
    right = {branch: max(token.position for token in tokens if token.branch == branch) for branch in (1, 2)}

    def x(position: int) -> int:
        return 20 + (position - start) * CELL

    def y(branch: int) -> int:
        return 56 + rows[branch] * 52

    resumed = min(token.position for token in tokens if token.branch == 0 and token.position > left[1])
    for branch in (1, 2):
        parts.append(line(x(left[branch]) - 8, y(0) + ROW, x(left[branch]), y(branch) + ROW / 2))
        parts.append(line(x(right[branch]) + CELL - 8, y(branch) + ROW / 2, x(resumed), y(0) + ROW))
    parts += [box(x(token.position), y(token.branch), token) for token in tokens]
    bottom = y(2) + ROW + 26
    for position in range(start, tokens[-1].position + 1):
        parts.append(text(x(position) + (CELL - 8) / 2, bottom, str(position), colour=LINE))
    parts.append(
        text(
            10, bottom + 24, "position: the paths begin beside each other; the trunk resumes behind the longest", anchor="start"
        )
    )
    return picture(width, bottom + 36, parts, "One sequence forks into two paths and joins: columns are positions")


def mask() -> str:
    """Which token attends to which: a filled square."""
    example = Example(MULTIVERSE)
    tokens = example.shown()
    side, left, top = 22, 150, 120
    parts = []
    for row, token in enumerate(tokens):
        y = top + row * side
        parts.append(text(left - 8, y + 15, token.text, anchor="end"))
        parts.append(turned(left + row * side + 15, top - 8, token.text))
        parts.append(text(left + len(tokens) * side + 22, y + 15, str(token.position)))
        for column, other in enumerate(tokens):
            sees = example.layout.visible(example.first + row, example.first + column)
            fill = COLOURS[other.branch] if sees else PAPER
            parts.append(square(left + column * side, y, side, fill))
            if sees:
                parts.append(f'<circle cx="{left + column * side + 11}" cy="{y + 11}" r="3.5" fill="{INK}"/>')
    end = left + len(tokens) * side
    parts.append(text(end + 22, top - 8, "position"))
    return picture(
        end + 70, top + len(tokens) * side + 14, parts, "Which token attends to which: not to those of the other path"
    )


def joins() -> str:
    """What the trunk reads behind the paths, for each way of joining."""
    parts: list[str] = []
    y, width = 14.0, 0.0
    titles = {
        "kv": "kv: the keys and values of all paths, side by side; nothing is read",
        "text": "text: the paths in one line; all but the first are read again (dashed)",
        "message": "message: head and last clause of each path (dashed: read)",
    }
    for join, title in titles.items():
        example = Example(replace(MULTIVERSE, join=join))  # type: ignore[arg-type]
        tokens = example.read()
        start = tokens[0].position
        parts.append(text(10, y + 14, title, anchor="start", bold=True))
        for token in tokens:
            lane = 0 if join != "kv" else token.branch
            again = token.again and (join == "message" or token.branch > 1)
            shown = token._replace(again=again)
            parts.append(box(20 + (token.position - start) * CELL, y + 26 + lane * (ROW + 6), shown))
        lanes = 3 if join == "kv" else 1
        width = max(width, 20 + (max(token.position for token in tokens) - start + 1) * CELL + 10)
        y += 26 + lanes * (ROW + 6) + 22
    return picture(width, y, parts, "Three ways of joining: what the trunk has before it when it goes on")


def box(x: float, y: float, token: Token) -> str:
    dash = ' stroke-dasharray="5 3" stroke-width="2"' if token.again else ""
    size = 13 if len(token.text) < 11 else 10.5
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{CELL - 8}" height="{ROW}" rx="6" '
        f'fill="{COLOURS[token.branch]}" stroke="{INK}"{dash}/>'
        + text(x + (CELL - 8) / 2, y + 22, token.text, size=size, mono=True)
    )


def square(x: float, y: float, side: float, fill: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" fill="{fill}" stroke="{LINE}" stroke-width="0.5"/>'


def line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<path d="M{x:g} {y:g} L{to_x:g} {to_y:g}" stroke="{LINE}" stroke-width="2" fill="none"/>'


def text(
    x: float,
    y: float,
    content: str,
    *,
    anchor: str = "middle",
    size: float = 13,
    colour: str = INK,
    mono: bool = False,
    bold: bool = False,
) -> str:
    family = "ui-monospace,Menlo,Consolas,monospace" if mono else "system-ui,sans-serif"
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-family="{family}" font-size="{size:g}"{weight} fill="{colour}">'
        f"{escape(content)}</text>"
    )


def turned(x: float, y: float, content: str) -> str:
    return (
        f'<text transform="translate({x:g} {y:g}) rotate(-60)" font-family="system-ui,sans-serif" font-size="13" fill="{INK}">'
        f"{escape(content)}</text>"
    )


def picture(width: float, height: float, parts: Iterable[str], title: str) -> str:
    """An SVG file on a white card, so that it reads in the dark, too."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width:g}" height="{height:g}" rx="10" fill="{PAPER}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def pictures() -> Iterator[tuple[Path, str]]:
    """Every file with its content."""
    yield OUT / "concept-fork.svg", fork()
    yield OUT / "concept-mask.svg", mask()
    yield OUT / "concept-joins.svg", joins()


def main() -> None:
    for path, content in pictures():
        path.write_text(content)


if __name__ == "__main__":
    main()
