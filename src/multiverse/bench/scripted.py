"""An engine timed step by step while it writes a script: any model, any number of rows, no matter what it would have written.

Every token of a script but those of its structure is one filler token, so lengths are exact for every tokenizer. Prompts are
random and never repeated, so that the prefix cache cannot serve one measurement with the tokens of another.
"""

from __future__ import annotations

import random
import time
from typing import NamedTuple

from ..engine.branch import Branch
from ..engine.engine import Engine
from ..engine.params import SamplingParams
from ..engine.request import Request
from ..engine.scripted import Script, ScriptedSampler
from ..errors import ConfigError
from ..structure import Block, TokenDialect, encode, place

HEADROOM = 512
"""Tokens that a request may generate beyond its script, so that it is far from its limits."""


class Step(NamedTuple):
    """One step of the engine.

    Attributes:
        seconds: wall-clock time.
        generated: tokens generated in it, over all branches, forced ones included.
        inside, stays: whether the trunk waits for its branches before the step, and after it.
    """

    seconds: float
    generated: int
    inside: bool
    stays: bool


class Written(NamedTuple):
    """A document, from its first to its last token.

    Attributes:
        seconds: of each step, without those that prefill the prompt.
        tokens, critical_path_tokens: as the engine counts them.
    """

    seconds: list[float]
    tokens: int
    critical_path_tokens: int


class Filler:
    """A script that never ends."""

    def __init__(self, token: int) -> None:
        self.token = token

    def next(self, branch: Branch) -> int:  # noqa: ARG002 (as of a `Script`)
        """The next token of the branch."""
        return self.token


class Timed:
    """The measurements of an engine whose sampler is a `ScriptedSampler`.

    Args:
        engine: its other requests are finished.
        sampler: its sampler.
        text: a token that is neither a tag nor the end of a text.
    """

    def __init__(self, engine: Engine, sampler: ScriptedSampler, text: int) -> None:
        self.engine, self.sampler, self.text = engine, sampler, text
        self.random = random.Random(0)

    def prompt(self, length: int) -> list[int]:
        """Random tokens without tags and ends of texts."""
        loaded, tokens = self.engine.loaded, self.engine.tokens
        special = {*loaded.stop_ids, *loaded.unused, *loaded.tokenizer.all_special_ids}
        if tokens is not None:
            special |= {*tokens.roles}
        drawn: list[int] = []
        while len(drawn) < length:
            token = self.random.randrange(min(loaded.vocabulary, len(loaded.tokenizer)))
            if token not in special:
                drawn.append(token)
        return drawn

    def separate(self, rows: int, prefix: int, steps: int) -> list[float]:
        """Seconds of each step in which `rows` separate requests without a fork generate one token each.

        All prompts are prefilled first; each is another one.
        """
        requests = [
            self.submit(self.prompt(prefix), Filler(self.text), steps + rows * (2 + prefix // 256)) for _ in range(rows)
        ]
        try:
            while not all(request.num_generated for request in requests):
                self.engine.step()
            return [self.step(requests[0]).seconds for _ in range(steps)]
        finally:
            self.abort(requests)

    def branches(self, width: int, prefix: int, steps: int, prompt: list[int] | None = None) -> list[float]:
        """Seconds of each step in which the `width` branches of one block generate one token each.

        Each branch sees `prefix` tokens before its first one: the prompt, the goal and its own header.

        Args:
            prompt: its beginning is the prompt, and taken from the prefix cache if it was used before. `None`: a random one.

        Raises:
            ConfigError: the goal of so many branches alone is longer than the prefix.
        """
        script, head = self.block(width, steps + 1)
        if prefix <= head:
            raise ConfigError(f"prefixes={prefix} is too short for {width} branches: their outlines alone take {head} tokens")
        own = self.prompt(prefix - head) if prompt is None else prompt[: prefix - head]
        request = self.submit(own, script, sum(map(len, script.by_path.values())))
        try:
            while not request.trunk.waiting:
                self.engine.step()
            self.engine.step()  # prefills the path headers
            times = [self.step(request) for _ in range(steps)]
            assert all(step.stays and step.generated == width for step in times), "a branch did not write a token in each step"
            return [step.seconds for step in times]
        finally:
            self.abort([request])

    def document(self, width: int, prefix: int, steps: int) -> Written:
        """A document of one block whose paths have `steps` tokens each, written behind a random prompt."""
        script, _ = self.block(width, steps)
        request = self.submit(self.prompt(prefix), script, sum(map(len, script.by_path.values())))
        try:
            while not request.num_generated:
                self.engine.step()
            seconds = []
            while request.finish_reason is None:
                seconds.append(self.step(request).seconds)
            assert request.finish_reason == "stop", f"the script ended with {request.finish_reason}"
            usage = self.engine.generation(request).usage
            return Written(seconds, usage.total_tokens, usage.critical_path_tokens)
        finally:
            self.abort([request])

    def line(self, tokens: int, prefix: int) -> list[float]:
        """Seconds of each of the steps that write so many tokens without a fork."""
        request = self.submit(self.prompt(prefix), Filler(self.text), tokens)
        try:
            while not request.num_generated:
                self.engine.step()
            return [self.step(request).seconds for _ in range(tokens - 1)]
        finally:
            self.abort([request])

    def first_token(self, prefix: int) -> float:
        """Seconds from a prompt that nothing is known of to its first token."""
        prompt = self.prompt(prefix)
        began = time.perf_counter()
        request = self.submit(prompt, Filler(self.text), 4)
        try:
            while not request.num_generated:
                self.engine.step()
            return time.perf_counter() - began
        finally:
            self.abort([request])

    def block(self, width: int, length: int) -> tuple[Script, int]:
        """The script of a block whose paths have `length` tokens of text, and the tokens before the text of each path."""
        tokens = self.engine.tokens
        assert isinstance(tokens, TokenDialect), "a model without tags does not fork"
        block = Block(("o",) * width, (("x",),) * width, "c" if tokens.dialect.conclusion is not None else "")
        document = place((block, "y"), "y", tokens.dialect)
        encoded = encode(document, tokens)
        head = encoded.layout.positions[encoded.layout.branches.index(1)] + len(tokens.path_head("1"))
        script = Script(document, tokens, end=min(self.engine.loaded.stop_ids, default=None))
        for path, token_ids in script.by_path.items():
            if path:
                start = len(tokens.path_head(str(path[-1] + 1)))
                token_ids[start:start] = [self.text] * (length - 1)
        return script, head

    def submit(self, prompt: list[int], script: Script | Filler, length: int) -> Request:
        """A request that writes a script."""
        params = SamplingParams(temperature=0, max_tokens=length + HEADROOM, max_width=256, max_branches=256)
        request = self.engine.submit(prompt, params)
        self.sampler.scripts[request.id] = script  # type: ignore[assignment]  # all it needs is `next`
        return request

    def step(self, request: Request) -> Step:
        """A step, timed."""
        inside, before = request.trunk.waiting, request.num_generated
        began = time.perf_counter()
        self.engine.step()
        seconds = time.perf_counter() - began
        return Step(seconds, request.num_generated - before, inside, request.trunk.waiting)

    def abort(self, requests: list[Request]) -> None:
        """End requests; those that have finished, too."""
        for request in requests:
            self.engine.abort(request)
            self.sampler.scripts.pop(request.id, None)
