"""The description of a forward."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from multiverse.backends.batch import Batch, Family

# Trunk a b, paths c d and e; the rows are d and e.
VISIBLE = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1]], dtype=bool)
FAMILY = Family(np.arange(2), np.array([7, 3, 4, 9, 1]), np.array([0, 1, 2, 3, 2]), np.array([0, 0, 1, 1, 2]), VISIBLE)


def batch() -> Batch:
    return Batch(torch.tensor([5, 6]), torch.tensor([3, 2]), torch.tensor([9, 1]), [FAMILY], [0, 1])


def test_the_mask_of_a_family() -> None:
    mask_RU = FAMILY.mask()
    assert mask_RU is not None
    assert mask_RU.astype(int).tolist() == [[1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    shared_RU = np.zeros((2, 5), dtype=bool)
    shared_RU[1, 2] = True
    mask_RU = FAMILY._replace(shared_RU=shared_RU).mask()
    assert mask_RU is not None
    assert mask_RU.astype(int).tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 1]]


def test_a_single_row_that_may_read_everything_has_no_mask() -> None:
    order = np.arange(4)
    assert Family(np.arange(1), order, order, np.zeros_like(order), np.ones((1, 1), dtype=bool)).mask() is None


def test_the_same_forward() -> None:
    assert batch().same(batch())
    others = [
        replace(batch(), token_N=torch.tensor([5, 7])),
        replace(batch(), position_N=torch.tensor([3, 3])),
        replace(batch(), slot_N=torch.tensor([9, 2])),
        replace(batch(), logits_indices=[0]),
        replace(batch(), families=[FAMILY, FAMILY]),
        replace(batch(), families=[FAMILY._replace(slots=np.array([7, 3, 5, 9, 1]))]),
        replace(batch(), families=[FAMILY._replace(visible=np.ones((3, 3), dtype=bool))]),
        replace(batch(), families=[FAMILY._replace(shared_RU=np.zeros((2, 5), dtype=bool))]),
    ]
    assert not any(batch().same(other) for other in others)
