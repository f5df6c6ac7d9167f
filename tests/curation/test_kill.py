"""`kill -9` at random points: resumed, the run has the same result, and nothing is paid twice.

What counts as answered is what is stored. An answer that was on its way when the process was killed is lost, and asked for
again; of those there are never more than calls were in flight.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.curation.endpoint import KINDS, Endpoint, serving
from tests.curation.fake import Planted, answer, start
from tests.curation.test_run import files
from tests.forks import forks

ROWS, IN_FLIGHT = 160, 8
HARMLESS = tuple(kind for kind in KINDS if kind not in ("hang", "dribble"))

Name = tuple[str, str, int]


def stored(out: Path) -> set[Name]:
    """Row, stage and attempt of every answer in the store."""
    if not (out / "answers.sqlite").exists():
        return set()
    file = sqlite3.connect(out / "answers.sqlite")
    try:
        tables = file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return set(file.execute("SELECT row, stage, attempt FROM answers")) if tables else set()
    finally:
        file.close()


def asked(body: dict[str, Any]) -> Name:
    """Row, stage and attempt of a call."""
    first, *rest = body["messages"]
    fields = dict(line.split(": ", 1) for line in first["content"].splitlines()[:2])
    return fields["row"], fields["stage"], len(rest) // 2


@pytest.mark.parametrize("kills", [8, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_times(tmp_path: Path, kills: int) -> None:
    draw = random.Random(11)
    out = tmp_path / "killed" / "out"
    out.parent.mkdir()
    endpoint = Endpoint(answer, Planted(), rate=0.3, seed=5, kinds=HARMLESS)
    with (
        forks(tmp_path, "multiverse.curation.job", "openai.resources", "jinja2", "pyarrow.parquet") as processes,
        serving(endpoint) as up,
    ):
        up.keep_bodies, killed = True, 0
        for kill in range(kills):
            paid, before, parts = stored(out), len(up.bodies), set(out.glob(".*.part"))
            process = processes.start("tests.curation.fake", up.url, out, ROWS)
            # Most die while they ask, after so many calls more; the last ones while they write outputs.
            more = draw.randrange(1, 25) if kill < kills - 4 else None
            while process.poll() is None and not (
                len(up.bodies) >= before + more if more is not None else set(out.glob(".*.part")) - parts
            ):
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.01))
            process.kill()
            killed += process.wait() == -signal.SIGKILL
            repeated = {asked(body) for body in up.bodies[before:]} & paid
            assert not repeated, f"asked again after kill {kill}: {repeated}"
        assert killed >= kills - 4, "too many runs came to their end"
        twice = sum(number - 1 for number in up.answered.values())
        assert twice <= kills * IN_FLIGHT
        paid, before = stored(out), len(up.bodies)
        result = start(up.url, out, ROWS)
        assert result.ended is None
        assert not {asked(body) for body in up.bodies[before:]} & paid
        assert result.curated + result.rejected == ROWS

        whole = tmp_path / "whole" / "out"
        whole.parent.mkdir()
        assert start(up.url, whole, ROWS).ended is None
        assert files(out) == files(whole)
