"""From verdicts to figures: what share of items, turns and dialogues succeeds, with errors clustered by dialogue.

The rules are ours (MultiVerse published none):

- an item succeeds if the judge says yes;
- a turn succeeds if all items of its checklist do;
- a dialogue succeeds if all its turns with a checklist do;
- the score of a dialogue is the mean over its turns of the share of items that succeed.

What is set aside is left out: items of a turn without verdicts, and for dialogues all that have such a turn. Items of one
dialogue are not independent, nor are several samples of it: the dialogue is the cluster of every standard error and interval
(`statistics.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

from ...errors import DataError
from ..statistics import Difference, Estimate, mean_of, paired, share_of
from .agreement import Agreement, agreement
from .dialogue import CATEGORIES, Dialogue, Item
from .store import Answer, Decision, DialogueRun, Judgement, TurnKey

TURN, MAIN, SUB, MAIN_BY_TURN = "turn", "main_criteria", "sub_criteria", "main_criteria_by_turn"
DIMENSIONS = (TURN, MAIN, SUB, *CATEGORIES, MAIN_BY_TURN)
"""By what figures are broken down."""


class Judged(NamedTuple):
    """An answer with its verdicts."""

    dialogue: Dialogue
    answer: Answer
    decisions: tuple[Decision, ...]

    @property
    def items(self) -> list[tuple[Item, bool]]:
        """Each item with its verdict."""
        checklist = self.dialogue.turns[self.answer.turn].checklist
        return [(item, decision.met) for item, decision in zip(checklist, self.decisions, strict=True)]

    @property
    def share(self) -> float:
        """Share of items that succeed."""
        return fmean(decision.met for decision in self.decisions)

    @property
    def passed(self) -> bool:
        """Whether all items succeed."""
        return all(decision.met for decision in self.decisions)


class Rater(NamedTuple):
    """One judge in one of its repeats."""

    judge: str
    repeat: int

    def title(self, many: bool) -> str:
        """In tables."""
        return f"{self.judge} #{self.repeat + 1}" if many else self.judge


@dataclass(frozen=True)
class Figures:
    """Figures of some judged turns.

    Attributes:
        turns, dialogues, score: `None` where they are no measure of the part, as of one criterion.
    """

    items: Estimate
    turns: Estimate | None = None
    dialogues: Estimate | None = None
    score: Estimate | None = None


class Answered(NamedTuple):
    """What answering took, of one turn number or all.

    Attributes:
        cached: share of the prompts' tokens that came from the prefix cache.
        cut_short: answers that a limit ended.
    """

    answers: int
    prompt_tokens: float
    cached: float
    total_tokens: float
    critical_path_tokens: float
    parallelism: Estimate
    forked: float
    malformed: int
    cut_short: int
    seconds: float


class Compared(NamedTuple):
    """Paired differences of two runs, the second less the first, each dialogue counted once."""

    first: str
    second: str
    differences: dict[str, Difference]


class Results:
    """The figures of a run by one judge.

    Args:
        judge: its name; the run's own if `None`.

    Raises:
        DataError: the run has no verdicts of this judge.
    """

    def __init__(self, run: DialogueRun, judge: str | None = None) -> None:
        self.run = run
        self.judge = self._named(judge)
        self._by_id = {dialogue.id: dialogue for dialogue in run.dialogues}
        self.judged = self.by(Rater(self.judge, 0))

    @cached_property
    def raters(self) -> list[Rater]:
        """All judges with their repeats, in the order in which they judged."""
        return list(dict.fromkeys(Rater(one.judge, one.repeat) for one in self.run.judgements))

    def by(self, rater: Rater) -> list[Judged]:
        """The answers with one rater's verdicts, in the order of the answers."""
        valid: dict[TurnKey, Judgement] = {
            one.turn_key: one for one in self.run.judgements if not one.problem and (one.judge, one.repeat) == rater
        }
        return [
            Judged(self._by_id[answer.dialogue], answer, valid[answer.key].decisions)
            for answer in self.run.answers
            if answer.key in valid and answer.dialogue in self._by_id
        ]

    @cached_property
    def overall(self) -> Figures | None:
        """All of it; `None` if nothing was judged."""
        return self.figures(self.judged) if self.judged else None

    def figures(self, judged: Sequence[Judged]) -> Figures:
        """Figures of some turns of whole dialogues."""
        whole = self._whole(judged)
        names = [name for name, _ in whole]
        return Figures(
            _items(judged),
            share_of([one.passed for one in judged], [one.dialogue.id for one in judged]),
            share_of([all(one.passed for one in turns) for _, turns in whole], names) if whole else None,
            mean_of([fmean(one.share for one in turns) for _, turns in whole], names) if whole else None,
        )

    def _whole(self, judged: Iterable[Judged]) -> list[tuple[str, list[Judged]]]:
        """Dialogues of which all turns with a checklist are judged, each with its id, one for every sample."""
        parts: dict[tuple[str, int], list[Judged]] = {}
        for one in judged:
            parts.setdefault((one.dialogue.id, one.answer.sample), []).append(one)
        return [
            (name, turns)
            for (name, _), turns in parts.items()
            if len(turns) == sum(bool(turn.checklist) for turn in self._by_id[name].turns)
        ]

    def groups(self, dimension: str) -> dict[str, Figures]:
        """The figures by the values of a dimension, in the order in which they come; of turns by number."""
        if dimension in (MAIN, SUB, MAIN_BY_TURN):
            return self._by_criterion(dimension)
        found: dict[str, list[Judged]] = {}
        for one in self.judged:
            name = str(one.answer.turn + 1) if dimension == TURN else one.dialogue.categories.get(dimension, "")
            if name:
                found.setdefault(name, []).append(one)
        if dimension == TURN:
            turns = sorted(found, key=int)
            return {
                name: Figures(
                    _items(found[name]),
                    share_of([one.passed for one in found[name]], [one.dialogue.id for one in found[name]]),
                )
                for name in turns
            }
        return {name: self.figures(part) for name, part in found.items()}

    def _by_criterion(self, dimension: str) -> dict[str, Figures]:
        found: dict[str, tuple[list[bool], list[str]]] = {}
        for one in self.judged:
            for item, met in one.items:
                name = item.sub_criteria if dimension == SUB else item.main_criteria
                if dimension == MAIN_BY_TURN and name:
                    name = f"{name} · turn {one.answer.turn + 1}"
                if name:
                    flags, names = found.setdefault(name, ([], []))
                    flags.append(met)
                    names.append(one.dialogue.id)
        return {name: Figures(share_of(*found[name])) for name in sorted(found)}

    def answered(self) -> dict[str, Answered]:
        """What answering took, by turn number."""
        found: dict[int, list[Answer]] = {}
        for answer in self.run.answers:
            found.setdefault(answer.turn, []).append(answer)
        return {str(turn + 1): _answered(found[turn]) for turn in sorted(found)}

    def agreements(self, *, seed: int = 0) -> list[tuple[Rater, Rater, Agreement]]:
        """Agreement of each pair of raters that have judged common items."""
        verdicts = {rater: _verdicts(self.by(rater)) for rater in self.raters}
        found = []
        for number, first in enumerate(self.raters):
            for second in self.raters[number + 1 :]:
                common = [key for key in verdicts[first] if key in verdicts[second]]
                if common:
                    pairs = [(verdicts[first][key], verdicts[second][key]) for key in common]
                    own = agreement(
                        [a for a, _ in pairs], [b for _, b in pairs], [key[0].dialogue for key in common], seed=seed
                    )
                    found.append((first, second, own))
        return found

    def _named(self, judge: str | None) -> str:
        names = list(dict.fromkeys(one.judge for one in self.run.judgements))
        if judge is None:
            return self.run.judge if self.run.judge in names or not names else names[-1]
        found = [name for name in names if name == judge or name.partition(" @ ")[0] == judge]
        if not found:
            raise DataError(f"{self.run.name!r} has no verdicts of {judge!r}: it has those of {', '.join(names) or 'none'}")
        return found[-1]


