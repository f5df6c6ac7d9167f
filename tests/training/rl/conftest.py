"""Groups whose rollouts fork, with prompts that do or do not; and a tiny model in a folder, for whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multiverse.structure import Block, Document, TokenDialect, encode
from multiverse.training.rl.rollout import Group
from tests.training.rl.made import make_group, structured_rollout

NESTED = Block(("in", "ner"), (("x1",), ("y",)), "so")
ANSWERS = (
    Document(("Well. ", Block(("a", "b"), (("one, longer", NESTED, "z"), ("two",)), "both")), "Answer: 4"),
    Document(("No fork here.",), "Answer: five"),
    Document((Block(("a", "b", "c"), (("1",), ("22",), ("333",)), "all"), "then", NESTED), "Answer: 4"),
    Document((), "x"),
)


@pytest.fixture(scope="session")
def groups(tokenizer: Any, tokens: TokenDialect) -> list[Group]:
    """Two groups: one prompt is plain, the other holds an earlier answer that forked."""
    plain = tokenizer("user: How many are there?\nassistant: ", add_special_tokens=False).input_ids
    forked = [*plain, *encode(ANSWERS[0], tokens).token_ids, *tokenizer("\nuser: Really?\nassistant: ").input_ids]
    rewards = [1.0, 0.0, 0.25, 0.5]
    return [
        make_group(
            rewards,
            [structured_rollout(prompt, encode(answer, tokens).token_ids, tokens, logprob=-3.0) for answer in ANSWERS],
            name=name,
        )
        for name, prompt in {"plain": plain, "forked": forked}.items()
    ]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from recipes.mini.start import write

    folder = tmp_path_factory.mktemp("start")
    write(folder, shape="test", texts=100)
    return folder
