"""The engine's events on their way to a client: as JSON, and merged into one text. Torch-free.

`wire_events` gives an event the form in which a server sends it and the page, the terminal and other programs read it.
`DocumentOrder` merges the tokens of all branches into the order of the document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from .engine.events import BranchEndEvent, Counts, Event, FinishEvent, ForkEvent, JoinEvent, PromptEvent, TokenEvent
from .structure import Role, TextRole, TokenDialect

Kind = Literal["start", "goal", "token", "fork", "branch_end", "join", "finish"]


@dataclass(frozen=True)
class WireEvent:
    """An event with everything that is needed to show it. Fields that do not apply are `None`.

    Attributes:
        event: ``goal``: the branch opens a block; from here on the labels of its earlier block are free. Its role is
            ``answer`` if the block stands in the answer.
        branch: label path of the branch it happened in, such as ``2.1``; empty for the trunk.
        text: what the token adds; may be empty.
        role: what that text is; ``structure`` is tags, separators and labels.
        outline: with the role ``outline``, label of the path to come that it describes.
        position: the token's position, as the model sees it.
        forced: whether the engine wrote the token.
        labels: the children, of a fork or join.
        reason: why the branch ended: ``stop``, ``length``, ``budget`` or ``deadline``.
        tokens: counts so far.
        seconds: since the request was accepted; filled in by the sender.
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
        """As JSON. Fields that are `None` are left out, except for the trunk's parent and the error of a finish."""
        values: dict[str, Any] = {"event": self.event, "branch": self.branch, "parent": self.parent}
        for name in _OPTIONAL:
            value = getattr(self, name)
            if value is not None:
                values[name] = value
        if self.tokens is not None:
            values["tokens"] = self.tokens._asdict()
        if self.labels is not None:
            values["labels"] = list(self.labels)
        if self.event == "finish":
            values["structure_error"] = self.structure_error
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> WireEvent:
        """The inverse of `to_json`; unknown fields are ignored.

        Raises:
            ValueError: it is not an event.
        """
        try:
            known = {name: values[name] for name in ("event", "branch", *_OPTIONAL) if name in values}
            if "tokens" in known:
                counts = known["tokens"]
                # A server of an earlier version does not count steps.
                known["tokens"] = Counts(
                    int(counts["total"]), int(counts["critical_path"]), int(counts["branch"]), int(counts.get("steps", 0))
                )
            if "labels" in known:
                known["labels"] = tuple(str(label) for label in known["labels"])
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no event of a generation: {str(values)[:80]} ({error})") from None


_OPTIONAL = tuple(item.name for item in fields(WireEvent) if item.name not in ("event", "branch"))


def opens_thinking(prompt: Sequence[int], tokens: TokenDialect | None) -> bool:
    """Whether a prompt ends inside a thinking that it has opened, as those of some chat templates do."""
    if tokens is None or tokens.dialect.think is None:
        return False
    think = (tokens.ids[Role.THINK_OPEN], tokens.ids[Role.THINK_CLOSE])
    return next((token == think[0] for token in reversed(tokens.structural(prompt)) if token in think), False)


def wire_events(event: Event) -> list[WireEvent]:
    """An engine's event in the wire form: one, or two for a token that ends an outline's label or opens a goal.

    None for the log-probabilities of a prompt, with which nothing is to be shown.
    """
    match event:
        case PromptEvent():
            return []
        case TokenEvent():
            return _token(event)
        case ForkEvent():
            return [WireEvent("fork", event.branch, labels=event.labels, tokens=event.counts)]
        case BranchEndEvent():
            return [WireEvent("branch_end", event.branch, reason=event.reason, tokens=event.counts)]
        case JoinEvent():
            return [WireEvent("join", event.branch, labels=event.labels, tokens=event.counts)]
        case FinishEvent():
            generation = event.generation
            return [
                WireEvent(
                    "finish",
                    tokens=event.counts,
                    finish_reason=generation.finish_reason,
                    usage=generation.usage.to_json(),
                    structure_error=generation.structure_error,
                    answer=generation.answer,
                )
            ]


def _token(event: TokenEvent) -> list[WireEvent]:
    text = "" if event.end_of_text else event.text
    whole = WireEvent(
        "token",
        event.branch,
        text=text,
        role=event.role,
        outline=event.outline,
        position=event.position,
        forced=event.forced,
        tokens=event.counts,
    )
    if event.label_length:
        head, rest = text[: event.label_length], text[event.label_length :]
        return [replace(whole, text=head, role="structure", outline=None), replace(whole, text=rest)]
    if not event.opens_goal:
        return [whole]
    return [whole, WireEvent("goal", event.branch, role="answer" if event.in_answer else None, tokens=event.counts)]


class _Node:
    """A branch's tokens, and its blocks between them."""

    def __init__(self) -> None:
        self.parts: list[TokenEvent | list[_Node]] = []
        self.ended = False
        # How many parts are certain to be text: what may become a stop string is not.
        self.sure = 0

    def add(self, token: TokenEvent) -> None:
        self.parts.append(token)
        if token.excess:
            self._cut(token.excess)
            return
        self.sure = len(self.parts)
        held = token.held
        while held:
            self.sure -= 1
            held -= isinstance(self.parts[self.sure], TokenEvent)

    def fork(self, children: list[_Node]) -> None:
        self.parts.append(children)
        if self.sure == len(self.parts) - 1:
            self.sure += 1

    def end(self) -> None:
        self.ended = True
        self.sure = len(self.parts)

    def _cut(self, excess: int) -> None:
        """Take so many characters off the end; the tokens stay."""
        for number in range(len(self.parts) - 1, -1, -1):
            part = self.parts[number]
            if isinstance(part, TokenEvent) and excess > 0:
                self.parts[number] = replace(part, text=part.text[: max(0, len(part.text) - excess)])
                excess -= len(part.text)

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


class DocumentOrder:
    """Merges the tokens of one generation's branches into the order of the document.

    Branches are generated at the same time but stand one after the other in the text: a branch's tokens are given out live when
    everything before it has been, and held back until then otherwise. So is what may become a stop string.
    """

    def __init__(self) -> None:
        self._nodes = {"": _Node()}
        # Every node: labels are reused.
        self._all = list(self._nodes.values())
        self._walk = self._nodes[""].walk()

    def feed(self, event: Event) -> list[TokenEvent]:
        """Take the next event; returns the tokens that can now be given out."""
        match event:
            case TokenEvent():
                self._nodes[event.branch].add(event)
            case ForkEvent():
                children = [_Node() for _ in event.labels]
                self._nodes[event.branch].fork(children)
                self._nodes.update(zip(event.labels, children, strict=True))
                self._all += children
            case BranchEndEvent():
                self._nodes[event.branch].end()
            case FinishEvent():
                for node in self._all:  # also those that were cut short
                    node.end()
            case JoinEvent() | PromptEvent():
                pass
        ready: list[TokenEvent] = []
        while (token := next(self._walk, None)) is not None:
            ready.append(token)
        return ready

    def feed_text(self, event: Event) -> str:
        """As `feed`, but returns the text, without that of end-of-text tokens."""
        return "".join(token.text for token in self.feed(event) if not token.end_of_text)
