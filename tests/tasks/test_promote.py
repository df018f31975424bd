"""The registry, on a real database: register, promote, publish, roll back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sirl import records
from sirl.config import Params
from sirl.errors import DataError, ServiceError, SirlError
from sirl.layout import Layout
from tasks import promote, storage, tracking
from tasks.stage import Stage

ROOT = Path(__file__).parents[2]
NAME = "sirl-smollm2-135m-instruct"


@pytest.fixture
def params(set_params: Callable[..., Params]) -> Params:
    return set_params()


def train(layout: Layout, weights: str, *, passed: bool = True) -> str:
    """Stands for the pipeline up to the report: a checkpoint and the gate's word on it."""
    folder = layout.model("trained")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text(weights)
    (folder / "config.json").write_text("{}")
    check = {"passed": passed, "explanation": "Benign refusals rose by 20 points."}
    records.write_json(layout.decision, {"passed": passed, "checks": [check]})
    records.write_bytes(layout.report, [b"<html>"])
    return records.digest_folder(folder)


def register(layout: Layout, params: Params) -> str:
    with tracking.stage_run("promote", params, layout) as run:
        return promote.register(Stage("promote", params, layout, run))


def line(*, candidate: str, champion: str = "none", previous: str = "none") -> str:
    return f"{NAME}: candidate {candidate}, champion {champion}, previous {previous}"


def test_a_version_holds_its_checkpoint_and_the_evidence(project: Layout, params: Params) -> None:
    digest = train(project, "one")
    version = register(project, params)
    client = tracking.connect(project)
    known = client.get_model_version(NAME, version)
    expected = {
        "digest": digest,
        "gate.passed": "true",
        "gate.decision": records.digest_file(project.decision),
        "git.commit": "none",
    }
    assert expected.items() <= known.tags.items()
    assert known.source == f"runs:/{known.run_id}/checkpoint"
    (project.root / "back").mkdir()
    back = client.download_artifacts(known.run_id, "checkpoint", str(project.root / "back"))
    assert records.digest_folder(Path(back)) == digest
    logged = {f.path for f in client.list_artifacts(known.run_id)}
    assert logged == {"checkpoint", "decision.json", "index.html"}
    assert promote.status(params, project) == line(candidate="1")


def test_only_a_model_is_registered(project: Layout, params: Params) -> None:
    train(project, "one")
    (project.model("trained") / "pytorch_model.bin").write_text("of the base model")
    with pytest.raises(SirlError, match=r"no part of a model: 'pytorch_model\.bin'"):
        register(project, params)


def test_one_checkpoint_is_one_version(project: Layout, params: Params) -> None:
    train(project, "one")
    assert register(project, params) == "1"
    train(project, "two", passed=False)
    assert register(project, params) == "2"
    train(project, "one", passed=False)  # the same checkpoint under a stricter gate
    assert register(project, params) == "1"
    assert promote.status(params, project) == line(candidate="1")
    with pytest.raises(SirlError, match=f"version 1 of {NAME} did not pass its gate"):
        promote.promote(params, project)


def test_promotion_moves_champion_and_keeps_previous(project: Layout, params: Params) -> None:
    for weights in ("one", "two"):
        train(project, weights)
        register(project, params)
        last = promote.promote(params, project)
        assert promote.promote(params, project) == last  # twice is once
    assert last == line(candidate="2", champion="2", previous="1")

    back = line(candidate="2", champion="1", previous="2")
    assert promote.rollback(params, project) == back
    assert promote.rollback(params, project) == last
    assert promote.promote(params, project, version="1") == back  # rolled back by name
    assert promote.status(params, project) == back


def test_a_failed_gate_promotes_nothing(project: Layout, params: Params) -> None:
    train(project, "one")
    register(project, params)
    before = promote.promote(params, project)
    train(project, "two", passed=False)
    register(project, params)
    for version in (None, "2"):
        with pytest.raises(SirlError, match="did not pass its gate"):
            promote.promote(params, project, version=version)
    assert promote.status(params, project) == before.replace("candidate 1", "candidate 2")


def test_what_is_not_there(project: Layout, params: Params) -> None:
    with pytest.raises(SirlError, match=f"{NAME} has no candidate. Train one first"):
        promote.promote(params, project)
    with pytest.raises(SirlError, match="no previous champion"):
        promote.rollback(params, project)
    assert promote.status(params, project) == line(candidate="none")
    assert not tracking.connect(project).search_registered_models()  # looking makes nothing
    train(project, "one")
    register(project, params)
    promote.promote(params, project)
    with pytest.raises(SirlError, match=f"{NAME} has no version 7"):
        promote.promote(params, project, version="7")
    with pytest.raises(SirlError, match="no previous champion"):
        promote.rollback(params, project)


