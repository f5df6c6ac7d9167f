"""Load a Hugging Face model, make sure that it can be forked and joined, and run forwards on it."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ..attention.joinable import check_joinable
from ..attention.tree import Bucket, KVPool, SdpaBackend, TreeContext, register
from ..attention.triton_decode import TritonBackend
from ..attention.work import send
from ..errors import ModelError
from .batch import Batch
from .cpu import TRIM_EVERY, NativeBackend, kernels, trim, use_kernels
from .fused import fuse_layers, fuse_norms
from .graphs import Graphs, Recorder, cuda_recorder
from .packing import pack_linears
from .products import TritonKit
from .tensor_parallel import Ranks, check_splittable, distributed_config

_UNBOUNDED = 1 << 20  # for models that state no longest position
_PROGRAMS_PER_SM = 2  # as many of the attention's narrow programs fit; wide ones take turns

_log = logging.getLogger(__name__)


@dataclass
class LoadedModel:
    """A model ready for the engine.

    Attributes:
        path: the folder or hub id that was loaded.
        max_positions: longest chain of positions that the model was made for.
        stop_ids: tokens that end a text.
        native: whether its modules call the native CPU kernels.
        ranks: the other processes that hold shares of it, if it was loaded with tensor parallelism.
    """

    path: str
    model: Any
    tokenizer: Any
    device: torch.device
    max_positions: int
    stop_ids: frozenset[int]
    native: bool = False
    ranks: Ranks | None = None

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the model has logits for."""
        return int(self.model.config.get_text_config().vocab_size)

    def forward(self, token_N: Tensor, position_N: Tensor, keep: Tensor, context: TreeContext) -> Tensor:
        """Run the model over rows; returns float32 logits of those in `keep`."""
        output = self.model(
            input_ids=token_N[None],
            position_ids=position_N[None],
            use_cache=False,
            logits_to_keep=keep,
            tree_context=context,
        )
        logits: Tensor = output.logits[0].float()
        return logits


def embedded_model() -> Path:
    """Folder of multiverse-mini, the small model shipped with the package."""
    return Path(str(files("multiverse") / "models" / "mini"))


def load(
    path: str | Path | None = None,
    *,
    dtype: str = "auto",
    device: str = "auto",
    packed: bool = True,
    tensor_parallel: int = 1,
) -> LoadedModel:
    """Load a local folder or a hub id; `None` is the embedded multiverse-mini.

    Args:
        dtype: ``auto`` takes the type the weights were saved in; else a torch type's name.
        device: ``auto`` takes CUDA when it is there.
        packed: fused layers for speed, on CPU also native kernels or repacked linear layers; results agree to
            rounding. Not with tensor parallelism, whose layers are transformers' own.
        tensor_parallel: number of processes that the model is spread over, each with its own GPU where there are GPUs.

    Raises:
        ModelError: it cannot be found or loaded, or cannot be joined; the message names it and says what to do.
    """
    name = str(embedded_model() if path is None else path)
    name, config, tokenizer = _read_config(name)
    check_joinable(config, name)
    torch_device = _device(device)
    _dtype(dtype)
    if tensor_parallel == 1:
        return prepare(load_weights(name, dtype), tokenizer, name, torch_device, packed=packed)
    check_splittable(config, name, tensor_parallel, torch_device)
    ranks = Ranks(name, dtype, torch_device, tensor_parallel)
    try:
        own = torch.device("cuda", 0) if torch_device.type == "cuda" else torch_device
        loaded = prepare(load_weights(name, dtype, tensor_parallel), tokenizer, name, own, packed=False)
        ranks.loaded()
    except BaseException:
        ranks.close()
        raise
    loaded.ranks = ranks
    return loaded


