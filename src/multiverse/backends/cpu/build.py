"""The native kernels: compiled on first use for this machine, kept in the user's cache, called through ctypes.

They need a C++ compiler and a processor with AVX-512 for bfloat16. Where either is missing, or the results differ from torch's,
the engine runs without native kernels. ``MULTIVERSE_NATIVE=0`` switches them off.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("kernels.cpp")
QUANTISED = Path(__file__).with_name("quantised.cpp")
# OpenMP is compiled for but not linked: the symbols are those of torch's own copy, so that there is one pool of threads.
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fPIC", "-w")
_NEEDED = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512_bf16"})


class Attend(ctypes.Structure):
    """Arguments of `multiverse_attend`, as in the source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "out", "row", "slot", "visible")),
        *((name, ctypes.c_long) for name in ("H", "KV", "D", "V", "G", "R", "U")),
        ("scale", ctypes.c_float),
    )


class Rotate(ctypes.Structure):
    """Arguments of `multiverse_rotate`, as in the source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("qkv", "cos", "sin", "query_norm", "key_norm", "slot", "query", "key", "value")),
        *((name, ctypes.c_long) for name in ("N", "H", "KV", "D")),
        ("epsilon", ctypes.c_float),
    )


class AttendTiles(ctypes.Structure):
    """Arguments of `multiverse_attend_tiles`, as in the source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "out")),
        *((name, ctypes.c_void_p) for name in ("slots", "entries", "tiles", "partials", "offsets")),
        *((name, ctypes.c_long) for name in ("H", "KV", "D", "V", "T", "N", "E")),
        ("scale", ctypes.c_float),
    )


class Product(ctypes.Structure):
    """Arguments of `multiverse_quantised` and `multiverse_dequantise`, as in the source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "bias", "residual", "y", "codes", "scales", "mins")),
        *((name, ctypes.c_long) for name in ("M", "inputs", "N", "bits", "block", "stride", "gated", "floats")),
    )


_log = logging.getLogger(__name__)


@cache
def kernels() -> ctypes.CDLL | None:
    """The library, compiled if necessary; `None` (with the reason in the log) where that is not possible."""
    if os.environ.get("MULTIVERSE_NATIVE", "1") == "0":
        return None
    try:
        library = _declare(ctypes.CDLL(str(_compiled())))
    except (OSError, RuntimeError, AttributeError, subprocess.SubprocessError) as error:
        _log.info("no native CPU kernels: %s", error)
        return None
    if not _agrees_with_torch(library):
        _log.warning("the native CPU kernels give wrong results on this machine and are not used")
        return None
    return library


@cache
def quantised_kernels() -> ctypes.CDLL | None:
    """The library for weights in few bits, compiled if necessary; `None` (reason in the log) if that is not possible.

    It needs a compiler, and no instructions of its own.
    """
    if os.environ.get("MULTIVERSE_NATIVE", "1") == "0":
        return None
    try:
        return declare_quantised(ctypes.CDLL(str(_compiled(QUANTISED, needed=frozenset()))))
    except (OSError, RuntimeError, AttributeError, subprocess.SubprocessError) as error:
        _log.info("no native CPU kernels for quantised weights: %s", error)
        return None


def declare_quantised(library: ctypes.CDLL) -> ctypes.CDLL:
    """Declare the functions of a library compiled from `QUANTISED`."""
    for function in (library.multiverse_quantised, library.multiverse_dequantise):
        function.argtypes = [ctypes.POINTER(Product)]
        function.restype = None
    return library


def _compiled(source: Path = SOURCE, needed: frozenset[str] = _NEEDED) -> Path:
    """Path of the shared library, compiled unless it is in the cache.

    Args:
        needed: instruction set flags without which it cannot be compiled.
    """
    machine = _machine(needed)
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    if compiler is None:
        raise RuntimeError("no C++ compiler was found (g++, c++, or the one that CXX names)")
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=60).stdout
    key = hashlib.sha256(b"\0".join([source.read_bytes(), " ".join(_FLAGS).encode(), version, machine.encode()]))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multiverse"
    library = folder / f"{source.stem}-{key.hexdigest()[:16]}.so"
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        # Compiled in a folder of its own first: other processes may be doing the same.
        with tempfile.TemporaryDirectory(dir=folder) as work:
            compiled, linked = Path(work) / "kernels.o", Path(work) / "kernels.so"
            for command in ([*_FLAGS, "-c", str(source), "-o", str(compiled)], ["-shared", str(compiled), "-o", str(linked)]):
                done = subprocess.run([compiler, *command], capture_output=True, text=True, check=False, timeout=300)
                if done.returncode:
                    raise RuntimeError(f"{compiler} failed: {done.stderr.strip()[:300]}")
            linked.replace(library)
    return library


def _machine(needed: frozenset[str]) -> str:
    """The processor's instruction set flags, for which the library is compiled.

    Raises:
        RuntimeError: the kernels need others.
    """
    if platform.system() != "Linux":
        raise RuntimeError(f"they are compiled on Linux, not {platform.system()}")
    if needed and platform.machine() != "x86_64":
        raise RuntimeError(f"they are written for x86-64, not {platform.machine()}")
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            flags = set(line.split(":")[1].split())
            if not flags >= needed:
                raise RuntimeError(f"this processor lacks {', '.join(sorted(needed - flags))}")
            return " ".join(sorted(flags))
    raise RuntimeError("/proc/cpuinfo says nothing about this processor")


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_long
    library.multiverse_linear.argtypes = [pointer] * 4 + [number] * 3
    library.multiverse_linear.restype = None
    library.multiverse_linear_add.argtypes = [pointer] * 5 + [number] * 3
    library.multiverse_linear_add.restype = None
    library.multiverse_rotate.argtypes = [ctypes.POINTER(Rotate)]
    library.multiverse_rotate.restype = None
    library.multiverse_gated.argtypes = [pointer] * 5 + [number] * 3
    library.multiverse_gated.restype = None
    library.multiverse_rms_norm.argtypes = [pointer] * 3 + [number] * 2 + [ctypes.c_float, ctypes.c_int]
    library.multiverse_rms_norm.restype = None
    library.multiverse_attend.argtypes = [ctypes.POINTER(Attend)]
    library.multiverse_attend.restype = None
    for attend in (library.multiverse_attend_tiles, library.multiverse_attend_tiles_float):
        attend.argtypes = [ctypes.POINTER(AttendTiles)]
        attend.restype = None
    library.multiverse_chunk.argtypes = []
    library.multiverse_chunk.restype = number
    library.multiverse_rows.argtypes = []
    library.multiverse_rows.restype = number
    return library


def _agrees_with_torch(library: ctypes.CDLL) -> bool:
    """Try sizes with and without remainders."""
    generator = torch.Generator().manual_seed(0)
    for rows, inputs, outputs in ((1, 64, 48), (3, 40, 21), (37, 96, 50)):
        x_MK = torch.randn(rows, inputs, generator=generator).bfloat16()
        w_NK = torch.randn(outputs, inputs, generator=generator).bfloat16()
        y_MN = torch.full((rows, outputs), float("nan"), dtype=torch.bfloat16)
        library.multiverse_linear(x_MK.data_ptr(), w_NK.data_ptr(), None, y_MN.data_ptr(), rows, inputs, outputs)
        if not torch.allclose(y_MN.float(), x_MK.float() @ w_NK.float().T, rtol=2e-2, atol=5e-2):
            return False
    return True
