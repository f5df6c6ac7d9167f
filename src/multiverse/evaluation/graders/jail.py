"""The process inside the sandbox: it confines itself, then runs an untrusted program.

Run as a program (``python -I jail.py JOB``), it executes a job; as a module, it provides `confine`. It imports the standard
library only, so that it starts quickly and everything is loaded before the file system is restricted.

Restrictions, each where the system supports it:

- limits (any Unix): address space, processor time, size of a file, open files, and no core dumps;
- files (Linux from 5.13, Landlock): only the working folder can be written, only Python and the system's libraries read;
- processes and network (Linux on x86-64 and aarch64, seccomp): no new process and no program, no socket, no signal to others,
  no tracing, no mounting, no change of owners, modes, or limits.

`sandbox.py` starts the process and enforces the time limit.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import resource
import struct
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OUT_OF_MEMORY, FORBIDDEN, TOO_MUCH_OUTPUT = 101, 102, 103
"""Exit codes of this module; any other is the program's own."""

_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
# Landlock's access rights: those of files, and the number of all rights by version of the interface.
_EXECUTE, _WRITE, _READ, _READ_FOLDER = 1, 2, 4, 8
_TRUNCATE = 1 << 14
_ON_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE
_RIGHTS = {1: 13, 2: 14, 3: 15}

