"""What there is to see of a running generation: a trunk, lanes side by side, what they hold, who has closed.

Fed with moments, wherever they come from: the engine of this process, or a server. It draws nothing, so it is tested without a
terminal; `picture.py` draws it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ..live import Moment
from .errors import InputError


class Stage(Enum):
    """How far a lane has come."""

    PLANNED = "planned"
    RUNNING = "running"
    ENDED = "ended"


@dataclass
class Lane:
    """One line of thought.

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
        """What the lane is to do."""
        return self.plan.strip()

    def write(self, text: str) -> None:
        """Add to the text that stands last."""
        if self.items and isinstance(self.items[-1], str):
            self.items[-1] += text
        elif text:
            self.items.append(text)

    @property
    def block(self) -> Split:
        """The newest fork.

        Raises:
            InputError: there is none.
        """
        for item in reversed(self.items):
            if isinstance(item, Split):
                return item
        raise InputError(f"what was told of this generation does not fit together: branch {self.label!r} has opened no block")


@dataclass
class Split:
    """One fork, from the opening of its goal on; `joined` once its lanes have all closed."""

    lanes: list[Lane] = field(default_factory=list)
    conclusion: str = ""
    joined: bool = False

    def lane(self, label: str) -> Lane:
        """The lane with this label, planned here and now if there is none yet."""
        for lane in self.lanes:
            if lane.label == label:
                return lane
        self.lanes.append(Lane(label, stage=Stage.PLANNED))
        return self.lanes[-1]


class View:
    """Follows a generation.

    Attributes:
        trunk: the lane that everything else hangs from.
        answer: what followed the thinking so far; `None` before that.
        finish: the last moment, once it has come.
    """

    def __init__(self) -> None:
        self.trunk = Lane()
        self.answer: str | None = None
        self.finish: Moment | None = None
        # By label; a later block of one trunk has the labels of an earlier one, and takes its place.
        self._lanes = {"": self.trunk}

    def feed(self, moment: Moment) -> None:
        """Take in what has happened.

        Raises:
            InputError: it is about a branch or a block that does not exist.
        """
        lane = self._lanes.get(moment.branch)
        if lane is None:
            raise InputError(f"what was told of this generation does not fit together: branch {moment.branch!r} has not begun")
        if moment.tokens is not None:
            lane.tokens = moment.tokens.branch
        match moment.event:
            case "token":
                self._write(lane, moment)
            case "goal":
                lane.items.append(Split())
            case "fork":
                block = lane.block
                block.lanes = [block.lane(label) for label in moment.labels or ()]
                for child in block.lanes:
                    child.stage = Stage.RUNNING
                    self._lanes[child.label] = child
            case "branch_end":
                lane.stage = Stage.ENDED
            case "join":
                lane.block.joined = True
            case "finish":
                self.finish = moment
            case _:  # the start, and what a newer server may tell
                pass

    def _write(self, lane: Lane, moment: Moment) -> None:
        text = moment.text or ""
        match moment.role:
            case "text":
                lane.write(text)
            case "outline":
                lane.block.lane(moment.outline or "").plan += text
            case "conclusion":
                lane.block.conclusion += text
            case "answer":
                self.answer = (self.answer or "") + text
            case _:  # tags, separators and labels
                pass
