"""Time to the first token of the command line, over that of loading the same model with torch and transformers alone.

    python -m benchmarks.startup

Aim: at most 1.5 times. Also the time that ``from multiverse import LLM`` takes. Each run is a process; the kinds take turns.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

MINI = Path(__file__).parents[1] / "src" / "multiverse" / "models" / "mini"
QUESTION = "Start with 7. Add 5, then double it. What do you get?"
BARE = f"""
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
AutoTokenizer.from_pretrained({str(MINI)!r})
AutoModelForCausalLM.from_pretrained({str(MINI)!r})
print("loaded", flush=True)
"""
KINDS: dict[str, list[str]] = {
    "torch and transformers, loading": ["-c", BARE],
    "multiverse generate": ["-m", "multiverse", "generate", "--temperature", "0", QUESTION],
    "from multiverse import LLM": ["-c", "from multiverse import LLM; print('imported', flush=True)"],
}


def first_output(arguments: list[str]) -> float:
    """Seconds until a process of Python has written its first byte."""
    began = time.monotonic()
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        if not process.stdout.read(1):
            raise SystemExit(f"no output: python {' '.join(arguments)}")
        seconds = time.monotonic() - began
        process.stdout.read()
    return seconds


def main() -> None:
    from benchmarks.machine import describe, load_notes
    from benchmarks.options import make_parser

    parser = make_parser(__doc__, json=None)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="processes of each kind")
    arguments = parser.parse_args()
    notes = load_notes()
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(arguments.repeats + 1):
        for kind, command in KINDS.items():
            found[kind].append(first_output(command))
    middle = {kind: median(values[1:]) for kind, values in found.items()}  # the first fills the file cache
    bare, ours, imported = middle.values()
    print(describe(), *notes, *(f"{kind}: {seconds:.2f} s" for kind, seconds in middle.items()), sep="\n")
    print(f"first token over bare loading: {ours / bare:.2f} (at most 1.5)")
    assert imported < ours


if __name__ == "__main__":
    main()
