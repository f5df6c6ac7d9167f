"""A generation while it is written: what each token is, and what may be shown of it so far. Torch-free.

`Reader` turns the engine's events into `Moment`s, which say what a token is (text, outline, conclusion, answer, structure) and
how far the generation has come. As JSON they travel from a server to whoever watches: the page, a terminal, another program.
`Transcript` puts the tokens in the order of the document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from .engine.events import BranchEndEvent, Event, FinishEvent, ForkEvent, JoinEvent, TokenEvent
from .engine.generation import Generation
from .errors import StructureError
from .structure import Machine, Role, State, TokenDialect, child_label

Kind = Literal["start", "goal", "token", "fork", "branch_end", "join", "finish"]
TextRole = Literal["text", "outline", "conclusion", "answer", "structure"]


@dataclass(frozen=True)
class Counts:
    """Tokens so far.

    Attributes:
        total: of all branches.
        critical_path: longest chain.
        branch: own tokens of the branch that the moment is about.
    """

    total: int
    critical_path: int
    branch: int


@dataclass(frozen=True)
class Moment:
    """One thing that happened, with all that is needed to show it. What does not apply is `None`.

    Attributes:
        event: what happened. ``goal``: the branch opens a block; from here on its children of an earlier block are history, and
            their labels are free.
        branch: label path of the branch it happened in, such as ``2.1``; empty for the trunk.
        text: what the token adds; may be empty.
        role: what that text is; ``structure`` is tags, separators and labels.
        outline: with the role ``outline``, label of the path to come that it describes.
        position: the token's position, as the model sees it.
        forced: whether the engine wrote the token.
        labels: the children, of a fork or join.
        reason: why the branch ended: ``stop``, ``length``, ``budget`` or ``deadline``.
        tokens: counts so far.
        seconds: since the request was accepted; filled in by whoever sends the moment.
        id, model, prompt_tokens: of the request, at the start.
        finish_reason, usage, structure_error, answer: of the result, at the finish.
    """

    event: Kind
    branch: str = ""
    text: str | None = None
    role: TextRole | None = None
    outline: str | None = None
    position: int | None = None
    forced: bool | None = None
    labels: tuple[str, ...] | None = None
    reason: str | None = None
    tokens: Counts | None = None
    seconds: float | None = None
    id: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    structure_error: str | None = None
    answer: str | None = None

    @property
    def parent(self) -> str | None:
        """Label path of the branch's parent; `None` for the trunk."""
        return self.branch.rpartition(".")[0] if self.branch else None

    def to_json(self) -> dict[str, Any]:
        """The form in which it travels: what is `None` is left out, except for a trunk's parent and a finish's error."""
        values: dict[str, Any] = {"event": self.event, "branch": self.branch, "parent": self.parent}
        for name in _OPTIONAL:
            value = getattr(self, name)
            if value is not None:
                values[name] = value
        if self.tokens is not None:
            values["tokens"] = asdict(self.tokens)
        if self.labels is not None:
            values["labels"] = list(self.labels)
        if self.event == "finish":
            values["structure_error"] = self.structure_error
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Moment:
        """Back from `to_json`; fields that are not known here are passed over.

        Raises:
            ValueError: it is not a moment.
        """
        try:
            known = {name: values[name] for name in ("event", "branch", *_OPTIONAL) if name in values}
            if "tokens" in known:
                counts = known["tokens"]
                known["tokens"] = Counts(int(counts["total"]), int(counts["critical_path"]), int(counts["branch"]))
            if "labels" in known:
                known["labels"] = tuple(str(label) for label in known["labels"])
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no moment of a generation: {str(values)[:80]} ({error})") from None


_OPTIONAL = tuple(item.name for item in fields(Moment) if item.name not in ("event", "branch"))


def usage_json(generation: Generation) -> dict[str, Any]:
    """What a generation took, as it stands in the last moment."""
    usage = generation.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
        "critical_path_tokens": usage.critical_path_tokens,
        "parallelism": usage.parallelism,
        "seconds": usage.seconds,
        "cached_tokens": usage.cached_tokens,
        "preemptions": usage.preemptions,
    }


def opens_thinking(prompt: Sequence[int], tokens: TokenDialect | None) -> bool:
    """Whether a prompt ends inside a thinking that it has opened, as some chat templates do."""
    if tokens is None or tokens.dialect.think is None:
        return False
    think = (tokens.ids[Role.THINK_OPEN], tokens.ids[Role.THINK_CLOSE])
    return next((token == think[0] for token in reversed(prompt) if token in think), False)


@dataclass
class _Branch:
    machine: Machine | None
    tokens: int = 0
    # What has been written of the outline that is open.
    plan: str = ""


