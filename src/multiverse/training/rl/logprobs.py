"""Log-probabilities of sampled tokens under the policy that they were drawn from, as the trained weights have it now.

As in the engine, the logits are divided by the temperature, and what could not be drawn is left out.

Shape legend: T tokens with loss, C of them in a stretch, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..batch import forward_inputs
from ..head import LOGITS, measure_tokens
from .batch import RolloutBatch


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

    Args:
        model: a transformers causal language model set to packed attention, wrapped or not.
        entropy_gradient: whether the entropy has a gradient.
        logits: most logits at once; see `measure_tokens`.

    Raises:
        ModelError: the model has no output head.
    """

    def measure(logits_CV: Tensor, here: slice) -> Tensor:
        logits_CV = logits_CV.float() / batch.temperature_T[here, None]
        banned_CV = batch.supports.banned(here.start, here.stop, logits_CV.shape[1])
        if banned_CV is not None:
            logits_CV = logits_CV.masked_fill(banned_CV, -torch.inf)
        total_C = logits_CV.logsumexp(-1)
        logprob_C = logits_CV.gather(1, batch.target_T[here, None])[:, 0] - total_C
        with nullcontext() if entropy_gradient else torch.no_grad():
            finite_CV = logits_CV if banned_CV is None else logits_CV.masked_fill(banned_CV, 0.0)
            entropy_C = total_C - ((logits_CV - total_C[:, None]).exp() * finite_CV).sum(-1)
        return torch.stack([logprob_C, entropy_C], dim=1)

    inputs = forward_inputs(batch.rows, kind=batch.kind)
    return TokenLogprobs(*measure_tokens(model, inputs, batch.row_T, batch.column_T, measure, logits=logits).unbind(1))


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
