"""A reward of your own for `multiverse rl`: a function of a question and a rollout.

Started as a program, it shows what the function gives. In training it is named as module:function, in the folder of the file:

cd examples
multiverse rl ../recipes/rl/quick.yaml --set "rewards=[{name: correct}, {name: 'write_a_reward:even', weight: 0.2}]"
"""

from typing import Any

from multiverse import LLM, SamplingParams
from multiverse.tasks import generate


def even(question: Any, rollout: Any, *, least: int = 2) -> float:  # noqa: ARG001
    """How evenly a block's work is divided: the mean length of its paths over that of the longest, 0 without a fork.

    Args:
        least: paths that a block has to have.
    """
    tree = rollout.generation.tree
    blocks = [block for _, block in tree.blocks() if len(block.paths) >= least] if tree is not None else []
    if not blocks:
        return 0.0
    shares = []
    for block in blocks:
        lengths = [sum(len(part) for part in path if isinstance(part, str)) for path in block.paths]
        shares.append(sum(lengths) / len(lengths) / max(1, *lengths))
    return sum(shares) / len(shares)


class Shown:
    """What `even` needs of a rollout."""

    def __init__(self, generation: Any) -> None:
        self.generation = generation


def main() -> None:
    (problem,) = generate("worksheet", 1, seed=3)
    print(problem.question)
    with LLM() as llm:
        for mode in ("parallel", "sequential"):
            found = llm.chat([{"role": "user", "content": problem.question}], SamplingParams(n=4, seed=0), mode=mode)
            print(f"{mode}:", ", ".join(f"{even(None, Shown(one)):.2f}" for one in found))


if __name__ == "__main__":
    main()
