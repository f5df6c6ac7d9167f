"""One generation whose tokens come from a server: a request over HTTP for each open branch, over the text that it reads.

A `Request` of the engine keeps the tree, the grammar, limits, events and result. Each token that a server sends goes through it
as a sampled token does in the engine; where the request forks, closes, joins or writes tokens itself, requests end and begin.
Tokens that are forced are written at once; a request that goes on with the same tokens is kept, another is sent anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from ..engine.branch import Branch, Drawn, Top
from ..engine.events import Event, FinishEvent
from ..engine.limits import Choices
from ..engine.lines import context
from ..engine.request import Request
from ..errors import StructureError, UpstreamError
from ..transport.retry import backoff
from .model import StockModel
from .server import Server, TransientError
from .wire import Chunk, Piece

_REDRAWS = 4
"""How often a request is sent anew, with another seed, for a token that the server cannot be told to avoid."""


@dataclass(eq=False)
class _Line:
    """A branch while its tokens come from the server.

    Attributes:
        confirmed: number of its tokens that the present request has sent or been given.
        rest: text of the next of them that the request has not sent yet, where it sends text.
        held: text that may be the beginning of a tag.
        only, banned: tokens that the next request may or may not begin with, since one did that must not.
        redraws: how often it was sent anew for such a token.
        failures: failed requests since the last token.
    """

    branch: Branch
    confirmed: int = 0
    rest: str = ""
    held: str = ""
    only: tuple[int, ...] | None = None
    banned: tuple[int, ...] = ()
    redraws: int = 0
    failures: int = 0
    sent: int = 0


class Run:
    """Drives one request until it has finished; `__call__` may be cancelled, which ends what runs on the server.

    Args:
        request: of the engine, listened to or not.
        model: what is known of the model.
        server: that generates.
        post: takes events as they happen.
    """

    def __init__(self, request: Request, model: StockModel, server: Server, post: Callable[[list[Event]], None]) -> None:
        self.request, self.model, self.server = request, model, server
        self._prompt_tokens: int | None = None
        self._first: _Line | None = None
        self._post = post
        self._lines: dict[Branch, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._error: BaseException | None = None
        self._draw = Random(repr(request.tree.seed))

    async def __call__(self) -> None:
        """Run to the end.

        Raises:
            UpstreamError: the server failed for good.
        """
        watch = asyncio.create_task(self._watch_deadline())
        try:
            self._follow()
            await self._over.wait()
        finally:
            await cancel([watch, *self._tasks])
        if self._error is not None:
            raise self._error

    def abort(self) -> None:
        """End it, unless it has finished."""
        self.request.abort()
        self._follow()

    async def _watch_deadline(self) -> None:
        """At its deadline a request is closed, whether or not anything comes."""
        request = self.request
        await asyncio.sleep(max(0.0, request.started_at + request.params.max_seconds - time.monotonic()))
        request.check_limits(time.monotonic())
        await cancel([task for task in self._tasks if task is not asyncio.current_task()])
        self._lines.clear()
        self._follow()

    # -- requests ------------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """After a change: post events, begin requests of branches that have none, and end all when it is over."""
        request = self.request
        if self._over.is_set():
            return
        if request.finish_reason is None:
            request.check_limits(time.monotonic())
        if request.finish_reason is not None:
            request.release()
            self._over.set()
            self._post(list(map(self._complete, request.take_events())))
            return
        self._post(request.take_events() if request.listening else [])
        for branch in request.tree.open_branches:
            if branch not in self._lines:
                line = self._lines[branch] = _Line(branch)
                self._first = self._first or line
                task = asyncio.create_task(self._decode(line))
                self._tasks.add(task)
                task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._over.is_set():
            self._error = error
            self._over.set()

    async def _decode(self, line: _Line) -> None:
        """Send requests for a branch until it waits for its children, has closed, or all is over."""
        options = self.server.options
        while self._runs(line):
            tokens = len(line.branch.token_ids)
            reading = self.context(line.branch)
            if len(reading) >= self.model.max_positions and self.model.exact:
                self.request.finish_reason = self.request.limits.met or "length"
                self._follow()
                return
            try:
                await self._stream(line, reading)
            except TransientError as error:
                line.failures = 1 if len(line.branch.token_ids) > tokens else line.failures + 1
                if line.failures >= options.tries:
                    raise UpstreamError(
                        f"{options.address} failed {line.failures} times on the same request, last with: {error}", error.status
                    ) from None
                await asyncio.sleep(max(error.retry_after, backoff(options.backoff, line.failures, self._draw)))

    async def _stream(self, line: _Line, reading: list[int]) -> None:
        """One request, from what the branch reads now."""
        body = self._body(line, reading)
        line.confirmed, line.rest, line.held = len(line.branch.token_ids), "", ""
        line.only, line.banned = None, ()
        line.sent += 1
        count = len(line.branch.token_ids)
        async with aclosing(self.server.stream(body, self.request.priority, self._admitted)) as chunks:
            async for chunk in chunks:
                if not self._take(line, chunk):
                    return
        if len(line.branch.token_ids) == count:
            raise TransientError("the answer was empty")

    def _admitted(self) -> None:
        if self.request.admitted_at is None:
            self.request.admitted_at = time.monotonic()
            self._post([])

    def _runs(self, line: _Line) -> bool:
        return self._lines.get(line.branch) is line and line.branch.open and self.request.finish_reason is None

    def _body(self, line: _Line, reading: list[int]) -> dict[str, Any]:
        """The request for what comes next in a branch."""
        request, model, branch = self.request, self.model, line.branch
        left = [request.limits.max_generated - request.num_generated, model.max_positions - len(reading)]
        if branch.label:
            left.append(request.params.max_branch_tokens - len(branch.token_ids))
        body: dict[str, Any] = {"prompt": model.prompt(reading), "max_tokens": max(1, min(left)), **model.fields}
        body |= model.api.sampling(request.params, path=bool(branch.label))
        if request.params.seed is not None and "seed" in model.api.fields:
            where = (*branch.path, len(branch.token_ids), line.sent)
            body[model.api.fields["seed"]] = int(
                np.random.SeedSequence(request.tree.seed, spawn_key=where).generate_state(1)[0] >> 1
            )
        bias = request.params.logit_bias
        if line.only is not None or line.banned:
            body |= {"max_tokens": 1, **model.constrain(line.only, line.banned, bias)}
        elif bias:
            body["logit_bias"] = {str(token): value for token, value in bias.items()}
        return body

    def _note(self, line: _Line, chunk: Chunk) -> None:
        """Something came: the prompt was read, and the server may say how."""
        request = self.request
        request.prompt_computed = True
        if line is self._first and line.sent == 1:
            if chunk.prompt_tokens is not None:
                self._prompt_tokens = chunk.prompt_tokens
            if chunk.cached_tokens is not None:
                request.cached_tokens = chunk.cached_tokens

    def _complete(self, event: Event) -> Event:
        """The result with what only the client of a server knows."""
        if not isinstance(event, FinishEvent):
            return event
        usage = event.generation.usage
        count = usage.prompt_tokens
        if not self.model.exact:  # of characters
            count = self._prompt_tokens if self._prompt_tokens is not None else count // 4 + 1
        return replace(event, generation=replace(event.generation, usage=replace(usage, prompt_tokens=count)))

    # -- what came -----------------------------------------------------------------------------------------------------

    def _take(self, line: _Line, chunk: Chunk) -> bool:
        """Take what came for a branch; whether its request goes on."""
        self._note(line, chunk)
        for number, piece in enumerate(chunk.pieces, 1):
            ends = chunk.finish == "stop" and number == len(chunk.pieces)
            if not self._take_piece(line, piece, ends=ends):
                return False
        if chunk.finish is None:
            return True
        if line.held and not self._take_text(line, line.held, Piece(line.held)):
            return False
        if chunk.finish not in ("stop", "length"):
            raise TransientError(f"the server ended the answer with {chunk.finish!r}")
        if chunk.finish == "stop" and self._runs(line):
            last, stop = chunk.pieces[-1].token_id if chunk.pieces else None, chunk.stop
            if stop is not None and stop in self.model.stops:
                return last == stop or self._take_token(line, stop, Piece(""))  # which some servers leave out
            if last not in self.model.stops:
                self._take_token(line, self.model.end_id, Piece(""))
        return self._runs(line)

    def _take_piece(self, line: _Line, piece: Piece, *, ends: bool) -> bool:
        if not self.model.exact:
            text, line.held = line.held + piece.text, ""
            if count := self.model.splitter.held(text):
                text, line.held = text[:-count], text[-count:]
            return self._take_text(line, text, piece)
        token = piece.token_id
        if token is None:
            raise TransientError("the server sent a token without its id")
        if ends and token not in self.model.roles and token not in self.model.stop_ids:
            return True  # an end-of-text token that we do not know: it is taken as one at the end of the answer
        return self._take_token(line, token, piece)

    def _take_text(self, line: _Line, text: str, piece: Piece) -> bool:
        """Take a text, tag by tag and stretch by stretch."""
        for part in self.model.splitter.split(text):
            rest = self._confirm(line, part)
            if rest is None:
                return False
            for token in self.model.numbers(rest) if rest else ():
                if not self._take_token(line, token, piece):
                    return False
        return True

    def _confirm(self, line: _Line, text: str) -> str | None:
        """What a text has beyond the forced tokens that were written already; `None` if it is another text."""
        written = line.branch.token_ids
        while text:
            if not line.rest and line.confirmed < len(written):
                line.rest = self.model.decode([written[line.confirmed]])
                line.confirmed += 1
            if not line.rest:
                return text
            size = min(len(line.rest), len(text))
            if line.rest[:size] != text[:size]:
                return None
            line.rest, text = line.rest[size:], text[size:]
        return ""

    def _take_token(self, line: _Line, token: int, piece: Piece) -> bool:
        """Take a token as if the engine had sampled it; whether its request goes on."""
        request, branch = self.request, line.branch
        if not self._runs(line):
            return False
        request.check_limits(time.monotonic())
        if line.confirmed < len(branch.token_ids):
            # Written already: forced, or to close the branch. The request goes on as long as it writes the same.
            line.confirmed += branch.token_ids[line.confirmed] == token
            same = branch.token_ids[line.confirmed - 1] == token
            return self._after(line) and same
        if request.finish_reason is not None:
            return self._after(line)
        end = token in self.model.stop_ids and not request.params.ignore_eos
        choices = request.limits.choices(branch)
        if not self._allows(choices, token) and not self._accepts(line, token, choices, end=end):
            return False
        line.redraws = 0
        line.failures = 0
        drawn = Drawn(piece.logprob, self._top(piece))
        try:
            if end:
                request.end_of_text(branch, token, drawn)
            else:
                request.advance(branch, token, drawn)
        except StructureError as error:
            request.fail("malformed", str(error))
        line.confirmed += 1
        return self._after(line)

    def _after(self, line: _Line) -> bool:
        """After a token: begin and end requests; whether that of this branch goes on."""
        if not line.branch.open:
            self._lines.pop(line.branch, None)
        self._follow()
        return self._runs(line)

    def _allows(self, choices: Choices, token: int) -> bool:
        """Whether a token may come next. Of pieces of text there is no list: between tags, the grammar decides."""
        if token in choices.banned or choices.only is None:
            return token not in choices.banned
        free = not self.model.exact and token not in self.model.roles and token not in self.model.stop_ids
        return token in choices.only or (free and len(self._going_on(choices)) != 1)

    def _going_on(self, choices: Choices) -> list[int]:
        """The listed tokens that do not end the text; none where white space is free, which no list of pieces has in full."""
        tokens = self.model.tokens
        if tokens is None or not tokens.dialect.exact:
            return []
        return [token for token in choices.only or () if token not in self.model.stop_ids]

    def _accepts(self, line: _Line, token: int, choices: Choices, *, end: bool) -> bool:
        """Whether to take a token that grammar or limits do not allow.

        The request is sent anew for a token that is allowed; where the server cannot be told which, it is drawn again. If that
        does not help, the grammar decides, which is wider than the guard; what a limit forbids is never taken.
        """
        model, request = self.model, self.request
        banned = tuple(dict.fromkeys((*choices.banned, token)))
        told = model.constrains((token,))
        if line.redraws < _REDRAWS and (told or request.params.temperature > 0):
            line.redraws += 1
            if told:
                line.only, line.banned = choices.only, banned
            return False
        if len(only := self._going_on(choices)) == 1 and not end:  # there is no choice but to end the text
            request.force(line.branch, tuple(only))
            self._after(line)
            return False
        if not end and token in request.limits.over_limit(line.branch):
            tag = model.decode([token])
            request.fail(
                "malformed", f"found {tag}, which a limit of this request forbids, and the server wrote it all the same"
            )
            self._after(line)
            return False
        return True

    def _top(self, piece: Piece) -> Top | None:
        count = self.request.params.top_logprobs
        if not count or piece.top is None:
            return None
        return tuple((self.model.id_of(token), value) for token, value in piece.top[:count])

    # -- texts ---------------------------------------------------------------------------------------------------------

    def context(self, branch: Branch) -> list[int]:
        """What a branch reads: the prompt and everything before it in one line."""
        tree = self.request.tree
        chain = [branch]
        while chain[-1].parent is not None:
            chain.append(chain[-1].parent)
        ids = list(tree.trunk.prompt_ids)
        for one, child in zip(reversed(chain), [*reversed(chain[:-1]), None], strict=True):
            ids += self._read(one, child)
        return ids

    def _read(self, branch: Branch, until: Branch | None) -> list[int]:
        """A branch's own tokens, and what it reads of its blocks; up to the block of one of its children."""
        keeps_first = self.model.tokens is not None and self.model.tokens.dialect.join == "text"
        ids: list[int] = []
        start = 0
        for number, (end, children) in enumerate(branch.blocks):
            ids += branch.token_ids[start:end]
            if until in children:
                return ids
            ids += context(children[0], keeps_first) if keeps_first else []
            ids += branch.reread[number]
            start = end
        return ids + branch.token_ids[start:]


async def cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait until they have ended; those that are cancelled already are left to clean up."""
    for task in tasks:
        if not task.cancelling():
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
