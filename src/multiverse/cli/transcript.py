"""A generation's text as it streams, in the order of the document.

Branches are written at once but stand one after the other: a branch's text is given out live when everything before it
has been, and held until then otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..engine.events import BranchEndEvent, Event, ForkEvent, TokenEvent


@dataclass
class _Node:
    parts: list[str | list[_Node]] = field(default_factory=list)
    ended: bool = False

    def walk(self) -> Iterator[str | None]:
        """The text in document order; `None` where what comes next is not there yet."""
        index = 0
        while True:
            if index == len(self.parts):
                if self.ended:
                    return
                yield None
                continue
            part = self.parts[index]
            index += 1
            if isinstance(part, str):
                yield part
            else:
                for child in part:
                    yield from child.walk()


class Transcript:
    """Turns events into text.

    Args:
        hidden: tokens that are no part of the text (end of text).
    """

    def __init__(self, hidden: frozenset[int] = frozenset()) -> None:
        self.hidden = hidden
        self._trunk = _Node()
        self._nodes = {"": self._trunk}
        self._walk = self._trunk.walk()

    def feed(self, event: Event) -> str:
        """Take in what has happened; returns the text that can now be given out."""
        match event:
            case TokenEvent():
                if event.token_id not in self.hidden and event.text:
                    self._nodes[event.branch].parts.append(event.text)
            case ForkEvent():
                children = [_Node() for _ in event.labels]
                self._nodes[event.branch].parts.append(children)
                self._nodes.update(zip(event.labels, children, strict=True))
            case BranchEndEvent():
                self._nodes[event.branch].ended = True
            case _:
                pass
        return "".join(self._ready())

    def _ready(self) -> Iterator[str]:
        while (text := next(self._walk)) is not None:  # the trunk never ends, so neither does the walk
            yield text
