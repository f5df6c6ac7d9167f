"""Questions of reasoning-gym's generators, judged by their own scorers. Needs the extra rl."""

from __future__ import annotations

import json
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from ....errors import ConfigError, require
from ..rollout import Question
from .config import QuestionSource, Stage
from .files import digest, held_out

_TRIES = 64
"""Draws of one question until it is one to train on, and not held out."""
SIZE = 500
"""Questions of one generator, the library's own default: some prepare all of them, so further ones have another seed."""


class GymQuestions:
    """The questions of one kind of generator.

    Raises:
        ConfigError: there is no such generator, or it does not take these settings.
        ExtraError: reasoning-gym is not installed.
    """

    def __init__(self, source: QuestionSource, name: str, seed: int) -> None:
        self._source, self._name, self._seed = source, name, seed
        self._stages = [{**source.args, **stage.args} for stage in source.curriculum or [Stage()]]
        assert source.gym is not None
        for args in self._stages:
            make(source.gym, args, seed)

    def question(self, number: int, stage: int, attempt: int = 0) -> Question:
        """A question to train on; another for each number, and each attempt at one."""
        for stream in range(attempt * _TRIES, (attempt + 1) * _TRIES):
            found = self._at(f"train/{stream}", number, stage)
            if not held_out(str(found.messages[-1]["content"]), self._source.validation):
                break
        return found

    def held(self, number: int) -> Question | None:
        """A question that is held out, of the last stage; `None` if none is."""
        share = self._source.validation
        if not share:
            return None
        last, seen = len(self._stages) - 1, 0
        for index in range(int(_TRIES * (number + 1) / share)):
            found = self._at("test", index, last)
            if held_out(str(found.messages[-1]["content"]), share):
                if seen == number:
                    return found
                seen += 1
        return None

    def _at(self, stream: str, number: int, stage: int) -> Question:
        part, index = divmod(number, SIZE)
        seed = int.from_bytes(digest(f"{self._seed}/{self._name}/{stream}/{part}")[:4], "big") >> 1
        assert self._source.gym is not None
        args = self._stages[stage]
        entry = _made(self._source.gym, json.dumps(args, sort_keys=True), seed)[index]
        text = str(entry["question"]).strip()
        if self._source.append:
            text = f"{text}\n\n{self._source.append}"
        extra: dict[str, Any] = {"check": "gym", "gym": self._source.gym, "args": args, "seed": seed, "index": index}
        if self._source.curriculum:
            extra["stage"] = stage
        answer = entry.get("answer")
        name = f"{self._source.gym}/{digest(text).hex()[:16]}"
        return Question(name, ({"role": "user", "content": text},), None if answer is None else str(answer), self._name, extra)


@lru_cache(32)
def _made(name: str, args: str, seed: int) -> Any:
    return make(name, json.loads(args), seed)


def make(name: str, args: dict[str, Any], seed: int) -> Any:
    """A generator of reasoning-gym by name.

    Raises:
        ConfigError: there is no such generator, or it does not take these settings.
        ExtraError: reasoning-gym is not installed.
    """
    gym = require("reasoning_gym", "rl")
    known = require("reasoning_gym.factory", "rl").DATASETS
    if name not in known:
        near = get_close_matches(name, known, n=1)
        raise ConfigError(
            f"gym={name!r} is not known" + (f": did you mean {near[0]!r}?" if near else f": use {', '.join(known)}")
        )
    try:
        return gym.create_dataset(name, seed=seed, size=SIZE, **args)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"gym={name!r} does not take args={args!r}: {error}") from None
