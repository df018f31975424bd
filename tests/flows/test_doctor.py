"""What the doctor finds, on this machine and on sick ones."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows import doctor
from sirl import config
from sirl.capability import sandbox

REPO = Path(__file__).parents[2]


@pytest.fixture
def locks(project: Path) -> Path:
    """The project with a lock of packages that are here, and one data package that is not."""
    folder = project / "requirements"
    folder.mkdir()
    (folder / "worker.txt").write_text(
        "--no-deps\npydantic>=2  # types\nno-such==1; extra == 'x'\n"
    )
    (folder / "data.txt").write_text("no-such-data==1.0\n")
    return project


@pytest.fixture
def healthy() -> Iterator[str]:
    """The address of a server that answers /health with 200."""

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith("/health") else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_missing_packages_are_named_with_the_mend(locks: Path) -> None:
    here, gone = doctor.packages(locks)
    assert (here.found, here.mend) == ("1 as locked", "")
    assert gone.found == "1 amiss: no-such-data is missing"
    assert gone.mend == "pip install --no-deps -r requirements/data.txt"


def test_another_version_is_amiss(locks: Path) -> None:
    (locks / "requirements" / "worker.txt").write_text("pydantic==1.0\n")
    found = next(doctor.packages(locks)).found
    assert found.startswith("1 amiss: pydantic is 2")
    assert found.endswith("not ==1.0")


def test_the_repositorys_own_locks_can_be_read() -> None:
    assert [finding.name for finding in doctor.packages(REPO)] == ["packages", "data packages"]


def test_servers(healthy: str) -> None:
    assert doctor.tracking(healthy).mend == ""
    gone = doctor.tracking("http://127.0.0.1:9")
    assert "unset MLFLOW_TRACKING_URI" in gone.mend
    assert gone.needed
    assert doctor.tracking("sqlite:////a.db").mend == ""


def test_prefect_is_looked_for_where_prefect_toml_says(project: Path, healthy: str) -> None:
    assert doctor.prefect(project, {}).mend == ""  # none is asked for
    (project / "prefect.toml").write_text(f'[api]\nurl = "{healthy}/api"\n')
    assert doctor.prefect(project, {}).mend == ""
    away = doctor.prefect(project, {"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert (away.mend, away.needed) == ("make serve", False)


def test_a_store_is_needed_only_to_publish(project: Path, healthy: str) -> None:
    private = config.load(project / "params.yaml")
    public = config.load(project / "params.yaml", ["promote.publish=s3://bucket/models"])
    away = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    assert list(doctor.store({}, public)) == []
    assert next(doctor.store({"AWS_ENDPOINT_URL": healthy}, public)).mend == ""
    for params, needed in ((private, False), (public, True)):
        finding = next(doctor.store(away, params))
        assert (bool(finding.mend), finding.needed) == (True, needed)


def test_a_model_too_large_for_memory_is_noted(project: Path) -> None:
    large = ["train.micro_batch=100000", "train.max_new_tokens=3000"]
    params = config.load(project / "params.yaml", large)
    findings = {finding.name: finding for finding in doctor.machine(project, params)}
    assert "Lower train.micro_batch" in findings["memory"].mend
    assert not findings["memory"].needed


def test_a_sandbox_is_needed_where_answers_are_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config.load(project / "params.yaml")
    task = "{name: reasoning_gym, task: chain_sum}"
    written = config.load(project / "params.yaml", [f"capability.benchmarks=[{task}]"])
    refuse = ("sh", "-c", 'echo \'{"refused": "unshare: no"}\'')
    monkeypatch.setattr(sandbox, "COMMAND", refuse)
    for params, needed in ((chosen, False), (written, True)):
        finding = doctor.isolation(params)
        assert "unshare: no" in finding.found
        assert "sysctl" in finding.mend
        assert finding.needed is needed
    nothing = {"how": "completed", "status": 0, "stdout": "", "stderr": "", "truncated": False}
    monkeypatch.setattr(sandbox, "COMMAND", ("echo", json.dumps(nothing)))
    assert doctor.isolation(written).mend == ""
    assert "reasoning_gym:chain_sum" in doctor.isolation(written).found


def test_git_and_dvc(project: Path, environment: pytest.MonkeyPatch) -> None:
    import os

    assert doctor.git(project).found.startswith("at ")
    assert [finding.mend for finding in doctor.dvc(project, os.environ)] == [""]
    shutil.rmtree(project / ".git")
    assert doctor.git(project).mend.startswith("git init")
    shutil.rmtree(project / ".dvc")
    assert [finding.mend for finding in doctor.dvc(project, os.environ)] == ["dvc init"]


def test_the_command_exits_2_where_a_run_cannot_work(
    locks: Path, sirl: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    ill = sirl("doctor")
    assert ill.returncode == 2
    assert "LACKS data packages" in ill.stdout
    (locks / "requirements" / "data.txt").write_text("")
    well = sirl("doctor")
    assert well.returncode == 0, well.stdout
    assert "LACKS" not in well.stdout
