"""Where the project is, whatever the folder is called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import project as projects
from sirl.errors import ConfigError
from sirl.layout import Layout
from tasks import tracking

Sirl = Callable[..., "subprocess.CompletedProcess[str]"]

ROOT = Path(__file__).parents[2]


def named(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    for mark in projects.MARKS:
        shutil.copy(ROOT / mark, made)
    return made


@pytest.mark.parametrize("name", ["a b", "a#b", "100% x", "é's", "a+b&c;d", 'q"q', "a\\b", "[1]"])
def test_the_database_lies_inside(
    tmp_path: Path, name: str, environment: pytest.MonkeyPatch
) -> None:
    here = named(tmp_path, name)
    import sqlalchemy

    engine = sqlalchemy.create_engine(tracking.uri(Layout(here)))
    (here / ".sirl").mkdir()
    with engine.connect() as connection:
        connection.exec_driver_sql("create table t (x int)")
    assert (here / ".sirl" / "mlflow.db").is_file()
    assert [folder.name for folder in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a?b", "a?mode=ro", "a%41b", "%2e"])
def test_a_path_that_mlflow_would_misread_is_refused(
    tmp_path: Path, name: str, environment: pytest.MonkeyPatch
) -> None:
    here = named(tmp_path, name)
    with pytest.raises(ConfigError, match=r"there is a \? or % in it\. Rename the folder"):
        projects.environment(projects.find(here))
    environment.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert projects.environment(here)["MLFLOW_TRACKING_URI"] == "http://localhost:5000"


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "a\u202eb"])
def test_a_path_that_cannot_be_shown_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="holds what cannot be shown") as caught:
        projects.find(named(tmp_path, name))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("command", ["run", "doctor"])
def test_a_deleted_working_directory_is_one_line(
    tmp_path: Path, environment: pytest.MonkeyPatch, command: str
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'rmdir "$1"; exec "$2" -m flows.cli {command}'
    done = subprocess.run(
        ["sh", "-c", script, "sh", str(gone), sys.executable],
        cwd=gone,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("sirl: the working directory does not exist any more. ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "blocked"),
    [(["run"], ".sirl"), (["run", "--set", "seed=3"], ".sirl"), (["run"], ".sirl/logs")],
)
def test_what_the_system_refuses_is_one_line(
    project: Path, sirl: Sirl, words: list[str], blocked: str
) -> None:
    (project / ".sirl").mkdir(exist_ok=True)
    if blocked == ".sirl":
        (project / ".sirl").rmdir()
    (project / blocked).write_text("a file in the place of a folder")
    done = sirl(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("sirl: ")
    assert done.stderr.count("\n") == 1
