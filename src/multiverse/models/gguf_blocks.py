"""The bits of a GGUF file's matrices, as codes, scales and minimums.

Each function below reads one kind of block; llama.cpp's `ggml-common.h` defines them. Codes of five and six bits become codes
of eight, which loses nothing; scales of the K kinds, products of two numbers in the file, are rounded to half precision.

Letters: N rows, K columns, S scales in a row.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .gguf import open_reader


class Blocks(NamedTuple):
    """A matrix: ``scale * (code - zero)``, zero being half the range of codes; or ``scale * code + minimum``.

    Attributes:
        codes: [N, K].
        scales, mins: [N, S], in half precision; `mins` is `None` where codes are around zero.
        bits: of a code.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float16]
    mins: NDArray[np.float16] | None
    bits: Literal[8, 4]


Bytes = NDArray[np.uint8]


def _half(blocks: Bytes, at: int) -> NDArray[np.float16]:
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16)


def _nibbles(packed: Bytes) -> Bytes:
    """Low halves of the bytes, then high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1).astype(np.uint8, copy=False)


def _fifth(bits: Bytes) -> Bytes:
    """The fifth bits of 32 codes, from four bytes, in their place."""
    return np.left_shift(np.unpackbits(bits, axis=-1, bitorder="little"), 4, dtype=np.uint8)


def _q8_0(blocks: Bytes) -> Blocks:
    return Blocks(np.bitwise_xor(blocks[:, 2:], 128, dtype=np.uint8), _half(blocks, 0), None, 8)


def _q4_0(blocks: Bytes) -> Blocks:
    return Blocks(_nibbles(blocks[:, 2:]), _half(blocks, 0), None, 4)


def _q4_1(blocks: Bytes) -> Blocks:
    return Blocks(_nibbles(blocks[:, 4:]), _half(blocks, 0), _half(blocks, 2), 4)


def _q5_0(blocks: Bytes) -> Blocks:
    return Blocks(np.add(_nibbles(blocks[:, 6:]) | _fifth(blocks[:, 2:6]), 112, dtype=np.uint8), _half(blocks, 0), None, 8)


def _q5_1(blocks: Bytes) -> Blocks:
    return Blocks(_nibbles(blocks[:, 8:]) | _fifth(blocks[:, 4:8]), _half(blocks, 0), _half(blocks, 2), 8)


def _k_scales(blocks: Bytes) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Eight scales and eight minimums of a block of 256, six bits each, times the block's own two."""
    low, high, rest = np.split(blocks[:, 4:16], 3, axis=-1)
    scales = np.concatenate([low & 63, (rest & 15) | (low >> 2 & 48)], axis=-1)
    mins = np.concatenate([high & 63, (rest >> 4) | (high >> 2 & 48)], axis=-1)
    return (
        (_half(blocks, 0).astype(np.float32) * scales).astype(np.float16),
        (-_half(blocks, 2).astype(np.float32) * mins).astype(np.float16),
    )


def _q4_k(blocks: Bytes) -> Blocks:
    codes = _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(len(blocks), 256)
    return Blocks(codes, *_k_scales(blocks), 4)


def _q5_k(blocks: Bytes) -> Blocks:
    low = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    high = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return Blocks((low | high << 4).reshape(len(blocks), 256).astype(np.uint8, copy=False), *_k_scales(blocks), 8)


def _q6_k(blocks: Bytes) -> Blocks:
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], dtype=np.uint8)[:, None] & 3
    scales = _half(blocks, 208).astype(np.float32) * blocks[:, 192:208].view(np.int8)
    return Blocks(
        (96 + (low | high << 4)).reshape(len(blocks), 256).astype(np.uint8, copy=False), scales.astype(np.float16), None, 8
    )


_KINDS: dict[str, Callable[[Bytes], Blocks]] = {
    **{"Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1},
    **{"Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k},
}


class FileBlocks:
    """The matrices of a GGUF file whose kind is known here, by the names of transformers' modules.

    Args:
        layers: of the model.

    Raises:
        ModelError: the file cannot be read.
        ExtraError: the library that reads GGUF is missing.
    """

    def __init__(self, file: Path, layers: int) -> None:
        import gguf

        reader = open_reader(file)
        field = reader.get_field("general.architecture")
        name = str(field.contents()) if field is not None else ""
        own = [number for number, known in gguf.MODEL_ARCH_NAMES.items() if known == name]
        self._names: Any = gguf.get_tensor_name_map(own[0], layers) if own else None
        self._tensors = {tensor.name: tensor for tensor in reader.tensors if tensor.tensor_type.name in _KINDS}

    def __bool__(self) -> bool:
        return bool(self._tensors) and self._names is not None

    def __call__(self, module: str) -> Blocks | None:
        """The matrix of a module; a head without one of its own has the embedding's. `None` if its kind is not known here."""
        name = self._names.get_name(module)
        tensor = self._tensors.get(f"{name}.weight")
        if tensor is None and name == "output":
            tensor = self._tensors.get("token_embd.weight")
        if tensor is None or len(tensor.shape) != 2:
            return None
        import gguf

        rows, size = int(tensor.shape[1]), gguf.GGML_QUANT_SIZES[tensor.tensor_type][1]
        found = _KINDS[tensor.tensor_type.name](np.asarray(tensor.data).view(np.uint8).reshape(-1, size))
        mins = None if found.mins is None else found.mins.reshape(rows, -1)
        return Blocks(found.codes.reshape(rows, -1), found.scales.reshape(rows, -1), mins, found.bits)


def in_order(blocks: Blocks, order: NDArray[np.intp]) -> Blocks:
    """The rows in another order."""
    mins = None if blocks.mins is None else blocks.mins[order]
    return Blocks(blocks.codes[order], blocks.scales[order], mins, blocks.bits)
