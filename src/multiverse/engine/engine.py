"""The engine: schedule, run, sample, advance, finish."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, TypedDict

from torch import Tensor

from ..errors import ModelError, RequestError, StructureError
from ..structure import TokenDialect
from . import batch as batching
from .batch import ScheduledBatch
from .characters import ends_inside_of
from .events import Event
from .generation import Generation
from .grammar import GrammarCompiler
from .model import LoadedModel
from .params import SamplingParams
from .prefix_cache import PrefixCache
from .request import Request
from .rounds import Rounds
from .sampler import Choice, Sampler, score
from .scheduler import Chunk, Scheduler
from .scoring import ScoringRequest
from .slots import SlotPool
from .token_ids import as_list
from .tree import ModelInfo


class EngineOptions(TypedDict, total=False):
    """Options that `LLM` passes on to its `Engine`, by the same names."""

    kv_memory: int | None
    max_batch_tokens: int
    max_requests: int
    max_batch_branches: int
    prefix_cache: bool


class Engine:
    """Runs many requests in one continuously filled batch.

    Args:
        loaded: the model.
        tokens: the dialect bound to the model's tokenizer; `None` runs the model as a plain autoregressive one.
        kv_memory: bytes for keys and values; `None` takes a default for the device.
        max_batch_tokens: most tokens of one forward.
        max_requests: most requests that run at once; the others wait.
        max_batch_branches: most branches that one forward advances; the others follow in waves.
        prefix_cache: keep computed tokens for prompts with the same beginning.
        sampler: chooses tokens; `None` samples from the model.

    Attributes:
        sleeping: whether it has given its memory away (`sleep`).
    """

    def __init__(
        self,
        loaded: LoadedModel,
        tokens: TokenDialect | None,
        *,
        kv_memory: int | None = None,
        max_batch_tokens: int = 2048,
        max_requests: int = 256,
        max_batch_branches: int = 256,
        prefix_cache: bool = True,
        sampler: Sampler | None = None,
    ) -> None:
        limits = {
            "max_batch_tokens": max_batch_tokens,
            "max_requests": max_requests,
            "max_batch_branches": max_batch_branches,
        }
        for name, value in limits.items():
            if value < 1:
                raise RequestError(f"{name}={value} is not valid: it must be 1 or more")
        if tokens is not None and tokens.dialect.join == "kv" and not loaded.backend.joins_kv:
            raise ModelError(
                f"join='kv' cannot be had with {loaded.path!r}: it has layers whose state cannot be joined; use join='text' or "
                f"join='message'"
            )
        if tokens is not None and tokens.dialect.join != "kv" and tokens.dialect.positions != "engine":
            raise ModelError(
                f"layout={tokens.dialect.positions!r} does not go with join={tokens.dialect.join!r} of {loaded.path!r}, which "
                f"reads plain text at plain positions: use layout='engine', or join='kv'"
            )
        self.loaded = loaded
        self.tokens = tokens
        self.grammar_compiler = GrammarCompiler(loaded.tokenizer, loaded.vocabulary, loaded.stop_ids)
        self.info = ModelInfo(
            tokens,
            self.decode,
            loaded.max_positions,
            loaded.stop_ids,
            short_positions=loaded.backend.short_positions,
            unused=loaded.unused,
            ends_inside=ends_inside_of(loaded.tokenizer),
            grammar_compiler=self.grammar_compiler,
            read_answer=loaded.read_answer,
        )
        self._unused = frozenset(loaded.unused)
        self._kv_memory, self._limits, self._prefix_cache = kv_memory, limits, prefix_cache
        self.wake_up()
        self.sampler = sampler if sampler is not None else Sampler()
        self.rounds = Rounds() if self.backend.deterministic else None
        self._ids = count()

    def wake_up(self) -> None:
        """Take memory for keys and values, after `sleep` as for the first time: as much as is free, with nothing cached."""
        self.backend = self.loaded.backend.allocate(self._kv_memory)
        self.slots = SlotPool(self.backend.num_slots)
        if not self.backend.reusable:
            self.slots.on_free = self.backend.forget
        self.cache = PrefixCache(self.slots, enabled=self._prefix_cache and self.backend.reusable)
        self.scheduler = Scheduler(self.slots, self.cache, **self._limits)
        self.sleeping = False

    def sleep(self) -> None:
        """Abort all requests and free the memory of keys and values; the model stays. Not with tensor parallelism."""
        if not self.sleeping:
            self._abort_all()
            self.backend.close()
            self.sleeping = True

    def submit(
        self,
        prompt: list[int],
        params: SamplingParams,
        *,
        listening: bool = False,
        priority: int = 0,
        leader: Request | None = None,
        sample: int = 0,
    ) -> Request:
        """Queue a prompt.

        Args:
            listening: collect events, which `drain` takes.
            priority: higher goes first, and preempts lower if slots run short.
            leader: a request with the same prompt, which computes it for both.
            sample: number of this one among `params.n` of one prompt; each has random streams of its own.

        Raises:
            RequestError: the prompt is empty, too long, or breaks the grammar of its own tags.
        """
        prompt = as_list(prompt)
        self.check(prompt, params)
        scoring = None
        if params.prompt_logprobs is not None and leader is None:
            scoring = leader = self._scoring(prompt, params.share_every, top=params.prompt_logprobs, priority=priority)
        request = Request(
            next(self._ids),
            prompt,
            params,
            self.info,
            listening=listening,
            sample=sample,
            priority=priority,
            leader=leader,
        )
        if scoring is not None:
            self.scheduler.add(scoring)
        self.scheduler.add(request)
        return request

    def submit_scoring(
        self, token_ids: list[int], share_every: int | None = None, *, cached: bool = True, trained: bool = False
    ) -> ScoringRequest:
        """Queue a text whose own tokens are to be scored; its `prompt_scores` are the result when it has finished.

        Args:
            share_every: as in `SamplingParams`.
            cached: keep the text in the prefix cache afterwards.
            trained: as in `BranchTree`; the text is not kept.

        Raises:
            RequestError: as `submit`.
        """
        token_ids = as_list(token_ids)
        self.check(token_ids, SamplingParams(max_tokens=1, share_every=share_every))
        request = self._scoring(token_ids, share_every, cached=cached, trained=trained)
        self.scheduler.add(request)
        return request

    def _scoring(self, token_ids: list[int], share_every: int | None, **options: Any) -> ScoringRequest:
        params = SamplingParams(max_tokens=1, share_every=share_every)
        request = ScoringRequest(next(self._ids), token_ids, params, self.info, **options)
        if len(request.queues) > self.slots.size:
            raise RequestError(
                f"to be scored, a text of {len(token_ids)} tokens takes {len(request.queues)}, since its paths are read again, "
                f"and {self.slots.size} fit in KV memory: raise kv_memory"
            )
        return request

    def check(self, prompt: list[int], params: SamplingParams) -> None:
        """Raise `RequestError` if the request could never run."""
        if self.sleeping:
            raise RequestError("the engine sleeps, without memory for keys and values: call wake_up() first")
        limit = self.loaded.max_positions
        if not prompt:
            raise RequestError("the prompt is empty: give at least one token")
        if len(prompt) >= limit:
            beyond = (
                " (with more, its dynamic rotary embedding would change with every token)" if self.loaded.dynamic_rope else ""
            )
            raise RequestError(
                f"the prompt has {len(prompt)} tokens, and the model takes at most {limit - 1}{beyond}: shorten the prompt"
            )
        if params.share_every is not None and self.tokens is not None and (join := self.tokens.dialect.join) != "kv":
            raise RequestError(
                f"share_every={params.share_every} needs join='kv', and this model joins by {join}: leave share_every out"
            )
        if len(prompt) + params.max_tokens > self.slots.size:
            raise RequestError(
                f"prompt ({len(prompt)} tokens) and max_tokens={params.max_tokens} need more than the {self.slots.size} "
                f"tokens that fit in KV memory: lower max_tokens or raise kv_memory"
            )
        vocabulary = self.loaded.vocabulary
        for token in prompt:
            if not isinstance(token, int) or not 0 <= token < vocabulary:
                raise RequestError(f"{token!r} is no token id of this model: ids are whole numbers from 0 to {vocabulary - 1}")
        for name, named in (("logit_bias", params.logit_bias), ("stop_token_ids", params.stop_token_ids)):
            for token in named:
                if not 0 <= token < vocabulary:
                    raise RequestError(f"{name} names token id {token}, outside the vocabulary (0 to {vocabulary - 1})")
                if token in self._unused:
                    raise RequestError(f"{name} names token id {token}, which the tokenizer has no token for: leave it out")
        if params.share_every is not None and self.tokens is not None and self.tokens.dialect.positions == "released":
            raise RequestError(
                f"share_every={params.share_every} has no meaning in the layout 'released', in which paths begin beside other "
                f"tokens: leave it out, or load the model with layout='engine'"
            )
        if params.answer_format is not None:
            self.grammar_compiler.matcher(params.answer_format)

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
        over = self._check_limits()
        chunks = self.scheduler.schedule()
        if not chunks:
            return over
        requests = list({chunk.request.id: chunk.request for chunk in chunks}.values())
        try:
            batch = batching.build(chunks, ranked=self.backend.deterministic)
            logits = self.backend.run(batch)
            rows = [(chunk.request, chunk.branch) for chunk in batch.sampled]
            choice = self.sampler.sample(logits[: len(rows)], rows, partial(self._run_ahead, batch))
            self._score(batch, logits[len(batch.sampled) :])
            self._advance(batch.sampled, choice)
        except BaseException as error:  # an interrupt, too: what was computed is not certain any more
            for request in requests:
                request.fail("error", f"the forward failed: {type(error).__name__}: {error}")
            self._finish(requests)
            raise
        return over + self._finish(requests)

    def _run_ahead(self, batch: ScheduledBatch, token_B: Tensor, host_B: Tensor) -> None:
        """Begin the forward that follows if every branch continues with one token (see `Backend.run_ahead`)."""
        if len(batch.sampled) <= self.backend.max_rows_ahead and (following := batching.next_batch(batch, self.slots)):
            self.backend.run_ahead(following, token_B, host_B)

    def _check_limits(self) -> list[Request]:
        """Close requests that come near a limit; returns those that are over without another forward."""
        now = time.monotonic()
        requests = [*self.scheduler.running, *self.scheduler.waiting]
        for request in requests:
            if self.rounds is None or not self.rounds.holds(request):
                request.check_limits(now)
        return self._finish(requests)

    def _score(self, batch: ScheduledBatch, logits_BV: Tensor) -> None:
        """Keep the log-probability of each scored token under the row of the one before it in the text of its branch."""
        at = 0
        for chunk in batch.scored:
            assert isinstance(chunk.request, ScoringRequest)
            branch, last = chunk.branch, chunk.first + len(chunk.token_ids)
            targets = branch.prompt_ids[chunk.first + 1 : last + 1]
            behind = branch.behind if last == len(branch.prompt_ids) else None
            if behind is not None:
                targets = [*targets, behind.prompt_ids[0]]
            values = score(logits_BV[at : at + len(targets)], targets, chunk.request.top, self.loaded.unused)
            if behind is not None:
                chunk.request.add_scores(behind, 0, values[-1:])
                values = values[:-1]
            chunk.request.add_scores(branch, chunk.first + 1, values)
            at += len(chunk.token_ids)

    def _advance(self, sampled: list[Chunk], choice: Choice) -> None:
        """Append each sampled token to its branch."""
        if self.rounds is not None:
            sampled, choice = self.rounds.collect(sampled, choice)
        for chunk, token, drawn in zip(sampled, choice.tokens, choice.drawn, strict=True):
            request, branch = chunk.request, chunk.branch
            if request.finish_reason is not None:  # another branch has just ended the request
                continue
            # It was drawn from the row of the token before it on its own branch (rollouts for training rely on it).
            assert chunk.position + len(chunk.token_ids) == branch.next_position
            if token is None:
                request.fail("error", "the model gave no numbers to choose a token by (not-a-number, or infinity)")
            elif token in self.loaded.stop_ids and not request.params.ignore_eos:
                request.end_of_text(branch, token, drawn)
            else:
                try:
                    request.advance(branch, token, drawn)
                except StructureError as error:
                    request.fail("malformed", str(error))
                except Exception as error:  # a decoder that fails on a token, say, concerns this request alone
                    request.fail("error", f"{type(error).__name__}: {error}")
            if not request.prompt_computed and request.finish_reason != "error":
                self.scheduler.insert_prompt(request)

    def _finish(self, requests: list[Request]) -> list[Request]:
        """Take those of the requests that are over out of the scheduler; returns them."""
        finished = [request for request in requests if request.finish_reason is not None]
        for request in finished:
            self.scheduler.finish(request)
            if self.rounds is not None:
                self.rounds.drop(request)
            if request.scored_by is not None and request.scored_by is request.leader:
                self.abort(request.scored_by)  # it may have been for nothing
        return finished

    def abort(self, request: Request) -> None:
        """Stop a request that waits or runs, and free what it holds; a finished one is left alone."""
        request.abort()
        if request in self.scheduler.running or request in self.scheduler.waiting:
            self._finish([request])

    def close(self) -> None:
        """Abort all requests, and free the model and the pool; nothing can be run afterwards."""
        self.sleep()

    def _abort_all(self) -> None:
        for request in [*self.scheduler.running, *self.scheduler.waiting]:
            self.abort(request)

    def check_integrity(self) -> None:
        """Prove that every slot of the pool is accounted for (see `Scheduler.check_integrity`)."""
        self.scheduler.check_integrity()

    def generation(self, request: Request) -> Generation:
        """The result of a finished request."""
        return request.generation()

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
        return request.take_events()
