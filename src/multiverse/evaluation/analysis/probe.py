"""A small classifier, cross-validated by document.

Shape legend: N examples, D features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional

FOLDS = 5
Suffix = tuple[int, ...]


@dataclass(frozen=True)
class Examples:
    """Examples of a probe and their folds.

    Attributes:
        label_N: the labels, balanced.
        group: document of each example; all examples of one document are in the same fold.
        fold_N: fold of each example: it is judged by a probe that was trained on all the others.
    """

    label_N: Tensor
    group: tuple[Hashable, ...]
    fold_N: Tensor

    def __len__(self) -> int:
        return len(self.group)


def folds(groups: Sequence[Hashable], labels: Sequence[bool], seed: int, count: int = FOLDS) -> list[int]:
    """A fold for each example, drawn by group, so that no group is on both sides of any split.

    Groups are stratified by their share of positive examples.

    Raises:
        ValueError: there are fewer groups than folds.
    """
    own: dict[Hashable, list[bool]] = {}
    for group, label in zip(groups, labels, strict=True):
        own.setdefault(group, []).append(label)
    distinct = list(own)
    if len(distinct) < count:
        raise ValueError(f"{len(distinct)} documents cannot be divided into {count} folds: take more")
    Random(f"folds/{seed}").shuffle(distinct)
    distinct.sort(key=lambda group: fmean(own[group]))
    fold = {group: index % count for index, group in enumerate(distinct)}
    return [fold[group] for group in groups]


def balanced(labels: Sequence[bool], fold: Sequence[int], seed: int) -> list[int]:
    """Indices of as many positive as negative examples in every fold, in their order; the surplus is left out at random."""
    rng = Random(f"balanced/{seed}")
    kept: list[int] = []
    for number in sorted(set(fold)):
        sides = [
            [i for i, (label, f) in enumerate(zip(labels, fold, strict=True)) if f == number and label is side]
            for side in (True, False)
        ]
        size = min(map(len, sides))
        kept += [index for side in sides for index in rng.sample(side, size)]
    return sorted(kept)


def probe(feature_ND: Tensor, examples: Examples, *, hidden: int = 64, steps: int = 200, seed: int = 0) -> list[bool]:
    """Whether a two-layer perceptron gets each example right, trained on the folds without it.

    Features are scaled to mean 0 and variance 1 by the training folds. AdamW over all training examples at once, with a
    learning rate of 3e-3 that falls to nothing on a cosine, weight decay 0.1.
    """
    right = torch.zeros(len(examples), dtype=torch.bool)
    for number in examples.fold_N.unique().tolist():
        test_N = examples.fold_N == number
        train_ND, mean_D = feature_ND[~test_N], feature_ND[~test_N].mean(0)
        scale_D = train_ND.std(0).clamp_min(1e-6)
        net = _fit((train_ND - mean_D) / scale_D, examples.label_N[~test_N], hidden, steps, seed)
        with torch.inference_mode():
            said_N = net((feature_ND[test_N] - mean_D) / scale_D)[:, 0] > 0
        right[test_N] = said_N == examples.label_N[test_N]
    return [bool(value) for value in right.tolist()]


def _fit(feature_ND: Tensor, label_N: Tensor, hidden: int, steps: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # leaves the global random state as it was
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(feature_ND.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(net(feature_ND)[:, 0], label_N.float()).backward()
        optimizer.step()
        schedule.step()
    return net


def by_suffix(suffixes: Sequence[Suffix], examples: Examples) -> list[bool]:
    """Whether each example is classified correctly from its last tokens alone.

    The prediction is the more frequent label of the longest suffix in the training folds; if the suffix is not there, or both
    labels are equally frequent, that of a shorter suffix; if none is left, no fork.
    """
    labels, fold = examples.label_N.tolist(), examples.fold_N.tolist()
    said: list[bool] = [False] * len(labels)
    for number in sorted(set(fold)):
        votes: Counter[Suffix] = Counter()
        for suffix, label, own in zip(suffixes, labels, fold, strict=True):
            if own != number:
                for start in range(len(suffix)):
                    votes[suffix[start:]] += 1 if label else -1
        for index, suffix in enumerate(suffixes):
            if fold[index] == number:
                tails = (votes[suffix[start:]] for start in range(len(suffix)))
                said[index] = next((vote > 0 for vote in tails if vote), False)
    return [a == b for a, b in zip(said, labels, strict=True)]
