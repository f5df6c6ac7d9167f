"""A tokenizer trained in a second, and solved problems."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from multiverse.prompting import Mode
from multiverse.structure import TokenDialect, resolve
from multiverse.tasks import CALCULATIONS, problems
from multiverse.training import Features, Featurizer


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from recipes.mini.tokenizer import build, sample_texts

    folder = tmp_path_factory.mktemp("tokenizer")
    build(sample_texts(count=200)).save_pretrained(folder, save_jinja_files=False)
    return folder


@pytest.fixture(scope="session")
def mini_tokenizer(tokenizer_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_folder)


@pytest.fixture(scope="session")
def mini_tokens(mini_tokenizer: Any) -> TokenDialect:
    return resolve(mini_tokenizer)


@pytest.fixture(scope="session")
def solved(mini_tokenizer: Any, mini_tokens: TokenDialect) -> list[Features]:
    """Two problems of every family in both modes, nested ones at both depths."""
    modes: tuple[Mode, ...] = ("parallel", "sequential")
    drawn = [
        problem
        for family in CALCULATIONS
        for depth in ((2, 3) if family == "nested" else (None,))
        for problem in islice(problems(family, seed=3, depth=depth), 2)
    ]
    return [
        Featurizer(mini_tokenizer, mini_tokens)(
            problem.question, problem.structured if mode == "parallel" else problem.sequential, mode
        )
        for problem in drawn
        for mode in modes
    ]
