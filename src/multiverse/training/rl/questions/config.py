"""Settings of questions: where they come from, in which shares, and how their difficulty rises. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from ....common import CommonOptions
from ....errors import ConfigError
from ....evaluation.config import EvaluationConfig
from ....options import Options, like, option
from ....tasks import FAMILIES, Part, Wording, problems
from ...config import Config
from ..rewards import Reward

Check = Literal["auto", "math", "exact", "number", "choice", "code", "instructions", "judge"]
Numbers = int | list[int] | None

_DRAWN = "; of several, each question draws one"
_OF_FAMILIES = ("width", "depth", "steps", "wording", "vocabulary", "phrasings", "numbers")
_OF_FILES = ("check", "split", "question_field", "answer_field", "shuffle", "on_error")


@dataclass(frozen=True)
class Stage(Options):
    """One stage of a curriculum: the shape of its questions, and when it ends. The last stage does not end."""

    width: Numbers = like(EvaluationConfig, "width", help=f"How wide problems fork{_DRAWN}.", ge=1)
    depth: Numbers = like(EvaluationConfig, "depth", help=f"How deep problems nest{_DRAWN}.", ge=1)
    steps: Numbers = like(EvaluationConfig, "steps", help=f"Steps of each calculation{_DRAWN}.")
    args: dict[str, Any] = option(factory=dict, help="With gym: settings of the generator in this stage.")
    for_steps: int | None = option(None, "It ends after this many steps.", ge=1)
    until_correct: float | None = option(
        None, "It ends when this share of the answers of the last `window` steps was correct.", gt=0, le=1
    )
    window: int = option(4, "Steps whose answers until_correct counts.", ge=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.for_steps is not None and self.until_correct is not None:
            raise ConfigError(
                f"for_steps={self.for_steps} and until_correct={self.until_correct:g} both end the stage: give one of them"
            )


@dataclass(frozen=True)
class QuestionSource(Options):
    """One source of questions: one of our task families, a file of questions and answers, or a dataset of reasoning-gym."""

    family: str | None = option(None, f"A family of our own tasks: {', '.join(FAMILIES)}.")
    file: str | None = option(
        None, "A file (.jsonl, .json, .parquet), a folder of them, or a hub id, with questions and answers."
    )
    gym: str | None = option(None, "A dataset of reasoning-gym by name, such as chain_sum; needs the extra rl.")
    name: str | None = option(None, "What it is called in logs; None is the family's, file's or dataset's name.")
    weight: float = option(1.0, "Its share of the questions, beside the weights of the other sources.", gt=0)
    append: str = option("", "Text that is added at the end of every question, such as how to write the answer.")
    width: Numbers = like(EvaluationConfig, "width", help=f"family: how wide problems fork{_DRAWN}.", ge=1)
    depth: Numbers = like(EvaluationConfig, "depth", help=f"family: how deep problems nest{_DRAWN}.", ge=1)
    steps: Numbers = like(EvaluationConfig, "steps", help=f"family: steps of each calculation{_DRAWN}.")
    wording: Literal["plain", "natural"] | None = like(EvaluationConfig, "wording")
    vocabulary: Part | None = like(EvaluationConfig, "vocabulary")
    phrasings: Part | None = like(EvaluationConfig, "phrasings")
    numbers: Part | None = like(EvaluationConfig, "numbers")
    curriculum: list[Stage] = option(factory=list, help="family, gym: stages of rising difficulty, one after the other.")
    check: Check | None = option(
        None,
        "file: how answers are judged: as mathematics, as a text (exact), by the last number, as a choice, by tests of code, "
        "by instructions, by a judge; None or auto decides row by row.",
    )
    split: str | None = option(None, "file: only this split of a folder or a hub data set.")
    question_field: str | None = option(None, "file: field with the question, where it has none of the usual names.")
    answer_field: str | None = option(None, "file: field with the answer, where it has none of the usual names.")
    shuffle: bool | None = option(None, "file: shuffle the questions in every pass; None is true.")
    on_error: Literal["stop", "skip"] | None = like(
        Config, "on_error", None, help="file: when rows are faulty: stop (the default) or skip them."
    )
    validation: float = like(
        CommonOptions, "validation", 0.0, help="file, gym: share of the questions to hold out of training."
    )
    args: dict[str, Any] = option(factory=dict, help="gym: settings of the generator.")

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("family", "file", "gym") if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"{' and '.join(given)} are given" if given else "none is given"
            raise ConfigError(f"a source of questions is one of family, file and gym: {found}")
        if self.family is not None and self.family not in FAMILIES:
            raise ConfigError(f"family={self.family!r} is not known: use {', '.join(FAMILIES)}")
        rules = {
            "family": (*_OF_FAMILIES, "curriculum"),
            "file": (*_OF_FILES, "validation"),
            "gym": ("args", "validation", "curriculum"),
        }
        for name in dict.fromkeys(name for names in rules.values() for name in names):
            if getattr(self, name) not in (None, {}, [], 0.0) and name not in rules[given[0]]:
                whose = " and ".join(kind for kind, names in rules.items() if name in names)
                raise ConfigError(f"{name}={getattr(self, name)!r} has no effect with {given[0]}: it is for {whose}")
        if self.family is not None:
            for stage in self.curriculum or [Stage()]:
                self.shapes(stage)
        self._check_stages(given[0])

    def _check_stages(self, kind: str) -> None:
        for number, stage in enumerate(self.curriculum, 1):
            other = ("width", "depth", "steps") if kind == "gym" else ("args",)
            for name in other:
                if getattr(stage, name) not in (None, {}):
                    raise ConfigError(
                        f"stage {number} of the curriculum has {name}={getattr(stage, name)!r}, which {kind} does not have"
                    )
            ends = stage.for_steps is not None or stage.until_correct is not None
            if ends and number == len(self.curriculum):
                raise ConfigError(
                    f"stage {number} is the last of the curriculum and cannot end: leave its for_steps or until_correct out"
                )
            if not ends and number < len(self.curriculum):
                raise ConfigError(f"stage {number} of the curriculum never ends: give it for_steps or until_correct")

    @property
    def title(self) -> str:
        """What it is called, unless another source has the same name."""
        if self.name is not None:
            return self.name
        if self.file is not None:
            return self.file.rstrip("/").rpartition("/")[2].partition(".")[0] or self.file
        found = self.family or self.gym
        assert found is not None
        return found

    def worded(self, steps: int | None) -> Wording:
        """The wording of our own problems, with so many steps."""
        return Wording(self.wording, self.vocabulary, self.phrasings, self.numbers, steps)

    def shapes(self, stage: Stage) -> list[tuple[int | None, int | None, int | None]]:
        """The widths, depths and steps that the questions of a stage draw from: all combinations that the family has.

        Raises:
            ConfigError: a value is not one that the family has.
        """
        assert self.family is not None
        choices = {
            name: _several(getattr(self, name) if getattr(stage, name) is None else getattr(stage, name))
            for name in ("width", "depth", "steps")
        }
        found, problem = [], ""
        for width, depth, steps in product(*choices.values()):
            try:
                problems(self.family, seed=0, width=width, depth=depth, wording=self.worded(steps))
            except ValueError as error:
                problem = str(error)
            else:
                found.append((width, depth, steps))
        used = [set(column) for column in zip(*found, strict=True)] or [set(), set(), set()]
        for values, kept in zip(choices.values(), used, strict=True):
            if not set(values) <= kept:
                raise ConfigError(problem)
        return found


def _several(value: Numbers) -> Sequence[int | None]:
    return value if isinstance(value, list) else [value]


def names_of(sources: Sequence[QuestionSource]) -> list[str]:
    """A name for each source: its own, with a number where several have the same.

    Raises:
        ConfigError: there is no source.
    """
    if not sources:
        raise ConfigError("questions is empty: begin with [{family: worksheet}], or [{file: questions.jsonl}]")
    seen: Counter[str] = Counter()
    names = []
    for source in sources:
        seen[source.title] += 1
        names.append(source.title if seen[source.title] == 1 else f"{source.title}-{seen[source.title]}")
    return names


def check_judge(sources: Sequence[QuestionSource], rewards: Sequence[Reward]) -> None:
    """Check that there is a judge for questions that need one.

    Raises:
        ConfigError: there is none.
    """
    asking = next((source.title for source in sources if source.check == "judge"), None)
    correct = next((reward for reward in rewards if reward.name == "correct"), None)
    if asking is not None and correct is not None and correct.judge is None:
        raise ConfigError(
            f"the questions of {asking!r} have check='judge', and the reward 'correct' has no judge: give it one, with "
            f"base_url and model"
        )
