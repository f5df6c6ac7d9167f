"""What there is to see of a running generation: a trunk, lanes side by side, what they hold, who has closed.

Fed with the engine's events, it keeps a machine per branch to know whether a token is a goal's, an outline's, a body's or
a conclusion's. It draws nothing, so it is tested without a terminal; `picture.py` draws it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ..engine.events import BranchEndEvent, Event, FinishEvent, ForkEvent, JoinEvent, TokenEvent
from ..engine.generation import Generation
from ..errors import StructureError
from ..structure import Machine, Role, State, TokenDialect, child_label


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
        head: what the outline's text begins with, the label and what closes it.
        plan: the outline as written, head included.
        items: texts and forks in order.
        tokens: tokens of its own.
    """

    label: str = ""
    head: str = ""
    plan: str = ""
    items: list[str | Split] = field(default_factory=list)
    stage: Stage = Stage.RUNNING
    tokens: int = 0

    @property
    def outline(self) -> str:
        """What the lane is to do."""
        plan = self.plan.strip()
        return "" if self.head.startswith(plan) else plan.removeprefix(self.head).strip()

    def write(self, text: str) -> None:
        """Add to the text that stands last."""
        if self.items and isinstance(self.items[-1], str):
            self.items[-1] += text
        elif text:
            self.items.append(text)

    @property
    def block(self) -> Split:
        """The newest fork."""
        return next(item for item in reversed(self.items) if isinstance(item, Split))


@dataclass
class Split:
    """One fork, from the first outline on; `joined` once its lanes have all closed."""

    lanes: list[Lane] = field(default_factory=list)
    conclusion: str = ""
    joined: bool = False


@dataclass
class _Branch:
    lane: Lane
    machine: Machine


class View:
    """Follows a generation.

    Args:
        tokens: the dialect that the model writes; `None` for a plain model.
        hidden: tokens that are not shown (end of text).

    Attributes:
        trunk: the lane that everything else hangs from.
        answer: what followed the thinking so far; `None` before that.
        generation: the result, once finished.
    """

    def __init__(self, tokens: TokenDialect | None, hidden: frozenset[int] = frozenset()) -> None:
        self.tokens = tokens
        self.hidden = hidden
        self.trunk = Lane()
        self.answer: str | None = None
        self.generation: Generation | None = None
        # By label; a later block of one trunk has the labels of an earlier one, and takes its place.
        self._branches: dict[str, _Branch] = {}
        if tokens is not None:
            self._branches[""] = _Branch(self.trunk, Machine(tokens))

    def feed(self, event: Event) -> None:
        """Take in what has happened."""
        match event:
            case TokenEvent():
                self._token(event)
            case ForkEvent():
                self._fork(event)
            case BranchEndEvent():
                self._branches[event.branch].lane.stage = Stage.ENDED
            case JoinEvent():
                branch = self._branches[event.branch]
                branch.lane.block.joined = True
                branch.machine.resume()
            case FinishEvent():
                self.generation = event.generation

    def _fork(self, event: ForkEvent) -> None:
        assert self.tokens is not None
        for lane in self._branches[event.branch].lane.block.lanes:
            lane.stage = Stage.RUNNING
            self._branches[lane.label] = _Branch(lane, Machine(self.tokens, lane.label))

    def _token(self, event: TokenEvent) -> None:
        if self.tokens is None:
            if event.token_id not in self.hidden:
                self.trunk.write(event.text)
            return
        branch = self._branches[event.branch]
        branch.lane.tokens += 1
        if event.token_id in self.hidden or not self._advance(branch.machine, event.token_id):
            return
        role = self.tokens.roles.get(event.token_id)
        if role is None:
            if not event.forced:  # separators and labels
                self._write(branch, event.text)
        elif role is Role.THINK_CLOSE:
            self.answer = ""
        elif role is Role.GOAL_OPEN:
            branch.lane.items.append(Split())
        elif role is Role.OUTLINE_OPEN:
            lanes = branch.lane.block.lanes
            label = child_label(branch.lane.label, len(lanes))
            lanes.append(Lane(label, f"{label}{self.tokens.dialect.label_end}", stage=Stage.PLANNED))

    def _advance(self, machine: Machine, token: int) -> bool:
        """Whether the token could stand where it does."""
        assert self.tokens is not None
        try:
            machine.feed(token)
        except StructureError:
            if machine.label or machine.state is not State.TEXT or Role.THINK_OPEN not in self.tokens.ids:
                return False
            # A tag of the thinking before any thinking was opened: then the prompt has opened it.
            machine.feed(self.tokens.ids[Role.THINK_OPEN])
            return self._advance(machine, token)
        return True

    def _write(self, branch: _Branch, text: str) -> None:
        lane = branch.lane
        match branch.machine.state:
            case State.TEXT if self.answer is not None:
                self.answer += text
            case State.TEXT | State.BODY:
                lane.write(text)
            case State.OUTLINE:
                lane.block.lanes[-1].plan += text
            case State.CONCLUSION:
                lane.block.conclusion += text
            case _:  # separators between tags
                pass
