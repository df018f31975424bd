"""Hostile programs, each really run, and what is left of the machine and of their neighbours.

Both ways in are tried where the tests run as root: root's, and an ordinary user's.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sirl.capability import confined, sandbox
from sirl.capability.sandbox import Ended, Limits, Program, SandboxError, run, run_all

BRIEF = Limits(seconds=1, file_bytes=4096)
REPO = Path(__file__).parents[2]


def ordinary() -> tuple[str, ...]:
    """The worker's command as another user than root, in a Python that this user may run."""
    if os.geteuid():
        pytest.skip("the tests run as an ordinary user: the other case is this one")
    become = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv to become an ordinary user with")
    source = Path(confined.__file__).read_text()
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        tried = [*become, python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        if subprocess.run(tried, capture_output=True, check=False).returncode == 0:
            return (*become, python, "-P", "-s", "-c", source)
    pytest.skip("an ordinary user may run no Python 3.11 here: all are in root's home")


@pytest.fixture(params=["whoever", "ordinary"], autouse=True)
def marker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A word in the command line of all that the sandbox starts; at the end nothing has it."""
    command = ordinary() if request.param == "ordinary" else sandbox.COMMAND
    word = f"sandbox-{os.urandom(8).hex()}"
    monkeypatch.setattr(sandbox, "COMMAND", (*command, word))
    try:
        sandbox.check()
    except SandboxError as error:
        pytest.skip(f"no isolation: {error}")
    yield word
    ends(word)


def ends(word: str) -> None:
    """What was killed ends soon."""
    for _ in range(100):
        if not alive(word):
            return
        time.sleep(0.05)
    pytest.fail("something lives on")


def alive(word: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


def said(source: str, stdin: str = "") -> str:
    """What a program prints that is expected to come through."""
    ended = run(Program(source, stdin), BRIEF)
    assert (ended.how, ended.status) == ("completed", 0), ended
    return ended.stdout.strip()


def test_an_ordinary_program() -> None:
    ended = run(Program("import sys\nprint(input(), __name__)\nsys.stderr.write('é')", "1 2"))
    assert ended == Ended("completed", 0, "1 2 __main__\n", "é", truncated=False)


@pytest.mark.parametrize(
    ("source", "how", "status"),
    [
        ("assert False", "exited", 1),
        ("raise KeyboardInterrupt", "exited", 1),
        ("print('PASSED', flush=True); raise SystemExit", "exited", 0),  # a pass is no marker
        ("import sys; sys.exit(7)", "exited", 7),
        ("import sys; sys.exit('PASSED')", "exited", 1),
        ("import os; os._exit(0)", "exited", 0),
        ("import os; os.write(3, b'+' * 16)", "exited", 0),
        ("not python", "exited", 1),
        ("\0", "exited", 1),
        ("def f(): f()\nf()", "exited", 1),
        ("import ctypes; ctypes.string_at(0)", "crashed", -11),
        ("import os; os.abort()", "crashed", None),
        ("while True: pass", "timed_out", -9),
        ("9**9**9", "timed_out", -9),
        ("import time; time.sleep(60)", "timed_out", -9),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nos._exit(3)", "exited", 3),
        ("import os; os.closerange(0, 64)", "exited", None),
        ("import sys; sys.stdout.close(); sys.stderr.close()", "exited", 1),
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", "exited", 1),
        ("import os\nwhile True: os.fork()", "exited", None),
        ("import threading\nwhile True: threading.Thread(target=input).start()", "exited", 1),
    ],
)
def test_how_programs_end(source: str, how: str, status: int | None) -> None:
    hostile, after = run_all([Program(source, "a"), Program("print(input())", "b")], BRIEF)
    assert hostile.how == how
    assert status is None or hostile.status == status
    assert after == Ended("completed", 0, "b\n", "", truncated=False)


def test_a_stack_that_python_does_not_bound() -> None:
    ended = run(Program("import sys\nsys.setrecursionlimit(1 << 30)\nf = lambda: f()\nf()"), BRIEF)
    assert ended.how in {"crashed", "timed_out", "exited"}


@pytest.mark.parametrize(
    ("source", "how"),
    [
        ("while True: print('x' * 99)", "exited"),
        (
            "import os\nwhile True:\n try: os.write(2, b'x' * 99)\n except OSError: pass",
            "timed_out",
        ),
        ("import os\nos.ftruncate(1, 1 << 40)", "exited"),
        ("import os\nos.truncate(os.open('x', os.O_CREAT | os.O_RDWR), 5000)", "exited"),
    ],
)
def test_endless_output_is_cut(source: str, how: str) -> None:
    ended = run(Program(source), BRIEF)
    assert ended.how == how
    assert len(ended.stdout) <= 4096
    assert ended.truncated == ("99" in source)


def test_the_empty_folder_is_small_and_each_has_its_own() -> None:
    fill = "n = 0\ntry:\n while True: open(f'{n}', 'w').write('x' * 4096); n += 1\n"
    fill += "except OSError: print(n < 5000)"
    first, second = run_all([Program(fill), Program("import os; print(os.listdir())")], BRIEF)
    assert (first.stdout, second.stdout) == ("True\n", "[]\n")


def test_nothing_that_a_program_changes_meets_the_next() -> None:
    sources = ("import json, builtins\njson.dumps = builtins.print = None", "print(json.dumps(1))")
    _, second = run_all([Program(source) for source in sources], BRIEF, setup="import json")
    assert second.stdout == "1\n"


def test_setup_runs_once_and_its_names_are_theirs() -> None:
    setup = "import os; started = os.getpid()"
    endings = run_all([Program("print(started)")] * 3, BRIEF, setup=setup)
    assert len({ended.stdout for ended in endings}) == 1


def test_the_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    assert eval(said("import os; print(dict(os.environ))")).keys() <= {
        *sandbox.ENVIRONMENT,
        "LC_CTYPE",  # Python's own
    }


def test_no_file_but_libraries_can_be_read(tmp_path: Path) -> None:
    canary = tmp_path / ".env"
    canary.write_text("canary")
    paths = [canary, REPO / "params.yaml", REPO / ".git", "/etc/passwd", "/proc/self/environ"]
    paths += ["/dev/shm", "/bin/sh", "/usr/bin", "/var", "/sys", sys.executable, "/old"]
    source = f"import os; print([p for p in {list(map(str, paths))} if os.path.lexists(p)])"
    assert said(source) == "[]"
    roots = (*confined.LIBRARIES, f"{sys.base_prefix}/lib", sys.prefix)
    walk = f"""
import os
for top, below, names in os.walk("/"):
    if top.startswith({roots}):
        below.clear()
    elif names:
        print(top, names)
"""
    assert said(walk) == ""


def test_links_lead_nowhere(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("before")
    source = (
        "import os\nfor up in ('', '../../../..', '/proc/1/root', '/proc/self/cwd'):\n"
        f" link = 'l' + up.replace('/', '-')\n os.symlink(up + '{target}', link)\n"
        " try: print(open(link, 'r+').write('after'))\n except OSError: pass"
    )
    assert said(source) == ""
    assert target.read_text() == "before"


def test_nothing_outside_can_be_written() -> None:
    source = (
        "import os\nfor top, below, names in os.walk('/'):\n"
        " if top.count('/') > 3: below.clear()\n"
        " for path in [f'{top}/new', *(f'{top}/{n}' for n in names[:3])]:\n"
        "  if not top.startswith(os.getcwd()):\n"
        "   try: print(open(path, 'a'))\n   except OSError: pass"
    )
    ended = run(Program(source), Limits())
    assert (ended.how, ended.stdout) == ("completed", "")


@pytest.mark.parametrize(
    "attempt",
    [
        "os.setuid(0) if os.getuid() else os.chroot('/tmp')",
        "os.setgroups([0])",
        "os.mknod('/tmp/d', 0o60600, os.makedev(8, 0))",
        "os.sethostname('x') if hasattr(os, 'sethostname') else libc('sethostname', b'x', 1)",
        "libc('mount', b'none', b'/tmp', b'tmpfs', 0, None)",
        "libc('mount', None, b'/', None, 32 | 4096, None)",  # again, and writable
        "libc('umount2', b'/tmp', 2)",
        "libc('pivot_root', b'/tmp', b'/tmp')",
        "libc('setns', 0, 0)",
        "resource.setrlimit(resource.RLIMIT_NPROC, (1000, 1000))",
        "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    ],
)
def test_no_privilege_is_left_or_can_be_had(attempt: str) -> None:
    source = f"""
import ctypes, os, resource
def libc(name, *words):
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*words) == -1:
        raise OSError(ctypes.get_errno(), name)