class Reader:
    """Follows one generation and says what its events mean.

    Args:
        tokens: the dialect that the model writes; `None` for a plain model.
        hidden: tokens whose text is not shown (end of text).
        prompt_thinking: the prompt has opened the thinking (see `opens_thinking`).
        prompt_positions: where the generation begins; `None` takes the position of its first token.
    """

    def __init__(
        self,
        tokens: TokenDialect | None,
        hidden: frozenset[int] = frozenset(),
        *,
        prompt_thinking: bool = False,
        prompt_positions: int | None = None,
    ) -> None:
        self.tokens = tokens
        self.hidden = hidden
        self.prompt_positions = prompt_positions
        # By label; a later block of one branch has the labels of an earlier one, and takes its place.
        self._branches = {"": _Branch(Machine(tokens) if tokens is not None else None)}
        self._total = 0
        self._highest = -1
        self._answering = False
        if prompt_thinking and tokens is not None:
            self._advance(self._branches[""].machine, tokens.ids[Role.THINK_OPEN])

    def feed(self, event: Event) -> list[Moment]:
        """Take in what has happened."""
        match event:
            case TokenEvent():
                return self._token(event)
            case ForkEvent():
                for label in event.labels:
                    self._branches[label] = _Branch(Machine(self.tokens, label) if self.tokens is not None else None)
                return [Moment("fork", event.branch, labels=event.labels, tokens=self.counts(event.branch))]
            case BranchEndEvent():
                return [Moment("branch_end", event.branch, reason=event.reason, tokens=self.counts(event.branch))]
            case JoinEvent():
                machine = self._branches[event.branch].machine
                if machine is not None and machine.waiting:
                    machine.resume()
                return [Moment("join", event.branch, labels=event.labels, tokens=self.counts(event.branch))]
            case FinishEvent():
                return [self._finish(event.generation)]

    def _finish(self, generation: Generation) -> Moment:
        return Moment(
            "finish",
            tokens=self.counts(""),
            finish_reason=generation.finish_reason,
            usage=usage_json(generation),
            structure_error=generation.structure_error,
            answer=generation.answer,
        )

    def counts(self, label: str) -> Counts:
        """Tokens so far, with those of the branch with this label."""
        start = self.prompt_positions if self.prompt_positions is not None else self._highest + 1
        return Counts(self._total, max(0, self._highest + 1 - start), self._branches[label].tokens)

    def _token(self, event: TokenEvent) -> list[Moment]:
        branch = self._branches[event.branch]
        if self.prompt_positions is None:
            self.prompt_positions = event.position
        branch.tokens += 1
        self._total += 1
        self._highest = max(self._highest, event.position)
        if event.token_id in self.hidden:
            return [self._told(event, "", "structure")]
        if self.tokens is None:
            return [self._told(event, event.text, "text")]
        role = self.tokens.roles.get(event.token_id)
        stands = self._advance(branch.machine, event.token_id)
        if role is None and stands and not event.forced:
            return self._text(branch, event)
        moments = [self._told(event, event.text, "structure")]
        if stands and role is Role.THINK_CLOSE:
            self._answering = True
        elif stands and role is Role.GOAL_OPEN:
            moments.append(Moment("goal", event.branch, tokens=self.counts(event.branch)))
        elif stands and role is Role.OUTLINE_OPEN:
            branch.plan = ""
        return moments

    def _text(self, branch: _Branch, event: TokenEvent) -> list[Moment]:
        """A token of free text, or of the separator between two tags."""
        assert branch.machine is not None
        match branch.machine.state:
            case State.TEXT:
                return [self._told(event, event.text, "answer" if self._answering else "text")]
            case State.BODY:
                return [self._told(event, event.text, "text")]
            case State.CONCLUSION:
                return [self._told(event, event.text, "conclusion")]
            case State.OUTLINE:
                return self._outline(branch, branch.machine, event)
            case _:
                return [self._told(event, event.text, "structure")]

    def _outline(self, branch: _Branch, machine: Machine, event: TokenEvent) -> list[Moment]:
        """A token of an outline, which begins with the label; a token that holds an end of it is told in two parts."""
        assert self.tokens is not None
        label = child_label(machine.label, machine.outlines - 1)
        before, branch.plan = len(branch.plan), branch.plan + event.text
        split = max(0, _head_length(branch.plan, f"{label}{self.tokens.dialect.label_end}") - before)
        parts: list[Moment] = []
        if split or not event.text:
            parts.append(self._told(event, event.text[:split], "structure"))
        if event.text[split:]:
            parts.append(self._told(event, event.text[split:], "outline", label))
        return parts

    def _told(self, event: TokenEvent, text: str, role: TextRole, outline: str | None = None) -> Moment:
        return Moment(
            "token",
            event.branch,
            text=text,
            role=role,
            outline=outline,
            position=event.position,
            forced=event.forced,
            tokens=self.counts(event.branch),
        )

    def _advance(self, machine: Machine | None, token: int) -> bool:
        """Whether the token could stand where it does."""
        assert self.tokens is not None
        assert machine is not None
        try:
            machine.feed(token)
        except StructureError:
            if machine.label or machine.state is not State.TEXT or self._answering or Role.THINK_OPEN not in self.tokens.ids:
                return False
            # A tag of the thinking before any thinking was opened: then the prompt has opened it.
            machine.feed(self.tokens.ids[Role.THINK_OPEN])
            return self._advance(machine, token)
        return True


