"""`sirl` as a user types it: what it prints, and its exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Sirl = Callable[..., "subprocess.CompletedProcess[str]"]
Ran = Callable[[Path], list[str]]

ALL = ["base", "train", "judge/base", "judge/trained", "gate"]


def test_a_run_its_summary_and_a_second_run_that_does_nothing(
    sirl: Sirl, project: Path, ran: Ran
) -> None:
    first = sirl("run")
    assert first.returncode == 0, first.stderr
    assert ran(project) == [*ALL, "promote"]
    lines = dict(line.split("  ", 1) for line in first.stdout.splitlines() if "  " in line.strip())
    assert lines["decision"].strip() == "not passed: over_refusal"
    assert lines["DSR, direct"].strip() == "12.5 % -> 80.0 %"
    assert lines["DSR, attacked"].strip() == "- -> -"
    assert lines["sums"].strip() == "50.0 % -> 50.0 %"
    assert lines["report"].strip() == f"{project}/artifacts/report/index.html"

    assert lines["registry"].strip() == "sirl-x: candidate 2, champion 1"

    second = sirl("run", folder=project / "tasks")  # from any folder of the project
    assert second.returncode == 0, second.stderr
    assert ran(project) == []
    assert " 6/6 promote: unchanged" in second.stdout.splitlines()
    assert "not passed: over_refusal" in second.stdout
    assert "registry" not in second.stdout  # it may have changed since


def test_promotion_is_left_out_and_made_up_for(sirl: Sirl, project: Path, ran: Ran) -> None:
    assert sirl("run", "--no-promote").returncode == 0
    assert ran(project) == ALL
    assert sirl("run", "--to", "gate").returncode == 0
    assert ran(project) == []
    assert sirl("run").returncode == 0
    assert ran(project) == ["promote"]
    elsewhere = {"MLFLOW_TRACKING_URI": "sqlite:////elsewhere.db"}
    assert sirl("run", **elsewhere).returncode == 0
    assert ran(project) == ["promote"]  # another registry


def test_a_run_with_other_settings_says_where_it_works(sirl: Sirl, project: Path, ran: Ran) -> None:
    done = sirl("run", "--preset", "quick", "--set", "seed=3", "--to", "train")
    assert done.returncode == 0, done.stderr
    (folder,) = (path for path in (project / ".sirl" / "worktrees").iterdir() if path.is_dir())
    assert f"working in {folder}" in done.stdout
    assert f"{folder}/artifacts" in done.stdout
    assert ran(folder) == ["base", "train"]
    assert ran(project) == []


def test_a_failing_stage_is_its_own_line_alone(sirl: Sirl) -> None:
    done = sirl("run", FAILS="train")
    assert done.returncode == 2
    assert done.stderr == "sirl: train: the data are wrong. Mend the data\n"


def test_debug_shows_the_traceback(sirl: Sirl) -> None:
    done = sirl("--debug", "run", FAILS="train")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "train: the data are wrong" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "tarin"], "sirl: unknown stage 'tarin'. Choose from: base, train,"),
        (["--preset", "nope"], "sirl: unknown preset 'nope'. Choose from: quick"),
        (["--set", "train.stepz=1"], "sirl: params.yaml: unknown key train.stepz. Choose from:"),
        (["--set", "train.steps"], "sirl: override 'train.steps' is not of the form"),
    ],
)
def test_mistakes_are_one_line(sirl: Sirl, words: list[str], said: str) -> None:
    done = sirl("run", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_outside_a_project_it_says_so(sirl: Sirl, tmp_path: Path) -> None:
    done = sirl("run", folder=tmp_path)
    assert done.returncode == 2
    assert "is not inside a sirl project" in done.stderr


def test_a_plan_runs_nothing(sirl: Sirl, project: Path, ran: Ran) -> None:
    done = sirl("run", "--dry-run", "--set", "runtime.device=cuda", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert lines["train"].split() == ["train", "run"]
    assert "a GPU" in lines["lacking"]
    assert "135 M parameters" in lines["model"]
    assert "at least 3.7 GiB" in lines["training"]
    assert ran(project) == []


def test_the_report_is_found_or_its_maker_named(sirl: Sirl, project: Path) -> None:
    missing = sirl("report")
    assert missing.returncode == 2
    assert missing.stderr.endswith("does not exist. Make it: sirl run\n")
    page = project / "artifacts" / "report" / "index.html"
    page.parent.mkdir(parents=True)
    page.touch()
    assert sirl("report").stdout == f"{page}\n"


def test_nothing_heavy_is_imported_to_start() -> None:
    code = "import sys, flows.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    heavy = {"torch", "transformers", "mlflow", "prefect", "dvc", "boto3", "rich"}
    assert not heavy & set(loaded.stdout.split())


def test_the_registrys_verbs_reach_the_real_registry(sirl: Sirl, project: Path) -> None:
    ours = {"PYTHONSAFEPATH": "1"}  # our tasks, not the project's stand-ins
    shown = sirl("status", **ours)
    assert shown.returncode == 0, shown.stderr
    assert "candidate none, champion none, previous none" in shown.stdout
    assert (project / ".sirl" / "mlflow.db").is_file()
    for verb, said in (("promote", "has no candidate"), ("rollback", "has no previous champion")):
        done = sirl(verb, **ours)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_attacks_are_listed_with_what_they_need(sirl: Sirl) -> None:
    done = sirl("attacks")
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["name", "class", "paper", "needs"]
    assert len(rows) >= 34
    (pair,) = (row for row in rows if row.startswith("pair "))
    assert pair.split("  ", 1)[1].split() == [
        "adaptive",
        "arXiv",
        "2310.08419",
        "attacker,",
        "judge",
    ]
