"""A run with other settings: where it works, what it takes along, and that the checkout is left."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from flows import graph, pipeline, worktree
from flows.workplace import Workplace, opened
from sirl.capability import sandbox
from sirl.errors import ConfigError, SirlError

Ran = Callable[[Path], list[str]]


@pytest.fixture(autouse=True)
def clean(environment: pytest.MonkeyPatch) -> None:
    pass


def run(place: Workplace) -> None:
    pipeline.repro(place, None, lambda _: None)


def tracked(folder: Path) -> dict[str, bytes]:
    """The bytes of everything in a checkout but its own state and git's."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path): path.read_bytes()
        for path in files
        if not {".sirl", ".git", "cache", "tmp"} & set(path.relative_to(folder).parts)
    }


def test_the_checkout_is_left_as_it_was(project: Path, ran: Ran) -> None:
    (project / "content").write_text("uncommitted")
    before, index = tracked(project), (project / ".git" / "index").read_bytes()
    with opened(project, None, ["train.steps=3"]) as place:
        run(place)
        assert place.root.is_relative_to(project / ".sirl" / "worktrees")
        assert yaml.safe_load((place.root / "params.yaml").read_text())["train"]["steps"] == 3
        assert ran(place.root) == ["base", "train", "judge/base", "judge/trained", "gate"]
    assert tracked(project) == before
    assert (project / ".git" / "index").read_bytes() == index
    assert ran(project) == []


def test_uncommitted_new_and_deleted_files_come_along(project: Path) -> None:
    (project / "content").write_text("uncommitted")
    new = project / "tasks" / "new.py"
    new.write_text("new")
    (project / "presets" / "quick.yaml").unlink()
    with opened(project, None, ["seed=5"]) as place:
        assert (place.root / "content").read_text() == "uncommitted"
        assert (place.root / "tasks" / "new.py").read_text() == "new"
        assert not (place.root / "presets" / "quick.yaml").exists()
        (place.root / "artifacts").mkdir()  # as a stage would, or it is taken away
    new.unlink()
    with opened(project, None, ["seed=5"]) as place:
        assert not (place.root / "tasks" / "new.py").exists()


def test_what_the_checkout_has_run_is_not_run_again(project: Path, ran: Ran) -> None:
    with opened(project, None, []) as place:
        run(place)
        ran(project)
    with opened(project, None, ["train.steps=3"]) as place:
        run(place)
        assert ran(place.root) == ["train"]  # its out is equal, so all below is restored
        assert (place.root / "artifacts" / "base").read_text() == "base"


def test_the_same_settings_find_their_worktree_again(project: Path, ran: Ran) -> None:
    with opened(project, "quick", []) as first:
        run(first)
        ran(first.root)
    with opened(project, None, ["train.steps=2"]) as second:  # the same, said otherwise
        assert second.root == first.root
        assert graph.stale(second) == frozenset()
    with opened(project, None, ["train.steps=4"]) as other:
        assert other.root != first.root


def test_what_ran_in_a_worktree_is_known_after_the_checkout_ran_something_else(
    project: Path, ran: Ran
) -> None:
    with opened(project, None, []) as place:
        run(place)
    git(project, "add", "-f", "dvc.lock")
    with opened(project, "quick", []) as first:
        run(first)
    (project / "content").write_text("other")
    with opened(project, None, []) as place:
        run(place)
    with opened(project, "quick", []) as again:
        known = yaml.safe_load((again.root / "dvc.lock").read_text())
        assert known["stages"]["train"]["params"]["params.yaml"]["train"]["steps"] == 2


def test_no_hook_of_the_checkout_runs(project: Path) -> None:
    hook = project / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch '{project}/hooked'\nexit 1\n")
    hook.chmod(0o755)
    with opened(project, "quick", []) as place:
        assert place.root != project
    assert not (project / "hooked").exists()


def test_a_deleted_worktree_is_made_anew(project: Path) -> None:
    with opened(project, "quick", []) as place:
        (place.root / "artifacts").mkdir()
    shutil.rmtree(place.root)
    with opened(project, "quick", []) as place:
        assert (place.root / "dvc.yaml").is_file()


