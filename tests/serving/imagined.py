"""Events of invented generations: a plan of texts and blocks, written word by word, all open branches in turn.

The tags are left out: the page shows none, and this package's tests need none to draw a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Moment = dict[str, Any]
STEP = 0.02
"""Seconds that a step takes."""


@dataclass(frozen=True)
class Plan:
    """A block to write: each lane has a title and what it writes."""

    lanes: Sequence[tuple[str, Sequence[str | Plan]]]
    conclusion: str


@dataclass
class _Writer:
    """One branch: its remaining text, and its position."""

    label: str
    work: Iterator[Moment | list[_Writer]]
    position: int
    parent: _Writer | None = None
    children: list[_Writer] = field(default_factory=list)
    own: int = 0


def generation(items: Sequence[str | Plan], answer: str, *, prompt: int = 20, reason: str = "stop") -> list[Moment]:
    """All events of a generation, from start to finish."""
    trunk = _Writer("", iter(()), prompt)
    trunk.work = _trunk(items, answer)
    running = [trunk]
    total, highest, step = 0, prompt, 0
    moments: list[Moment] = [{"event": "start", "branch": "", "parent": None, "id": "imagined", "model": "multiverse-mini"}]

    def emit(writer: _Writer, moment: Moment) -> None:
        counts = {"total": total, "critical_path": highest - prompt, "branch": writer.own, "steps": step}
        parent = None if not writer.label else writer.label.rpartition(".")[0]
        moments.append({"branch": writer.label, "parent": parent, "tokens": counts, "seconds": round(step * STEP, 4), **moment})

    while running:
        step += 1
        for writer in list(running):
            done = next(writer.work, None)
            if done is None:
                running.remove(writer)
                if writer.parent is None:
                    continue
                emit(writer, {"event": "branch_end", "reason": "stop"})
                siblings = writer.parent.children
                if not any(sibling in running for sibling in siblings):
                    writer.parent.position = max(sibling.position for sibling in siblings)
                    emit(writer.parent, {"event": "join", "labels": [sibling.label for sibling in siblings]})
                    running.append(writer.parent)
            elif isinstance(done, list):
                running.remove(writer)
                for child in done:
                    child.position, child.parent = writer.position, writer
                writer.children = done
                emit(writer, {"event": "fork", "labels": [child.label for child in done]})
                running += done
            elif done["event"] == "token":
                total, writer.own, writer.position = total + 1, writer.own + 1, writer.position + 1
                highest = max(highest, writer.position)
                emit(writer, {**done, "position": writer.position - 1, "forced": False})
            else:
                emit(writer, done)
    usage = {
        "prompt_tokens": prompt,
        "total_tokens": total,
        "critical_path_tokens": highest - prompt,
        "critical_path_steps": step,
    }
    usage |= {"parallelism": total / max(1, highest - prompt), "seconds": step * STEP, "cached_tokens": 0, "preemptions": 0}
    emit(trunk, {"event": "finish", "finish_reason": reason, "usage": usage, "structure_error": None, "answer": answer})
    return moments


def _words(text: str, role: str, **more: Any) -> Iterator[Moment]:
    for number, word in enumerate(text.split(" ")):
        yield {"event": "token", "text": word if number == 0 else f" {word}", "role": role, **more}


def _trunk(items: Sequence[str | Plan], answer: str) -> Iterator[Moment | list[_Writer]]:
    yield from _lane("", items)
    yield from _words(f"Answer: {answer}", "answer")


def _lane(label: str, items: Sequence[str | Plan]) -> Iterator[Moment | list[_Writer]]:
    for item in items:
        if isinstance(item, str):
            yield from _words(item, "text")
            continue
        yield {"event": "goal"}
        names = [f"{label}.{number}" if label else str(number) for number in range(1, len(item.lanes) + 1)]
        for name, (title, _) in zip(names, item.lanes, strict=True):
            yield from _words(f" {title}", "outline", outline=name)
        yield [_Writer(name, _lane(name, work), 0) for name, (_, work) in zip(names, item.lanes, strict=True)]
        yield from _words(item.conclusion, "conclusion")
