"""The engine: schedule, run, sample, advance, retire."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

from ..errors import RequestError, StructureError
from ..structure import TokenDialect
from . import batch as batching
from .events import Event, FinishEvent
from .generation import Generation, finish
from .model import LoadedModel, ModelRunner
from .params import SamplingParams
from .request import Request
from .sampler import Choice, Sampler
from .scheduler import Chunk, Scheduler
from .slots import SlotPool


class Engine:
    """Runs many requests in one continuously filled batch.

    Args:
        loaded: the model.
        tokens: the dialect bound to the model's tokenizer; `None` runs the model as a plain autoregressive one.
        kv_memory: bytes for keys and values; `None` takes a default for the device.
        max_batch_tokens: most tokens that one forward reads.
        max_requests: most requests that run at once; the others wait.
        sampler: how tokens are chosen; `None` samples from the model.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        tokens: TokenDialect | None,
        *,
        kv_memory: int | None = None,
        max_batch_tokens: int = 2048,
        max_requests: int = 256,
        sampler: Sampler | None = None,
    ) -> None:
        for name, value in (("max_batch_tokens", max_batch_tokens), ("max_requests", max_requests)):
            if value < 1:
                raise RequestError(f"{name}={value} is not valid: it must be 1 or more")
        self.loaded = loaded
        self.tokens = tokens
        self.runner = ModelRunner(loaded, kv_memory)
        self.slots = SlotPool(self.runner.slots)
        self.scheduler = Scheduler(self.slots, max_batch_tokens=max_batch_tokens, max_requests=max_requests)
        self.sampler = sampler if sampler is not None else Sampler()
        self._ids = count()

    def submit(self, prompt: list[int], params: SamplingParams, *, listening: bool = False) -> Request:
        """Queue a prompt.

        Args:
            listening: keep a record of events (`Request.events`) for whoever drains it.

        Raises:
            RequestError: the prompt is empty, too long, or breaks the grammar of its own tags.
        """
        self.check(prompt, params)
        request = Request(
            next(self._ids),
            prompt,
            params,
            self.tokens,
            decode=self.decode,
            max_positions=self.loaded.max_positions,
            listening=listening,
        )
        self.scheduler.add(request)
        return request

    def check(self, prompt: list[int], params: SamplingParams) -> None:
        """Raise `RequestError` if the request could never run."""
        limit = self.loaded.max_positions
        if not prompt:
            raise RequestError("the prompt is empty: give at least one token")
        if len(prompt) >= limit:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens, and the model reads at most {limit - 1}: shorten the prompt"
            )
        if len(prompt) + params.max_tokens > self.slots.size:
            raise RequestError(
                f"prompt ({len(prompt)} tokens) and max_tokens={params.max_tokens} need more than the {self.slots.size} "
                f"tokens that fit in KV memory: lower max_tokens or raise kv_memory"
            )

    def decode(self, token_ids: list[int]) -> str:
        """Token ids as text, tags included."""
        text: str = self.loaded.tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    @property
    def busy(self) -> bool:
        """Whether any request waits or runs."""
        return self.scheduler.busy

    def step(self) -> list[Request]:
        """One forward; returns the requests that it finished. Does nothing when idle."""
        chunks = self.scheduler.schedule()
        if not chunks:
            return []
        batch = batching.build(chunks, self.runner.device)
        logits = self.runner.run(batch)
        choice = self.sampler.sample(logits, [(chunk.request, chunk.branch) for chunk in batch.sampled])
        self._advance(batch.sampled, choice)
        return self._retire({chunk.request.id: chunk.request for chunk in chunks})

    def _advance(self, sampled: list[Chunk], choice: Choice) -> None:
        """Feed each chosen token to its branch."""
        for chunk, token, logprob in zip(sampled, choice.tokens, choice.logprobs, strict=True):
            request, branch = chunk.request, chunk.branch
            if request.finish_reason is not None:  # a sibling has just ended the request
                continue
            if token in self.loaded.stop_ids and not request.params.ignore_eos:
                request.end_of_text(branch, token, logprob)
                continue
            try:
                request.advance(branch, token, logprob)
            except StructureError as error:
                request.fail(error)

    def _retire(self, touched: dict[int, Request]) -> list[Request]:
        finished = [request for request in touched.values() if request.finish_reason is not None]
        for request in finished:
            request.finished_at = time.perf_counter()
            self.scheduler.retire(request)
        return finished

    def abort(self, request: Request) -> None:
        """Stop a request that waits or runs, and free what it holds; a finished one is left alone."""
        if request.finish_reason is None:
            request.finish_reason = "abort"
            self.scheduler.retire(request)

    def generation(self, request: Request) -> Generation:
        """The result of a finished request."""
        return finish(request)

    def run(self, requests: list[Request], on_finish: Callable[[Request], None] | None = None) -> None:
        """Step until all of these requests are finished; if interrupted, those that are not are aborted."""
        try:
            while any(request.finish_reason is None for request in requests):
                for request in self.step():
                    if on_finish is not None:
                        on_finish(request)
        finally:
            for request in requests:
                if request.finish_reason is None:
                    self.abort(request)

    def drain(self, request: Request) -> list[Event]:
        """Take the events that a listening request has collected since the last call; the last one is a `FinishEvent`."""
        events, request.events = request.events, []
        if request.finish_reason is not None:
            events.append(FinishEvent(self.generation(request)))
        return events