try:
    {attempt}
    print("done")
except (OSError, ValueError):
    pass
"""
    assert said(source) == ""


def test_nobody_can_be_reached() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as local,
    ):
        local.bind("\0sirl-test-sandbox-" + os.urandom(8).hex())
        local.listen()
        server.settimeout(0.2)
        source = """
import ast, socket
port, name = ast.literal_eval(input())
for family, where in ((2, ("127.0.0.1", port)), (2, ("192.0.2.1", 80)), (10, ("::1", port)),
                      (1, name)):
    try: print(socket.socket(family).connect(where))
    except OSError: pass
"""
        assert said(source, repr((server.getsockname()[1], local.getsockname()))) == ""
        with pytest.raises(TimeoutError):
            server.accept()


def test_nobody_can_be_killed() -> None:
    source = """
import os
for pid in (os.getppid(), 0, -1, *range(2, 5000)):
    try: os.kill(pid, 9)
    except OSError: pass
    try: os.setpriority(os.PRIO_PROCESS, pid, 19)
    except OSError: pass
print(os.getppid(), os.getpid())
"""
    with subprocess.Popen(["sleep", "60"]) as bystander:
        first, second = run_all([Program(source), Program("print(1)")], BRIEF)
        assert bystander.poll() is None
        bystander.kill()
    assert (first.stdout, second.stdout) == ("0 1\n", "1\n")


def test_a_daemon_ends_with_its_program(marker: str) -> None:
    source = "import os, time\nif not os.fork():\n os.setsid()\n if not os.fork(): time.sleep(60)"
    endings = run_all([Program(source), Program("print(1)")], BRIEF)
    assert next(endings).how == "completed"
    assert len(alive(marker)) <= 3  # the worker, and the next program's two
    assert next(endings).stdout == "1\n"
    endings.close()


def test_memory_of_all_processes_is_bounded() -> None:
    source = """
