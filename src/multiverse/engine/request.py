"""Requests: what was asked, and how far it has come. Torch-free."""

from __future__ import annotations

import time
from dataclasses import replace

from ..errors import StructureError
from ..structure import Fork, Stop, TokenRole, Transition, closing_tokens, required_tokens
from .branch import NOT_DRAWN, Branch, Drawn, TokenScore
from .computed import ComputedTokens
from .events import BranchEndEvent, Counts, Event, FinishEvent, ForkEvent, JoinEvent, PromptEvent, TokenEvent
from .generation import Generation, Usage, build_generation
from .limits import Limits
from .params import SamplingParams
from .prefix_cache import Node
from .queues import TokenQueues
from .text import TextStream
from .tree import BranchTree, ModelInfo

_END_OF_TEXT = TokenRole("structure")


class Request:
    """A prompt that is being continued: its branches share one set of slots.

    Args:
        request_id: number of the request within its engine.
        prompt: token ids.
        params: how to sample, and the limits.
        model: what it has to know of the model.
        listening: collect events (`events`) for a caller that drains them.
        sample: number of this one among `params.n` of one prompt.
        priority: higher goes first.
        leader: a request with the same prompt, which computes it for both; with `params.prompt_logprobs` the first is one that
            scores it (`ScoringRequest`).

    Attributes:
        tree: its branches, with what was generated on each.
        queues: tokens that are still to be computed.
        computed: tokens whose keys and values are there.
        limits: where it has to end.
        events: what has happened since they were last taken; empty unless `listening`.
        finish_reason: `None` while it runs; then ``stop``; ``length``, ``budget`` or ``deadline`` if a limit was met;
            ``malformed`` or ``error`` if the model broke the grammar or its logits were not finite; or ``abort``.
        stop_reason: the stop string or token that ended it; `None` if something else did.
        error: why there is no tree, for ``malformed`` and ``error``.
        closed: label path of each path that was closed for a limit, with the limit.
        started_at, admitted_at, finished_at: monotonic seconds; `admitted_at` is `None` until it first runs.
        prompt_computed: whether the prompt has been computed.
        scored_by: the request that scores the prompt; `None` if nobody asked for that.
        prompt_scores: of each token of the prompt, `None` for the first one and for those that the engine would write; `None`
            altogether before they are there.
        cached_tokens: tokens of the prompt that came from the prefix cache.
        preemptions: how often it was preempted.
        left_behind: branches whose computed tokens nobody sees any more; the scheduler frees them.
        node: the prefix cache's node at which the slots end that the cache owns; `None` while it does not run. The scheduler
            writes this and the three above, and `admitted_at`.
    """

    scoring = False
    # As in `BranchTree`.
    trained = False
    # Whether its tokens go to the prefix cache when it is over.
    cached = True

    def __init__(
        self,
        request_id: int,
        prompt: list[int],
        params: SamplingParams,
        model: ModelInfo,
        *,
        listening: bool = False,
        sample: int = 0,
        priority: int = 0,
        leader: Request | None = None,
    ) -> None:
        self.id = request_id
        self.prompt = prompt
        self.params = params
        self.model = model
        self.listening = listening
        self.priority = priority
        self.leader = leader
        self.started_at = time.monotonic()
        self.admitted_at: float | None = None
        self.finished_at = 0.0
        self.finish_reason: str | None = None
        self.stop_reason: str | int | None = None
        self.error: str | None = None
        self.closed: list[tuple[str, str]] = []
        self.events: list[Event] = []
        self.prompt_computed = False
        self.scored_by: Request | None = None
        if leader is not None and params.prompt_logprobs is not None:
            self.scored_by = leader if leader.scoring else leader.scored_by
        self.prompt_scores: tuple[TokenScore | None, ...] | None = None
        self.cached_tokens = self.preemptions = 0
        self.node: Node | None = None
        scoring = self.scoring
        # Nothing is generated after a prompt that is only scored.
        within = scoring or not params.max_tokens
        self.tree = BranchTree(
            prompt,
            params,
            model,
            sample=sample,
            listening=listening,
            may_end_in_block=within,
            trained=self.trained,
            whole=scoring,
        )
        self.queues = TokenQueues(self.tree, params.share_every, model, reuse=not scoring)
        self.queues.add_prompt(self.tree.prompt_spans, sample=not scoring)
        self.computed = ComputedTokens()
        self.left_behind: set[int] = set()
        self.limits = Limits(self.tree, params, model)
        # Tokens that end the request, with what is said of it.
        self._stops: dict[int, str | int] = {token: token for token in params.stop_token_ids}
        if params.stop_in == "answer" and model.tokens is not None:
            tags = model.tokens.dialect.roles
            self._stops |= {model.tokens.ids[tags[stop]]: stop for stop in params.stop_strings if stop in tags}

    @property
    def trunk(self) -> Branch:
        """The branch that the request begins with."""
        return self.tree.trunk

    @property
    def num_generated(self) -> int:
        """Tokens generated on all branches."""
        return self.tree.num_generated

    @property
    def computes_prompt(self) -> bool:
        """Whether the prompt is still to be computed."""
        return self.finish_reason is None and not self.prompt_computed

    # -- advance ------------------------------------------------------------------------------------------------------

    def advance(self, branch: Branch, token: int, drawn: Drawn = NOT_DRAWN) -> None:
        """Append a sampled token; fork, close the branch or join where the grammar says so.

        Raises:
            StructureError: the token is not legal there. It is appended all the same, so that it is part of the result.
        """
        matcher = self.limits.matcher
        text = matcher is not None and self.limits.in_answer(branch) and not self._is_tag(token)
        try:
            transition = branch.machine.feed(token) if branch.machine is not None else None
        except StructureError:
            self._append(branch, token, drawn=drawn, legal=False)
            raise
        self._append(branch, token, drawn=drawn)
        if matcher is not None and text and self.finish_reason is None:
            if (problem := matcher.feed(token)) is not None:
                self.fail("error", problem)
            elif matcher.done:
                self.finish_reason = self.limits.met if self.limits.met is not None else "stop"
        self._follow(branch, transition)

    def _is_tag(self, token: int) -> bool:
        return self.model.tokens is not None and token in self.model.tokens.roles

    def force(self, branch: Branch, token_ids: tuple[int, ...]) -> None:
        """Append tokens that close something, though the grammar leaves a choice; go on as after any other token."""
        self.tree.drop_unfinished(branch)
        self._follow(branch, self._append_all(branch, token_ids))

    def end_of_text(self, branch: Branch, token: int, drawn: Drawn = NOT_DRAWN) -> None:
        """Append an end-of-text token: the request has finished, as malformed unless the grammar allows it here."""
        self._add(branch, token, drawn=drawn)
        self.tree.end(branch)
        if branch.stream is not None:
            branch.stream.push_end()
            self._emit_token(branch, "", _END_OF_TEXT, end=True)
        machine = branch.machine
        if machine is not None and machine.end():
            self._close(branch)
        elif machine is None or machine.complete:
            self.finish_reason = self.limits.met if self.limits.met is not None else "stop"
        else:
            self.fail("malformed", f"found the end of text in {machine.state.value}, expected {machine.expected()}")

    def fail(self, reason: str, error: str) -> None:
        """End the request: the model or the engine failed."""
        self.finish_reason, self.error = reason, error

    def abort(self) -> None:
        """End the request unless it has finished."""
        if self.finish_reason is None:
            self.finish_reason = "abort"

    def check_limits(self, now: float) -> None:
        """Before a step: close by force, or end, if the request comes near a limit."""
        self._take_scores()
        if self.finish_reason is not None:
            return
        if not self.num_generated and self.params.max_tokens:
            self._append_forced(self.trunk)  # what must follow a tag at the end of the prompt
        reason = self.limits.update(now - self.started_at, prompt_computed=self.prompt_computed)
        if reason is not None:
            self.finish_reason = reason
        while self.finish_reason is None and (step := self.limits.next_closing()) is not None:
            self.force(*step)

    def _take_scores(self) -> None:
        """Take the scores of the prompt when they are there; without any tokens to generate, that is all."""
        scored_by = self.scored_by
        if scored_by is None or self.prompt_scores is not None or scored_by.finish_reason is None:
            return
        if scored_by.prompt_scores is None:
            self.fail("error", scored_by.error or "the prompt could not be scored")
            return
        self.prompt_scores = scored_by.prompt_scores
        self._emit(PromptEvent(self.prompt_scores))
        if not self.params.max_tokens:
            self.admitted_at, self.finish_reason = scored_by.admitted_at, "length"

    def release(self) -> None:
        """The request is over: drop what was still to be computed, and references in circles."""
        self.finished_at = time.monotonic()
        self.queues.clear()
        self.tree.release()

    def _follow(self, branch: Branch, transition: Transition | None) -> None:
        self._append_forced(branch)
        if self.finish_reason is not None:
            return
        if isinstance(transition, Fork):
            self._fork(branch, transition.labels)
        elif isinstance(transition, Stop):
            self.finish_reason, self.stop_reason = "stop", transition.problem
        elif branch.closed:
            self._close(branch)

    def _append_forced(self, branch: Branch) -> None:
        """Append what must come next: heads and, under the guard, every token about which it leaves no choice.

        They are computed together in one forward, with the token before them. Each is part of the shortest text that closes the
        branch, so limits that leave room for closing leave room for them.
        """
        machine = branch.machine
        while machine is not None and self.finish_reason is None:
            ahead = required_tokens(machine) if self.params.guard else machine.forced
            if not ahead:
                return
            self._append_all(branch, ahead)

    def _append_all(self, branch: Branch, token_ids: tuple[int, ...]) -> Transition | None:
        """Append tokens that the engine writes, until the request finishes; returns the transition of the last."""
        assert branch.machine is not None
        transition: Transition | None = None
        for token in token_ids:
            if self.finish_reason is None:
                transition = branch.machine.feed(token)
                self._append(branch, token, forced=True)
        return transition

    def _fork(self, parent: Branch, labels: tuple[str, ...]) -> None:
        self._emit(ForkEvent(parent.label, labels, self._counts(parent)))
        self.queues.fork(parent)
        for child in self.tree.fork(parent, labels):
            self._append_forced(child)

    def _close(self, branch: Branch) -> None:
        """A path has closed; if it was the last of its block, the parent goes on."""
        reason = branch.closing if branch.closing is not None else "stop"
        self._emit(BranchEndEvent(branch.label, reason, self._counts(branch)))
        if branch.closing is not None:
            self.closed.append((branch.label, branch.closing))
        self.queues.close(branch)
        parent = branch.parent
        assert parent is not None
        if all(child.closed for child in parent.children):
            labels = tuple(child.label for child in parent.children)
            gone = [] if self.tree.kv_join else self.tree.left_behind(parent)
            reread = self.tree.join(parent)
            self._emit(JoinEvent(parent.label, labels, self._counts(parent), len(reread)))
            self.queues.join(parent)
            self.queues.read_again(parent, reread, gone)
            self.left_behind.update(other.index for other in gone)
            self._append_forced(parent)
            cut = next((child.closing for child in parent.children if child.closing is not None), None)
            if cut is not None and self.model.tokens is not None and self.model.tokens.dialect.cut_off == "end":
                self._end_block(parent, cut)

    def _end_block(self, branch: Branch, reason: str) -> None:
        """A path of the branch's newest block was cut off, and that ends the answer: close the block, and what it stands in."""
        assert branch.machine is not None
        branch.closing = reason
        while self.finish_reason is None and branch.machine.state is not branch.machine.base:
            self._append_all(branch, closing_tokens(branch.machine))
        if not branch.label and self.finish_reason is None:
            self.finish_reason = reason
        while self.finish_reason is None and not branch.closed:
            self.force(branch, closing_tokens(branch.machine))

    def _append(
        self,
        branch: Branch,
        token: int,
        *,
        forced: bool = False,
        drawn: Drawn = NOT_DRAWN,
        legal: bool = True,
    ) -> None:
        """Append a token that the branch's machine was fed (`legal`) or has refused."""
        self._add(branch, token, forced=forced, drawn=drawn)
        if branch.stream is None:
            return
        text = self._push(branch.stream, token, forced=forced)
        if branch.roles is not None:
            end = token in self.model.stop_ids
            role = _END_OF_TEXT if end else branch.roles.classify(token, text, forced=forced, legal=legal)
            self._emit_token(branch, text, role, end=end)

    def _push(self, stream: TextStream, token: int, *, forced: bool) -> str:
        """Add a token to its branch's text; end the request if that is where it stops."""
        tokens, trunk = self.model.tokens, self.trunk.machine
        tag = tokens is not None and token in tokens.roles
        answer = self.params.stop_in != "answer" or not (tag or forced or (trunk is not None and trunk.thinking))
        watched = self.num_generated > self.params.min_tokens
        text = stream.push(token, answer=answer, watched=watched)
        if watched and stream.stop_at is None and token in self._stops and (tag or answer):
            stream.stop()
        if stream.stop_at is not None and self.finish_reason != "stop":
            self.finish_reason = "stop"
            self.stop_reason = stream.stopped_by if stream.stopped_by is not None else self._stops[token]
        return text

    def _add(self, branch: Branch, token: int, *, forced: bool = False, drawn: Drawn = NOT_DRAWN) -> None:
        self.queues.append(branch.holder, token)
        self.tree.append(branch, token, forced=forced, drawn=drawn)
        reason = self.limits.reached(branch)
        if reason is not None:
            self.finish_reason = reason

    # -- events -------------------------------------------------------------------------------------------------------

    def take_events(self) -> list[Event]:
        """Take the events collected since the last call; once the request has finished, the last one is a `FinishEvent`."""
        events, self.events = self.events, []
        if self.finish_reason is not None:
            events.append(FinishEvent(self.generation(), self._counts(self.trunk)))
        return events

    def _counts(self, branch: Branch) -> Counts:
        tree = self.tree
        return Counts(tree.num_generated, tree.furthest - tree.prompt_positions, len(branch.token_ids), tree.steps)

    def _emit(self, event: Event) -> None:
        if self.listening:
            self.events.append(event)

    def _emit_token(self, branch: Branch, text: str, role: TokenRole, *, end: bool) -> None:
        if not self.listening:
            return
        assert branch.stream is not None
        holder = branch.holder
        self.events.append(
            TokenEvent(
                branch.label,
                holder.token_ids[-1],
                text,
                holder.positions[-1],
                holder.forced[-1],
                holder.drawn[-1].logprob,
                holder.drawn[-1].top,
                *role,
                end_of_text=end,
                held=branch.stream.held,
                excess=branch.stream.excess,
                counts=self._counts(branch),
            )
        )

    def generation(self) -> Generation:
        """The result of the finished request."""
        assert self.finish_reason is not None
        tree = self.tree
        for branch in tree.branches:
            tree.drop_unfinished(branch)
        usage = Usage(
            prompt_tokens=len(self.prompt),
            total_tokens=tree.num_generated,
            critical_path_tokens=tree.furthest - tree.prompt_positions,
            critical_path_steps=tree.steps,
            seconds=self.finished_at - self.started_at,
            cached_tokens=self.cached_tokens if self.scored_by is None else 0,  # all of it was computed to be scored
            preemptions=self.preemptions,
            reread_tokens=tree.num_reread,
            queue_seconds=(self.admitted_at or self.finished_at) - self.started_at,
        )
        generation = build_generation(
            tree,
            self.model,
            self.params,
            prompt=self.prompt,
            finish_reason=self.finish_reason,
            error=self.error,
            closed=tuple(self.closed),
            usage=usage,
        )
        return replace(generation, prompt_logprobs=self.prompt_scores, stop_reason=self.stop_reason)
