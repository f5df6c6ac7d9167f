"""What the processes of a run give each other: questions are shared out, and every process gets the groups of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from ...errors import RewardError
from .rollout import Group

T = TypeVar("T")


def rank() -> int:
    """Number of this process; 0 where there is only one."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def share(everything: Sequence[T]) -> list[T]:
    """What this process has to do of it."""
    if not torch.distributed.is_initialized():
        return list(everything)
    return list(everything[rank() :: torch.distributed.get_world_size()])


def everywhere(groups: list[Group], error: RewardError | None = None) -> list[Group]:
    """The groups of all processes, in the order of the questions that were shared out.

    Args:
        error: why this process has none.

    Raises:
        RewardError: some process has none. It is raised in all of them, so that each keeps its rollouts.
    """
    if not torch.distributed.is_initialized():
        if error is not None:
            raise error
        return groups
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, (groups, None if error is None else str(error)))
    if error is not None:
        raise error
    for _, reason in found:
        if reason is not None:
            raise RewardError(reason)
    every = [own for own, _ in found]
    return [own[at] for at in range(max(map(len, every))) for own in every if at < len(own)]


def from_first(groups: list[Group]) -> list[Group]:
    """The groups that the first process has, in every process."""
    if not torch.distributed.is_initialized():
        return groups
    sent = [groups]
    torch.distributed.broadcast_object_list(sent, src=0)
    return sent[0]