def test_what_a_killed_git_left_blocks_no_run(project: Path) -> None:
    with opened(project, "quick", []) as place:
        (place.root / "artifacts").mkdir()
    entry = project / ".git" / "worktrees" / place.root.name
    (entry / "index.lock").touch()  # killed while it was brought up to date
    with opened(project, "quick", []) as place:
        assert (place.root / "artifacts").exists()
    shutil.rmtree(place.root)
    (entry / "locked").write_text("initializing")  # killed while it was made
    with opened(project, "quick", []) as place:
        assert (place.root / "dvc.yaml").is_file()


def test_a_snapshot_is_head_or_equal_for_an_equal_checkout(project: Path) -> None:
    head = (project / ".git" / "refs" / "heads").glob("*").__next__().read_text().strip()
    assert worktree.snapshot(project) == head
    (project / "notes").write_text("that no stage reads")
    assert worktree.snapshot(project) == head
    (project / "sirl").mkdir()
    (project / "sirl" / "new.py").write_text("new")
    assert worktree.snapshot(project) == worktree.snapshot(project) != head


def git(project: Path, *words: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(
        ["git", *words], cwd=project, input=stdin, capture_output=True, check=True
    ).stdout


def in_git(project: Path) -> bytes:
    """The bytes of every object that git has, loose and dangling ones included."""
    return git(project, "cat-file", "--batch", "--batch-all-objects")


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("tasks/mine.py", True),
        ("tasks/secret_sharing.py", True),
        ("tasks/odd [name]\n*.txt", True),
        ("inputs/tokens.jsonl", True),
        (".env", False),
        ("infra/.env", False),
        ("tasks/.env.local", False),
        ("inputs/prod.env", False),
        ("inputs/.env/key", False),
        ("sirl/Server.PEM", False),
        ("inputs/credentials.json", False),
        (".dvc/config.local", False),
        ("deploy/id_ed25519", False),
        ("notes.md", False),
    ],
)
def test_of_what_git_does_not_know_a_run_takes_what_stages_read(
    project: Path, name: str, taken: bool
) -> None:
    text = (project / "dvc.yaml").read_text().replace("deps: [artifacts/base,", "deps: [inputs,")
    (project / "dvc.yaml").write_text(text)
    file = project / name
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text("canary")
    (project / "content").write_text("changed")
    commit = worktree.snapshot(project)
    known = git(project, "ls-tree", "-r", "-z", "--name-only", commit).decode().split("\0")
    assert (name in known) is taken
    assert (b"canary" in in_git(project)) is taken


def test_a_large_file_is_refused_before_git_has_it(project: Path) -> None:
    large = project / "tasks" / "weights.safetensors"
    with large.open("wb") as stream:
        stream.truncate(worktree.UNTRACKED_BYTES)
    before = in_git(project)
    worktree.snapshot(project)
    assert in_git(project) != before  # as large as it may be
    with large.open("ab") as stream:
        stream.write(b"canary")
    before = in_git(project)
    said = r"^tasks/weights.safetensors \(10.5 MB\) is not in git, .* absolute path, or commit it$"
    with pytest.raises(ConfigError, match=said), opened(project, "quick", []):
        pass
    assert in_git(project) == before
    assert list((project / ".sirl" / "worktrees").glob("*/")) == []


