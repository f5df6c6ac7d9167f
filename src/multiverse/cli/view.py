"""State of a generation for display: a trunk, lanes side by side, their texts, and which have closed.

Fed with events in the wire form, from the engine of this process or from a server. `picture.py` draws it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ..streaming import WireEvent
from .errors import InputError


class Stage(Enum):
    """State of a lane."""

    PLANNED = "planned"
    RUNNING = "running"
    ENDED = "ended"


@dataclass
class Lane:
    """A branch.

    Attributes:
        label: label path such as ``2.1``; empty for the trunk.
        plan: the outline as written, without its label.
        items: texts and forks in order.
        tokens: tokens of its own.
    """

    label: str = ""
    plan: str = ""
    items: list[str | Split] = field(default_factory=list)
    stage: Stage = Stage.RUNNING
    tokens: int = 0

    @property
    def outline(self) -> str:
        """The outline, stripped."""
        return self.plan.strip()

    def write(self, text: str) -> None:
        """Add to the last text."""
        if self.items and isinstance(self.items[-1], str):
            self.items[-1] += text
        elif text:
            self.items.append(text)

    @property
    def text(self) -> str:
        """Its texts, without those of blocks."""
        return "".join(item for item in self.items if isinstance(item, str))

    @property
    def forks(self) -> bool:
        """Whether it has opened a block."""
        return any(isinstance(item, Split) for item in self.items)

    @property
    def block(self) -> Split:
        """The newest fork.

        Raises:
            InputError: there is none.
        """
        for item in reversed(self.items):
            if isinstance(item, Split):
                return item
        raise InputError(f"the events of this generation are inconsistent: branch {self.label!r} has opened no block")


@dataclass
class Split:
    """A block, from the opening of its goal on; `joined` once all of its lanes have closed."""

    lanes: list[Lane] = field(default_factory=list)
    conclusion: str = ""
    joined: bool = False

    def lane(self, label: str) -> Lane:
        """The lane with this label, added as planned if there is none yet."""
        for lane in self.lanes:
            if lane.label == label:
                return lane
        self.lanes.append(Lane(label, stage=Stage.PLANNED))
        return self.lanes[-1]


class View:
    """Follows a generation.

    Attributes:
        trunk: the lane of the trunk.
        answer: the trunk behind the thinking so far; `None` before that.
        finish: the last event, once it has come.
    """

    def __init__(self) -> None:
        self.trunk = Lane()
        self.answer: Lane | None = None
        self.finish: WireEvent | None = None
        # By label; a later block of a branch reuses the labels of an earlier one.
        self._lanes = {"": self.trunk}

    def feed(self, event: WireEvent) -> None:
        """Take the next event.

        Raises:
            InputError: its branch or block does not exist.
        """
        lane = self._lanes.get(event.branch)
        if lane is None:
            raise InputError(f"the events of this generation are inconsistent: branch {event.branch!r} has not begun")
        if event.tokens is not None:
            lane.tokens = event.tokens.branch
        match event.event:
            case "token":
                self._write(lane, event)
            case "goal":
                lane = self._answering(lane) if event.role == "answer" else lane
                lane.items.append(Split())
            case "fork":
                block = lane.block
                block.lanes = [block.lane(label) for label in event.labels or ()]
                for child in block.lanes:
                    child.stage = Stage.RUNNING
                    self._lanes[child.label] = child
            case "branch_end":
                lane.stage = Stage.ENDED
            case "join":
                lane.block.joined = True
            case "finish":
                self.finish = event
            case _:  # the start, and kinds of a newer server
                pass

    def _write(self, lane: Lane, event: WireEvent) -> None:
        text = event.text or ""
        match event.role:
            case "text":
                lane.write(text)
            case "outline":
                lane.block.lane(event.outline or "").plan += text
            case "conclusion":
                lane.block.conclusion += text
            case "answer":
                self._answering(lane).write(text)
            case _:  # tags, separators and labels
                pass

    def _answering(self, lane: Lane) -> Lane:
        """The answer: from here on it is what the trunk writes."""
        if self.answer is None:
            self.answer = self._lanes[""] = Lane(tokens=lane.tokens)
        return self.answer
