"""What comes of a token that is fed to a machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fork:
    """The goal has closed: one child per label begins after the forced separator."""

    labels: tuple[str, ...]


@dataclass(frozen=True)
class BranchEnd:
    """This branch has closed; its forced separator follows."""

    label: str


@dataclass(frozen=True)
class Join:
    """The trunk has resumed: everything in the block is visible from this token on."""

    labels: tuple[str, ...]


@dataclass(frozen=True)
class Stop:
    """The family's own engine ends the generation here, as if it were complete; `problem` says why."""

    problem: str


Transition = Fork | BranchEnd | Join | Stop
