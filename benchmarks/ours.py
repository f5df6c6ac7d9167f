"""This project's engine, timed step by step while it writes scripts on random weights.

A script says what every branch writes, so the structure is known and the weights do not matter. Prompts are random and
never the same twice, so that no cache of prefixes can serve one measurement with what another left behind.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import torch

from benchmarks.record import Join
from benchmarks.shape import byte_tokenizer
from multiverse.backends import select
from multiverse.engine import SamplingParams
from multiverse.engine.engine import Engine
from multiverse.engine.model import prepare
from multiverse.engine.request import Request
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.structure import Block, Document, TokenDialect, encode, resolve

ROOM = 512
"""Tokens that a request may write beyond its script, so that no bound on its length is ever near."""
NEIGHBOURS = 8
"""Steps before and after a join that it is compared with."""


class Step(NamedTuple):
    """One step of the engine.

    Attributes:
        seconds: wall-clock time.
        written: tokens written in it, over all branches, forced ones included.
        inside, stays: whether the trunk waited for its branches before the step, and still does after it.
    """

    seconds: float
    written: int
    inside: bool
    stays: bool


class Written(NamedTuple):
    """A document written from its first to its last token.

    Attributes:
        steps: its steps, without those that read the prompt.
        tokens: all tokens.
        parallelism: all tokens over the longest chain of them.
    """

    steps: list[Step]
    tokens: int
    parallelism: float


class Together(NamedTuple):
    """Documents written side by side: the seconds that it took, all tokens written meanwhile, the parallelism of each."""

    seconds: float
    tokens: int
    parallelism: float


class Ours:
    """The engine, and what is measured on it."""

    def __init__(self, model: Any, kv_memory: int | None, device: str = "cpu") -> None:
        tokenizer = byte_tokenizer()
        self.tokens = resolve(tokenizer)
        self.end: int = tokenizer.eos_token_id
        self.sampler = ScriptedSampler()
        self.random = random.Random(0)
        loaded = prepare(model, tokenizer, "random weights", select(torch.device(device), model.dtype))
        self.engine = Engine(loaded, self.tokens, kv_memory=kv_memory, sampler=self.sampler)

    def prompt(self, length: int) -> list[int]:
        """Random letters, no tags."""
        return [self.random.randrange(200) for _ in range(length)]

    def plain(self, rows: int, prefix: int, steps: int) -> list[float]:
        """Seconds of each step in which `rows` requests, unrelated and without a fork, all write one token.

        The prompts are read first, several in one forward where they are short; steps count once every request is writing.
        """
        spare = rows * (2 + prefix // 256)  # the first requests write while the last ones' prompts are still read
        document = Document(None, "x" * (steps + spare))
        requests = [self._submit(document, self.prompt(prefix)) for _ in range(rows)]
        while not all(request.written for request in requests):
            self.engine.step()
        times = [self._step(requests[0]) for _ in range(steps)]
        assert all(request.finish_reason is None for request in requests), "a request ended while it was timed"
        for request in requests:
            self.engine.abort(request)
        return [step.seconds for step in times]

    def forked(self, width: int, prefix: int, steps: int, prompt: list[int] | None = None) -> list[float]:
        """Seconds of each step in which the `width` branches of one block all write one token.

        Each branch sees `prefix` tokens when it begins to write: the prompt, the goal and its own head.

        Args:
            prompt: begins the prompt; what has been read of it before is in the prefix cache. A random one, if `None`.
        """
        document = Document((block(width, steps + 1),))
        encoded = encode(document, self.tokens)
        head = encoded.layout.positions[encoded.layout.branches.index(1)] + len(self.tokens.path_head("1"))
        request = self._submit(document, self.prompt(prefix - head) if prompt is None else prompt[: prefix - head])
        while not request.trunk.waiting:
            self.engine.step()
        self.engine.step()  # reads the heads: the fork's own step, which `join` reports
        times = [self._step(request) for _ in range(steps)]
        assert all(step.stays and step.written == width for step in times), "not every branch wrote one token in every step"
        self.engine.abort(request)
        return [step.seconds for step in times]

    def join(self, width: int, prefix: int, length: int) -> Join:
        """Fork and join of `width` branches with `length` letters each.

        The fork's step is the one that reads the heads of all branches; it is compared with the steps inside the block. A
        join has two steps: the one in which the last path closes, compared with the steps before it, and the one that
        reads the closing tags and the trunk's resuming tag, compared with the plain steps after it.
        """
        document = Document((block(width, length), "y" * (NEIGHBOURS + 8)))
        steps = self.write(document, prefix).steps
        first = next(index for index, step in enumerate(steps) if step.inside)
        closing = next(index for index, step in enumerate(steps) if step.inside and not step.stays)
        inside = median(step.seconds for step in steps[max(first + 1, closing - NEIGHBOURS) : closing])
        plain = median(step.seconds for step in steps[closing + 2 : closing + 2 + NEIGHBOURS])
        return Join(
            fork=steps[first].seconds - median(step.seconds for step in steps[first + 1 : first + 1 + NEIGHBOURS]),
            join=(steps[closing].seconds - inside) + (steps[closing + 1].seconds - plain),
            plain=plain,
        )

    def write(self, document: Document, prefix: int | list[int]) -> Written:
        """Write a whole document behind a prompt, or behind a random one of this length."""
        request = self._submit(document, self.prompt(prefix) if isinstance(prefix, int) else prefix)
        while not request.written:
            self.engine.step()
        steps = []
        while request.finish_reason is None:
            steps.append(self._step(request))
        assert request.finish_reason == "stop", f"the script ended with {request.finish_reason}"
        return Written(steps, request.written, self.engine.generation(request).usage.parallelism)

    def together(self, document: Document, prompts: list[list[int]], clock: Callable[[], float]) -> Together:
        """Write one document behind each prompt, all at once; the clock starts when each of them has its first token.

        Where a prompt has been read before, the prefix cache has it.
        """
        # So that none of the requests waits for another one's prompt, and they stay in step.
        self.engine.run([self._submit(Document(None, "y"), prompt) for prompt in prompts])
        requests = [self._submit(document, prompt) for prompt in prompts]
        while not all(request.written for request in requests):
            self.engine.step()
        before = sum(request.written for request in requests)
        start = clock()
        while any(request.finish_reason is None for request in requests):
            self.engine.step()
        seconds = clock() - start
        assert all(request.finish_reason == "stop" for request in requests), "a script did not end by itself"
        usage = self.engine.generation(requests[0]).usage
        return Together(seconds, sum(request.written for request in requests) - before, usage.parallelism)

    def _submit(self, document: Document, prompt: list[int]) -> Request:
        script = Script(document, self.tokens, end=self.end)
        length = sum(map(len, script.by_path.values()))
        params = SamplingParams(temperature=0, max_tokens=length + ROOM, max_width=256, max_branches=256)
        request = self.engine.submit(prompt, params)
        self.sampler.scripts[request.id] = script
        return request

    def _step(self, request: Request) -> Step:
        inside, before = request.trunk.waiting, request.written
        start = time.perf_counter()
        self.engine.step()
        seconds = time.perf_counter() - start
        return Step(seconds, request.written - before, inside, request.trunk.waiting)


def block(width: int, letters: int) -> Block:
    """A block of `width` paths with this many letters each."""
    return Block(("o",) * width, (("x" * letters,),) * width, "c")


def partly(parallelism: float, width: int, letters: int, tokens: TokenDialect) -> Document:
    """Trunk, block, trunk: as many letters of trunk around `width` paths as this parallelism takes.

    With P tokens a path and T of trunk, parallelism is (T + width P) / (T + P).
    """
    bare = Script(Document(("y", block(width, letters), "y")), tokens).by_path
    path, least = len(bare[0, 0]), len(bare[()])
    trunk = path * (width - parallelism) / (parallelism - 1)
    spare = max(0, round(trunk) - least)
    return Document(("y" * (1 + spare // 2), block(width, letters), "y" * (1 + spare - spare // 2)))


def balanced(width: int, letters: int, tokens: TokenDialect) -> Document:
    """Trunk, block, trunk, with a trunk as long as one path: of `width` + 1 equal parts two are in the longest chain.

    So parallelism is (width + 1) / 2, as far as the goal leaves the trunk letters to take away.
    """
    shortest = Script(Document(("y", block(width, letters), "y")), tokens).by_path
    spare = max(0, len(shortest[0, 0]) - len(shortest[()]))
    before = spare // 2
    return Document(("y" * (1 + before), block(width, letters), "y" * (1 + spare - before)))
