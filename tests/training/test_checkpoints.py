from __future__ import annotations

from pathlib import Path

import pytest

from sirl.training import checkpoints


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_bytes(bytes([step]) * 100)
    checkpoints.seal(path)
    return path


def test_the_newest_whole_one_is_used(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        checkpoint(tmp_path, step)
    newest = checkpoints.newest(tmp_path)
    assert newest is not None and checkpoints.step_of(newest) == 10


def test_torn_and_tampered_ones_are_refused(tmp_path: Path) -> None:
    good = checkpoint(tmp_path, 1)
    tampered, torn, truncated = (checkpoint(tmp_path, step) for step in (2, 3, 4))
    (tampered / "model.safetensors").write_bytes(b"other")
    (torn / checkpoints.MANIFEST).unlink()
    (truncated / "model.safetensors").unlink()
    assert checkpoints.newest(tmp_path) == good
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_none(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path) is None
    assert checkpoints.step_of(None) == 0


def test_export_takes_weights_from_the_checkpoint_and_the_rest_from_base(
    tmp_path: Path,
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    weights = ("model.safetensors", "model-00001-of-00002.safetensors")
    for name in ("config.json", "tokenizer.json", *weights):
        (base / name).write_text("base")
    for name in ("consolidated.safetensors", "pytorch_model.bin", "notes"):
        (base / name).write_text("not of a model")
    (base / "original").mkdir()
    (base / "original" / "params.json").write_text("{}")
    source = checkpoint(tmp_path, 7)
    (source / "optimizer.pt").write_text("adam")
    (source / "config.json").write_text("trainer's")
    checkpoints.export(source, base, tmp_path / "out")
    assert {p.name: p.read_bytes()[:4] for p in (tmp_path / "out").iterdir()} == {
        "config.json": b"base",
        "tokenizer.json": b"base",
        "model.safetensors": bytes([7]) * 4,
    }


def test_what_lies_in_sub_folders_is_sealed_too(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-5"
    (path / "reference").mkdir(parents=True)
    (path / "reference" / "adapter.safetensors").write_bytes(b"one")
    (path / "model.safetensors").write_bytes(b"as it was")
    checkpoints.seal(path)
    sealed = (path / checkpoints.MANIFEST).read_bytes()
    checkpoints.seal(path)
    assert (path / checkpoints.MANIFEST).read_bytes() == sealed  # it does not seal itself
    assert checkpoints.is_whole(path) is True
    (path / "reference" / "adapter.safetensors").write_bytes(b"two")
    assert checkpoints.is_whole(path) is False
    (path / checkpoints.MANIFEST).unlink()
    assert checkpoints.is_whole(path) is False


def test_the_seal_reads_alike_whatever_order_files_are_listed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint(tmp_path, 3)
    for name in "cab":
        (path / name).write_text(name)
    checkpoints.seal(path)
    sealed = (path / checkpoints.MANIFEST).read_bytes()
    listed = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda *words: reversed(sorted(listed(*words))))
    checkpoints.seal(path)
    assert (path / checkpoints.MANIFEST).read_bytes() == sealed


def test_the_newest_is_by_number_and_only_torn_ones_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (8, 9, 10, 11):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-11" / checkpoints.MANIFEST).write_text("{")
    newest = checkpoints.newest(tmp_path)
    assert newest == tmp_path / "checkpoint-10"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-10",
        "checkpoint-8",
        "checkpoint-9",
    ]
    assert "checkpoint-11 is torn or was changed" in caplog.text
