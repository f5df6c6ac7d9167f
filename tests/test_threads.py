"""How many threads compute, and how they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from multiverse import threads
from multiverse.backends.cpu.backend import CpuBackend
from tests.conftest import FAMILIES

V2 = "36 25 0:31 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "36 25 0:31 {inner} /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct\n"


def files(root: Path, contents: Mapping[str, str]) -> Path:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("limit", "quota"), [("max 100000", None), ("200000 100000", 2.0), ("150000 100000", 1.5), ("5000 50000", 0.1), ("", None)]
)
def test_the_quota_of_a_container(tmp_path: Path, limit: str, quota: float | None) -> None:
    root = files(tmp_path, {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2, "sys/fs/cgroup/cpu.max": f"{limit}\n"})
    assert threads.cpu_quota(root) == quota


def test_the_least_quota_of_all_groups_around_a_process(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pods/one/inner\n",
            "proc/self/mountinfo": V2,
            "sys/fs/cgroup/pods/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/pods/one/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/pods/one/inner/cpu.max": "max 100000\n",
        },
    )
    assert threads.cpu_quota(root) == 1.5


@pytest.mark.parametrize(
    ("inner", "path", "folder"),
    [
        ("/", "/docker/abc", "docker/abc/"),
        ("/docker/abc", "/docker/abc", ""),
        ("/docker/abc", "/docker/abc/x", "x/"),
        ("/", "/", ""),
    ],
)
def test_the_quota_of_version_1(tmp_path: Path, inner: str, path: str, folder: str) -> None:
    own = f"sys/fs/cgroup/cpu,cpuacct/{folder}"
    root = files(
        tmp_path,
        {
            "proc/self/cgroup": f"5:memory:/elsewhere\n4:cpu,cpuacct:{path}\n0::/\n",
            "proc/self/mountinfo": V1.format(inner=inner),
            f"{own}cpu.cfs_quota_us": "250000\n",
            f"{own}cpu.cfs_period_us": "100000\n",
        },
    )
    assert threads.cpu_quota(root) == 2.5
    files(tmp_path, {f"{own}cpu.cfs_quota_us": "-1\n"})
    assert threads.cpu_quota(root) is None


def test_no_control_groups(tmp_path: Path) -> None:
    assert threads.cpu_quota(tmp_path) is None


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (2.0, 2), (1.5, 2), (0.25, 1), (20.0, 8)])
def test_a_quota_counts_as_cores(monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int) -> None:
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    monkeypatch.setattr(threads, "_cores", lambda: 8)
    assert threads.usable_cores() == cores


STAT = (
    "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 20 30 900 5 1 2 40 0 0\ncpu1 {} 0 0 900 0 0 0 0 0 0\ncpu2 7 0 0 0 0 0 0 0 0 0\nintr 5\n"
)


def test_busy_time_is_that_of_the_cores_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    file = tmp_path / "stat"
    file.write_text(STAT.format(7))
    for cores, seconds in (({0}, 1.93), ({0, 1}, 2.0), ({1, 2}, 0.14), ({3}, None)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: cores)
        assert threads._busy_seconds(file) == (None if seconds is None else pytest.approx(seconds))
    assert threads._busy_seconds(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("others", "usable", "free"),
    [(0.0, 4, 4), (0.3, 4, 4), (0.9, 4, 3), (1.0, 4, 3), (1.5, 4, 2), (4.0, 4, 1), (0.9, 2, 2), (3.0, 2, 1), (-0.2, 4, 4)],
)
def test_cores_that_others_use_are_not_free(monkeypatch: pytest.MonkeyPatch, others: float, usable: int, free: int) -> None:
    """Four cores of which others use some; this process computes for 1.5 seconds a second."""
    clock = [100.0]
    monkeypatch.setattr(threads, "_cores", lambda: 4)
    monkeypatch.setattr(threads, "usable_cores", lambda: usable)
    monkeypatch.setattr(threads, "_switches", lambda: 0)
    monkeypatch.setattr(threads, "_busy_seconds", lambda: clock[0] * (1.5 + others))
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.process_time", lambda: clock[0] * 1.5)
    cores = threads.FreeCores()
    clock[0] += 0.2
    assert cores.count() == usable  # too soon to tell
    clock[0] += 0.4
    assert cores.count() == free


def test_interruptions_are_noticed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, switches = [100.0], [0]
    monkeypatch.setattr(threads, "_cores", lambda: 2)
    monkeypatch.setattr(threads, "_switches", lambda: switches[0])
    monkeypatch.setattr(threads, "_busy_seconds", lambda: clock[0] * 2)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.process_time", lambda: clock[0] * 1.1)
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    cores = threads.FreeCores()
    clock[0] += 0.15
    assert cores.count() == 2
    switches[0] += 100
    assert cores.count() == 1


def test_where_nothing_is_counted_all_cores_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_busy_seconds", lambda: None)
    monkeypatch.setattr(threads, "usable_cores", lambda: 3)
    assert threads.FreeCores().count() == 3


PREPARED = """
import os
before = dict(os.environ)
from multiverse import threads
os.environ.pop("OMP_WAIT_POLICY", None)
os.environ.update(before)
threads._busy_seconds = lambda: 1.0 if {known} else None
threads.prepare()
import torch
"""


def loaded(given: Mapping[str, str], program: str) -> list[str]:
    """What a program prints in an environment without settings of OpenMP but these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    environment = {**inherited, **given, "OMP_DISPLAY_ENV": "VERBOSE"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    return [line.strip() for line in (done.stdout + done.stderr).splitlines()]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other OpenMP runtimes")
@pytest.mark.parametrize(
    ("given", "known", "count"),
    [({}, False, "'0'"), ({"GOMP_SPINCOUNT": "77"}, False, "'77'"), ({"OMP_WAIT_POLICY": "ACTIVE"}, False, "'30000000000'")],
)
def test_threads_sleep_while_they_wait_where_free_cores_are_not_known(
    given: Mapping[str, str], known: bool, count: str
) -> None:
    # What the runtime itself says, once torch has loaded it.
    assert f"GOMP_SPINCOUNT = {count}" in loaded(given, PREPARED.format(known=known))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not count busy time")
def test_threads_spin_where_free_cores_are_known() -> None:
    assert "GOMP_SPINCOUNT = '0'" not in loaded({}, PREPARED.format(known=True))


def test_a_quota_limits_the_threads_unless_a_number_is_given() -> None:
    program = (
        "from multiverse import threads; threads.usable_cores = lambda: 1; threads._cores = lambda: 3; threads.prepare()\n"
        "import os, torch; print('threads:', os.environ['OMP_NUM_THREADS'], torch.get_num_threads())"
    )
    assert "threads: 1 1" in loaded({}, program)
    assert loaded({"OMP_NUM_THREADS": "3"}, program)[0].startswith("threads: 3 ")


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of threads that forwards are computed with; the environment says nothing about threads."""
    found: list[int] = []
    monkeypatch.setattr("multiverse.backends.torch.TorchBackend.run", lambda *_: found.append(torch.get_num_threads()))
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return found


def forward(backend: CpuBackend) -> None:
    backend.prepare(FAMILIES["qwen2"](100), "tiny")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        backend.run(SimpleNamespace(token_N=[1]))  # type: ignore[arg-type]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_small_forward_is_computed_by_one_thread(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.FreeCores, "count", lambda _: 8)
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    forward(CpuBackend())
    assert counts == [1]
    monkeypatch.setattr("multiverse.backends.cpu.backend._SMALL", 10)
    forward(CpuBackend())
    assert counts == [1, 3]


def test_as_many_threads_compute_as_there_are_free_cores(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiverse.backends.cpu.backend._SMALL", 10)
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    for free in (2, 1, 7):
        monkeypatch.setattr(threads.FreeCores, "count", lambda _, free=free: free)
        forward(CpuBackend())
    assert counts == [2, 1, 3]


def test_a_given_number_of_threads_is_kept(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(threads.FreeCores, "count", lambda _: 1)
    forward(CpuBackend())
    assert counts == [3]


def test_a_quota_holds_where_torch_was_loaded_first(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert counts == []
    before = torch.get_num_threads()
    monkeypatch.setattr("multiverse.threads.usable_cores", lambda: 2)
    try:
        for given, expected in (("", 2), ("3", 3)):
            monkeypatch.setenv("OMP_NUM_THREADS", given)
            torch.set_num_threads(3)
            CpuBackend()
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
