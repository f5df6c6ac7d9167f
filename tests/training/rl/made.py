"""Rollouts and groups made up for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from multiverse.engine.generation import Generation, Usage
from multiverse.structure import TokenDialect, layout
from multiverse.training.rl.rollout import Group, Question, Rollout, Scores, Support


def make_rollout(
    sampled: int = 2,
    forced: int = 0,
    *,
    prompt: Sequence[int] = (1, 2),
    finish_reason: str = "stop",
    logprobs: Sequence[float] | None = None,
    total_tokens: int | None = None,
    seed: int = 0,
) -> Rollout:
    """A rollout in one line: forced tokens first, then sampled ones.

    Args:
        logprobs: of the sampled tokens; -1 each by default.
        total_tokens: what its usage says; its real number by default.
    """
    count = forced + sampled
    flags = (True,) * forced + (False,) * sampled
    values = list(logprobs if logprobs is not None else [-1.0] * sampled)
    generation = Generation(
        text="",
        answer="",
        tree=None,
        finish_reason=finish_reason,
        usage=Usage(len(prompt), count if total_tokens is None else total_tokens, count, count, 0.0),
        token_ids=tuple(3 + (seed + at) % 5 for at in range(count)),
        positions=tuple(range(len(prompt), len(prompt) + count)),
        branches=("",) * count,
        forced=flags,
        logprobs=tuple([None] * forced + values),
        prompt_token_ids=tuple(prompt),
    )
    supports: tuple[Support | None, ...] = (None,) * count
    return Rollout(
        generation=generation,
        positions=tuple(range(len(prompt) + count)),
        segments=(0,) * (len(prompt) + count),
        visibility=((1,),),
        sources=tuple(-1 if one else len(prompt) + at - 1 for at, one in enumerate(flags)),
        supports=supports,
        temperature=1.0,
        version=0,
        seed=seed,
    )


def make_group(rewards: Sequence[float], rollouts: Sequence[Rollout] | None = None, name: str = "q") -> Group:
    """A judged group."""
    rollouts = rollouts if rollouts is not None else [make_rollout(seed=number) for number in range(len(rewards))]
    return Group(Question(name, ()), rollouts, [Scores(reward) for reward in rewards])


def structured_rollout(
    prompt: Sequence[int],
    answer: Sequence[int],
    tokens: TokenDialect,
    *,
    logprob: float = -1.0,
    temperature: float = 1.0,
    support: Callable[[int], Support | None] = lambda token: None,  # noqa: ARG005
    finish_reason: str = "stop",
) -> Rollout:
    """A rollout that forks as its tags say, as the engine would have computed it.

    Args:
        logprob: of all sampled tokens.
        support: of the place where a token was sampled.
    """
    whole = layout([*prompt, *answer], tokens, decoded=True)
    start = len(prompt)
    last: dict[int, int] = {}
    before = []
    for at, writer in enumerate(whole.writers):
        before.append(last.get(writer, -1))
        last[writer] = at
    forced = whole.forced[start:]
    generation = Generation(
        text="",
        answer="",
        tree=None,
        finish_reason=finish_reason,
        usage=Usage(start, len(answer), whole.critical_path(start), 0, 0.0),
        token_ids=tuple(answer),
        positions=whole.positions[start:],
        branches=whole.labels[start:],
        forced=forced,
        logprobs=tuple(None if one else logprob for one in forced),
        prompt_token_ids=tuple(prompt),
    )
    return Rollout(
        generation=generation,
        positions=whole.positions,
        segments=whole.branches,
        visibility=tuple(map(tuple, whole.visibility())),
        sources=tuple(-1 if one else at for one, at in zip(forced, before[start:], strict=True)),
        supports=tuple(None if one else support(token) for one, token in zip(forced, answer, strict=True)),
        temperature=temperature,
        version=0,
        seed=0,
    )