def compare_dialogues(first: Results, second: Results, *, seed: int = 0) -> Compared:
    """Compare two runs on the items that both have judged.

    Raises:
        DataError: they have fewer than two dialogues in common.
    """
    sides = _Side(first), _Side(second)
    measures: dict[str, Callable[[_Side], Mapping[tuple[Hashable, ...], float]]] = {
        "items": lambda side: side.items,
        "turns": lambda side: side.turns,
        "dialogues": lambda side: side.dialogues,
        "score": lambda side: side.scores,
    }
    numbers = sorted({one.answer.turn for one in (*first.judged, *second.judged)})
    for number in numbers:
        measures[f"items, turn {number + 1}"] = lambda side, number=number: {  # type: ignore[misc]
            key: value for key, value in side.items.items() if key[1] == number
        }
    differences = {}
    for name, of in measures.items():
        values = [of(side) for side in sides]
        common = [key for key in values[0] if key in values[1]]
        grouped: list[dict[Hashable, list[float]]] = [{}, {}]
        for key in common:
            for place, own in zip(grouped, values, strict=True):
                place.setdefault(key[0], []).append(own[key])
        if len(grouped[0]) >= 2:
            differences[name] = paired(*grouped, seed=seed)
    if "items" not in differences:
        raise DataError(
            f"{first.run.name!r} and {second.run.name!r} cannot be compared: they have fewer than two judged "
            "dialogues in common"
        )
    return Compared(first.run.name, second.run.name, differences)


