"""Speed on an idle machine and beside one busy core: all threads always (before), as many as there are free cores (after).

    python -m benchmarks.busy_core                    # everything; on a machine with nothing else to do
    python -m benchmarks.busy_core --only chat shape  # some of it
    python -m benchmarks.busy_core --spins 0 2000     # also all threads, which sleep after so many rounds of spinning

Each run is a process, since OpenMP reads its settings once; before and after, idle and busy take turns. The busy core
is a Python loop of the same priority. Aims: beside a busy core at most 2 times the idle time; idle at most 1.03 of before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median

from multiverse.bench.processes import started
from multiverse.threads import usable_cores

QUESTION = (
    "Mia starts with 7, adds 5, doubles it and takes away 9. "
    "Tom starts with 12, triples it, takes away 4 and adds 9. What is the total?"
)
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
SPINNING = "300000"
"""What libgomp does where nothing is set."""


def all_threads(spins: str) -> dict[str, str]:
    """Environment of a process whose threads are as many as there are cores, whatever else runs."""
    return {"OMP_NUM_THREADS": str(usable_cores()), "GOMP_SPINCOUNT": spins}


def cli(_folder: Path, _repeats: int) -> float:
    """Seconds of `multiverse generate`, loading not counted."""
    command = [sys.executable, "-m", "multiverse", "generate", "--temperature", "0", "--json", QUESTION]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["usage"]["seconds"])


def chat(_folder: Path, repeats: int) -> float:
    """Seconds of `LLM.chat` with multiverse-mini."""
    from multiverse import LLM, SamplingParams

    llm = LLM()
    return _seconds(lambda: llm.chat([{"role": "user", "content": QUESTION}], SamplingParams(temperature=0)), repeats)


def torch_first(folder: Path, repeats: int) -> float:
    """The same where torch was imported before."""
    import torch  # noqa: F401

    return chat(folder, repeats)


def shape(folder: Path, repeats: int) -> float:
    """Seconds of 32 steps of 4 requests, with a random bfloat16 model of 135M parameters (30 layers of 576)."""
    from multiverse import LLM, SamplingParams

    model = folder / "shape"
    if not model.exists():
        _random_model(model)
    llm = LLM(model, kv_memory=256 << 20)
    params = SamplingParams(temperature=0, max_tokens=32, max_depth=0, ignore_eos=True)
    return _seconds(lambda: llm.generate(["one", "two", "three", "four"], params), repeats)


def server(_folder: Path, repeats: int) -> float:
    """Seconds of 8 requests at once to `multiverse serve` with multiverse-mini."""
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 256}
    with tempfile.TemporaryFile("w+") as log, _serving(log) as url:

        def ask(_number: int) -> None:
            data = json.dumps(body).encode()
            request = urllib.request.Request(f"{url}/v1/chat/completions", data, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=600).read()

        with ThreadPoolExecutor(8) as pool:
            return _seconds(lambda: list(pool.map(ask, range(8))), repeats)


def training(folder: Path, _repeats: int) -> float:
    """Seconds of `multiverse train`: 12 steps of multiverse-mini, loading not counted."""
    data, out = folder / "data.jsonl", tempfile.mkdtemp(dir=folder)
    if not data.exists():
        command = [sys.executable, "-m", "multiverse", "tasks", "worksheet", "--limit", "60", "--split", "train"]
        data.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    from multiverse.training.config import load
    from multiverse.training.run import train

    recipe = Path(out) / "train.yaml"
    mini = Path(__file__).parents[1] / "src" / "multiverse" / "models" / "mini"
    recipe.write_text(
        f"model: {mini}\ndata: [{data}]\nout: {out}/run\nmax_length: 1024\npacking: true\n"
        "global_batch_size: 2\nmicro_batch_size: 2\nmax_steps: 12\nsave_every: 1000\n"
    )
    config = load(recipe)
    began = time.monotonic()
    train(config)
    return time.monotonic() - began


WORKLOADS: dict[str, Callable[[Path, int], float]] = {
    "cli": cli,
    "chat": chat,
    "torch-first": torch_first,
    "shape": shape,
    "server": server,
    "training": training,
}


def _seconds(call: Callable[[], object], repeats: int) -> float:
    """Median of some calls after one that warms up."""
    call()
    taken = []
    for _ in range(repeats):
        began = time.monotonic()
        call()
        taken.append(time.monotonic() - began)
    return median(taken)


def _random_model(folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(Path(__file__).parents[1] / "src" / "multiverse" / "models" / "mini")
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _serving(log: object) -> Iterator[str]:
    """A server of its own, ready."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "multiverse", "serve", "--port", str(port)]
    with started(command, stdout=log, stderr=log) as process:
        while process.poll() is None:
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _busy(cores: int) -> Iterator[None]:
    """Context in which so many other processes keep a core each busy."""
    with ExitStack() as hogs:
        for _ in range(cores):
            hogs.enter_context(started([sys.executable, "-c", "while True: pass"]))
        yield