# Refused system calls, with their numbers on x86-64 and aarch64 (None: there is no such call).
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # new processes and programs; threads are allowed (see `_filter`)
    **{"fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281)},
    # network, and input and output that bypasses the filtered calls
    **{"socket": (41, 198), "io_uring_setup": (425, 425)},
    # signals to other processes, and leaving the process group, which is killed as a whole
    **{"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138)},
    **{"rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "setpgid": (109, 154), "setsid": (112, 157)},
    # other processes' memory and files, and the kernel's own
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438)},
    **{"bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},
    **{"shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186)},
    # modes, owners, attributes and times of files, which Landlock does not restrict
    **{"chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452)},
    **{"chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54)},
    **{"setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7)},
    **{"removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16)},
    **{"utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88)},
    **{"open_by_handle_at": (304, 265)},
    # mounts and namespaces
    **{"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97)},
    **{"setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431)},
    **{"fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442)},
    # limits, and calls that need root
    **{"setrlimit": (160, 164), "acct": (163, 89), "settimeofday": (164, 170), "adjtimex": (159, 171)},
    **{"clock_settime": (227, 112), "clock_adjtime": (305, 266), "swapon": (167, 224), "swapoff": (168, 225)},
    **{"reboot": (169, 142), "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None)},
    **{"ioperm": (173, None), "init_module": (175, 105), "delete_module": (176, 106), "finit_module": (313, 273)},
    **{"quotactl": (179, 60), "kexec_load": (246, 104), "kexec_file_load": (320, 294)},
}
_MACHINES: dict[str, dict[str, Any]] = {
    "x86_64": {"column": 0, "arch": 0xC000003E, "clone": 56, "clone3": 435, "prlimit64": 302},
    "aarch64": {"column": 1, "arch": 0xC00000B7, "clone": 220, "clone3": 435, "prlimit64": 261},
}
_CLONE_THREAD = 0x10000
_ALLOW, _REFUSE, _UNKNOWN, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000  # EPERM and ENOSYS among them

# Imports that solutions of programming contests expect (LiveCodeBench's list).
_STARRED = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools"),
    *("functools", "operator", "io", "sys", "json", "builtins", "typing"),
)
PRELUDE = "".join(f"from {name} import *\n" for name in _STARRED) + "".join(f"import {name}\n" for name in _STARRED[:-2])
_RECURSION = 50_000


def confine(*, memory: int, seconds: int | None, file_size: int, writable: Sequence[str]) -> list[str]:
    """Restrict this process irrevocably. No other thread may be running.

    Args:
        memory: bytes of address space.
        seconds: of processor time; `None` sets no limit.
        file_size: bytes of any one file.
        writable: folders that may be written.

    Returns:
        What is in force: ``limits``, and where the system has them ``files``, and ``processes`` with ``network``.
    """
    _limit(resource.RLIMIT_AS, memory)
    _limit(resource.RLIMIT_FSIZE, file_size)
    _limit(resource.RLIMIT_NOFILE, 64)
    _limit(resource.RLIMIT_CORE, 0)
    if seconds is not None:
        # The soft limit sends SIGXCPU, which the exit code shows; the hard limit kills.
        _limit(resource.RLIMIT_CPU, seconds, seconds + 1)
    layers = ["limits"]
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc is not None and libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
        if _close_files(libc, writable):
            layers.append("files")
        if _close_calls(libc):
            layers += ["processes", "network"]
    if "processes" not in layers:
        # Counts all processes of the user, and does not apply to root: the only limit without a filter.
        _limit(resource.RLIMIT_NPROC, 64)
    return layers


def _limit(kind: int, value: int, most: int | None = None) -> None:
    ceiling = resource.getrlimit(kind)[1]
    soft, hard = (
        limit if ceiling == resource.RLIM_INFINITY else min(limit, ceiling)
        for limit in (value, value if most is None else most)
    )
    with contextlib.suppress(OSError, ValueError):  # macOS refuses some
        resource.setrlimit(kind, (soft, hard))


def _close_files(libc: Any, writable: Sequence[str]) -> bool:
    """Restrict the file system to the files that Python reads and the working folder."""
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    everything = (1 << _RIGHTS.get(version, 15)) - 1
    rules = libc.syscall(_LANDLOCK_CREATE, struct.pack("Q", everything), ctypes.c_size_t(8), 0)
    if rules < 0:
        return False
    look = _EXECUTE | _READ | _READ_FOLDER
    for path in {sys.prefix, sys.base_prefix, sys.exec_prefix, *_SYSTEM}:
        _open(libc, rules, path, look)
    for path in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"):
        _open(libc, rules, path, _READ | _WRITE)
    for path in writable:
        _open(libc, rules, path, everything & ~_EXECUTE)
    shut: bool = libc.syscall(_LANDLOCK_RESTRICT, rules, 0) == 0
    os.close(rules)
    return shut


_SYSTEM = ("/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime")


def _open(libc: Any, rules: int, path: str, rights: int) -> None:
    """Allow access to a path; one that does not exist is skipped."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not Path(path).is_dir():
        rights &= _ON_FILES
    # kind of rule, 1: whatever lies beneath a path
    libc.syscall(_LANDLOCK_ADD, rules, 1, struct.pack("=Qi", rights, descriptor), 0)
    os.close(descriptor)


def _close_calls(libc: Any) -> bool:
    """Refuse system calls that no solution needs."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    program = _filter(machine)
    code = ctypes.create_string_buffer(b"".join(program), 8 * len(program))
    header = struct.pack("HP", len(program), ctypes.addressof(code))
    closed: bool = libc.prctl(_SET_SECCOMP, _FILTER, header, 0, 0) == 0
    return closed


def _filter(machine: dict[str, Any]) -> list[bytes]:
    """The filter, as instructions of the kernel's packet filter.

    The data begin with the call's number, then at 4 the architecture, and from 16 on its arguments, 8 bytes each.
    """

    def load(offset: int) -> bytes:
        return struct.pack("HBBI", 0x20, 0, 0, offset)

    def jump(test: int, value: int, then: int, otherwise: int) -> bytes:
        return struct.pack("HBBI", test, then, otherwise, value)

    def answer(value: int) -> bytes:
        return struct.pack("HBBI", 0x06, 0, 0, value)

    equal, at_least, has = 0x15, 0x35, 0x45
    program = [load(4), jump(equal, machine["arch"], 1, 0), answer(_KILL), load(0)]
    program += [jump(at_least, 0x40000000, 0, 1), answer(_REFUSE)]  # the other numbering of x86
    for numbers in _REFUSED.values():
        number = numbers[machine["column"]]
        if number is not None:
            program += [jump(equal, number, 0, 1), answer(_REFUSE)]
    # clone3 is answered with ENOSYS: the C library then creates threads with clone, whose flags the filter can check.
    program += [jump(equal, machine["clone3"], 0, 1), answer(_UNKNOWN)]
    program += [jump(equal, machine["clone"], 0, 4), load(16), jump(has, _CLONE_THREAD, 0, 1), answer(_ALLOW), answer(_REFUSE)]
    # Limits may be read (the pointer to the new value is null), but not set.
    program += [jump(equal, machine["prlimit64"], 0, 5), load(32), jump(equal, 0, 0, 2), load(36), jump(equal, 0, 1, 0)]
    return [*program, answer(_REFUSE), answer(_ALLOW)]


def main(path: str) -> int:
    """Execute the job in this file, and return the exit code.

    A job has the arguments of `confine`, the program, and optionally the function to call with its arguments; the function's
    result is written as JSON to the job's ``result``.
    """
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    source = Path(job["program"]).read_text(encoding="utf-8")
    call = job.get("call")
    with Path(job["result"]).open("w", encoding="utf-8") as result, Path(job["layers"]).open("w", encoding="utf-8") as layers:
        json.dump(confine(**job["confine"]), layers)
        layers.close()
        sys.setrecursionlimit(_RECURSION)
        try:
            space: dict[str, Any] = {"__name__": "__main__" if call is None else "solution"}
            exec(compile(PRELUDE, "prelude.py", "exec"), space)
            exec(compile(source, "program.py", "exec"), space)
            if call is not None:
                owner = space["Solution"]() if "Solution" in space else None
                function = space[call["function"]] if owner is None else getattr(owner, call["function"])
                json.dump(function(*call["arguments"]), result)
            sys.stdout.flush()
        except SystemExit as error:
            return _exit_code(error)
        except MemoryError:
            return OUT_OF_MEMORY
        except BaseException as error:
            return _failure_code(error)
    return 0


def _exit_code(error: SystemExit) -> int:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return 1


def _failure_code(error: BaseException) -> int:
    with contextlib.suppress(OSError, ValueError):
        traceback.print_exception(error, limit=-5)
    if isinstance(error, OSError):
        return {1: FORBIDDEN, 13: FORBIDDEN, 27: TOO_MUCH_OUTPUT, 12: OUT_OF_MEMORY}.get(error.errno or 0, 1)
    return 1


if __name__ == "__main__":
    code = main(sys.argv[1])
    # Exit without running finalizers.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
