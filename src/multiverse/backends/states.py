"""The state of recurrent and linear-attention layers, one per branch, in the form in which transformers' cache has it.

Attention keeps a key and a value for each token, in slots that branches share. Other layers keep a state that each token
changes, so every branch has one of its own: it is copied when a branch forks. Branches that are advanced together have theirs
stacked for one forward.

Shape legend: B branches that are advanced together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, LinearAttentionAndFullAttentionLayer, get_layer_types_and_kwargs


class LayerState(NamedTuple):
    """The state of a layer behind some tokens, of one branch or of B: what its convolutions and recurrences carry on, [B, ...].

    Either is empty where the layer has none.
    """

    conv: dict[int, Tensor]
    recurrent: dict[int, Tensor]


State = list[LayerState]
"""A state per layer."""


class _StateLayer(LinearAttentionAndFullAttentionLayer):
    """A layer of transformers' cache that keeps states, and passes keys and values on: those go to slots."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The keys and values of the rows alone."""
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Nothing is kept here that positions or masks could be counted from; both are given."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of keys."""
        return query_length, 0

    def load(self, states: Sequence[LayerState]) -> None:
        """Begin with these states of one branch each, stacked."""
        for index in states[0].conv:
            conv = torch.cat([state.conv[index] for state in states])
            self.conv_states[index], self.is_conv_states_initialized[index] = conv, True
            self.conv_kernel_size[index], self.has_previous_state[index] = conv.shape[-1], True
            self.dtype, self.device = conv.dtype, conv.device  # type: ignore[assignment]
        for index in states[0].recurrent:
            self.recurrent_states[index] = torch.cat([state.recurrent[index] for state in states])
            self.is_recurrent_states_initialized[index] = True

    def state(self) -> LayerState:
        """The state of all branches."""
        kept = [
            {i: state for i, state in all_.items() if state is not None} for all_ in (self.conv_states, self.recurrent_states)
        ]
        return LayerState(*kept)


class StateCache(Cache):
    """The states of B branches as a cache of transformers, for one forward.

    Args:
        config: of the text model.
        states: one per branch; empty where all of them begin.
    """

    def __init__(self, config: Any, states: Sequence[State] = ()) -> None:
        _, options = get_layer_types_and_kwargs(config)
        self._own = [_StateLayer(option.get("number_of_states", 1)) for option in options]
        super().__init__(layers=[*self._own])
        for number, layer in enumerate(self._own if states else ()):
            layer.load([state[number] for state in states])

    def split(self, count: int) -> list[State]:
        """The states of each branch after the forward, each in memory of its own."""
        states = [layer.state() for layer in self._own]
        return [[_row(state, branch) for state in states] for branch in range(count)]


def _row(state: LayerState, branch: int) -> LayerState:
    conv, recurrent = ({i: tensor[branch : branch + 1].clone() for i, tensor in kept.items()} for kept in state)
    return LayerState(conv, recurrent)


def tensors_of(state: State) -> list[Tensor]:
    """All tensors of a branch's state, layer by layer."""
    return [tensor for layer in state for kept in layer for tensor in kept.values()]
