"""Keys and values of every layer, one slot per token.

Shape legend: N rows of the forward, H query heads, K key/value heads, D head size (V of values where it differs), S slots of
the pool.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Call(NamedTuple):
    """One layer's attention: the rows, the pools to read, and the output to write."""

    query_NHD: Tensor
    key_SKD: Tensor
    value_SKV: Tensor
    out_NHV: Tensor
    scale: float
    window: int | None


class KVPool:
    """Memory for keys and values, allocated per layer at its first write.

    Shapes come from the model's own attention at that write, so no table of architectures is needed.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.key_SKD: dict[int, Tensor] = {}
        self.value_SKV: dict[int, Tensor] = {}

    def layer(self, number: int, key_KD: tuple[int, ...], value_KV: tuple[int, ...], like: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer; `key_KD` and `value_KV` are the shapes of a slot, `like` gives dtype and device."""
        if number not in self.key_SKD:
            self.key_SKD[number] = like.new_empty(self.slots, *key_KD)
            self.value_SKV[number] = like.new_empty(self.slots, *value_KV)
        return self.key_SKD[number], self.value_SKV[number]

    def write(self, layer: int, slot_N: Tensor, key_NKD: Tensor, value_NKV: Tensor) -> None:
        """Store keys and values of the rows in their slots."""
        key_SKD, value_SKV = self.layer(layer, key_NKD.shape[1:], value_NKV.shape[1:], key_NKD)
        key_SKD.index_copy_(0, slot_N, key_NKD)
        value_SKV.index_copy_(0, slot_N, value_NKV)

    @property
    def bytes_per_slot(self) -> int:
        """Bytes that one token takes over all layers written so far."""
        pools = [*self.key_SKD.values(), *self.value_SKV.values()]
        return sum(pool[0].numel() * pool.element_size() for pool in pools)