class _Side:
    """The values of one run, each the mean over its samples.

    Keys begin with the dialogue, and hold what was asked: the same index with another text is another dialogue.
    """

    def __init__(self, results: Results) -> None:
        items: dict[tuple[Hashable, ...], list[float]] = {}
        turns: dict[tuple[Hashable, ...], list[float]] = {}
        for one in results.judged:
            name = (one.dialogue.id, one.answer.turn, one.dialogue.turns[one.answer.turn].utterance)
            turns.setdefault(name, []).append(one.passed)
            for number, (item, met) in enumerate(one.items):
                items.setdefault((*name, number, item.question), []).append(met)
        whole: dict[tuple[Hashable, ...], list[float]] = {}
        scores: dict[tuple[Hashable, ...], list[float]] = {}
        for index, judged in results._whole(results.judged):
            asked = (index, tuple(turn.utterance for turn in judged[0].dialogue.turns))
            whole.setdefault(asked, []).append(all(one.passed for one in judged))
            scores.setdefault(asked, []).append(fmean(one.share for one in judged))
        self.items, self.turns, self.dialogues, self.scores = (
            {key: fmean(values) for key, values in found.items()} for found in (items, turns, whole, scores)
        )


def _items(judged: Sequence[Judged]) -> Estimate:
    pairs = [(decision.met, one.dialogue.id) for one in judged for decision in one.decisions]
    return share_of([met for met, _ in pairs], [name for _, name in pairs])


def _verdicts(judged: Iterable[Judged]) -> dict[tuple[TurnKey, int], bool]:
    return {(one.answer.key, number): decision.met for one in judged for number, decision in enumerate(one.decisions)}


def _answered(answers: Sequence[Answer]) -> Answered:
    prompts = sum(one.prompt_tokens for one in answers)
    return Answered(
        len(answers),
        fmean(one.prompt_tokens for one in answers),
        sum(one.cached_tokens for one in answers) / prompts if prompts else 0.0,
        fmean(one.total_tokens for one in answers),
        fmean(one.critical_path_tokens for one in answers),
        mean_of([one.parallelism for one in answers], [one.dialogue for one in answers]),
        fmean(one.forks > 0 for one in answers),
        sum(one.malformed for one in answers),
        sum(one.finish_reason not in ("stop", "malformed") for one in answers),
        fmean(one.seconds for one in answers),
    )
