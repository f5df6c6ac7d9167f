"""This project's engine with random weights, timed step by step while it generates scripted documents.

A script fixes the tokens of every branch, so the structure is known and the weights do not matter. Prompts are random and never
repeated, so the prefix cache cannot serve one measurement with the tokens of another.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import torch

from benchmarks.documents import block
from benchmarks.record import Join
from benchmarks.shape import byte_tokenizer
from multiverse.backends import select
from multiverse.bench.scripted import Step, Timed
from multiverse.engine.engine import Engine
from multiverse.engine.model import prepare
from multiverse.engine.request import Request
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.structure import Document, resolve

NEIGHBOURS = 8
"""Steps before and after a join that it is compared with."""


class DocumentRun(NamedTuple):
    """One document, generated from its first to its last token.

    Attributes:
        steps: its steps, without those that prefill the prompt.
        tokens: all tokens.
        parallelism: all tokens over those of the longest chain.
    """

    steps: list[Step]
    tokens: int
    parallelism: float


class BatchRun(NamedTuple):
    """A document generated behind several prompts at once.

    Attributes:
        seconds: from the time at which each of them has a token until all are finished.
        tokens: generated meanwhile, over all of them.
        parallelism: of each.
    """

    seconds: float
    tokens: int
    parallelism: float


class ScriptedEngine(Timed):
    """The engine with random weights and a scripted sampler, and its measurements."""

    def __init__(self, model: Any, kv_memory: int | None, device: str = "cpu") -> None:
        tokenizer = byte_tokenizer()
        self.tokens = resolve(tokenizer)
        self.end: int = tokenizer.eos_token_id
        sampler = ScriptedSampler()
        loaded = prepare(model, tokenizer, "random weights", select(torch.device(device), model.dtype))
        engine = Engine(loaded, self.tokens, kv_memory=kv_memory, sampler=sampler)
        super().__init__(engine, sampler, tokenizer.encode("x")[0])

    def prompt(self, length: int) -> list[int]:
        """Random letters without tags."""
        return [self.random.randrange(200) for _ in range(length)]

    def join(self, width: int, prefix: int, length: int) -> Join:
        """Cost of fork and join of `width` branches with `length` letters each.

        The fork's step prefills the headers of all branches; it is compared with the steps inside the block. A join has two
        steps: the one in which the last path closes, compared with the steps before it, and the one that prefills the closing
        tags and the resuming tag of the trunk, compared with the plain steps after it.
        """
        document = Document((block(width, length), "y" * (NEIGHBOURS + 8)))
        steps = self.run(document, prefix).steps
        first = next(index for index, step in enumerate(steps) if step.inside)
        closing = next(index for index, step in enumerate(steps) if step.inside and not step.stays)
        inside = median(step.seconds for step in steps[max(first + 1, closing - NEIGHBOURS) : closing])
        plain = median(step.seconds for step in steps[closing + 2 : closing + 2 + NEIGHBOURS])
        return Join(
            fork=steps[first].seconds - median(step.seconds for step in steps[first + 1 : first + 1 + NEIGHBOURS]),
            join=(steps[closing].seconds - inside) + (steps[closing + 1].seconds - plain),
            plain=plain,
        )

    def run(self, document: Document, prefix: int) -> DocumentRun:
        """Generate a document behind a random prompt of `prefix` tokens."""
        request = self._submit(document, self.prompt(prefix))
        while not request.num_generated:
            self.engine.step()
        steps = []
        while request.finish_reason is None:
            steps.append(self.step(request))
        assert request.finish_reason == "stop", f"the script ended with {request.finish_reason}"
        return DocumentRun(steps, request.num_generated, self.engine.generation(request).usage.parallelism)

    def run_batch(self, document: Document, prompts: list[list[int]], clock: Callable[[], float]) -> BatchRun:
        """Generate one document behind each prompt, all at once; prefill is not timed."""
        # Prefilled into the prefix cache first, so that all requests start together and stay in step.
        self.engine.run([self._submit(Document(None, "y"), prompt) for prompt in prompts])
        requests = [self._submit(document, prompt) for prompt in prompts]
        while not all(request.num_generated for request in requests):
            self.engine.step()
        before = sum(request.num_generated for request in requests)
        start = clock()
        while any(request.finish_reason is None for request in requests):
            self.engine.step()
        seconds = clock() - start
        assert all(request.finish_reason == "stop" for request in requests), "a script did not run to its end"
        usage = self.engine.generation(requests[0]).usage
        return BatchRun(seconds, sum(request.num_generated for request in requests) - before, usage.parallelism)

    def _submit(self, document: Document, prompt: list[int]) -> Request:
        script = Script(document, self.tokens, end=self.end)
        return self.submit(prompt, script, sum(map(len, script.by_path.values())))
