"""What an evaluation has found out so far, on disk before it counts.

A run's folder is begun with `run.json`; from then on each finished sample is one line at the end of `samples.jsonl`. Started
again, a run knows by those lines what it need not ask any more. A line that was cut off when the process was killed is none.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from .sample import RUN, SAMPLES, Run, Sample, read_run, write_run

Key = tuple[str, str, int]
"""Task, question and epoch."""


class Journal:
    """The folder of a run while it is being written. Samples may come from any thread.

    Args:
        folder: where; made, or taken up where it was left.
        run: what the run is, without its samples.

    Attributes:
        finished: the samples that are there, by task, question and epoch.

    Raises:
        DataError: the folder holds another run, or cannot be read or written.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self.run = self._take_up(run) if (folder / RUN).exists() else run
        self.finished: dict[Key, Sample] = {key(sample): sample for sample in self.run.samples}
        try:
            write_run(folder, self.run)  # without what was cut off
        except OSError as error:
            raise DataError(f"{folder} cannot be written ({error.strerror}): choose another folder") from None

    def add(self, sample: Sample) -> None:
        """Keep a sample; when this returns, it is with the operating system."""
        line = json.dumps(asdict(sample), ensure_ascii=False) + "\n"
        with self._lock:
            with (self.folder / SAMPLES).open("a", encoding="utf-8") as file:
                file.write(line)
            self.finished[key(sample)] = sample

    def close(self, seconds: float) -> Run:
        """End the run, or this start of it.

        Args:
            seconds: that this start took; added to what earlier ones did.

        Returns:
            The run, its samples in the order of task, question and epoch.
        """
        with self._lock:
            samples = tuple(self.finished[name] for name in sorted(self.finished, key=_order))
            self.run = replace(self.run, seconds=self.run.seconds + seconds, samples=samples)
            write_run(self.folder, self.run)
        return self.run

    def _take_up(self, run: Run) -> Run:
        _drop_torn(self.folder / SAMPLES)
        before = read_run(self.folder)
        asked, found = {"model": run.model, **run.settings}, {"model": before.model, **before.settings}
        different = [name for name in {**found, **asked} if found.get(name) != asked.get(name)]
        if different:
            name = different[0]
            raise DataError(
                f"{self.folder} holds a run with {name} = {_told(found, name)}, and this one has {_told(asked, name)}: "
                "choose another folder, or the same settings"
            )
        return before


def key(sample: Sample) -> Key:
    """By what a sample is known within its run."""
    return sample.task, sample.id, sample.epoch


def _order(name: Key) -> tuple[str, int, str, int]:
    """Numbers in their own order."""
    task, question, epoch = name
    return task, int(question) if question.isdecimal() else -1, question, epoch


def _told(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "nothing"


def _drop_torn(path: Path) -> None:
    """Cut off what follows the last line that is whole."""
    try:
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)
    except FileNotFoundError:  # killed between the two files of a new run: it has no samples yet
        path.touch()
