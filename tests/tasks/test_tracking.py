"""Runs in a real MLflow: SQLite, a server that hangs and dies, PostgreSQL, artifacts on S3."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from sirl.config import Params
from sirl.errors import ServiceError
from sirl.layout import Layout
from sirl.records import digest_file
from tasks import stage, storage, tracking
from tasks.tracking import stage_run

Serving = Callable[..., AbstractContextManager["subprocess.Popen[bytes]"]]


@pytest.fixture
def params(set_params: Callable[..., Params]) -> Params:
    return set_params()


def runs(layout: Layout) -> dict[str, Any]:
    """Every run by its name."""
    client = tracking.connect(layout)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    return {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}


def artifacts(layout: Layout, run: Any) -> list[str]:
    return [f.path for f in tracking.connect(layout).list_artifacts(run.info.run_id)]


def test_stages_are_nested_under_one_pipeline_run(
    project: Layout, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIRL_PIPELINE_RUN", "k" * 12)
    monkeypatch.setenv("SIRL_FLOW_RUN", "flow-1")
    for command in ("init -q", "add params.yaml", "commit -q -m one"):
        signed = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
        subprocess.run(["git", *signed, *command.split()], cwd=project.root, check=True)
    (project.root / "dvc.lock").write_text("schema: '2.0'\n")
    (project.root / "out.json").write_text("[]")

    with stage_run("train", params, project) as run:
        for step in (1, 2, 3):
            run.metrics({"entropy": 1.0 / step, "kl": float("nan")}, step=step)
        run.artifact(project.root / "out.json")
        run.tags({"model.digest": "d"})
        assert runs(project)[parent_name(params)].info.status == "RUNNING"
    with stage_run("attack@base", params, project):
        pass

    found = runs(project)
    assert sorted(found) == sorted(["train", "attack@base", parent_name(params)])
    parent, train, attack = found[parent_name(params)], found["train"], found["attack@base"]
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert parent.info.end_time >= attack.info.end_time
    for child in (train, attack):
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=project.root, capture_output=True, text=True
    ).stdout.strip()
    expected = {
        "git.commit": head,
        "git.dirty": "false",
        "dvc.lock": digest_file(project.root / "dvc.lock"),
        "prefect.flow_run": "flow-1",
        "model.digest": "d",
    }
    assert expected.items() <= train.data.tags.items()
    assert train.data.params["train.learning_rate"] == str(params.train.learning_rate)
    assert train.data.params["seed"] == str(params.seed)
    assert all(k == "seed" or k.startswith("attack.") for k in attack.data.params)
    assert parent.data.params["base.model.name"] == params.base.model.name

    history = tracking.connect(project).get_metric_history(train.info.run_id, "entropy")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert "kl" not in train.data.metrics
    assert artifacts(project, train) == ["out.json"]
    assert (project.local / "mlartifacts" / train.info.run_id / "artifacts/out.json").is_file()


def test_any_name_and_value_of_a_setting_is_recorded(
    project: Layout, set_params: Callable[..., Params]
) -> None:
    only = {
        "label: s\u00e4fe?": "yes",
        "a.b": "1",
        "a": "2",
        "x" * 300: "3",
        "x" * 301: "4",
        "../up": "5",
        "": "6",
        "nul": "a\0b",
        "long": "y" * 9000,
    }
    source = {"name": "file", "kind": "benign", "path": "a.csv", "only": only}
    prepare = set_params().prepare.model_dump(mode="json")
    params = set_params(prepare={**prepare, "probe": {"sources": [source], "limit": 3}})
    with stage_run("prepare", params, project) as run:
        run.metrics({"score/t\u00e4sk: ../x?": 0.5, "plain": 1.0})
    found = runs(project)["prepare"].data
    said = {k: v for k, v in found.params.items() if k.startswith("prepare.probe.sources.0.only")}
    assert len(said) == len(only)
    assert set(said.values()) == {"yes", "1", "2", "3", "4", "5", "6", "ab", "y" * 500}
    assert said["prepare.probe.sources.0.only.a"] == "2"
    assert found.metrics["plain"] == 1.0 and sorted(found.metrics.values())[0] == 0.5


def parent_name(params: Params) -> str:
    key = os.environ["SIRL_PIPELINE_RUN"]
    return f"{params.name} {key[:8]}"


def test_without_a_key_equal_params_share_a_parent_and_others_do_not(
    project: Layout, params: Params, set_params: Callable[..., Params]
) -> None:
    def parent(params: Params) -> str:
        with stage_run("gate", params, project) as run:
            client = tracking.connect(project)
            return str(client.get_run(run.run_id).data.tags["mlflow.parentRunId"])

    first = parent(params)
    assert parent(params) == first
    assert parent(set_params(seed=99)) != first


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_stage_that_fails_or_is_interrupted(
    project: Layout, params: Params, error: type[BaseException], status: str
) -> None:
    with pytest.raises(error), stage_run("gate", params, project):
        raise error
    assert {run.info.status for run in runs(project).values()} == {status}


def test_the_database_of_a_uri_holds_its_artifacts_beside_it(
    project: Layout, params: Params, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A worktree records to its checkout's database: what it logs outlives it."""
    shared = tmp_path / "checkout" / ".sirl"
    shared.mkdir(parents=True)
    shutil.move(project.local / "mlflow.db", shared / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}/mlflow.db")
    with stage_run("gate", params, project) as run:
        run.artifact(project.params)
    assert list((shared / "mlartifacts").rglob("params.yaml"))
    assert not (project.local / "mlartifacts").exists()


