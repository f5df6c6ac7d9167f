"""The scorer of questions of reasoning-gym, for a worker process: some evaluate what the model wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ....errors import require
from ..questions.gym import make

require("reasoning_gym", "rl")  # before the first call, whose time is limited: the library takes seconds


@lru_cache(64)
def _generator(name: str, args: str, seed: int) -> Any:
    return make(name, json.loads(args), seed)


@lru_cache(256)
def _entry(name: str, args: str, seed: int, index: int) -> Any:
    return _generator(name, args, seed)[index]


def score(extra: Mapping[str, Any], text: str) -> float:
    """The generator's own score of an answer, from 0 to 1."""
    key = (extra["gym"], json.dumps(extra["args"], sort_keys=True), extra["seed"])
    return float(_generator(*key).score_answer(text, _entry(*key, extra["index"])))
