"""Decoding with a text join or a message join, by a client of a plain autoregressive engine.

The trunk and every path are plain requests: the trunk is decoded to the end of a goal; each path is a request whose prompt is
the trunk so far, all at once; then the trunk continues in a new request, after the text or the messages of its paths. The
engine's prefix cache is on, so the prefix that a path shares with its parent is computed again only if it is not cached.
Training has the same contexts (`multiverse.structure.contexts`). The engine joins by text and by message itself (docs/joins.md)
and writes the same; this client stays, since the published figures were measured with it, and as a second implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Unpack

from torch import Tensor

from multiverse.engine.engine import Engine, EngineOptions
from multiverse.engine.model import LoadedModel
from multiverse.engine.params import SamplingParams
from multiverse.engine.request import Request
from multiverse.engine.sampler import Row, Sampler, dictate
from multiverse.engine.scripted import Path, Script
from multiverse.errors import StructureError
from multiverse.structure import Fork, Joins, Machine, Role, TokenDialect, merge, resolve


class Answer(NamedTuple):
    """An answer with its token counts.

    Attributes:
        text: in document order, paths in full, without the token that ends it.
        finish_reason: ``stop``, ``length`` or ``malformed``.
        total_tokens: generated tokens over all lines, with forced ones, without what is prefilled again.
        critical_path_tokens: the longest chain of them.
        recomputed: tokens that were computed more than once for the same place of the document.
        stored: tokens whose keys and values the last token attends to.
    """

    text: str
    finish_reason: str
    total_tokens: int
    critical_path_tokens: int
    forks: int
    recomputed: int
    stored: int

    @property
    def parallelism(self) -> float:
        """Generated tokens over the longest chain of them; 1 for an empty answer."""
        return self.total_tokens / self.critical_path_tokens if self.critical_path_tokens else 1.0


@dataclass(eq=False)
class Task:
    """A question in progress; the counters are those of `Answer`."""

    prompt: list[int]
    script: Script | None
    running: dict[int, Request] = field(default_factory=dict)
    total: int = 0
    longest: int = 0
    read: int = 0
    forks: int = 0
    answer: Answer | None = None


@dataclass(eq=False)
class Line:
    """The trunk, or a path.

    Attributes:
        context: all tokens of its context, with the question.
        text: tokens generated here and in the paths below, in document order.
        chain: generated tokens on the critical path to here.
        written: tokens generated on this line itself, with forced ones.
        path: (block, child) steps from the trunk, flattened.
    """

    task: Task
    machine: Machine
    context: list[int]
    parent: Line | None = None
    path: Path = ()
    text: list[int] = field(default_factory=list)
    chain: int = 0
    written: int = 0
    blocks: int = 0
    children: list[Line] = field(default_factory=list)


class GoldSampler(Sampler):
    """Chooses given tokens for requests that have them.

    Attributes:
        gold: tokens to choose, by request id.
    """

    def __init__(self) -> None:
        self.gold: dict[int, list[int]] = {}

    def choose(self, logits_BV: Tensor, rows: list[Row]) -> Tensor:
        """A token per row: the given one, or a sampled one."""
        given = {
            index: self.gold[request.id][len(branch.token_ids)]
            for index, (request, branch) in enumerate(rows)
            if request.id in self.gold
        }
        return dictate(super().choose(logits_BV, rows), given)


class JoinedDecoder:
    """Answers questions in one batch with a text join or a message join.

    Args:
        loaded: the model.
        tokens: the dialect resolved against its tokenizer; the engine does not use it.
        join: ``text`` or ``message``.
        max_tokens: most generated tokens of an answer.
        options: of the engine; see `Engine`.

    Attributes:
        engine: a plain autoregressive engine.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        tokens: TokenDialect,
        join: Joins,
        max_tokens: int = 1024,
        **options: Unpack[EngineOptions],
    ) -> None:
        self.tokens = tokens = resolve(loaded.tokenizer, replace(tokens.dialect, join=join))
        self.max_tokens = max_tokens
        self.ends = loaded.stop_ids
        stops = {tokens.ids[Role.GOAL_CLOSE], tokens.ids[Role.PATH_CLOSE]}
        self.sampler = GoldSampler()
        self.engine = Engine(replace(loaded, stop_ids=self.ends | stops), None, sampler=self.sampler, **options)
        self._lines: dict[int, Line] = {}

    def __call__(
        self,
        prompts: Sequence[list[int]],
        scripts: Sequence[Script] | None = None,
        on_finish: Callable[[Answer], None] = lambda _: None,
    ) -> list[Answer]:
        """Answers in the order of the prompts; greedy, or as scripted.

        Args:
            scripts: the documents to generate in place of the model's.
            on_finish: called with each answer as it is finished.
        """
        tasks = [Task(prompt, scripts[i] if scripts is not None else None) for i, prompt in enumerate(prompts)]
        try:
            for task in tasks:
                self._submit(Line(task, Machine(self.tokens), list(task.prompt)))
            while self._lines:
                for request in self.engine.step():
                    line = self._lines.pop(request.id, None)
                    if line is not None:
                        self._take(line, request)
                        if line.task.answer is not None:
                            on_finish(line.task.answer)
        finally:
            for task in tasks:
                self._drop(task)
        answers = [task.answer for task in tasks]
        assert all(answer is not None for answer in answers)
        return [answer for answer in answers if answer is not None]

    def _submit(self, line: Line) -> None:
        task = line.task
        left = self.max_tokens - task.total
        if left < 1 or len(line.context) >= self.engine.loaded.max_positions - 1:
            self._finish(line, "length", len(line.context))
            return
        request = self.engine.submit(list(line.context), SamplingParams(temperature=0, max_tokens=left, guard=False))
        self._lines[request.id], task.running[request.id] = line, request
        if task.script is not None:
            self.sampler.gold[request.id] = task.script.by_path[line.path][line.written :]

    def _take(self, line: Line, request: Request) -> None:
        """Process a finished request: at the end of a goal, a path or the answer, or cut by a limit."""
        task = line.task
        del task.running[request.id]
        self.sampler.gold.pop(request.id, None)
        token_ids = request.trunk.token_ids
        # The last token was sampled, but not computed. What other questions left in the cache does not count as saved.
        cached = 0 if task.read == 0 else request.cached_tokens
        task.read += len(request.prompt) - cached + len(token_ids) - 1
        stored = len(request.prompt) + len(token_ids) - 1
        try:
            for token in token_ids:
                if token in self.ends:
                    self._count(line)
                    self._finish(line, "stop" if line.machine.complete else "malformed", stored)
                    return
                event = self._write(line, token)
        except StructureError:
            self._finish(line, "malformed", stored)
            return
        if request.finish_reason != "stop":
            self._finish(line, "length", stored)
            return
        self._write_forced(line)
        if isinstance(event, Fork):
            self._fork(line, event.labels)
        else:
            self._end(line)

    def _write(self, line: Line, token: int) -> object:
        event = line.machine.feed(token)
        line.context.append(token)
        line.text.append(token)
        line.written += 1
        self._count(line)
        return event

    def _count(self, line: Line) -> None:
        task = line.task
        line.chain += 1
        task.total += 1
        task.longest = max(task.longest, line.chain)

    def _write_forced(self, line: Line) -> None:
        while line.machine.forced:
            self._write(line, line.machine.forced[0])

    def _fork(self, parent: Line, labels: tuple[str, ...]) -> None:
        parent.task.forks += 1
        parent.children = [
            Line(
                parent.task,
                parent.machine.child(number),
                list(parent.context),
                parent,
                path=(*parent.path, parent.blocks, number),
                chain=parent.chain,
            )
            for number, label in enumerate(labels)
        ]
        parent.blocks += 1
        for child in parent.children:
            self._write_forced(child)
            if parent.task.answer is None:
                self._submit(child)

    def _end(self, line: Line) -> None:
        """Close a path; after the last one of its block, continue its parent with their texts or messages."""
        parent = line.parent
        assert parent is not None
        if not all(child.machine.ended for child in parent.children):
            return
        parent.context += merge([child.text for child in parent.children], self.tokens)
        for child in parent.children:
            parent.text += child.text
            parent.chain = max(parent.chain, child.chain)
        parent.machine.resume()
        self._write_forced(parent)
        self._submit(parent)

    def _finish(self, line: Line, reason: str, stored: int) -> None:
        task = line.task
        self._drop(task)
        text = line.text
        while line.parent is not None:  # cut inside a path: the other paths are left out
            line = line.parent
            text = line.text + text
        first = len(task.prompt) + task.total - 1  # all but the last token have to be computed once
        task.answer = Answer(
            text=self.engine.decode(text),
            finish_reason=reason,
            total_tokens=task.total,
            critical_path_tokens=task.longest,
            forks=task.forks,
            recomputed=max(0, task.read - first),
            stored=stored,
        )

    def _drop(self, task: Task) -> None:
        for request in task.running.values():
            self._lines.pop(request.id, None)
            self.sampler.gold.pop(request.id, None)
            self.engine.abort(request)
        task.running.clear()