def test_a_version_that_someone_else_made_is_not_promoted(project: Layout, params: Params) -> None:
    train(project, "one")
    register(project, params)
    client = tracking.connect(project)
    client.create_model_version(NAME, source=str(project.model("trained")))
    with pytest.raises(SirlError, match=r"version 2 .* did not pass its gate"):
        promote.promote(params, project, version="2")


@pytest.mark.services
def test_a_champion_is_published_before_it_is_one(
    project: Layout, set_params: Callable[..., Params], s3: str, tmp_path: Path
) -> None:
    uri = f"s3://champions/{tmp_path.name}"
    params = set_params(promote={"publish": uri})
    digest = train(project, "one")
    register(project, params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        with pytest.raises(ServiceError, match="the store of s3://champions"):
            promote.promote(params, project)
    assert promote.status(params, project) == line(candidate="1")  # no alias moved

    storage.bootstrap(uri)
    assert promote.promote(params, project) == line(candidate="1", champion="1")
    tags = tracking.connect(project).get_model_version(NAME, "1").tags
    assert tags["published"] == f"{uri}/{digest}"
    storage.fetch(uri, digest, tmp_path / "fetched")
    assert records.digest_folder(tmp_path / "fetched") == digest

    train(project, "two")
    register(project, params)
    train(project, "three")  # the checkpoint of version 2 is neither here nor there
    with pytest.raises(DataError, match="the checkpoint of version 2 is neither at s3://champ"):
        promote.promote(params, project)
    train(project, "two")
    promote.promote(params, project)
    shutil.rmtree(project.model("trained"))
    last = promote.promote(params, project, version="1")  # published long since
    assert last == line(candidate="2", champion="1", previous="2")


def test_a_tracking_server_that_is_down(
    project: Layout, params: Params, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    train(project, "one")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    for verb in (promote.promote, promote.rollback, promote.status):
        with pytest.raises(ServiceError, match=r"MLflow at .* failed: .*refused") as caught:
            verb(params, project)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_that_cannot_be_kept_makes_no_version(
    project: Layout, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that fails ends the registration: a version without its checkpoint is worse."""
    train(project, "one")
    with tracking.stage_run("promote", params, project) as run:
        (project.local / "mlartifacts").write_text("a file where a folder should be")
        with pytest.raises(ServiceError, match=r"MLflow at .* failed"):
            promote.register(Stage("promote", params, project, run))
    assert promote.status(params, project) == line(candidate="none")
    (project.local / "mlartifacts").unlink()
    assert register(project, params) == "1"


GRAPH = """
stages:
  train:
    cmd: mkdir -p artifacts/models/trained && cp weights artifacts/models/trained/model.safetensors
    deps: [weights]
    outs: [artifacts/models/trained]
  gate:
    cmd: mkdir -p artifacts/gate && cp word artifacts/gate/decision.json
    deps: [word, artifacts/models/trained]
    outs: [artifacts/gate/decision.json]
  report:
    cmd: mkdir -p artifacts/report && echo page > artifacts/report/index.html
    deps: [artifacts/gate/decision.json]
    outs: [artifacts/report/index.html]
"""


def test_the_task_itself_in_a_project_of_its_own(project: Layout, params: Params) -> None:
    root = project.root
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}

    def python(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
        )

    def repro(weights: str, *, passed: bool) -> None:
        (root / "weights").write_text(weights)
        check = {"passed": passed, "explanation": "Benign refusals rose by 20 points."}
        records.write_json(root / "word", {"passed": passed, "checks": [check]})
        done = python("dvc", "repro", "-q")
        assert done.returncode == 0, done.stderr

    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (root / "dvc.yaml").write_text(GRAPH)
    repro("one", passed=True)
    done = python("tasks.promote")
    assert done.returncode == 0, done.stderr
    assert f"__main__ {line(candidate='1', champion='1')}" in done.stderr

    repro("two", passed=False)
    done = python("tasks.promote")
    assert done.returncode == 0, done.stderr
    assert "version 2 stays a candidate: Benign refusals rose by 20 points." in done.stderr
    assert promote.status(params, project) == line(candidate="2", champion="1")

    (root / "artifacts/models/trained/model.safetensors").write_text("tampered with")
    done = python("tasks.promote")
    assert done.returncode == 2
    assert done.stderr == (
        "sirl: promote: model, gate and report are not of one run, so there is nothing to promote. "
        "Bring them up to date: dvc repro (what is amiss: dvc status)\n"
    )
    assert promote.status(params, project) == line(candidate="2", champion="1")
    names = [r.info.run_name for r in search(project)]
    assert names.count("promote") == 3  # one run a call, the refused one too
    statuses = {r.info.status for r in search(project) if r.info.run_name == "promote"}
    assert statuses == {"FINISHED", "FAILED"}


def search(layout: Layout) -> list[object]:
    client = tracking.connect(layout)
    return list(client.search_runs([client.get_experiment_by_name("sirl").experiment_id]))