def test_a_link_is_taken_as_a_link(project: Path, tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("canary" * 2_000_000)
    (project / "tasks" / "link").symlink_to(tmp_path / "canary")
    worktree.snapshot(project)
    assert b"canarycanary" not in in_git(project)


def test_a_plan_is_what_the_run_would_do_and_leaves_nothing(project: Path, ran: Ran) -> None:
    with opened(project, None, []) as place:
        run(place)
    (project / "tasks" / "new.py").write_text("canary")
    git(project, "gc", "--quiet")
    before, objects = tracked(project), in_git(project)
    with opened(project, None, ["train.steps=3"], planning=True) as place:
        assert yaml.safe_load((place.root / "params.yaml").read_text())["train"]["steps"] == 3
        assert graph.stale(place) == {"train"}
        assert (place.root / "tasks" / "new.py").stat().st_nlink == 1
    assert not place.root.exists()
    assert [path.name for path in (project / ".sirl").iterdir() if path.is_dir()] == ["logs"]
    assert (tracked(project), in_git(project)) == (before, objects)
    with opened(project, None, ["train.steps=3"]) as place:
        run(place)
    with opened(project, None, ["train.steps=3"], planning=True) as place:
        assert graph.stale(place) == frozenset()  # it knows what the worktree has run


def test_a_run_that_never_began_leaves_no_worktree_and_one_that_failed_goes_on(
    project: Path, ran: Ran, environment: pytest.MonkeyPatch
) -> None:
    folders = project / ".sirl" / "worktrees"
    with pytest.raises(SirlError, match="unknown stage"), opened(project, "quick", []) as place:
        graph.check(place, "nonsense")
    assert list(folders.glob("*/")) == []
    assert git(project, "worktree", "list").count(b"\n") == 1
    environment.setenv("FAILS", "judge")
    with (
        pytest.raises(SirlError, match="the data are wrong"),
        opened(project, "quick", []) as place,
    ):
        run(place)
    assert list(folders.glob("*/")) == [place.root]
    assert ran(place.root) == ["base", "train", "judge/base"]
    environment.delenv("FAILS")
    with opened(project, "quick", []) as place:
        run(place)
        assert ran(place.root) == ["judge/base", "judge/trained", "gate"]


def test_a_worktree_whose_making_was_killed_is_made_anew(project: Path) -> None:
    with opened(project, "quick", []) as place:
        (place.root / "artifacts").mkdir()
    (place.root / ".dvc" / "config.local").unlink()
    (place.root / "half").touch()
    with opened(project, "quick", []) as place:
        assert "cache" in (place.root / ".dvc" / "config.local").read_text()
        assert not (place.root / "half").exists()


def test_dvc_settings_of_the_checkout_hold_in_the_worktree(project: Path) -> None:
    local = "[cache]\n    dir = ../elsewhere\n['remote \"r\"']\n    url = s3://b/%40\n"
    local += "    password = 'x # y'\n"
    (project / ".dvc" / "config.local").write_text(local)
    with opened(project, "quick", []) as place:
        asked = [sys.executable, "-m", "dvc", "config"]
        got = [
            subprocess.run([*asked, key], cwd=place.root, capture_output=True, text=True).stdout
            for key in ("cache.dir", "remote.r.url", "remote.r.password")
        ]
    assert got == [f"{project}/elsewhere\n", "s3://b/%40\n", "x # y\n"]


def test_the_same_settings_run_once_at_a_time(project: Path) -> None:
    with (
        opened(project, "quick", []),
        pytest.raises(SirlError, match="another run of these settings is going on"),
        opened(project, "quick", []),
    ):
        pass


def test_tracking_is_shared_unless_set(project: Path, environment: pytest.MonkeyPatch) -> None:
    with opened(project, "quick", []) as place:
        shared = f"sqlite:///{project}/.sirl/mlflow.db"
        assert place.environment["MLFLOW_TRACKING_URI"] == shared
    environment.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    with opened(project, "quick", []) as place:
        assert place.environment["MLFLOW_TRACKING_URI"] == "http://tracking:5000"


def test_without_git_it_says_so(project: Path) -> None:
    (project / ".git").rename(project / "gone")
    with pytest.raises(ConfigError, match="not a git repository"), opened(project, "quick", []):
        pass


def test_a_gpu_preset_is_refused_before_anything_is_made(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    settings = ["runtime.device=cuda"]
    with pytest.raises(SirlError, match="has no GPU"), opened(project, None, settings):
        pass
    assert not (project / ".sirl" / "worktrees").exists()
    with opened(project, None, settings, planning=True) as place:
        assert place.params.runtime.device == "cuda"


def test_a_benchmark_that_cannot_be_isolated_is_refused_before_anything_is_made(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "COMMAND", ("sh", "-c", 'echo \'{"refused": "unshare: no"}\''))
    settings = ["capability.benchmarks=[{name: reasoning_gym, task: chain_sum}]"]
    with pytest.raises(SirlError, match="unshare: no"), opened(project, None, settings):
        pass
    assert not (project / ".sirl" / "worktrees").exists()
    with opened(project, None, settings, planning=True):
        pass
