"""A run with other settings: where it works, what it takes along, and that the checkout is left."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from flows import graph, pipeline, worktree
from flows.workplace import Workplace, opened
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
    (project / "new").write_text("new")
    (project / "presets" / "quick.yaml").unlink()
    with opened(project, None, ["seed=5"]) as place:
        assert (place.root / "content").read_text() == "uncommitted"
        assert (place.root / "new").read_text() == "new"
        assert not (place.root / "presets" / "quick.yaml").exists()
    (project / "new").unlink()
    with opened(project, None, ["seed=5"]) as place:
        assert not (place.root / "new").exists()


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


def test_a_deleted_worktree_is_made_anew(project: Path) -> None:
    with opened(project, "quick", []) as place:
        pass
    for path in sorted(place.root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    place.root.rmdir()
    with opened(project, "quick", []) as place:
        assert (place.root / "dvc.yaml").is_file()


def test_what_a_killed_git_left_blocks_no_run(project: Path) -> None:
    with opened(project, "quick", []) as place:
        (place.root / "made.by.a.stage").touch()
    entry = project / ".git" / "worktrees" / place.root.name
    (entry / "index.lock").touch()  # killed while it was brought up to date
    with opened(project, "quick", []) as place:
        assert (place.root / "made.by.a.stage").exists()
    shutil.rmtree(place.root)
    (entry / "locked").write_text("initializing")  # killed while it was made
    with opened(project, "quick", []) as place:
        assert (place.root / "dvc.yaml").is_file()


def test_a_snapshot_is_head_or_equal_for_an_equal_checkout(project: Path) -> None:
    head = (project / ".git" / "refs" / "heads").glob("*").__next__().read_text().strip()
    assert worktree.snapshot(project) == head
    (project / "new").write_text("new")
    assert worktree.snapshot(project) == worktree.snapshot(project) != head


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


def test_a_gpu_preset_is_refused_before_anything_is_made(project: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    settings = ["runtime.device=cuda"]
    with pytest.raises(SirlError, match="has no GPU"), opened(project, None, settings):
        pass
    assert not (project / ".sirl" / "worktrees").exists()
    with opened(project, None, settings, planning=True) as place:
        assert place.params.runtime.device == "cuda"
