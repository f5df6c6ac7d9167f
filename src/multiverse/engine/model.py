"""Load a Hugging Face model with its tokenizer, and reject models that do not support fork and join."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from ..attention.joinable import check_runnable, is_stateful, softcap
from ..backends import find_device, select_for
from ..backends.base import Backend
from ..backends.cpu.from_gguf import take_file
from ..backends.cpu.quantised_linears import BITS, check_quantisable, quantise_model
from ..backends.tensor_parallel import Ranks, TensorParallelBackend, check_splittable, distributed_config
from ..errors import ModelError, RequestError
from ..models import resolve
from ..models.gguf_blocks import FileBlocks
from ..models.quantised import quantisation
from ..models.resolve import gguf_file
from ..models.rope import has_dynamic_rope
from ..models.weights import load_weights, parse_dtype, read_config
from ..structure import Joins, TokenDialect
from ..structure import resolve as bind

_UNLIMITED_POSITIONS = 1 << 20  # for models whose configuration states no maximum


@dataclass
class LoadedModel:
    """A model ready for the engine.

    Attributes:
        path: the name, folder or hub id that was given.
        source: the folder or hub id that the name stands for.
        model: the transformers model, prepared by the backend.
        backend: runs the model's forwards.
        max_positions: number of positions that the model supports.
        unused: rows of the vocabulary that no token has (most are padding); they are never sampled or listed, though part of
            every softmax, as in transformers.
        dynamic_rope: whether more of them would need other rotary embeddings for every length (see `models/rope.py`).
        quantized: ``int8``, ``int4`` or ``gguf`` if its weights have been quantised here; `None` if not.
        stop_ids: tokens that end a text.
        read_answer: finds the answer in what follows the thinking, as the model's family writes it; `None` without one.
    """

    path: str
    source: str
    model: Any
    tokenizer: Any
    backend: Backend
    max_positions: int
    stop_ids: frozenset[int]
    unused: tuple[int, ...] = ()
    dynamic_rope: bool = False
    quantized: str | None = None
    read_answer: Callable[[str], str | None] | None = None

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the model has logits for."""
        return int(self.model.config.get_text_config().vocab_size)


def embedded_model() -> Path:
    """Folder of multiverse-mini, the small model shipped with the package."""
    return Path(str(files("multiverse") / "models" / "mini"))


def load(
    path: str | Path | None = None,
    *,
    dtype: str = "auto",
    device: str = "auto",
    quantize: str = "none",
    packed_linears: bool = True,
    tensor_parallel: int = 1,
    deterministic: bool = False,
) -> LoadedModel:
    """Load a model by name, folder, GGUF file or hub id; `None` is the embedded multiverse-mini.

    Args:
        dtype: ``auto`` is the dtype that the weights were saved in; else the name of a torch dtype.
        device: ``auto`` is CUDA where there is a GPU, else the CPU.
        quantize: as in `LLM`.
        packed_linears: as in `backends.select`. Not with tensor parallelism, whose layers are transformers' own.
        tensor_parallel: number of processes that the model is split over, each with its own GPU where there are GPUs.
        deterministic: as in `backends.select`. Not with tensor parallelism.

    Raises:
        ModelError: the model cannot be found or loaded, or does not support fork and join or `deterministic`.
    """
    if deterministic and tensor_parallel > 1:
        raise ModelError(
            f"deterministic=True does not go with tensor_parallel={tensor_parallel}: sums over several processes depend on the "
            f"size of the batch; use tensor_parallel=1, or leave deterministic off"
        )
    source = resolve(embedded_model() if path is None else path)
    # Known by what it was called, and not by the folder in the cache that its files are in.
    name = source if path is None else os.path.expanduser(path)  # noqa: PTH111 (a hub id is no path)
    config, tokenizer = read_config(source, given=name if path is None else str(path))
    check_runnable(config, name)
    torch_device = find_device(device)
    parse_dtype(dtype)
    method = quantisation(config)
    if quantize in BITS:
        check_quantisable(config, name, quantize, torch_device, tensor_parallel)
    if tensor_parallel == 1:
        # The libraries of quantised weights put them on their device themselves, some for good.
        place = {"device_map": {"": str(torch_device)}} if method is not None else {}
        model = load_weights(source, dtype, **place)
        backend = select_for(config, torch_device, model.dtype, packed_linears=packed_linears, deterministic=deterministic)
        quantized = _quantise(model, quantize, path, torch_device)
        return replace(prepare(model, tokenizer, name, backend, source), quantized=quantized)
    if method is not None:
        raise ModelError(
            f"tensor_parallel={tensor_parallel} does not go with the quantised weights ({method}) of {name!r}: "
            f"use tensor_parallel=1"
        )
    if is_stateful(config) or softcap(config) is not None:
        raise ModelError(
            f"tensor_parallel={tensor_parallel} does not go with recurrent layers or capped attention scores, as {name!r} has "
            f"them: use tensor_parallel=1"
        )
    check_splittable(config, name, tensor_parallel, torch_device)
    ranks = Ranks(source, dtype, torch_device, tensor_parallel)
    try:
        model = load_weights(source, dtype, distributed_config=distributed_config(tensor_parallel))
        loaded = prepare(model, tokenizer, name, TensorParallelBackend(ranks), source)
        ranks.loaded()
    except BaseException:
        ranks.close()
        raise
    return loaded