def load_weights(name: str, dtype: str, tensor_parallel: int = 1) -> Any:
    """The transformers model; with tensor parallelism, this rank's share of it.

    Raises:
        ModelError: they cannot be read.
    """
    share = {"distributed_config": distributed_config(tensor_parallel)} if tensor_parallel > 1 else {}
    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=_dtype(dtype), **share)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"the weights of {name!r} could not be loaded: {_first_line(error)}") from error


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"device={name!r} is not known to torch: use 'auto', 'cpu', or 'cuda'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device={name!r} asks for CUDA, which torch does not find here: use 'cpu'")
    return device


def _native() -> bool:
    return os.environ.get("MULTIVERSE_NATIVE", "1") != "0"


def _dtype(name: str) -> torch.dtype | str:
    dtype = "auto" if name == "auto" else getattr(torch, name, None)
    if dtype != "auto" and not isinstance(dtype, torch.dtype):
        raise ModelError(f"dtype={name!r} is not a type of torch: use 'auto', 'float32', 'bfloat16' or 'float16'")
    return dtype


def prepare(model: Any, tokenizer: Any, name: str, device: torch.device, *, packed: bool = True) -> LoadedModel:
    """Make a transformers model ready for the engine: tree attention, fast linears. The model is changed in place."""
    model.eval().requires_grad_(False)
    if next(model.parameters()).device != device:  # shares are loaded where they belong
        model.to(device)
    model.set_attn_implementation(register())
    native = False
    if packed and device.type == "cpu":
        native = use_kernels(model) > 0
        pack_linears(model)  # what the kernels have left
    if packed and device.type == "cuda" and _native():
        try:
            kit = TritonKit()
            fuse_layers(model, kit)
            fuse_norms(model, kit)
        except Exception as error:  # as with the attention: without, everything still runs
            _log.warning("layers are not fused: %s: %s", type(error).__name__, error)
    return LoadedModel(
        path=name,
        model=model,
        tokenizer=tokenizer,
        device=device,
        max_positions=int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or _UNBOUNDED),
        stop_ids=_stop_ids(model, tokenizer),
        native=native,
    )


