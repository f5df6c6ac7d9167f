"""Ask the same questions in parallel and in a line, and compare: accuracy, and the longest chain of tokens.

Answers are kept in the folder, and a run that is started again continues there.
"""

import sys
from pathlib import Path

from multiverse import LLM, SamplingParams
from multiverse.evaluation.config import EvaluationConfig
from multiverse.evaluation.providers import in_process
from multiverse.evaluation.report import compare
from multiverse.evaluation.run import evaluate
from multiverse.evaluation.sample import Run
from multiverse.prompting import Mode


def main(folder: str = "runs/example", limit: str = "20") -> None:
    config = EvaluationConfig(("worksheet",), SamplingParams(temperature=0, max_tokens=2048), limit=int(limit))
    llm = LLM()

    def run(mode: Mode) -> Run:
        return evaluate(lambda: in_process("multiverse-mini", llm), llm.model_path, config, Path(folder) / mode, mode)

    for comparison in compare(run("sequential"), run("parallel")):
        for name in ("pass@1", "critical_path_tokens"):
            first, second = comparison.first.estimates[name], comparison.second.estimates[name]
            change = comparison.differences[name]
            print(
                f"{name}: sequential {first.mean:.3g} ± {first.stderr:.2g}, parallel {second.mean:.3g} ± {second.stderr:.2g}; "
                f"difference {change.mean:+.3g}, 95% from {change.low:.3g} to {change.high:.3g}"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
