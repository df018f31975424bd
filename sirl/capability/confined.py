"""Runs programs, each in a process that reaches nothing: the other side of `sandbox`.

A script on the standard library alone, which `sandbox` starts with an empty environment. It reads
one JSON object from standard input and writes one line a program. Programs run in forks of this
process, so that what they import is imported once. A fork shuts itself in before it runs a line:

- no privilege, and no way to gain one;
- its own processes (it is the first of them, and when it ends all that it started end), mounts,
  shared memory, host name, session, and a network that leads nowhere;
- of all files, the libraries of Python and the system, read-only, and an empty folder to write in:
  no program, no home, no project, no /proc, no /dev;
- limits on time, memory, processes, open files, and the size of a file or stream.

This takes Linux 5.14 and the right to make namespaces: root's, or an ordinary user's who may.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import secrets
import select
import signal
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import Any, NoReturn

NEW_USER, NEW_MOUNTS, NEW_IPC, NEW_PROCESSES = 1 << 28, 1 << 17, 1 << 27, 1 << 29
NEW_HOST_NAME, NEW_NETWORK = 1 << 26, 1 << 30
NOSUID, NODEV, BIND, RECURSIVE, PRIVATE, DETACH = 2, 4, 1 << 12, 1 << 14, 1 << 18, 2
MOUNT_SETATTR, READ_ONLY, AT_RECURSIVE = 442, 1, 0x8000
DIE_WITH_PARENT, NO_NEW_PRIVILEGES, CAPABILITIES = 1, 38, 0x20080522
MESSAGE_QUEUES = 12
"""These are Linux's own numbers, equal on every processor."""

LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
USERS = range(61184, 65520)
"""Of these root takes one for each program: none of them is anybody, and limits count by user."""
OPEN_FILES = 64
CLOCK = 3
"""Seconds of the clock for one of the processor: how busy a machine is decides no score."""
REPORT = 3
"""The file number on which a program's fork says that it is shut in, then that it is through."""

libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """This machine lacks what isolation takes."""


def main() -> None:
    """Runs what standard input asks for, after the trusted code of its `setup`."""
    die_with_parent()
    asked = json.load(sys.stdin)
    worker = os.getpid()
    names: dict[str, Any] = {}
    if os.getppid() != asked["parent"]:
        return
    exec(asked["setup"], names)
    for program in asked["programs"]:
        attendant = os.fork()
        if not attendant:
            attend(worker, program, names, asked["limits"])
        if os.waitpid(attendant, 0)[1]:  # it wrote no line: the next would be read as its
            return


def die_with_parent() -> None:
    """From here on; a parent that is gone already must be noticed otherwise."""
    call("prctl", DIE_WITH_PARENT, signal.SIGKILL)


def attend(
    worker: int, program: dict[str, str], names: dict[str, Any], limits: dict[str, int]
) -> NoReturn:
    """Starts one program, waits for its end and writes what came of it; then ends itself, since
    a process can move into namespaces only once."""
    try:
        die_with_parent()
        if os.getppid() != worker:
            os._exit(1)
        answer = watched(program, names, limits)
    except (Refused, OSError) as error:
        answer = {"refused": str(error)}
    tell(answer)
    os._exit(0)


