"""What a model can do on held-out problems, question by question, so that two models can be compared in pairs.

python -m recipes.rl.measure MODEL --families worksheet nested --modes parallel --n 200
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from multiverse import LLM, SamplingParams
from multiverse.prompting import Instruction, ask
from multiverse.tasks import DEPTHS, WIDTHS, Problem, generate

SEED = 2028
DEPTH = 2
"""Blocks of the held-out problems nest no deeper, as in the documents of the start models."""
MAX_TOKENS = 1024


@dataclass(frozen=True)
class Asked:
    """Answers to the problems of a family in one mode; a value for each problem, the same problems for every model.

    Attributes:
        right: the answer has ended, in the form, and is right.
        malformed: it broke the grammar, or was cut off.
        critical, total: tokens on the critical path and altogether.
        forks: number of paths.
        retokenized: its text, tokenized again, gives other tokens.
    """

    family: str
    mode: Instruction
    temperature: float
    right: list[int]
    malformed: list[int]
    critical: list[int]
    total: list[int]
    forks: list[int]
    retokenized: list[int] = field(default_factory=list)

    def summary(self) -> dict[str, float | str]:
        """Means over the problems; parallelism is the mean over problems of total over critical."""
        ratios = [total / critical for total, critical in zip(self.total, self.critical, strict=True)]
        return {
            "family": self.family,
            "mode": self.mode,
            "temperature": self.temperature,
            "accuracy": fmean(self.right),
            "forked": fmean(count > 0 for count in self.forks),
            "parallelism": fmean(ratios),
            "critical_path_tokens": fmean(self.critical),
            "total_tokens": fmean(self.total),
            "malformed": sum(self.malformed),
            "retokenized": sum(self.retokenized),
        }


def held_out(family: str, n: int, widths: Sequence[int] = ()) -> list[Problem]:
    """The first `n` held-out problems of a family, of each of these widths alike, or of any width."""
    depth = DEPTH if DEPTHS[family] else None
    kinds = widths or (None,)
    counts = [len(range(at, n, len(kinds))) for at in range(len(kinds))]
    return [
        problem
        for width, count in zip(kinds, counts, strict=True)
        for problem in generate(family, count, seed=SEED, width=width, depth=depth)
    ]


def retokenized(tokenizer: Any, token_ids: Sequence[int]) -> bool:
    """Whether the text of these tokens, tokenized again, gives other tokens."""
    text = tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    again: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return again != list(token_ids)


def measure(
    llm: LLM,
    families: Mapping[str, Sequence[int]],
    modes: Sequence[Instruction],
    n: int,
    *,
    temperature: float = 0.0,
) -> list[Asked]:
    """Ask `n` problems of each family in each mode, once each.

    Args:
        families: with their widths; none is any.
    """
    found = []
    for family, widths in families.items():
        problems = held_out(family, n, widths)
        for mode in modes:
            chats = [ask(problem.question, mode) for problem in problems]
            params = SamplingParams(temperature=temperature, top_p=1.0, max_tokens=MAX_TOKENS, seed=SEED)
            answers = llm.chat(chats, params, mode=None, progress=False)
            ended = [answer.finish_reason == "stop" and answer.tree is not None for answer in answers]
            right = [good and p.check(a.answer) for good, p, a in zip(ended, problems, answers, strict=True)]
            found.append(
                Asked(
                    family=family,
                    mode=mode,
                    temperature=temperature,
                    right=[int(one) for one in right],
                    malformed=[int(not one) for one in ended],
                    critical=[answer.usage.critical_path_tokens for answer in answers],
                    total=[answer.usage.total_tokens for answer in answers],
                    forks=[len(set(answer.branches) - {""}) for answer in answers],
                    retokenized=[int(retokenized(llm.tokenizer, answer.token_ids)) for answer in answers],
                )
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--families", nargs="+", default=["worksheet", "nested"])
    parser.add_argument("--widths", nargs="+", type=int, default=(), help="only problems of these widths")
    parser.add_argument("--modes", nargs="+", choices=("parallel", "sequential", "as-is"), default=["parallel", "sequential"])
    parser.add_argument("--n", type=int, default=200, help="problems of each family")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--json", type=Path, help="write every answer's figures")
    options = parser.parse_args()
    found = measure(
        LLM(options.model, dtype="float32"),
        {family: options.widths if WIDTHS[family] else () for family in options.families},
        options.modes,
        options.n,
        temperature=options.temperature,
    )
    for one in found:
        print(json.dumps({name: round(v, 4) if isinstance(v, float) else v for name, v in one.summary().items()}))
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found]) + "\n")


if __name__ == "__main__":
    main()