def _measure(name: str, side: Mapping[str, str], cores: int, folder: Path, repeats: int) -> float:
    """Seconds of one workload in a process of its own."""
    environment = {**{key: value for key, value in os.environ.items() if key not in SETTINGS}, **side}
    program = "import sys; from benchmarks.busy_core import work; work(*sys.argv[1:])"
    command = [sys.executable, "-c", program, name, str(folder), str(repeats)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with _busy(cores), started(command, env=environment, cwd=Path(__file__).parents[1], **pipes) as process:
        out, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{name} failed:\n{errors[-2000:]}")
    return float(out.split()[-1])


def work(name: str, folder: str, repeats: str) -> None:
    """What a process of one run does."""
    print(WORKLOADS[name](Path(folder), int(repeats)))


def run(
    names: list[str], sides: Mapping[str, Mapping[str, str]], repeats: int, *, cores: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds of every run by workload and, for each side, ``idle`` and ``busy``."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for name in names:
                for side, environment in sides.items():
                    for state, hogs in (("idle", 0), ("busy", cores)):
                        seconds = _measure(name, environment, hogs, Path(folder), 3)
                        found[name].setdefault(f"{side} {state}", []).append(seconds)
                        print(f"{name}, {side}, {state}: {seconds:.3f} s", file=sys.stderr)
    return found


def table(found: dict[str, dict[str, list[float]]], sides: Iterable[str]) -> str:
    """Medians in seconds; each side's time beside a busy core over its idle one, and its idle one over that of the first."""
    heads = [f"{side} {state}" for side in sides for state in ("idle", "busy", "busy/idle", "idle/before")]
    lines = ["| seconds | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, runs in found.items():
        middle = {key: median(values) for key, values in runs.items()}
        first = middle[f"{next(iter(sides))} idle"]
        cells = []
        for side in sides:
            idle, busy = middle[f"{side} idle"], middle[f"{side} busy"]
            cells += [f"{idle:.3f}", f"{busy:.3f}", f"{busy / idle:.2f}", f"{idle / first:.2f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    from benchmarks.machine import describe, load_notes
    from benchmarks.options import make_parser

    parser = make_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=[*WORKLOADS], default=[*WORKLOADS], help="workloads to run")
    parser.add_argument("--spins", nargs="+", default=[], metavar="N", help="also with so many rounds of spinning")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="processes of each kind")
    parser.add_argument("--cores", type=int, default=1, metavar="N", help="busy cores")
    arguments = parser.parse_args()
    notes = load_notes()  # before there is any load of our own
    kept = {"before": SPINNING, **{f"spin {n}": n for n in arguments.spins}}
    sides: dict[str, dict[str, str]] = {**{name: all_threads(spins) for name, spins in kept.items()}, "after": {}}
    found = run(arguments.only, sides, arguments.repeats, cores=arguments.cores)
    print(describe(), *notes, "", table(found, sides), sep="\n")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": describe(), "notes": notes, "seconds": found}, indent=1))


if __name__ == "__main__":
    main()