def _head_length(plan: str, head: str) -> int:
    """How much of an outline's beginning is its label, or may yet become it."""
    rest = plan.lstrip()
    if head.startswith(rest):
        return len(plan)
    return len(plan) - len(rest) + len(head) if rest.startswith(head) else 0


class _Node:
    """A branch's tokens, and its blocks between them."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.parts: list[TokenEvent | list[_Node]] = []
        self.ended = False
        # How many parts are sure to be text: what might become a stop string is not.
        self.sure = 0
        self._stops = stops
        self._longest = max(map(len, stops), default=0)
        # The newest tokens, as many as a stop string could begin in: number of the part, and its text.
        self._recent: list[tuple[int, str]] = []
        self._cut = False

    def add(self, token: TokenEvent) -> None:
        if self._cut:  # the engine still writes what the grammar prescribes; it is no part of the text
            return
        self.parts.append(token)
        if not self._stops:
            self.sure = len(self.parts)
            return
        self._recent.append((len(self.parts) - 1, token.text))
        text = "".join(piece for _, piece in self._recent)
        found = [at for at in map(text.find, self._stops) if at >= 0]
        if found:
            self._cut_at(min(found))
        else:
            self._hold(max((_overlap(text, stop) for stop in self._stops), default=0))

    def fork(self, children: list[_Node]) -> None:
        self.parts.append(children)
        if self.sure == len(self.parts) - 1:
            self.sure += 1

    def end(self) -> None:
        self.ended = True
        self.sure = len(self.parts)

    def _hold(self, count: int) -> None:
        """All but the last `count` characters are sure; tokens too far back to matter are forgotten."""
        self.sure = len(self.parts)
        length = 0
        for at, (number, piece) in reversed(list(enumerate(self._recent))):
            if length < count:
                self.sure = number
            length += len(piece)
            if length >= self._longest:
                del self._recent[:at]
                return

    def _cut_at(self, length: int) -> None:
        """Take off what stands behind so many of the recent characters."""
        self._cut = True
        for number, piece in self._recent:
            if length < len(piece):
                token = self.parts[number]
                assert isinstance(token, TokenEvent)
                self.parts[number] = replace(token, text=piece[: max(0, length)])
            length -= len(piece)

    def walk(self) -> Iterator[TokenEvent | None]:
        """The tokens in document order; `None` where what comes next is not there yet."""
        index = 0
        while True:
            if index == self.sure:
                if self.ended:
                    return
                yield None
                continue
            part = self.parts[index]
            index += 1
            if isinstance(part, TokenEvent):
                yield part
            else:
                for child in part:
                    yield from child.walk()


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text may be the beginning of a stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)


class Transcript:
    """Puts what happens in the order of the document.

    Branches are written at once but stand one after the other: a branch's tokens are given out live when everything before it
    has been, and held until then otherwise. So is what might become a stop string.

    Args:
        hidden: tokens that are no part of the text (end of text).
        stops: the request's stop strings: a branch's text ends before the first of them.
    """

    def __init__(self, hidden: frozenset[int] = frozenset(), stops: tuple[str, ...] = ()) -> None:
        self.hidden = hidden
        self.stops = stops
        self._nodes = {"": _Node(stops)}
        # Every node in the order of its coming, since labels are used again.
        self._all = list(self._nodes.values())
        self._walk = self._nodes[""].walk()

    def feed(self, event: Event) -> str:
        """Take in what has happened; returns the text that can now be given out."""
        return "".join(token.text for token in self.take(event) if token.token_id not in self.hidden)

    def take(self, event: Event) -> list[TokenEvent]:
        """As `feed`, but returns the tokens themselves, hidden ones included."""
        match event:
            case TokenEvent():
                self._nodes[event.branch].add(event)
            case ForkEvent():
                children = [_Node(self.stops) for _ in event.labels]
                self._nodes[event.branch].fork(children)
                self._nodes.update(zip(event.labels, children, strict=True))
                self._all += children
            case BranchEndEvent():
                self._nodes[event.branch].end()
            case FinishEvent():
                for node in self._all:  # those that were cut short, too
                    node.end()
            case JoinEvent():
                pass
        return list(self._ready())

    def _ready(self) -> Iterator[TokenEvent]:
        while (token := next(self._walk, None)) is not None:
            yield token
