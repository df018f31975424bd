"""What a killed dvc leaves, and that it is mended where no dvc of the project is at work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from flows import doctor, dvc, pipeline, project
from flows.workplace import Workplace, opened
from sirl import records

Ran = Callable[[Path], list[str]]


@pytest.fixture
def place(project: Path, environment: pytest.MonkeyPatch) -> Workplace:
    with opened(project, None, []) as here:
        return here


@pytest.fixture
def stranger(project: Path) -> Iterator[int]:
    """A program that is no dvc, in the project: what has a killed dvc's number by now."""
    process = subprocess.Popen(["sleep", "60"], cwd=project)
    yield process.pid
    process.kill()
    process.wait()


def note(place: Workplace, pid: int) -> str:
    user = {"pid": pid, "cmd": "dvc repro"}
    return json.dumps({"write": {str(place.root / "artifacts" / "base"): user}, "read": {}})


@pytest.mark.parametrize(
    "text", ["", "{", '{"write": {"/x"', "[]", '{"write": {"x": 3}}', "reused"]
)
def test_a_note_of_who_uses_what_that_blocks_is_removed(
    place: Workplace, stranger: int, text: str
) -> None:
    busy = place.root / dvc.BUSY
    busy.parent.mkdir(exist_ok=True)
    busy.write_text(note(place, stranger) if text == "reused" else text)
    pipeline.repro(place, "base", lambda _: None)
    assert json.loads(busy.read_text()) == {}


def test_it_stays_while_a_dvc_of_the_project_is_at_work(place: Workplace, tmp_path: Path) -> None:
    busy = place.root / dvc.BUSY
    busy.parent.mkdir(exist_ok=True)
    busy.write_text("")
    (tmp_path / "dvc").write_text("#!/bin/sh\nread line\n")
    (tmp_path / "dvc").chmod(0o755)

    def at_work(folder: Path) -> list[Path]:
        folder.mkdir(exist_ok=True, parents=True)
        process = subprocess.Popen([str(tmp_path / "dvc")], cwd=folder, stdin=subprocess.PIPE)
        try:
            return dvc.broken(place.root)
        finally:
            process.communicate()

    assert at_work(place.root / "artifacts") == []
    assert at_work(tmp_path) == [busy]
    (place.root / ".sirl" / "worktrees" / "x" / ".dvc").mkdir(parents=True)
    assert at_work(place.root / ".sirl" / "worktrees" / "x") == [busy]  # a project of its own


def test_a_note_that_does_not_block_stays(place: Workplace) -> None:
    busy = place.root / dvc.BUSY
    busy.parent.mkdir(exist_ok=True)
    ended = subprocess.Popen(["true"])
    ended.wait()
    for text in ('{"read": {}, "write": {}}', "{}", note(place, ended.pid)):
        busy.write_text(text)
        assert dvc.broken(place.root) == []
    busy.unlink()
    assert dvc.broken(place.root) == []


def test_a_lock_file_cut_anywhere_loses_no_stage(place: Workplace, ran: Ran) -> None:
    pipeline.repro(place, None, lambda _: None)
    lock = place.root / "dvc.lock"
    whole = lock.read_bytes()
    assert dvc.broken(place.root) == []
    for cut in range(0, len(whole), 11):
        lock.write_bytes(whole[:cut])
        if dvc.broken(place.root) == []:  # then DVC must be able to read it
            stages = yaml.safe_load(whole[:cut])["stages"]
            assert whole[:cut].endswith(b"\n")
            assert all(isinstance(stage["cmd"], str) for stage in stages.values())
    lock.write_bytes(whole[: len(whole) * 2 // 3])
    ran(place.root)
    pipeline.repro(place, None, lambda _: None)
    assert ran(place.root) == []  # restored, not computed
    assert yaml.safe_load(lock.read_text()) == yaml.safe_load(whole)


def test_temporary_files_in_folders_that_are_hashed_are_swept(place: Workplace) -> None:
    pipeline.repro(place, None, lambda _: None)
    judged = place.root / "artifacts" / "judge" / "base"
    (judged / ".KJ4L2k.tmp").write_text("half")
    pipeline.repro(place, None, lambda _: None)
    assert [file.name for file in judged.iterdir()] == ["summary.json"]


def test_doctor_tells_of_it(place: Workplace, environment: pytest.MonkeyPatch) -> None:
    busy = place.root / dvc.BUSY
    busy.parent.mkdir(exist_ok=True)
    busy.write_text("")
    found = list(doctor.dvc(place.root, project.environment(place.root)))
    assert [f.found for f in found if f.mend] == ["a killed dvc left .dvc/tmp/rwlock broken"]
    dvc.mend(place.root)
    assert not any(f.mend for f in doctor.dvc(place.root, project.environment(place.root)))


def test_another_dvc_with_the_lock_costs_no_stage(
    place: Workplace, environment: pytest.MonkeyPatch, ran: Ran
) -> None:
    code = "import sys, time, zc.lockfile as z; l = z.LockFile('.dvc/tmp/lock'); print(flush=True)"
    holders = []

    def hold(event: pipeline.Event) -> None:
        if event.kind == "output" and event.stage == "train":
            command = [sys.executable, "-c", f"{code}; time.sleep(5)"]
            holders.append(
                subprocess.Popen(command, cwd=place.root, stdout=subprocess.PIPE, text=True)
            )

    environment.setitem(place.environment, "SLOW", "train")  # type: ignore[arg-type]
    pipeline.repro(place, "train", hold)
    assert holders[0].communicate()[0] == "\n"  # it had the lock
    assert ran(place.root) == ["base", "train"]
    assert "train" in yaml.safe_load((place.root / "dvc.lock").read_text())["stages"]


def test_resume_state_stays_until_dvc_has_the_out(place: Workplace) -> None:
    seen: list[tuple[str, bool]] = []
    state = place.layout.state("train", "k")
    other = place.layout.state("train", "unfinished")
    for folder, name in ((state, "finished"), (other, "checkpoint-1")):
        folder.mkdir(parents=True)
        (folder / name).touch()

    def look(event: pipeline.Event) -> None:
        seen.append((event.kind, state.exists()))
        if event.stage == "train" and event.kind == "running":
            assert state.exists()

    pipeline.repro(place, "train", look)
    assert seen[-1] == ("done", False)
    assert other.exists()
    records.write_json(state / "finished", {})
    pipeline.repro(place, "train", look)
    assert seen[-1] == ("unchanged", False)
