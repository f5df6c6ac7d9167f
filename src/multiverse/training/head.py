"""The output head of a model on some of its tokens, a bounded number at a time.

With a large vocabulary the logits of a long row and their gradients take more memory than everything else: at 32,768 tokens
and 152,000 words 19 GiB in fp32, each. So nobody gets all of them: what is needed of them, such as a cross entropy, is computed
from stretches of bounded size, inside of the model's own forward, and the backward pass computes each stretch again.

Shape legend: B rows, L tokens in a row, T tokens that are measured, C of them in a stretch, H width of the model, V vocabulary,
K values of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import ModelError

LOGITS = 1 << 25
"""Most logits that are computed at once: 128 MiB in fp32."""

Measure = Callable[[Tensor, slice], Tensor]
"""From the logits [C, V] of a stretch, and its place among the tokens, to its values [C, K]."""

_MARK = 1024.0
# Whether what a head gives comes out of its model unchanged. By head.
_unchanged: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


def measure_tokens(
    model: Any, inputs: dict[str, Any], row_T: Tensor, column_T: Tensor, measure: Measure, *, logits: int = LOGITS
) -> Tensor:
    """The values [T, K] of tokens.

    They take the place of the logits in the model's own forward, so that wrappers (DDP, FSDP2, PEFT, autocast) see an ordinary
    forward. A model that changes logits after its head (by a cap or a scale) computes all logits of the columns at once.

    Args:
        model: a transformers causal language model, wrapped or not.
        inputs: of its forward.
        row_T, column_T: which tokens.
        logits: most logits at once.

    Raises:
        ModelError: the model has no output head.
    """
    head = _head(model)
    at = (row_T, column_T)
    if head not in _unchanged:
        with torch.no_grad():  # a forward of its own, and in every process: DDP allows no second one before the backward
            out_1TK, values_TK = _forward_measured(model, inputs, head, at, measure, logits)
        _unchanged[head] = out_1TK.shape[-1] == values_TK.shape[-1] and float(out_1TK[0, -1, 0]) == _MARK
    if not _unchanged[head]:
        columns_N, index_T = column_T.unique(return_inverse=True)
        if not len(columns_N):
            columns_N = columns_N.new_zeros(1)
        logits_BNV = model(**inputs, use_cache=False, logits_to_keep=columns_N).logits
        return _in_stretches(logits_BNV[row_T, index_T], lambda logits_CV: logits_CV, measure, logits)
    out_1TK, values_TK = _forward_measured(model, inputs, head, at, measure, logits)
    # FSDP2 rounds what a model gives under mixed precision; for its hooks that has to have a gradient all the same.
    rounded = out_1TK.dtype != torch.float32
    return values_TK + 0.0 * out_1TK.float().sum() if rounded else out_1TK[0, :-1]


def _forward_measured(
    model: Any, inputs: dict[str, Any], head: torch.nn.Module, at: tuple[Tensor, Tensor], measure: Measure, logits: int
) -> tuple[Tensor, Tensor]:
    """Values in place of logits.

    Returns:
        What the model gives: they, and at the end `_MARK` in each, which shows what becomes of logits; and they alone [T, K].
    """
    score, found = head.forward, []

    def measured(hidden_BLH: Tensor) -> Tensor:
        values_TK = _in_stretches(hidden_BLH[at], lambda hidden_CH: score(hidden_CH[None])[0], measure, logits)
        found.append(values_TK)
        return torch.cat([values_TK, values_TK.new_full((1, values_TK.shape[1]), _MARK)])[None]

    with _forward_of(head, measured):
        out_1TK = model(**inputs, use_cache=False).logits
    return out_1TK, found[0]


def _in_stretches(input_TX: Tensor, score: Callable[[Tensor], Tensor], measure: Measure, logits: int) -> Tensor:
    """Values of tokens from what `score` makes logits of."""
    with torch.no_grad():
        vocabulary = score(input_TX[:0]).shape[-1]
    size = max(1, logits // vocabulary)
    starts = range(0, max(len(input_TX), 1), size)  # once without tokens, too: the head has to have a gradient

    def stretch(input_CX: Tensor, start: int) -> Tensor:
        return measure(score(input_CX), slice(start, start + len(input_CX)))

    def again(start: int) -> Any:
        input_CX = input_TX[start : start + size]
        return checkpoint(stretch, input_CX, start, use_reentrant=False, preserve_rng_state=False)

    if len(starts) == 1 or not torch.is_grad_enabled():
        return torch.cat([stretch(input_TX[start : start + size], start) for start in starts])
    return torch.cat([again(start) for start in starts])


def _head(model: Any) -> torch.nn.Module:
    """The output head of a model, which may be wrapped."""
    while True:
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if inner is None:
            break
        model = inner
    head = model.get_output_embeddings()
    if head is None:
        raise ModelError(f"{type(model).__name__} has no output head: choose a causal language model")
    assert isinstance(head, torch.nn.Module)
    return head


@contextmanager
def _forward_of(module: torch.nn.Module, forward: Callable[..., Tensor]) -> Iterator[None]:
    """Give a module another forward for a while."""
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own
