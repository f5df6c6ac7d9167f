"""The folder of a run on dialogues: every answer and every judgement is in it before it is used.

run.json            the model, the settings, the machine
dialogues.jsonl     what was asked: texts, references, checklists
images/             a small copy of each image, for pages
answers.jsonl       a line for each turn that was answered
judgements.jsonl    a line for each reply of a judge, valid or not
set_aside.jsonl     what could not be asked or judged in the last start, with reasons
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ...errors import DataError, writing
from ..journal import append_line, check_same, drop_incomplete
from ..sample import RUN
from .dialogue import Dialogue

DIALOGUES, ANSWERS, JUDGEMENTS, SET_ASIDE, IMAGES = (
    "dialogues.jsonl",
    "answers.jsonl",
    "judgements.jsonl",
    "set_aside.jsonl",
    "images",
)
KIND = "dialogues"

Row = TypeVar("Row", bound="Answer | Judgement | SetAside")


class TurnKey(NamedTuple):
    """A turn of a dialogue in one of several samples; turns and samples are counted from 0."""

    dialogue: str
    turn: int
    sample: int


@dataclass(frozen=True)
class Answer:
    """The answer to one turn.

    Attributes:
        text: all that was generated.
        answer: what follows the thinking: this is judged.
        said: what later turns hold of it, with history ``own``.
        cached_tokens: tokens of the prompt that came from the prefix cache, where that is reported.
    """

    dialogue: str
    turn: int
    sample: int
    text: str
    answer: str
    said: str
    finish_reason: str
    malformed: bool
    forks: int
    prompt_tokens: int
    cached_tokens: int
    total_tokens: int
    critical_path_tokens: int
    critical_path_steps: int
    seconds: float

    @property
    def key(self) -> TurnKey:
        """Which turn it answers."""
        return TurnKey(self.dialogue, self.turn, self.sample)

    @property
    def parallelism(self) -> float:
        """Generated tokens over the longest chain of them; 1 for an empty answer."""
        return self.total_tokens / self.critical_path_tokens if self.critical_path_tokens else 1.0


class Decision(NamedTuple):
    """The verdict on one item, and why."""

    met: bool
    reason: str


@dataclass(frozen=True)
class Judgement:
    """One reply of a judge.

    Attributes:
        judge: its name, with the address; ``rules``.
        repeat: from 0, of a judge that judges several times.
        attempt: from 0; later ones quote what was wrong before.
        key: hash of the request.
        text: the reply; empty where no judge was asked.
        problem: what was wrong with the reply; empty if it is valid.
        decisions: on each item of the turn's checklist, in order; empty if the reply is not valid.
    """

    dialogue: str
    turn: int
    sample: int
    judge: str
    repeat: int
    attempt: int
    key: str
    text: str
    problem: str
    decisions: tuple[Decision, ...]
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def turn_key(self) -> TurnKey:
        """Which turn it judges."""
        return TurnKey(self.dialogue, self.turn, self.sample)


@dataclass(frozen=True)
class SetAside:
    """What has no answer or no verdicts, and why.

    Attributes:
        what: ``row``, ``answer`` or ``judgement``.
        turn, sample: 0 for rows.
        judge: for judgements.
    """

    what: str
    dialogue: str
    turn: int
    sample: int
    judge: str
    reason: str


@dataclass(frozen=True)
class DialogueRun:
    """A run as its folder holds it.

    Attributes:
        judge: whose verdicts the figures are of: of several, the first of the last start.
        prices: of a million prompt and completion tokens of a judge, by judge.
    """

    name: str
    model: str
    settings: dict[str, Any]
    machine: str
    date: str
    kind: str = KIND
    seconds: float = 0.0
    judge: str = ""
    prices: dict[str, list[float]] = field(default_factory=dict)
    dialogues: tuple[Dialogue, ...] = field(default=(), repr=False)
    pictures: dict[str, str] = field(default_factory=dict, repr=False)
    answers: tuple[Answer, ...] = field(default=(), repr=False)
    judgements: tuple[Judgement, ...] = field(default=(), repr=False)
    set_aside: tuple[SetAside, ...] = field(default=(), repr=False)

    def head(self) -> dict[str, Any]:
        """What `run.json` holds."""
        names = ("name", "model", "settings", "machine", "date", "kind", "seconds", "judge", "prices")
        return {name: getattr(self, name) for name in names}


def is_dialogue_run(folder: Path) -> bool:
    """Whether a folder holds a run on dialogues."""
    try:
        return bool(json.loads((folder / RUN).read_text(encoding="utf-8")).get("kind") == KIND)
    except (OSError, ValueError, AttributeError):
        return False


def read_dialogue_run(folder: Path) -> DialogueRun:
    """Read a run's folder.

    Raises:
        DataError: it holds no run on dialogues, or a line is not valid.
    """
    try:
        head = json.loads((folder / RUN).read_text(encoding="utf-8"))
        if head.get("kind") != KIND:
            raise DataError(f"{folder} holds no run on dialogues: use multiverse eval report for others")
        records = _records(folder / DIALOGUES)
        return DialogueRun(
            **head,
            dialogues=tuple(Dialogue.of(record) for record in records),
            pictures={str(record["index"]): record["preview"] for record in records if record.get("preview")},
            answers=tuple(_rows(folder / ANSWERS, Answer)),
            judgements=tuple(_rows(folder / JUDGEMENTS, Judgement)),
            set_aside=tuple(_rows(folder / SET_ASIDE, SetAside)),
        )
    except OSError as error:
        raise DataError(f"{folder} is no evaluation: {error.filename} cannot be read ({error.strerror})") from None
    except DataError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{folder} is no evaluation that can be read: {error}") from None


def cost_of(judgements: Iterable[Judgement], prices: Mapping[str, Sequence[float]]) -> float:
    """Price of judgements, given those of a million prompt and completion tokens of each judge."""
    total = 0.0
    for one in judgements:
        price_in, price_out = prices.get(one.judge, (0.0, 0.0))
        total += (one.prompt_tokens * price_in + one.completion_tokens * price_out) / 1e6
    return total


class Store:
    """The folder of a run while it is written; thread-safe.

    Args:
        folder: created, or resumed.
        run: the run, with its dialogues and without answers.
        on_image: called after the small copy of each image is there.

    Attributes:
        answers: by turn.
        judgements: by the hash of the request.

    Raises:
        DataError: the folder holds another run, or cannot be read or written.
    """

    def __init__(self, folder: Path, run: DialogueRun, on_image: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self.set_aside: list[SetAside] = []
        before = self._resume(run) if (folder / RUN).exists() else None
        self.run = run
        if before is not None:
            self.run = replace(run, seconds=before.seconds, date=before.date, prices={**before.prices, **run.prices})
            if not run.judge:
                self.run = replace(self.run, judge=before.judge)
        self.answers = {answer.key: answer for answer in before.answers} if before is not None else {}
        self.judgements = {judgement.key: judgement for judgement in before.judgements} if before is not None else {}
        try:
            self._begin(on_image)
        except OSError as error:
            raise DataError(f"{folder} cannot be written ({error.strerror}): choose another folder") from None

    def add_answer(self, answer: Answer) -> None:
        """Keep an answer; when this returns, the operating system has it (`DiskError` if the disk is full)."""
        with self._lock:
            append_line(self.folder / ANSWERS, asdict(answer))
            self.answers[answer.key] = answer

    def add_judgement(self, judgement: Judgement) -> None:
        """Keep a judgement, in the same way."""
        with self._lock:
            append_line(self.folder / JUDGEMENTS, asdict(judgement))
            self.judgements[judgement.key] = judgement

    def put_aside(self, item: SetAside) -> None:
        """Note what has no answer or no verdicts."""
        with self._lock:
            self.set_aside.append(item)

    @property
    def cost(self) -> float:
        """Price of all judgements so far."""
        with self._lock:
            return cost_of(self.judgements.values(), self.run.prices)

    def close(self, seconds: float) -> DialogueRun:
        """End this start of the run, and return all that the folder holds."""
        with self._lock:
            self.run = replace(self.run, seconds=self.run.seconds + seconds)
            _write_lines(self.folder / ANSWERS, (asdict(self.answers[key]) for key in sorted(self.answers, key=_order)))
            _write_lines(self.folder / SET_ASIDE, map(asdict, self.set_aside))
            _write(self.folder / RUN, json.dumps(self.run.head(), indent=1, ensure_ascii=False) + "\n")
        return read_dialogue_run(self.folder)

    def _begin(self, on_image: Callable[[], None]) -> None:
        """Write what is known before anything is asked."""
        (self.folder / IMAGES).mkdir(parents=True, exist_ok=True)
        pictures: dict[str, str] = {}
        for dialogue in self.run.dialogues:
            if dialogue.image is not None:
                path = self.folder / IMAGES / f"{dialogue.image.digest}.jpg"
                if not path.exists():
                    _write(path, dialogue.image.preview())
                pictures[dialogue.id] = f"{IMAGES}/{path.name}"
                on_image()
        self.run = replace(self.run, pictures=pictures)
        records = (
            dialogue.record() | {"preview": pictures.get(dialogue.id, ""), "digest": dialogue.digest}
            for dialogue in self.run.dialogues
        )
        _write_lines(self.folder / DIALOGUES, records)
        for name in (ANSWERS, JUDGEMENTS, SET_ASIDE):
            (self.folder / name).touch()
        _write(self.folder / RUN, json.dumps(self.run.head(), indent=1, ensure_ascii=False) + "\n")

    def _resume(self, run: DialogueRun) -> DialogueRun:
        for name in (ANSWERS, JUDGEMENTS):
            drop_incomplete(self.folder / name)
        (self.folder / SET_ASIDE).unlink(missing_ok=True)
        (self.folder / SET_ASIDE).touch()
        before = read_dialogue_run(self.folder)
        check_same(self.folder, {"model": run.model, **run.settings}, {"model": before.model, **before.settings})
        digests = {str(record["index"]): record.get("digest") for record in _records(self.folder / DIALOGUES)}
        answered = {answer.dialogue for answer in before.answers}
        for dialogue in run.dialogues:
            if dialogue.id in answered and digests.get(dialogue.id) != dialogue.digest:
                raise DataError(
                    f"{self.folder} holds answers to another dialogue of the index {dialogue.id!r}: choose another folder"
                )
        return before


def _records(path: Path) -> list[dict[str, Any]]:
    # Not splitlines(), which also breaks at Unicode's other line ends.
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        if line:
            try:
                found.append(json.loads(line))
            except ValueError:
                raise DataError(f"{path}:{number}: the line is torn: remove it, and it is asked again") from None
    return found


def _rows(path: Path, kind: type[Row]) -> list[Row]:
    known = {item.name for item in fields(kind)}
    found = []
    for number, record in enumerate(_records(path), 1):
        if not isinstance(record, Mapping) or set(record) != known:
            raise DataError(f"{path}:{number}: the line is no {kind.__name__.lower()}: remove it, and it is asked again")
        values = dict(record)
        if "decisions" in values:
            values["decisions"] = tuple(Decision(*one) for one in values["decisions"])
        found.append(kind(**values))
    return found


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    _write(path, "".join(f"{json.dumps(record)}\n" for record in records))


def _write(path: Path, content: str | bytes) -> None:
    """Replace a file atomically."""
    part = path.with_name(f"{path.name}.part")
    with writing(path):
        part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(path)


def _order(key: TurnKey) -> tuple[int, str, int, int]:
    """Ids that are numbers are sorted as numbers."""
    return int(key.dialogue) if key.dialogue.isdecimal() else -1, key.dialogue, key.sample, key.turn