def _read_config(name: str) -> tuple[str, Any, Any]:
    """The name with a home folder written out, the configuration, the tokenizer."""
    folder = Path(name).expanduser()
    looks_local = folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or folder.exists()
    if looks_local and not folder.is_dir():
        raise ModelError(f"the model folder {name!r} does not exist: give a folder with config.json and weights, or a hub id")
    if looks_local and not (folder / "config.json").is_file():
        raise ModelError(f"the folder {name!r} holds no config.json: give the folder that save_pretrained() wrote")
    source = str(folder) if looks_local else name
    try:
        return source, AutoConfig.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        hint = (
            "" if looks_local else " (it is no local folder, and could not be had from the hub: check the id and the network)"
        )
        raise ModelError(f"the model {name!r} could not be read{hint}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


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


class ModelRunner:
    """Runs forwards of one model over one KV pool."""

    def __init__(self, loaded: LoadedModel, kv_memory: int | None = None) -> None:
        self.loaded = loaded
        self.device = loaded.device
        self.backend = self.choose_backend(loaded)
        bytes_per_slot = self._probe()
        memory = kv_memory if kv_memory is not None else self._default_memory()
        self.slots = memory // bytes_per_slot
        if self.slots < 16:
            raise ModelError(
                f"kv_memory={memory} bytes hold only {self.slots} tokens of {loaded.path!r} ({bytes_per_slot} bytes each): "
                f"give at least {bytes_per_slot * 1024}"
            )
        self.pool = KVPool(self.slots)
        self.graphs: Graphs | None = None
        if self.device.type == "cuda" and isinstance(self.backend, TritonBackend):
            self.use_graphs(cuda_recorder(self.device))
        if loaded.ranks is not None:
            loaded.ranks.resize(self.slots)
        self._trimmed_at = time.monotonic()

    def use_graphs(self, record: Recorder) -> None:
        """From now on run small forwards in frames that are recorded once (see `graphs.py`); the pool begins anew."""
        assert isinstance(self.backend, TritonBackend)
        self.pool = KVPool(self.slots + 1)  # one for scratch
        self.graphs = Graphs(self.loaded.forward, self.backend, self.pool, self.device, record)

    @staticmethod
    def choose_backend(loaded: LoadedModel) -> SdpaBackend:
        """The attention that suits the model's modules and device; ``MULTIVERSE_NATIVE=0`` takes torch's own everywhere."""
        if loaded.device.type == "cuda" and loaded.ranks is None and _native():
            processors = torch.cuda.get_device_properties(loaded.device).multi_processor_count
            try:
                backend = TritonBackend(_PROGRAMS_PER_SM * processors)
                backend.check(loaded.device, next(loaded.model.parameters()).dtype)
            except Exception as error:  # no Triton, no compiler, or a device that it does not know: torch's own always works
                _log.warning("attention goes through torch, which is slower: %s: %s", type(error).__name__, error)
            else:
                return backend
        library = kernels() if loaded.native else None
        return SdpaBackend() if library is None else NativeBackend(library)

    def _default_memory(self) -> int:
        """CUDA: 80% of what is free once the weights are there. CPU: 4 GiB, of which only what is used becomes resident."""
        if self.device.type == "cuda":
            free = torch.cuda.mem_get_info(self.device)[0]
            if self.loaded.ranks is not None:
                free = min(free, self.loaded.ranks.free)  # a slot is a slot on every rank
            return int(free * 0.8)
        return 4 << 30

    @torch.inference_mode()
    def _probe(self) -> int:
        """Read one token, to learn a slot's size and that every layer's attention really comes through ours."""
        pool = KVPool(1)
        zero = torch.zeros(1, dtype=torch.long, device=self.device)
        bucket = Bucket(zero[None], zero[None], None, None, zero[None], zero[None])
        context = TreeContext(pool, self.backend, zero, [bucket])
        kind = f"{self.loaded.path!r} (model type {self.loaded.model.config.model_type!r})"
        try:
            self._forward(zero, zero, zero, context)
        except (AttributeError, TypeError, RuntimeError) as error:
            raise ModelError(f"{kind} cannot be run with fork and join: {_first_line(error)}; choose another model") from error
        layers = int(self.loaded.model.config.get_text_config().num_hidden_layers)
        if len(context.layers) != layers:
            raise ModelError(
                f"only {len(context.layers)} of the {layers} layers of {kind} use an attention that can be joined: "
                f"choose a model in which every layer does"
            )
        return pool.bytes_per_slot

    @torch.inference_mode()
    def run(self, batch: Batch) -> Tensor:
        """Read the batch's rows; returns float32 logits, one row per entry of `batch.kept_rows`, good until the next run."""
        if self.graphs is not None and (logits := self.graphs.run(batch)) is not None:
            return logits
        token_N, position_N, slot_N = self._send(batch.token_N), self._send(batch.position_N), self._send(batch.slot_N)
        buckets = [bucket.to(self.device) for bucket in batch.buckets]
        works = {window: send(plan, self.device) for window, plan in batch.plans.items()}
        context = TreeContext(self.pool, self.backend, slot_N, buckets, works)
        keep = self._send(torch.tensor(batch.kept_rows or [0], dtype=torch.long))
        logits = self._forward(token_N, position_N, keep, context)
        if self.device.type == "cpu" and time.monotonic() - self._trimmed_at >= TRIM_EVERY:
            trim()
            self._trimmed_at = time.monotonic()
        return logits[: len(batch.kept_rows)]

    def _send(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _forward(self, token_N: Tensor, position_N: Tensor, keep: Tensor, context: TreeContext) -> Tensor:
        ranks = self.loaded.ranks
        if ranks is None:
            return self.loaded.forward(token_N, position_N, keep, context)
        ranks.forward(token_N, position_N, context.slot_N, keep, context.buckets)
        try:
            return self.loaded.forward(token_N, position_N, keep, context)
        except BaseException as error:
            ranks.fail(error)
            raise
