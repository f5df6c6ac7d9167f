"""What other trainers do to rollouts without noticing, done here on purpose: the update sees them otherwise than the engine.

Each takes a rollout as the engine had it, and gives what such a trainer would make of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from multiverse.errors import StructureError
from multiverse.structure import TokenDialect, layout, resolve
from multiverse.training.rl import decoding
from multiverse.training.rl.collect import collect
from multiverse.training.rl.policy import Policy
from multiverse.training.rl.rollout import Group, Rollout

Change = Callable[[Rollout, Any, TokenDialect], Rollout]
"""From a rollout, the tokenizer and the dialect to the rollout as it is trained."""


@dataclass(frozen=True)
class Mismatch:
    """One kind of mismatch.

    Attributes:
        what: for tables.
        change: what is done to a rollout.
    """

    what: str
    change: Change

    def groups(self, groups: Iterable[Group], tokenizer: Any, tokens: TokenDialect) -> list[Group]:
        """Groups with all their rollouts changed."""
        return [
            replace(group, rollouts=[self.change(rollout, tokenizer, tokens) for rollout in group.rollouts]) for group in groups
        ]


def released_positions(rollout: Rollout, tokenizer: Any, tokens: TokenDialect) -> Rollout:
    """Positions of the released training recipe: paths begin one earlier, what follows a block two.

    The engine decodes at its own positions, as the public engines of this family do.
    """
    other = resolve(tokenizer, replace(tokens.dialect, positions="released"))
    start = len(rollout.generation.prompt_token_ids)
    try:
        found = layout(rollout.generation.token_ids[:-1], other)
    except StructureError:  # malformed: such an answer has no other layout
        return rollout
    answer = (*found.positions, max(found.positions, default=-1) + 1)
    return replace(rollout, positions=(*rollout.positions[:start], *(start + position for position in answer)))


def without_guard(rollout: Rollout, tokenizer: Any, tokens: TokenDialect) -> Rollout:  # noqa: ARG001
    """The trainer's probabilities are those over the whole vocabulary, where the engine drew from what the grammar allows."""
    return replace(rollout, supports=tuple(None for _ in rollout.supports))


MISMATCHES: Mapping[str, Mismatch] = {
    "positions": Mismatch("the released layout's positions in the trainer", released_positions),
    "guard": Mismatch("the grammar left out of the trainer's probabilities", without_guard),
}
"""The kinds by name."""


@contextmanager
def patched(mismatch: Mismatch | None) -> Iterator[None]:
    """Context in which runs train on changed rollouts. It takes the place of what collects them, since no setting does this."""
    if mismatch is None:
        yield
        return

    def changed(policy: Policy, *args: Any, **kwargs: Any) -> list[Group]:
        return mismatch.groups(collect(policy, *args, **kwargs), policy.tokenizer, policy.tokens)

    with patch.object(decoding, "collect", changed):
        yield
