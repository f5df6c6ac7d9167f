"""Turn ten sequential solutions into documents that fork, through any endpoint that speaks OpenAI's chat completions.

vllm serve Qwen/Qwen3-32B &         # or another model that follows instructions well; multiverse-mini does not
python examples/curate_traces.py http://127.0.0.1:8000/v1 Qwen/Qwen3-32B
"""

import json
import sys
from pathlib import Path

from multiverse.cli import main as multiverse
from multiverse.data import read
from multiverse.tasks import generate


def main(base_url: str, model: str, folder: str = "runs/traces") -> int:
    # Traces of your own have these three fields, or `messages`. These are solutions in a line of problems of ours.
    rows = [
        {"question": one.question, "reasoning": "".join(map(str, one.sequential.thinking or ())), "answer": one.answer}
        for one in generate("worksheet", 10, seed=5, split="train")
    ]
    traces, out = Path(folder) / "traces.jsonl", Path(folder) / "curated"
    traces.parent.mkdir(parents=True, exist_ok=True)
    traces.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # What is answered is stored: started again, it asks only what it does not have.
    code = multiverse(["curate", str(traces), "--out", str(out), "--base-url", base_url, "-m", model, "--validation", "0"])
    if code == 0:
        loaded = read(out / "data", split="train")
        print(f"{len(loaded.rows)} documents in {out / 'data'}; what became of each: {out / 'report.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
