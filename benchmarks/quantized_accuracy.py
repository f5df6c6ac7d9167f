"""What 8 and 4 bits change in a model's answers: share of right ones, and log-probabilities of the plain model's own text.

Greedy answers to test problems of the families of tasks, the same for all sides. Each side then scores the tokens that the
model with plain weights has written.

    python -m benchmarks.quantized_accuracy --json out.json
    python -m benchmarks.quantized_accuracy --model multiverse-smol --dtype bfloat16 --families lookup listing sorting
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from benchmarks.machine import describe
from benchmarks.options import make_parser
from multiverse import LLM, SamplingParams
from multiverse.tasks import CALCULATIONS, FAMILIES, Problem, generate


def answers(llm: LLM, problems: list[Problem], max_tokens: int) -> list[Any]:
    """Greedy generations, asked for in parallel."""
    params = SamplingParams(temperature=0, max_tokens=max_tokens)
    return llm.chat([[{"role": "user", "content": one.question}] for one in problems], params, mode="parallel")


def logprobs(llm: LLM, texts: list[list[int]]) -> np.ndarray:
    """Log-probabilities of all tokens that are not forced."""
    scores = llm.score(texts)
    return np.array([value for score in scores for value in score.logprobs if value is not None])


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", default=None)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(CALCULATIONS))
    parser.add_argument("--problems", type=int, default=64, help="of each family")
    parser.add_argument("--max-tokens", type=int, default=1024)
    options = parser.parse_args()
    problems = [one for family in options.families for one in generate(family, options.problems, seed=22)]
    texts: list[list[int]] = []
    plain = np.array([])
    found: dict[str, Any] = {"machine": describe(), "problems": len(problems)}
    for quantize in ("none", "int8", "int4"):
        with LLM(options.model, dtype=options.dtype, quantize=quantize, kv_memory=1 << 30) as llm:
            own = answers(llm, problems, options.max_tokens)
            if quantize == "none":
                texts = [[*one.prompt_token_ids, *one.token_ids] for one in own if one.finish_reason == "stop"]
                plain = logprobs(llm, texts)
            values = logprobs(llm, texts)
        change = np.abs(values - plain)
        right = [problem.check(one.answer or one.text) for problem, one in zip(problems, own, strict=True)]
        found[quantize] = {
            "right": float(np.mean(right)),
            "tokens": len(values),
            "mean_logprob": float(values.mean()),
            "mean_change": float(change.mean()),
            "p99_change": float(np.quantile(change, 0.99)),
        }
        print(quantize, found[quantize], flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