def _quantise(model: Any, quantize: str, path: str | Path | None, device: torch.device) -> str | None:
    """Quantise a model's weights, if they are to be; returns how."""
    if quantize in BITS:
        quantise_model(model, BITS[quantize])
        return quantize
    file = gguf_file(path) if quantize == "auto" and path is not None else None
    if file is None or is_stateful(model.config):
        return None
    blocks = FileBlocks(file, model.config.get_text_config().num_hidden_layers)
    return "gguf" if take_file(model, blocks, device) else None


def with_join(tokens: TokenDialect | None, join: Joins | None, loaded: LoadedModel) -> TokenDialect | None:
    """A model's dialect with the join that was asked for; else with its own, or by text where that is how the model is run.

    Raises:
        RequestError: a join was asked for, and the model never forks.
    """
    if tokens is None:
        if join is not None:
            raise RequestError(f"join={join!r} has no effect: {loaded.path!r} has no tags, so it never forks; leave join out")
        return None
    if join is None and tokens.dialect.join == "kv" and loaded.backend.rereads:
        join = "text"
    return tokens if join in (None, tokens.dialect.join) else bind(loaded.tokenizer, replace(tokens.dialect, join=join))


def prepare(model: Any, tokenizer: Any, name: str, backend: Backend, source: str | None = None) -> LoadedModel:
    """Prepare a transformers model for the engine, in place; `source` is where it was read from, if that is not `name`."""
    backend.prepare(model, name)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return LoadedModel(
        path=name,
        source=source if source is not None else name,
        model=model,
        tokenizer=tokenizer,
        backend=backend,
        max_positions=int(limit or _UNLIMITED_POSITIONS),
        stop_ids=_stop_ids(model, tokenizer),
        unused=_unused_rows(int(model.config.get_text_config().vocab_size), tokenizer),
        dynamic_rope=has_dynamic_rope(model.config),
    )


def _unused_rows(vocabulary: int, tokenizer: Any) -> tuple[int, ...]:
    """The token ids below the size of the vocabulary that the tokenizer has no token for."""
    if len(tokenizer) == vocabulary:  # the usual case, without a copy of the whole vocabulary
        return ()
    known = set(tokenizer.get_vocab().values())
    return tuple(token for token in range(vocabulary) if token not in known)


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    ids: set[int] = set()
    for source in (
        getattr(tokenizer, "eos_token_id", None),
        model.generation_config.eos_token_id if model.generation_config else None,
    ):
        if isinstance(source, int):
            ids.add(source)
        elif source is not None:
            ids.update(source)
    return frozenset(ids)