@pytest.mark.parametrize(
    "address",
    ["http://user:secret@127.0.0.1:{port}", "postgresql://user:secret@127.0.0.1:{port}/db"],
)
def test_nobody_listens(
    project: Layout,
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
    free_port: Callable[[], int],
    address: str,
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.format(port=port))
    with pytest.raises(ServiceError) as caught, stage_run("gate", params, project):
        raise AssertionError("the stage began")
    line = str(caught.value)
    assert f"127.0.0.1:{port}" in line
    assert "refused" in line
    assert "unset MLFLOW_TRACKING_URI" in line
    assert "secret" not in line
    assert "\n" not in line


@pytest.mark.parametrize("address", ["htp://x", "http://x:port", "sqlite:////proc/none/mlflow.db"])
def test_an_address_that_is_none(
    project: Layout, params: Params, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with (
        pytest.raises(ServiceError, match=r"MLflow at .* failed: ") as caught,
        stage_run("gate", params, project),
    ):
        raise AssertionError("the stage began")
    assert "\n" not in str(caught.value)


def test_an_artifact_that_cannot_be_kept_is_counted_and_the_stage_goes_on(
    project: Layout, params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    with stage_run("gate", params, project) as run:
        run.artifact(project.root / "nowhere.json")
        run.metrics({"a": 1.0})  # within the pause
    assert "lacks 2 records of this stage; artifacts/ is complete" in caplog.text
    assert runs(project)["gate"].info.status == "FINISHED"


@pytest.fixture
def server(
    project: Layout, serving: Serving, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[subprocess.Popen[bytes]]:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{project.local}/mlflow.db"]
    command += ["--artifacts-destination", str(project.local / "served")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with serving(command, port, env=environment, cwd=project.root) as process:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        yield process


@pytest.mark.services
def test_a_server_that_hangs_then_dies_loses_nothing_that_was_computed(
    project: Layout,
    params: Params,
    server: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "argv", ["gate"])
    monkeypatch.setattr(tracking, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(tracking, "PAUSE_SECONDS", 0)

    def hangs(running: stage.Stage) -> None:
        running.tracker.metrics({"a": 1.0}, step=1)
        os.killpg(server.pid, signal.SIGSTOP)
        running.tracker.metrics({"a": 2.0}, step=2)
        os.killpg(server.pid, signal.SIGCONT)
        running.tracker.metrics({"a": 3.0}, step=3)
        running.tracker.artifact(project.params)

    with caplog.at_level(logging.WARNING):
        assert stage.main("gate", hangs) == 0
    assert "not recorded: MLflow at http" in caplog.text
    assert "lacks 1 records" in caplog.text
    run = runs(project)["gate"]
    history = tracking.connect(project).get_metric_history(run.info.run_id, "a")
    assert [m.step for m in history] == [1, 3]
    assert artifacts(project, run) == ["params.yaml"]
    assert run.info.status == "FINISHED"

    def dies(running: stage.Stage) -> None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        running.tracker.metrics({"a": 2.0})
        (project.root / "out.txt").write_text("computed")

    project.cost("gate").unlink()
    assert stage.main("gate", dies) == 0
    assert (project.root / "out.txt").read_text() == "computed"
    assert project.cost("gate").is_file()
    assert stage.main("gate", dies) == 2  # the next one does not start


@pytest.mark.services
def test_artifacts_on_s3(
    project: Layout, params: Params, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.bootstrap("s3://mlflow")
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://mlflow/artifacts")
    (project.root / "big.bin").write_bytes(b"x" * (9 << 20))  # in parts
    with stage_run("gate", params, project) as run:
        run.artifact(project.root / "big.bin")
    client = tracking.connect(project)
    assert client.get_run(run.run_id).info.artifact_uri.startswith("s3://mlflow/artifacts/")
    (project.root / "back").mkdir()
    back = client.download_artifacts(run.run_id, "big.bin", str(project.root / "back"))
    assert digest_file(Path(back)) == digest_file(project.root / "big.bin")


@pytest.mark.services
def test_a_dvc_remote_on_s3(
    tmp_path: Path, rclone: str, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/deployment.md has it: push, lose everything, pull."""
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", rclone)
    storage.bootstrap("s3://pushed")
    out = tmp_path / "model.bin"
    out.write_bytes(os.urandom(9 << 20))
    digest = digest_file(out)

    def dvc(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", "-q", *words], cwd=tmp_path, check=True)

    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text(
        "[core]\n    remote = store\n    no_scm = true\n"
        f"['remote \"store\"']\n    url = s3://pushed/dvc\n    endpointurl = {rclone}\n"
    )
    dvc("add", "model.bin")
    dvc("push")
    out.unlink()
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    dvc("pull")
    assert digest_file(out) == digest


@pytest.mark.services
def test_postgresql(
    project: Layout, params: Params, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres)
    with stage_run("gate", params, project) as run:
        run.metrics({"a": 1.0, "b": float("inf")}, step=7)
        run.artifact(project.params)
    found = runs(project)["gate"]
    assert found.info.status == "FINISHED"
    assert found.data.metrics == {"a": 1.0}
    assert artifacts(project, found) == ["params.yaml"]
    assert (project.local / "mlartifacts").is_dir()
