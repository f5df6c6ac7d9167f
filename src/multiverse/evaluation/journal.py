"""The folder of a run while it is written.

`run.json` is written first; each finished sample is then appended to `samples.jsonl`. A run that is started again does not ask
for the samples that are there. An incomplete last line, of a process that was killed, is dropped.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import DataError, writing
from .sample import RUN, SAMPLES, Run, Sample, read_run, write_run

Key = tuple[str, str, int]
"""Task, question and epoch."""


class Journal:
    """The folder of a run while it is written; thread-safe.

    Args:
        folder: created, or resumed.
        run: the run without its samples.

    Attributes:
        finished: samples in the folder, by task, question and epoch.

    Raises:
        DataError: the folder holds another run, or cannot be read or written.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self.run = self._resume(run) if (folder / RUN).exists() else run
        self.finished: dict[Key, Sample] = {key(sample): sample for sample in self.run.samples}
        try:
            write_run(folder, self.run)  # without an incomplete line
        except OSError as error:
            raise DataError(f"{folder} cannot be written ({error.strerror}): choose another folder") from None

    def add(self, sample: Sample) -> None:
        """Append a sample; when this returns, the operating system has it.

        Raises:
            DiskError: the disk is full; nothing of the sample is left in the file.
        """
        with self._lock:
            append_line(self.folder / SAMPLES, asdict(sample))
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

    def _resume(self, run: Run) -> Run:
        drop_incomplete(self.folder / SAMPLES)
        before = read_run(self.folder)
        check_same(self.folder, {"model": run.model, **run.settings}, {"model": before.model, **before.settings})
        return before


def check_same(folder: Path, asked: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise `DataError` if a folder holds a run of other settings than those that are asked for."""
    different = [name for name in {**found, **asked} if found.get(name) != asked.get(name)]
    if different:
        name = different[0]
        raise DataError(
            f"{folder} holds a run with {name} = {_shown(found, name)}, and this one has {_shown(asked, name)}: "
            "choose another folder, or the same settings"
        )


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record to a file of JSON lines; when this returns, the operating system has it.

    Raises:
        DiskError: the disk is full; nothing of the record is left in the file.
    """
    try:
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half a character, from an endpoint
        line = (json.dumps(record) + "\n").encode()
    with writing(path), path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            if (written := file.write(line)) < len(line):
                file.write(line[written:])  # raises what the matter is
        except OSError:
            file.truncate(before)
            raise


def key(sample: Sample) -> Key:
    """Identifies a sample within its run."""
    return sample.task, sample.id, sample.epoch


def _order(name: Key) -> tuple[str, int, str, int]:
    """Sort key; ids that are numbers are sorted as numbers."""
    task, question, epoch = name
    return task, int(question) if question.isdecimal() else -1, question, epoch


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "nothing"


def drop_incomplete(path: Path) -> None:
    """Truncate a file after its last complete line."""
    try:
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)
    except FileNotFoundError:  # killed before the first sample was written
        path.touch()
