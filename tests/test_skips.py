"""What `make test` says of a test that was skipped, in CI and elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("reason", "ci", "code"),
    [
        ("no PostgreSQL here", "true", 1),
        ("no PostgreSQL here", "", 0),
        ("make test-vllm", "true", 0),
    ],
)
def test_a_skip_fails_in_ci_alone_and_never_for_vllm(
    reason: str, ci: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text(
        f"import pytest\ndef test_one(): pytest.skip({reason!r})\ndef test_two(): pass\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "tests.conftest", str(tmp_path)]
    environment = os.environ | {"CI": ci, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout
    assert f"SKIPPED [1] test_it.py:2: {reason}" in done.stdout
    assert (f"must not be: Skipped: {reason}" in done.stdout) is bool(code)
