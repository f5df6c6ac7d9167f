"""Questions to groups of rollouts, all in one batch of the engine, over the weights that are trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...engine import Branch, Request, SamplingParams
from ...engine.engine import Engine
from ...errors import EngineError, RequestError
from ...llm import LLM
from ...prompting import Instruction
from .policy import Policy
from .rollout import Group, Question, Rollout

ROLLOUT_PARAMS = SamplingParams(temperature=1.0, top_p=1.0)
"""How rollouts are sampled unless told otherwise: from the model itself, within grammar and limits."""

_NEUTRAL: dict[str, object] = {
    "repetition_penalty": 1.0,
    "path_repetition_penalty": None,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logit_bias": {},
    "share_every": None,
    "prompt_logprobs": None,
    "n": 1,
    "seed": None,
}
_WHY = {
    "share_every": "rollouts do not say what paths share: leave it out",
    "prompt_logprobs": "nobody would see them: leave it out",
    "n": "each rollout is a request of its own: use group_size",
    "seed": "each rollout has a seed of its own, derived from that of the run: leave it out",
}
_NOT_REPLAYED = "the update computes log-probabilities without it, so that they would not be those of the rollout: leave it out"


def check_params(params: SamplingParams) -> None:
    """Raise unless rollouts can be sampled so, and the update can compute the same log-probabilities again.

    Raises:
        RequestError: a parameter cannot be honoured; the message names it.
    """
    for name, neutral in _NEUTRAL.items():
        value = getattr(params, name)
        if value != neutral and not (name == "path_repetition_penalty" and value == 1.0):
            raise RequestError(f"{name}={value!r} cannot be used for rollouts: {_WHY.get(name, _NOT_REPLAYED)}")
    if not params.temperature:
        raise RequestError("temperature=0 cannot be used for rollouts: nothing is drawn there; use one above 0, such as 1")


@dataclass(frozen=True)
class Draw:
    """Which rollouts are drawn: the same whenever a run comes to them again.

    Attributes:
        seed: of the run.
        step: number of the batch of rollouts.
        version: number of updates of the weights so far.
        attempt: how often these questions have been drawn in this step already.
    """

    seed: int
    step: int
    version: int
    attempt: int = 0

    def seed_of(self, question: str, sample: int) -> int:
        """The seed of one rollout: of the question with this id, and with this number in its group."""
        name = "\0".join(map(str, (self.seed, self.step, self.attempt, sample, question)))
        return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).digest(), "big")


def collect(
    policy: Policy,
    questions: Sequence[Question],
    *,
    group_size: int,
    draw: Draw,
    params: SamplingParams = ROLLOUT_PARAMS,
    mode: Instruction | None = "parallel",
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Group]:
    """Sample `group_size` rollouts of each question, all in one batch; their prompt is computed once.

    A rollout that ends badly (malformed, cut off, with an error) is in its group like any other: its `finish_reason` says how.
    If the forward fails, the rollouts in it end with ``error``, and the others go on.

    Args:
        draw: which rollouts.
        params: how they are sampled. Log-probabilities and supports are recorded in any case.
        mode: how the model is asked to think, as in `LLM.chat`.
        on_progress: called with the numbers of rollouts that have finished, and of all, as each one finishes.

    Returns:
        A group a question, in their order, without scores.

    Raises:
        RequestError: a parameter or a question cannot be honoured; nothing has been run.
        EngineError: all rollouts ended with an error.
        KeyboardInterrupt: as it came; what was running is aborted.
    """
    check_params(params)
    if group_size < 1:
        raise RequestError(f"group_size={group_size} is not valid: it must be 1 or more")
    with policy.decoding() as llm:
        prompts = encode_questions(llm, questions, params, mode)
        (own,) = llm.params_of(params, 1, "sequential" if mode == "sequential" else None, chat=True)
        own = replace(own, logprobs=True, logprobs_mode="processed_logprobs", supports=True)
        requests: list[Request] = []
        for question, prompt in zip(questions, prompts, strict=True):
            seeds = [draw.seed_of(question.id, sample) for sample in range(group_size)]
            first: Request | None = None
            for seed in seeds:
                requests.append(llm.engine.submit(prompt, replace(own, seed=seed), leader=first))
                first = first or requests[-1]
        rollouts = _run(llm.engine, requests, draw.version, on_progress)
    groups = [tuple(rollouts[at : at + group_size]) for at in range(0, len(rollouts), group_size)]
    return [Group(question, group) for question, group in zip(questions, groups, strict=True)]


def encode_questions(
    llm: LLM, questions: Sequence[Question], params: SamplingParams, mode: Instruction | None
) -> list[list[int]]:
    """The prompts of questions.

    Raises:
        RequestError: a question cannot be asked; the message names its id.
    """
    prompts: list[list[int]] = []
    short = llm.engine.backend.short_positions
    for question in questions:
        try:
            chats, _ = llm.encode_conversations([[dict(message) for message in question.messages]], mode)
            llm.check(chats[0].token_ids, params)
        except RequestError as error:
            raise RequestError(f"question {question.id!r}: {error}") from None
        prompts.append(chats[0].token_ids)
        if short is not None and len(prompts[-1]) + params.max_tokens > short:
            raise RequestError(
                f"question {question.id!r}: its prompt ({len(prompts[-1])} tokens) and max_tokens={params.max_tokens} reach "
                f"position {short}, from where this model has another rotary embedding (longrope), in training for all of a "
                f"batch: lower max_tokens"
            )
    return prompts


def _run(engine: Engine, requests: Sequence[Request], version: int, on_progress: Callable[[int, int], None]) -> list[Rollout]:
    """Step until all requests have finished; their rollouts are in the order in which they were submitted."""
    running = {request.id: request for request in requests}
    finished: dict[int, Rollout] = {}
    failure: Exception | None = None
    try:
        while running:
            try:
                over = engine.step()
            except Exception as error:  # the requests of that forward are over, and say so
                failure = error
                over = [request for request in running.values() if request.finish_reason is not None]
            for request in over:
                if running.pop(request.id, None) is not None:
                    finished[request.id] = rollout_of(request, version)
                    on_progress(len(finished), len(finished) + len(running))
    finally:
        for request in running.values():
            engine.abort(request)
    rollouts = [finished[number] for number in sorted(finished)]
    if rollouts and all(rollout.generation.finish_reason == "error" for rollout in rollouts):
        raise EngineError(f"every rollout ended with an error: {rollouts[-1].generation.structure_error}") from failure
    return rollouts


def rollout_of(request: Request, version: int) -> Rollout:
    """A finished request as the update needs it, from the engine's own tree.

    Args:
        request: with log-probabilities under the distribution drawn from, and supports.
        version: number of updates of the weights that wrote it.
    """
    tree, params, generation = request.tree, request.params, request.generation()
    assert generation.supports is not None
    assert params.seed is not None
    asked = [(branch, number) for branch, start, end in tree.segments for number in range(start, end)]
    written = [(branch, number) for branch, start, end in tree.generated() for number in range(start, end)]
    # Of each branch its tokens are numbered with those of the prompt, in the order in which it reads them.
    place = {(branch.index, number): at for at, (branch, number) in enumerate(asked)}
    for at, (branch, number) in enumerate(written, len(asked)):
        place[branch.index, len(branch.prompt_ids) + number] = at
    # A separator behind a path is drawn from the last row of that path, whoever it belongs to.
    path_of = {branch.behind: branch for branch in tree.branches if branch.behind is not None}

    def source(branch: Branch, number: int) -> int:
        if number == 0 and branch in path_of:
            branch = path_of[branch]
            number = len(branch.token_ids)
        return place[branch.index, len(branch.prompt_ids) + number - 1]

    return Rollout(
        generation=generation,
        positions=(*tree.positions, *(branch.positions[number] for branch, number in written)),
        segments=(*(branch.index for branch, _ in asked), *(branch.index for branch, _ in written)),
        visibility=tuple(map(tuple, tree.visible.tolist())),
        sources=tuple(-1 if branch.forced[number] else source(branch, number) for branch, number in written),
        supports=generation.supports,
        temperature=params.temperature,
        version=version,
        seed=params.seed,
    )
