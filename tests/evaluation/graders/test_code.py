"""Programs in the sandbox: what they may, what they may not, and that whatever they do ends and is called by its name."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

import pytest

from multiverse.evaluation.graders.code import Case, grade_code, program_in, same_output
from multiverse.evaluation.graders.sandbox import Call, Limits, layers, run

SHORT = Limits(seconds=1, memory=1 << 30, output=1 << 20)
filtered = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="no filter of system calls here"
)


def needs(layer: str) -> None:
    if layer not in layers():
        pytest.skip(f"the kernel has no {layer} to shut")


def test_reads_and_prints() -> None:
    outcome = run("print(int(input()) + int(input()))", stdin="1\n2\n")
    assert (outcome.status, outcome.output) == ("ok", "3\n")
    assert outcome.layers[0] == "limits"


def test_calls() -> None:
    assert run("def f(a, b): return (a + b, [a])", call=Call("f", [1, 2])).result == [3, [1]]
    solution = "class Solution:\n    def f(self, xs: List[int]) -> int:\n        return max(Counter(xs).values())"
    assert run(solution, call=Call("f", [[1, 1, 2]])).result == 2
    assert run("def g(): pass", call=Call("f", [])).status == "error"


def test_exit_codes_and_errors() -> None:
    assert run("print(1); import sys; sys.exit()").status == "ok"
    assert run("import sys; sys.exit(3)").status == "error"
    broken = run("1/0")
    assert broken.status == "error"
    assert broken.detail.endswith("ZeroDivisionError: division by zero")
    crash = run("import ctypes; ctypes.string_at(0)")
    assert crash.status == "error"
    assert "SIGSEGV" in crash.detail
    assert run("def f(:").detail.endswith("SyntaxError: invalid syntax")


def test_imports_and_recursion_that_contests_expect() -> None:
    deep = "def f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(20000))"
    threads = "import threading\nt = threading.Thread(target=lambda: print('done'))\nt.start(); t.join()"
    assert run(deep).output == "20000\n"
    assert run(threads).output == "done\n"
    assert run("print(sorted([3, 1]), pow(2, 3, 5), gcd(4, 6), deque([1]))").output == "[1, 3] 3 2 deque([1])\n"
    assert run("open('x', 'w').write('here'); print(open('x').read())").output == "here\n"


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)"])
def test_loops_for_ever(program: str) -> None:
    began = time.monotonic()
    assert run(program, limits=SHORT).status == "time"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("program", ["x = bytearray(10 << 30)", "x = [0] * (10 << 27)"])
def test_allocates_ten_gigabytes(program: str) -> None:
    assert run(program, limits=SHORT).status == "memory"


@pytest.mark.parametrize("program", ["while True: print('a' * 1000)", "open('big', 'wb').write(bytes(1 << 21))"])
def test_writes_endlessly(program: str) -> None:
    outcome = run(program, limits=SHORT)
    assert outcome.status == "output"
    assert len(outcome.output) <= SHORT.output


@filtered
@pytest.mark.parametrize(
    "program",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.execv('/bin/true', ['true'])",
        "import multiprocessing as m; m.get_context('fork').Process(target=print).start()",
        "import socket; socket.socket()",
        "import os; os.kill(os.getppid(), 9)",
        "import os; os.setsid()",
    ],
)
def test_no_processes_and_no_network(program: str) -> None:
    needs("processes")
    assert run(program, limits=SHORT).status == "forbidden"


def test_a_fork_bomb_leaves_nothing_running() -> None:
    run("import os\nfor _ in range(50):\n    try: os.fork()\n    except OSError: pass", limits=SHORT)
    mark = "jail.py"
    here = Path("/proc")
    if here.exists():
        running = [entry for entry in here.iterdir() if entry.name.isdigit() and _runs(entry, mark)]
        assert not running


def _runs(entry: Path, mark: str) -> bool:
    """Whether it is a jail that this process has started."""
    try:
        parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
        return mark in (entry / "cmdline").read_text() and int(parent) == os.getpid()
    except (OSError, ValueError):
        return False


def test_files_outside(tmp_path: Path) -> None:
    needs("files")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for program in (
        f"print(open({str(secret)!r}).read())",
        f"import os; print(os.listdir({str(tmp_path)!r}))",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"import os; os.remove({str(secret)!r})",
        "print(open('../job.json').read())",
        "print(open('/etc/passwd').read())",
    ):
        outcome = run(program, limits=SHORT)
        assert (outcome.status, outcome.output) == ("forbidden", ""), program
    assert secret.read_text() == "secret"
    assert not (tmp_path / "new").exists()


@filtered
def test_modes_outside(tmp_path: Path) -> None:
    needs("processes")
    path = tmp_path / "file"
    path.write_text("")
    path.chmod(0o600)
    assert run(f"import os; os.chmod({str(path)!r}, 0o777)", limits=SHORT).status == "forbidden"
    assert path.stat().st_mode & 0o777 == 0o600


def test_limits_cannot_be_raised() -> None:
    program = "import resource as r\nr.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY, r.RLIM_INFINITY))\nprint('raised')"
    assert run(program, limits=SHORT).output == ""


def test_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    outcome = run("import os; print(sorted(os.environ), os.getcwd(), os.listdir())")
    assert "OPENAI_API_KEY" not in outcome.output
    assert outcome.output.rstrip().endswith("[]")
    assert run("print(input())").status == "error"  # there is nothing to read


def test_its_folder_is_gone() -> None:
    outcome = run("import os; open('left', 'w').write('x'); print(os.getcwd())")
    assert not Path(outcome.output.strip()).exists()


def test_grade() -> None:
    cases = (Case("1 2", "3"), Case("4 5\n", "9\n"))
    right = "```python\na, b = map(int, input().split())\nprint(a + b)\n```"
    assert grade_code(right, cases).right
    wrong = grade_code("```python\nprint(3)\n```", cases)
    assert wrong.why == "test 2 of 2: it gave '3', and not '9'"
    slow = grade_code("```python\nwhile True: pass\n```", cases, SHORT)
    assert slow.why == "test 1 of 2: it took longer than 1 seconds"
    assert grade_code("no program", cases) == (False, "", "there is no program in the answer")
    assert "ZeroDivisionError" in grade_code("```\n1/0\n```", cases).why
    function = (Case("[1, 2]\n3", "[1, 2, 3]", "f"),)
    assert grade_code("```python\ndef f(xs, x):\n    return (*xs, x)\n```", function).right
    assert (
        grade_code("```python\ndef f(xs, x):\n    return 7\n```", function).why
        == "test 1 of 1: it gave '7', and not '[1, 2, 3]'"
    )


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("```python\nx\n```", "x\n"),
        ("```python\nx\n```\nthen\n```py\ny\n```", "y\n"),
        ("```\nx\n```", "x\n"),
        ("```python\nx\n```\nprints\n```text\n3\n```", "x\n"),
        ("```python\ncut off", "cut off"),
        ("`x`", None),
        ("", None),
    ],
)
def test_program_in(answer: str, program: str | None) -> None:
    assert program_in(answer) == program


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ("3\n", "3", True),
        ("3 \n 4", "3\n4\n", True),
        ("3.0 4", "3 4.00", True),
        ("50000000000000001", "50000000000000000", False),
        ("3", "3\n4", False),
        ("yes", "Yes", False),
        ("", "", True),
    ],
)
def test_same_output(found: str, expected: str, same: bool) -> None:
    assert same_output(found, expected) is same
