"""The Prefect flow, run for real against a Prefect server of the test's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Ran = Callable[[Path], list[str]]

STAGES = ["base", "train", "judge@base", "judge@trained", "gate"]

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "1")
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=90):
            yield


@pytest.fixture(autouse=True)
def here(server: None, project: Path, environment: pytest.MonkeyPatch) -> None:
    environment.chdir(project)


def call(task_runs: int, **parameters: object) -> tuple[str, str, dict[str, tuple[str, set[str]]]]:
    """Runs the flow; returns its state's name and message, and each task run's state and tags.

    The server records task runs with a delay, so they are awaited.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    from flows.sirl_flow import sirl

    state = sirl(**parameters, return_state=True)
    only = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    deadline = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            runs = client.read_task_runs(flow_run_filter=only)
            if sum(run.state is not None and run.state.is_final() for run in runs) >= task_runs:
                break
            time.sleep(0.2)
    tasks = {run.name: (run.state_name or "", set(run.tags)) for run in runs}
    return state.name or "", state.message or "", tasks


def test_every_stage_is_a_task_run_and_promotion_ends_it(project: Path, ran: Ran) -> None:
    name, _, tasks = call(6)
    assert name == "Completed"
    assert {stage: state for stage, (state, _) in tasks.items()} == dict.fromkeys(
        [*STAGES, "promote"], "Completed"
    )
    assert ran(project) == ["base", "train", "judge/base", "judge/trained", "gate", "promote"]
    seen = eval((project / ".sirl" / "environment").read_text())
    assert len(seen["SIRL_PIPELINE_RUN"]) == 32
    assert len(seen["SIRL_FLOW_RUN"]) == 36
    assert tasks["train"][1] == {"sirl-gpu"}
    assert tasks["gate"][1] == set()

    name, _, again = call(6)
    assert name == "Completed"
    assert {state for state, _ in again.values()} == {"Cached"}
    assert set(again) == {*STAGES, "promote"}
    assert ran(project) == []


def test_it_ends_where_it_is_told_and_works_in_a_worktree(project: Path, ran: Ran) -> None:
    _, _, tasks = call(2, overrides=("train.steps=3",), to="train")
    assert set(tasks) == {"base", "train"}
    assert ran(project) == []
    (worktree,) = (folder for folder in (project / ".sirl/worktrees").iterdir() if folder.is_dir())
    assert ran(worktree) == ["base", "train"]


def test_a_failing_stage_fails_the_run_with_its_own_line(
    project: Path, ran: Ran, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("FAILS", "train")
    name, message, tasks = call(2)
    assert name == "Failed"
    assert "train: the data are wrong. Mend the data" in message
    assert {stage: state for stage, (state, _) in tasks.items()} == {
        "base": "Completed",
        "train": "Failed",
    }
    assert ran(project) == ["base", "train"]  # a deterministic failure is not retried