import os
children = []
try:
    while True:
        children.append(os.fork())
        if not children[-1]:
            bytearray(1 << 30)
except OSError:
    print(len(children) < 8)
except MemoryError:
    os._exit(5)
print({os.waitstatus_to_exitcode(os.wait()[1]) for _ in children})
"""
    assert said(source) == "True\n{5}"


def test_shared_memory_that_no_limit_counts_is_refused() -> None:
    source = "import ctypes; print(ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600))"
    if (got := said(source)) != "-1" and platform.release() < "6.1":
        pytest.skip("before Linux 6.1 an ordinary user cannot set this limit")
    assert got == "-1"


@pytest.mark.parametrize("late", [False, True], ids=["at once", "parent gone first"])
def test_the_worker_ends_with_us(marker: str, late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what was forked a moment before, and had not yet asked to end with its parent."""
    if late:
        asks = 'call("prctl", DIE_WITH_PARENT'
        source = Path(confined.__file__).read_text()
        assert source.count(asks) == 1
        slow = source.replace(asks, f"__import__('time').sleep(0.5); {asks}")
        start = [word for word in sandbox.COMMAND[:-2] if word != "-c"]
        monkeypatch.setattr(sandbox, "COMMAND", (*start, "-c", slow, marker))
    code = (
        "import sys\nfrom sirl.capability import sandbox\n"
        f"sandbox.COMMAND = {sandbox.COMMAND!r}\n"
        "for _ in sandbox.run_all([sandbox.Program(''), sandbox.Program('while True: pass')]):\n"
        " sys.stdout.write('.')\n sys.stdout.flush()"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPO, stdout=subprocess.PIPE) as us:
        assert us.stdout and us.stdout.read(1) == b"."
        assert alive(marker)
        us.kill()
    ends(marker)


def test_where_there_is_no_isolation_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = 'import sys; sys.stdin.read(); sys.stdout.write(\'{"refused": "unshare: no"}\')'
    monkeypatch.setattr(sandbox, "COMMAND", (sys.executable, "-c", refusing))
    with pytest.raises(SandboxError, match=r"in isolation here \(unshare: no\)\. .*sysctl") as said:
        sandbox.check()
    assert "\n" not in str(said.value)


def test_a_process_that_may_make_no_namespaces_runs_nothing(tmp_path: Path) -> None:
    """The real refusal: root without its capabilities is as good as a container's."""
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("only root can give rights up")
    limit = Path("/proc/sys/user/max_user_namespaces")
    source = f"open('{tmp_path}/ran', 'w')"
    code = (
        "from sirl.capability import sandbox\nimport sys\n"
        f"try: sandbox.run(sandbox.Program({source!r}))\n"
        "except sandbox.SandboxError as error: sys.exit(f'refused {error}')"
    )
    give_up = "setpriv --bounding-set=-all --no-new-privs"
    shell = f'echo 0 > {limit}; exec {give_up} {sys.executable} -c "$0"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", shell, code],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "refused what a model writes cannot be run in isolation here (unshare" in done.stderr
    assert not (tmp_path / "ran").exists()
