"""Stage attack where it is hard: killed outright, run twice at once, with very many items."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sirl import records
from sirl.errors import DataError
from sirl.generation import Generator, Request, Sampling, TransformersBackend
from sirl.layout import Layout
from sirl.records import Completion, Prompt, Transcript
from tasks import attack
from tasks.stage import Stage
from tests.tasks.test_evaluation_tasks import ROOT, Tracker, stage

NAMES = [
    "past_tense",
    "future_tense",
    "prefill",
    "rot13",
    "base64",
    "leetspeak",
    "skeleton_key",
    "aim",
]
CHANGES: dict[str, Any] = {
    "attacks": [{"name": name} for name in NAMES],
    "attacked": 5,
    "sampling": {"max_new_tokens": 24},
}
PROCESS = """
import sys
from pathlib import Path
from tasks import attack
from tests.tasks.test_attack_scale import CHANGES
from tests.tasks.test_evaluation_tasks import stage
attack.run(stage(Path(sys.argv[1]), Path(sys.argv[2]), **CHANGES))
"""


def start(root: Path, model: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", PROCESS, str(root), str(model)], env=environment)


def shards(root: Path) -> dict[str, int]:
    """Finished shards and the inode of each: a file that is written again has another."""
    return {file.name: file.stat().st_ino for file in root.glob(".sirl/state/*/*.jsonl")}


def test_a_run_killed_outright_loses_nothing_and_does_nothing_twice(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    killed = tmp_path / "killed"
    process = start(killed, tiny_model)
    try:
        deadline = time.monotonic() + 120
        while len(shards(killed)) < 3:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = shards(killed)
    assert 3 <= len(before) < 2 + len(NAMES)
    here, whole = (stage(root, tiny_model, **CHANGES) for root in (killed, tmp_path / "whole"))
    seen: dict[str, int] = {}
    write = attack._write
    monkeypatch.setattr(
        attack, "_write", lambda *given: (seen.update(shards(killed)), write(*given))[1]
    )
    with caplog.at_level(logging.INFO):
        attack.run(here)
    assert {name: seen[name] for name in before} == before
    assert len(seen) == 2 + len(NAMES)
    (there,) = re.findall(r"(\d+) of 38 transcripts are there already", caplog.text)
    assert int(there) >= 4 + 2 + 4
    attack.run(whole)
    one, other = (s.layout.transcripts("base").read_bytes() for s in (here, whole))
    assert one == other


def test_a_second_run_on_the_same_store_says_so(tmp_path: Path, tiny_model: Path) -> None:
    class Twice(TransformersBackend):
        def open(self, model: Path, device: str) -> Generator:
            with pytest.raises(DataError, match=r"another run is at work in .*Wait for it to end"):
                attack.run(stage(tmp_path, tiny_model))
            return super().open(model, device)

    here = stage(tmp_path, tiny_model)
    twice = here.params.model_copy(update={"backend": Twice(**dict(here.params.backend))})
    attack.run(Stage("attack@base", twice, here.layout, Tracker(), "base"))
    assert here.layout.transcripts("base").exists()


class Instant(TransformersBackend):
    """Says a kilobyte to everything at once."""

    def open(self, model: Path, device: str) -> Generator:
        class Talker:
            def generate(
                self, requests: Iterable[Request], sampling: Sampling, *, seed: int = 0
            ) -> Iterator[Completion]:
                for request in requests:
                    text = f"{request.id} " + "word " * 200
                    yield Completion(request.id, text, (1, 2), (0.5, 1.0), "stop", 3)

        return Talker()  # type: ignore[return-value]


def peak_bytes(root: Path, model: Path, attacks: int) -> int:
    """Of Python's memory while 400 behaviours meet so many attacks."""
    changes = {"attacks": CHANGES["attacks"][:attacks], "behaviours": 400, "attacked": 400}
    here = stage(root, model, **changes)
    rows = [Prompt(f"t/{n}", f"Pick lock {n}.", "t", "harmful") for n in range(400)]
    records.write(here.layout.prompts("behaviours"), rows)
    instant = here.params.model_copy(update={"backend": Instant()})
    tracemalloc.start()
    try:
        attack.run(Stage("attack@base", instant, here.layout, Tracker(), "base"))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_flat_in_the_number_of_items(tmp_path: Path, tiny_model: Path) -> None:
    peak_bytes(tmp_path / "warm", tiny_model, 1)  # what is imported once
    few, many = (peak_bytes(tmp_path / str(n), tiny_model, n) for n in (1, 8))
    path = Layout(tmp_path / "8").transcripts("base")
    assert sum(1 for _ in records.read(path, Transcript)) == 9 * 400 + 2
    # Of 2,800 items more a shard is held at a time: the longest is 64 rows of some kilobytes.
    assert many - few < path.stat().st_size / 10
