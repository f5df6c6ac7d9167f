"""Samples and runs, and their files.

A run is a folder: `run.json` has the model and the settings, `samples.jsonl` one line a sample. Reports and plots read nothing
else, so every number can be traced to its samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import DataError, writing
from ..prompting import Mode

RUN, SAMPLES = "run.json", "samples.jsonl"


@dataclass(frozen=True)
class Sample:
    """One question, the answer, and its measurements.

    Attributes:
        task: benchmark or family.
        id: of the question within its task; samples of one question are one cluster.
        epoch: from 0, of the questions that are asked several times.
        mode: which instruction ended the question.
        text: all generated text, thinking included.
        answer: the text that was graded.
        right: whether the generation finished with `stop`, or was closed for the budget of the run, with a right answer.
        malformed: it broke the grammar, or finished with `stop` and does not parse.
        forks: number of blocks.
        critical_path_steps: forwards on the longest chain of tokens.
        seconds: wall-clock time from submission to the last token, with other samples in the batch.
    """

    task: str
    id: str
    epoch: int
    mode: Mode
    question: str
    expected: str
    answer: str
    text: str
    right: bool
    finish_reason: str
    malformed: bool
    forks: int
    total_tokens: int
    critical_path_tokens: int
    critical_path_steps: int
    seconds: float

    @property
    def parallelism(self) -> float:
        """Generated tokens over the longest chain of them; 1 for an empty answer."""
        return self.total_tokens / self.critical_path_tokens if self.critical_path_tokens else 1.0

    @property
    def forked(self) -> bool:
        """Whether any block was opened."""
        return self.forks > 0

    @property
    def cut_short(self) -> bool:
        """Whether a limit ended it."""
        return self.finish_reason not in ("stop", "malformed")


@dataclass(frozen=True)
class Run:
    """A finished or unfinished evaluation.

    Attributes:
        name: in tables.
        model: folder, hub id, or a server's address and model.
        settings: all it depends on: benchmarks, mode, sampling, limits, seed, versions.
        machine: hardware and software.
        date: day of its begin (ISO).
        seconds: wall-clock time of the whole run.
    """

    name: str
    model: str
    settings: dict[str, Any]
    machine: str
    date: str
    seconds: float = 0.0
    samples: tuple[Sample, ...] = field(default=(), repr=False)


def write_run(folder: Path, run: Run) -> None:
    """Write a run; both files are replaced atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    head = {name: value for name, value in vars(run).items() if name != "samples"}
    lines = (json.dumps(asdict(sample), ensure_ascii=False) for sample in run.samples)
    for name, text in ((SAMPLES, "".join(f"{line}\n" for line in lines)), (RUN, json.dumps(head, indent=1) + "\n")):
        part = folder / f"{name}.part"
        with writing(folder / name):
            part.write_text(text, encoding="utf-8")
        part.replace(folder / name)


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        DataError: it is not a run, or a line is invalid.
    """
    try:
        head = json.loads((folder / RUN).read_text(encoding="utf-8"))
        # Not splitlines(), which also breaks at Unicode's other line ends.
        lines = (folder / SAMPLES).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        return Run(**head, samples=tuple(_samples(folder / SAMPLES, lines)))
    except OSError as error:
        raise DataError(f"{folder} is no evaluation: {error.filename} cannot be read ({error.strerror})") from None
    except DataError:
        raise
    except (ValueError, TypeError) as error:
        raise DataError(f"{folder} is no evaluation that can be read: {error}") from None


def _samples(path: Path, lines: Iterable[str]) -> Iterator[Sample]:
    known = {item.name for item in fields(Sample)}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            values = json.loads(line)
        except ValueError:
            raise DataError(f"{path}:{number}: the line is torn: remove it, and its question is asked again") from None
        if isinstance(values, dict) and "critical_path_tokens" in values:  # earlier versions did not count steps
            values.setdefault("critical_path_steps", values["critical_path_tokens"])
        if not isinstance(values, dict) or set(values) != known:
            raise DataError(f"{path}:{number}: the line is no sample: remove it, and its question is asked again")
        yield Sample(**values)