def tell(answer: dict[str, Any]) -> None:
    """One line to `sandbox`."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def watched(
    program: dict[str, str], names: dict[str, Any], limits: dict[str, int]
) -> dict[str, Any]:
    """What came of one program: the fields of `sandbox.Ended`."""
    streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    os.write(streams[0], program["stdin"].encode())
    os.lseek(streams[0], 0, os.SEEK_SET)
    heard, said = os.pipe()
    token = secrets.token_bytes(16)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    user = isolate()
    child = os.fork()
    if not child:
        shut_in(user, mapped, limits, [*streams, said])
        become(program["source"], names, token)
    os.close(said)
    if os.read(heard, 1) != b"+":  # before its program runs, a fork tells nothing but the truth
        raise Refused(os.read(heard, 1000).decode())
    if not ended(child, limits["seconds"] * CLOCK):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    through = os.read(heard, len(token)) == token
    sizes = [os.fstat(stream).st_size for stream in streams[1:]]
    texts = [os.pread(stream, limits["file_bytes"], 0) for stream in streams[1:]]
    return {
        "how": _how(status, through),
        "status": os.waitstatus_to_exitcode(status),
        "stdout": texts[0].decode(errors="replace"),
        "stderr": texts[1].decode(errors="replace"),
        "truncated": max(sizes) >= limits["file_bytes"],
    }


def _how(status: int, through: bool) -> str:
    """None of its own can kill the first process: that was a limit on time, or no memory left."""
    if os.WIFSIGNALED(status):
        return "timed_out" if os.WTERMSIG(status) == signal.SIGKILL else "crashed"
    return "completed" if through else "exited"


def ended(process: int, seconds: float) -> bool:
    """Waits for the end of a process; whether it came in time."""
    handle = os.pidfd_open(process)
    return bool(select.select([handle], [], [], seconds)[0])


def isolate() -> int | None:
    """Moves this process into namespaces of its own, its next fork into ones of processes.

    Returns:
        Whom the fork is to become, where this one is root; an ordinary user stays who it is.
    """
    with contextlib.suppress(OSError):  # where memory runs out, this is to go first
        Path("/proc/self/oom_score_adj").write_text("1000")
    spaces = NEW_MOUNTS | NEW_IPC | NEW_PROCESSES | NEW_HOST_NAME | NEW_NETWORK
    user, group = os.geteuid(), os.getegid()
    other = USERS[os.getpid() % len(USERS)] if user == 0 else None
    if other is not None and is_mapped(other):
        call("unshare", spaces)
    else:
        other = None
        call("unshare", spaces | NEW_USER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    with contextlib.suppress(OSError):  # no limit on memory counts these segments
        Path("/proc/sys/kernel/shmmni").write_text("0")
    see_libraries_alone()
    return other


def is_mapped(user: int) -> bool:
    """Whether a user exists where we are: in a container, few may."""
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    return any(int(first) <= user < int(first) + int(n) for first, _, n in map(str.split, lines))


def see_libraries_alone() -> None:
    """Puts an empty file system in the place of all files; libraries are bound into it."""
    python = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths = sorted({*map(Path, [*LIBRARIES, f"{sys.base_prefix}/lib", *python])})
    shown = {path: Path("/old", *path.resolve().parts[1:]) for path in paths}
    tmp, old = Path("/tmp"), Path("/old")
    # An environment may lie below /tmp: an empty one would hide it.
    scratch = Path("/scratch") if any(path.is_relative_to(tmp) for path in paths) else tmp
    call("mount", None, b"/", None, RECURSIVE | PRIVATE, None)
    call("mount", b"none", bytes(tmp), b"tmpfs", NOSUID | NODEV, b"size=1m,mode=755")
    (tmp / "old").mkdir()
    call("pivot_root", bytes(tmp), bytes(tmp / "old"))
    os.chdir("/")
    for path, source in shown.items():
        if source.is_dir() and not path.is_dir():
            path.mkdir(parents=True)
            call("mount", bytes(source), bytes(path), None, BIND | RECURSIVE, None)
    call("umount2", bytes(old), DETACH)
    old.rmdir()
    scratch.mkdir()
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY | NOSUID | NODEV)
    call("syscall", MOUNT_SETATTR, -1, b"/", AT_RECURSIVE, attributes, ctypes.sizeof(attributes))
    size = b"mode=1777,size=16m,nr_inodes=1k"
    call("mount", b"none", bytes(scratch), b"tmpfs", NOSUID | NODEV, size)
    os.chdir(scratch)


def shut_in(user: int | None, mapped: int, limits: dict[str, int], streams: list[int]) -> None:
    """In the program's fork: gives up what is left to give up, or ends."""
    try:
        os.setsid()  # or kill(0) reaches whoever started us
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(REPORT + 1, os.sysconf("SC_OPEN_MAX"))
        limit(
            {
                resource.RLIMIT_CPU: limits["seconds"],
                resource.RLIMIT_AS: mapped + limits["memory_bytes"],
                resource.RLIMIT_NPROC: limits["processes"],
                resource.RLIMIT_FSIZE: limits["file_bytes"],
                resource.RLIMIT_NOFILE: OPEN_FILES,
                resource.RLIMIT_CORE: 0,
                resource.RLIMIT_MEMLOCK: 0,
                MESSAGE_QUEUES: 0,
            }
        )
        if user is not None:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        call("capset", (ctypes.c_uint32 * 2)(CAPABILITIES), (ctypes.c_uint32 * 6)())
        call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        die_with_parent()
        os.write(REPORT, b"+")
    except BaseException as error:
        with contextlib.suppress(BrokenPipeError):  # nobody is left to read it
            os.write(REPORT, f"-{error}".encode())
        os._exit(1)


def limit(most: dict[int, int]) -> None:
    """Sets limits of this process for good; one that is lower already stays."""
    for what, value in most.items():
        _, hard = resource.getrlimit(what)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))


def become(source: str, names: dict[str, Any], token: bytes) -> NoReturn:
    """Is the program, and ends as Python would; that it is through is said with the token."""
    status = 1
    try:
        exec(compile(source, "<program>", "exec"), {**names, "__name__": "__main__"})
        sys.stdout.flush()
        os.write(REPORT, token)
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status & 0xFF)


def call(name: str, *arguments: Any) -> None:
    """One call of the C library.

    Raises:
        Refused: It failed, or this is another system than Linux.
    """
    function = getattr(libc, name, None)
    if function is None:
        raise Refused(f"this system has no {name}")
    words = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    if function(*words) == -1:
        raise Refused(f"{name}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        tell({"refused": str(refused)})
