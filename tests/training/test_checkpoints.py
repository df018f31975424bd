from __future__ import annotations

from pathlib import Path

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
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
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
