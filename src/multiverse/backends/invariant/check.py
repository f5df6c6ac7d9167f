"""The proof that a backend is deterministic, when a model is loaded: one text in two batches.

Kernels are written so that a row's result does not depend on the others; libraries below, unusual models and other machines
may do as they like. So the same text, which forks and joins, is computed in one forward, and again beside another text, in the
order in which it would be generated, on a CPU by a single thread. All keys, values and logits must be the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ...errors import ModelError
from ..batch import Batch, Family
from ..kv_pool import KVPool

_TRUNK, _PATHS, _REST = 40, (13, 8), 24
"""Tokens before the fork, of the paths, and after the join."""
_BESIDE = 29
"""Tokens of the text beside it."""


class _Checked(Protocol):
    """As much of a `Backend` as is needed here."""

    model: Any
    name: str
    pool: KVPool

    def run(self, batch: Batch) -> Tensor: ...

    def limit_threads(self, most: int) -> None: ...


class _Text(NamedTuple):
    """Tokens in document order, with the branch and the position of each."""

    token_ids: list[int]
    owners: list[int]
    positions: list[int]


def check_invariant(backend: _Checked) -> None:
    """Raise ModelError if the same text gives other bits in another batch."""
    vocabulary = int(backend.model.config.get_text_config().vocab_size)
    text, count = _text(vocabulary), _TRUNK + sum(_PATHS) + _REST
    probe = copy(backend)
    probe.pool = KVPool(2 * count + _BESIDE)
    whole = list(range(count))
    slot = {0: np.arange(count), 1: np.arange(2 * count - 1, count - 1, -1)}  # other slots the second time
    expected_LV = probe.run(_batch(text, [whole], slot[0], []))[: len(whole)].clone()
    found_LV = torch.empty_like(expected_LV)
    done: list[int] = []
    probe.limit_threads(1)
    for number, piece in enumerate(_pieces()):
        beside = 2 * count + np.arange(_BESIDE) if number % 2 else np.arange(0)
        logits_LV = probe.run(_batch(text, [done, piece], slot[1], beside))
        found_LV[piece] = logits_LV[: len(piece)]
        done += piece
    same = torch.equal(found_LV, expected_LV)
    for pools in (probe.pool.key_SKD, probe.pool.value_SKV):
        for pool in pools.values():
            one, two = (pool[torch.from_numpy(slot[time].copy()).to(pool.device)] for time in (0, 1))
            same = same and torch.equal(one, two)
    if not same:
        kind = backend.model.config.model_type
        raise ModelError(
            f"deterministic=True does not hold for {backend.name!r} (model type {kind!r}) on this machine: the same text had "
            f"other numbers in another batch; leave it off, or choose another model, dtype or device"
        )


def _text(vocabulary: int) -> _Text:
    owners = [0] * _TRUNK + [1] * _PATHS[0] + [2] * _PATHS[1] + [0] * _REST
    positions = [*range(_TRUNK), *(_TRUNK + i for size in _PATHS for i in range(size))]
    positions += range(_TRUNK + max(_PATHS), _TRUNK + max(_PATHS) + _REST)
    return _Text([(i * 7919 + 13) % vocabulary for i in range(len(owners))], owners, positions)


def _pieces() -> list[list[int]]:
    """The tokens' numbers in the order of generation: a prompt in chunks, both paths step by step, the rest."""
    first, second, rest = (_TRUNK + sum(_PATHS[:i]) for i in range(3))
    pieces = [[*range(17)], [*range(17, _TRUNK - 1)], [_TRUNK - 1]]
    longest = max(_PATHS)
    pieces += [
        [start + step for start, size in ((first, _PATHS[0]), (second, _PATHS[1])) if step < size] for step in range(longest)
    ]
    return [*pieces, [rest], [rest + 1], [*range(rest + 2, rest + _REST)]]


def _batch(text: _Text, pieces: Sequence[list[int]], slots: Any, beside: Any) -> Batch:
    """The forward of the last of the pieces, after the others; `beside`: slots of another text in the same forward."""
    order, rows = [number for piece in pieces for number in piece], len(pieces[-1])
    owners, positions = np.array(text.owners)[order], np.array(text.positions)[order]
    visible = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1]], dtype=bool)
    families = []
    if len(beside):
        every = np.arange(len(beside))
        alone = np.ones((1, 1), dtype=bool)
        families.append(Family(every, np.asarray(beside), every, np.zeros_like(every), alone, ranks=every[:1]))
    own = np.arange(len(beside), len(beside) + rows)
    families.append(Family(own, slots[order], positions, owners, visible, ranks=np.arange(3)))
    return Batch(
        token_N=torch.tensor([*range(1, len(beside) + 1), *(text.token_ids[i] for i in pieces[-1])]),
        position_N=torch.from_numpy(np.concatenate([np.arange(len(beside)), positions[len(order) - rows :]])),
        slot_N=torch.from_numpy(np.concatenate([np.asarray(beside, dtype=np.int64), slots[pieces[-1]]])),
        families=families,
        logits_indices=own.tolist(),
    )
