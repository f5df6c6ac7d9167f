"""Log-probabilities of sampled tokens under the policy that they were drawn from, as the trained weights have it now.

As in the engine, the logits are divided by the temperature, and what could not be drawn is left out. Logits are only computed
where something was drawn, in stretches of bounded size, which the backward pass computes again: with a large vocabulary the
logits of a long row would take more memory than everything else.

Shape legend: B rows, L tokens in a row, T tokens with loss, C of them in a stretch, H width of the model, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...errors import ModelError
from ..batch import visibility_of
from .batch import RolloutBatch

LOGITS = 1 << 25
"""Most logits that are computed at once: 128 MiB in fp32."""
_MARK = 1024.0
# Whether what a head gives comes out of its model unchanged. By head.
_unchanged: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


class TokenLogprobs(NamedTuple):
    """Of each token with loss.

    Attributes:
        logprob_T: its log-probability, in fp32.
        entropy_T: entropy of the distribution that it was drawn from, in fp32.
    """

    logprob_T: Tensor
    entropy_T: Tensor


def policy_logprobs(model: Any, batch: RolloutBatch, *, entropy_gradient: bool = False, logits: int = LOGITS) -> TokenLogprobs:
    """Log-probabilities and entropies of the tokens with loss.

    They are computed inside of the model's own forward, in place of its output head, so that wrappers (DDP, FSDP2, PEFT,
    autocast) see an ordinary forward. A model that changes logits after its head (by a cap or a scale) computes all logits of
    the columns with loss.

    Args:
        model: a transformers causal language model set to packed attention, wrapped or not.
        entropy_gradient: whether the entropy has a gradient.
        logits: most logits at once.

    Raises:
        ModelError: the model has no output head.
    """
    head = _head(model)
    measure = _Measure(batch, entropy_gradient, logits)
    if head not in _unchanged:
        with torch.no_grad():  # a forward of its own, and in every process: DDP allows no second one before the backward
            out_1T2, _ = _forward_measured(model, head, batch, measure)
        _unchanged[head] = out_1T2.shape[-1] == 2 and float(out_1T2[0, -1, 0]) == _MARK
    if not _unchanged[head]:
        columns_N, at_T = batch.column_T.unique(return_inverse=True)
        if not len(columns_N):
            columns_N = columns_N.new_zeros(1)
        logits_BNV = _forward(model, batch, logits_to_keep=columns_N).logits
        return TokenLogprobs(*measure(logits_BNV[batch.row_T, at_T], lambda logits_CV: logits_CV).unbind(1))
    out_1T2, values_T2 = _forward_measured(model, head, batch, measure)
    # FSDP2 rounds what a model gives under mixed precision; for its hooks that has to have a gradient all the same.
    rounded = out_1T2.dtype != torch.float32
    return TokenLogprobs(*(values_T2 + 0.0 * out_1T2.float().sum() if rounded else out_1T2[0, :-1]).unbind(1))


def _forward(model: Any, batch: RolloutBatch, **changes: Any) -> Any:
    return model(
        input_ids=batch.rows["input_ids"],
        position_ids=batch.rows["position_ids"],
        visibility=visibility_of(batch.rows, kind=batch.kind),
        use_cache=False,
        **changes,
    )


def _forward_measured(model: Any, head: torch.nn.Module, batch: RolloutBatch, measure: _Measure) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy in place of logits.

    Returns:
        What the model gives: they, and at the end `_MARK` twice, which shows what becomes of logits; and they alone [T, 2].
    """
    score, found = head.forward, []

    def measured(hidden_BLH: Tensor) -> Tensor:
        values_T2 = measure(hidden_BLH[batch.row_T, batch.column_T], lambda hidden_CH: score(hidden_CH[None])[0])
        found.append(values_T2)
        return torch.cat([values_T2, values_T2.new_full((1, 2), _MARK)])[None]

    with _forward_of(head, measured):
        out_1T2 = _forward(model, batch).logits
    return out_1T2, found[0]


class _Measure:
    """Log-probability and entropy [T, 2] from logits, or from what gives logits."""

    def __init__(self, batch: RolloutBatch, entropy_gradient: bool, logits: int) -> None:
        self.batch, self.entropy_gradient, self.logits = batch, entropy_gradient, logits

    def __call__(self, input_TX: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
        """Args: `input_TX`, which `score` makes logits of."""
        with torch.no_grad():
            vocabulary = score(input_TX[:0]).shape[-1]
        size = max(1, self.logits // vocabulary)
        starts = range(0, max(len(input_TX), 1), size)  # once without tokens, too: the head has to have a gradient
        if len(starts) == 1 or not torch.is_grad_enabled():
            return torch.cat([self._stretch(input_TX[start : start + size], score, start) for start in starts])
        return torch.cat(
            [
                checkpoint(
                    self._stretch, input_TX[start : start + size], score, start, use_reentrant=False, preserve_rng_state=False
                )
                for start in starts
            ]
        )

    def _stretch(self, input_CX: Tensor, score: Callable[[Tensor], Tensor], start: int) -> Tensor:
        here = slice(start, start + len(input_CX))
        logits_CV = score(input_CX).float() / self.batch.temperature_T[here, None]
        banned_CV = self.batch.supports.banned(here.start, here.stop, logits_CV.shape[1])
        if banned_CV is not None:
            logits_CV = logits_CV.masked_fill(banned_CV, -torch.inf)
        total_C = logits_CV.logsumexp(-1)
        logprob_C = logits_CV.gather(1, self.batch.target_T[here, None])[:, 0] - total_C
        with nullcontext() if self.entropy_gradient else torch.no_grad():
            finite_CV = logits_CV if banned_CV is None else logits_CV.masked_fill(banned_CV, 0.0)
            entropy_C = total_C - ((logits_CV - total_C[:, None]).exp() * finite_CV).sum(-1)
        return torch.stack([logprob_C, entropy_C], dim=1)


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


class Reference:
    """The model of a KL divergence: as it was at the start.

    With LoRA it is the model without its adapters, and takes no memory; if the adapters began from others (`lora.start`), it is
    the model without those, too. Otherwise it is a frozen copy of all weights in their own type: as much memory as the weights
    take, in each process. It has to be made before a checkpoint is loaded into the model.

    Args:
        model: the model to be trained, not wrapped.
    """

    def __init__(self, model: Any) -> None:
        self._adapted = hasattr(model, "disable_adapter")
        self.model = model if self._adapted else copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def fill(self, batches: Iterable[RolloutBatch]) -> None:
        """Compute the log-probabilities of the reference for these batches, and keep them there."""
        with self.model.disable_adapter() if self._adapted else nullcontext():
            for batch in batches:
                if not self._adapted:
                    self.model.to(batch.target_T.device)  # where the trained model went after the copy was made
                logprob_T = policy_logprobs(self.model, batch).logprob_T
                batch.tokens = batch.tokens._replace(reference_T=logprob_T)

    def memory(self) -> int:
        """Bytes that it takes beside the model."""
        return 0 if self._adapted else sum(weight.nbytes for weight in self.model.parameters())


def disable_dropout(model: torch.nn.Module) -> None:
    """Turn dropout off everywhere in a model: with it, log-probabilities in training are not those of the engine."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):  # of attention weights
            module.attention_dropout = 0.0  # type: ignore[assignment]
