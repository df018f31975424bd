"""Every stage for real, in the order and by the commands that a user types, on a tiny model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sirl import records
from sirl.layout import Layout

pytestmark = pytest.mark.recipe

Sirl = Callable[..., "subprocess.CompletedProcess[str]"]
Finished = tuple[Path, "subprocess.CompletedProcess[str]"]

STAGES = 13
"""Those that MLflow tracks and that can be unchanged: all but `inputs`."""


def digests(folder: Path) -> dict[str, str]:
    """Path -> hash of every out but the report, which states what the run cost."""
    artifacts = folder / "artifacts"
    return {
        str(path.relative_to(artifacts)): records.digest_file(path)
        for path in sorted(artifacts.rglob("*"))
        if path.is_file() and path != Layout(folder).report
    }


def test_one_command_leads_to_a_registered_checkpoint_and_a_report(finished: Finished) -> None:
    folder, done = finished
    assert done.returncode == 0, done.stderr + done.stdout
    layout = Layout(folder)
    decision = records.read_json(layout.decision)
    assert not decision["passed"]  # noise has no instinct, and the gate is not to be talked round
    assert {check["name"] for check in decision["checks"]} >= {"direct_gain", "over_refusal"}
    assert "stays a candidate" in done.stdout
    assert len(records.read_json(layout.train_steps)) == 4
    assert "No, do not ship it." in layout.report.read_text(encoding="utf-8")


def test_mlflow_holds_the_run_with_every_stage_under_it(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    folder, _ = finished
    client = MlflowClient(f"sqlite:///{folder / '.sirl' / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=100)
    parents = Counter(run.data.tags.get("mlflow.parentRunId") for run in runs)
    (root,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parents == {None: 1, root.info.run_id: STAGES + 1}  # promote has a run too
    train = next(run for run in runs if run.info.run_name == "train")
    assert len(client.get_metric_history(train.info.run_id, "entropy")) == 4
    assert {"git.commit", "dvc.lock"} <= train.data.tags.keys()
    (model,) = client.search_registered_models()
    assert model.name == "sirl-tiny"
    assert {alias: str(version) for alias, version in model.aliases.items()} == {"candidate": "1"}


def test_a_second_run_does_nothing(project: Path, sirl: Sirl) -> None:
    before = digests(project)
    moved = sirl("run")  # a copy has another database, which must hear of the result
    assert moved.stdout.count(": unchanged\n") == STAGES, moved.stderr
    done = sirl("run")
    assert digests(project) == before
    assert done.stdout.count(": unchanged\n") == STAGES + 1
    assert sirl("status").stdout.strip() == "sirl-tiny: candidate 1, champion none, previous none"


def test_two_runs_side_by_side(project: Path, sirl: Sirl) -> None:
    done = sirl("report", "--compare", ".", str(project))
    assert done.returncode == 0, done.stderr
    page = Path(done.stdout.strip()).read_text(encoding="utf-8")
    assert "both ran with the same params.yaml" in page
    done = sirl("report", "--experiments")
    assert done.returncode == 0, done.stderr
    assert "1 run of this project" in Path(done.stdout.strip()).read_text(encoding="utf-8")
    missing = sirl("report", "--compare", ".", "nowhere")
    assert missing.returncode == 2
    assert "nowhere/params.yaml does not exist" in missing.stderr
    assert missing.stderr.strip().count("\n") == 0


def test_what_failed_its_gate_is_not_promoted_by_hand(sirl: Sirl) -> None:
    done = sirl("promote")
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "did not pass its gate" in done.stderr


def test_from_nothing_again_the_same_bytes(project: Path, dvc: Sirl) -> None:
    before = digests(project)
    shutil.rmtree(project / "artifacts")
    done = dvc("repro", "--force", "train", "attack@base")
    assert done.returncode == 0, done.stderr
    again = digests(project)
    assert again == {path: before[path] for path in again}
    assert {"models/trained/model.safetensors", "attack/base/transcripts.jsonl"} <= again.keys()


@pytest.mark.parametrize(
    ("command", "out", "sign"),
    [
        (["tasks.train"], "models/trained", "checkpoint-*/*"),
        (["tasks.attack", "trained"], "attack/trained", "*"),
    ],
)
def test_killed_and_run_again_ends_in_the_same_bytes(
    project: Path, command: list[str], out: str, sign: str
) -> None:
    before = digests(project)
    shutil.rmtree(project / "artifacts" / out)
    run = [sys.executable, "-m", *command]
    process = subprocess.Popen(run, cwd=project, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(project.glob(f".sirl/state/*/{sign}")):
        assert process.poll() is None, "it ended before it left any state"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (project / "artifacts" / out).exists()
    subprocess.run(run, cwd=project, check=True, capture_output=True)
    assert digests(project) == before
    # As if DVC had been killed before it recorded the stage: what took long is not done again.
    (state,) = project.glob(".sirl/state/*")
    kept = {path: path.stat().st_ino for path in state.glob(sign) if path.name != "lock"}
    shutil.rmtree(project / "artifacts" / out)
    subprocess.run(run, cwd=project, check=True, capture_output=True)
    assert digests(project) == before
    assert {path: path.stat().st_ino for path in kept} == kept


def test_a_model_without_an_instinct_is_not_trained(project: Path) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["train"]["force"] = False
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    run = [sys.executable, "-m", "tasks.train"]
    done = subprocess.run(run, cwd=project, capture_output=True, text=True)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "no instinct to reinforce: it refuses 0 % of harmful" in last
    assert "train.force" in last


def test_overrides_leave_the_checkout_alone_and_share_its_cache(project: Path, sirl: Sirl) -> None:
    before, params = digests(project), (project / "params.yaml").read_text()
    done = sirl("run", "--set", "train.steps=1", "--to", "train")
    assert done.returncode == 0, done.stderr
    assert digests(project) == before
    assert (project / "params.yaml").read_text() == params
    (other,) = (project / ".sirl" / "worktrees").glob("*/")
    assert yaml.safe_load((other / "params.yaml").read_text())["train"]["steps"] == 1
    assert len(records.read_json(Layout(other).train_steps)) == 1
    assert " base: restored from the cache" in done.stdout
    assert " prepare: restored from the cache" in done.stdout


def test_push_and_pull_bring_everything_back(project: Path, dvc: Sirl) -> None:
    before = digests(project)
    assert dvc("push").returncode == 0
    shutil.rmtree(project / "artifacts")
    shutil.rmtree(project / ".dvc" / "cache")
    pulled = dvc("pull")
    assert pulled.returncode == 0, pulled.stderr
    assert digests(project) == before


def test_dvc_shows_metrics_and_plots(project: Path, dvc: Sirl) -> None:
    shown = json.loads(dvc("metrics", "show", "--json").stdout)
    (revision,) = shown.values()
    judged = revision["data"]["artifacts/judge/trained/summary.json"]["data"]
    assert 0 <= judged["direct"]["rate"] <= 1
    page = dvc("plots", "show", "--out", "plots")
    assert page.returncode == 0, page.stderr
    assert "entropy" in (project / "plots" / "index.html").read_text(encoding="utf-8")
