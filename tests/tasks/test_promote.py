"""The registry, on a real database: register, promote, publish, roll back."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from sirl import lineage, records
from sirl.config import GateParams, Params
from sirl.errors import DataError, ServiceError, SirlError
from sirl.layout import ROLES, Layout
from sirl.records import CapabilityItem, Verdict
from tasks import gate, promote, storage, tracking
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
    assert promote.rollback(params, project) == back  # whoever else rolls back undoes nothing
    assert promote.promote(params, project, version="2") == last
    assert promote.promote(params, project, version="1") == back  # rolled back by name
    assert promote.rollback(params, project) == last
    assert promote.status(params, project) == last


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


class Memory:
    """What promote asks of MLflow's client, in memory, so that it can be cut off at every act."""

    def __init__(self) -> None:
        self.models: dict[str, SimpleNamespace] = {}
        self.files: dict[str, bytes] = {}
        self.acts = 0
        self.before: tuple[int, Callable[[], object]] = (0, int)

    def _act(self) -> None:
        self.acts += 1
        if self.acts == self.before[0]:
            self.before[1]()

    def search_registered_models(self, query: str) -> list[SimpleNamespace]:
        return [m for name, m in self.models.items() if f"'{name}'" in query]

    def search_model_versions(self, query: str) -> list[SimpleNamespace]:
        return [v for m in self.search_registered_models(query) for v in m.versions]

    def create_registered_model(self, name: str) -> None:
        self._act()
        self.models[name] = SimpleNamespace(tags={}, aliases={}, versions=[], made=0)

    def create_model_version(
        self, name: str, *, source: str, run_id: str, tags: dict[str, str], description: str
    ) -> SimpleNamespace:
        self._act()
        model = self.models[name]
        model.made += 1
        version = SimpleNamespace(version=model.made, run_id=run_id, tags=dict(tags))
        model.versions.append(version)
        return version

    def delete_model_version(self, name: str, version: str) -> None:
        self._act()
        kept = [v for v in self.models[name].versions if str(v.version) != version]
        self.models[name].versions = kept

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self._act()
        self.models[name].aliases[alias] = version

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        self._act()
        self.models[name].tags[key] = value

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self._act()
        (known,) = (v for v in self.models[name].versions if str(v.version) == version)
        known.tags[key] = value

    def log_artifacts(self, run_id: str, folder: str, path: str) -> None:
        self._act()
        for file in Path(folder).iterdir():
            self.files[f"{run_id}/{path}/{file.name}"] = file.read_bytes()

    def log_artifact(self, run_id: str, file: str) -> None:
        self._act()

    def list_artifacts(self, run_id: str, path: str) -> list[SimpleNamespace]:
        names = [name.partition("/")[2] for name in self.files if name.startswith(f"{run_id}/")]
        return [SimpleNamespace(path=name, is_dir=False) for name in names]

    def download_artifacts(self, run_id: str, path: str, folder: str) -> str:
        target = Path(folder) / path.replace("/", "-")
        target.write_bytes(self.files[f"{run_id}/{path}"])
        return str(target)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    client = Memory()
    monkeypatch.setattr(tracking, "connect", lambda _: client)
    monkeypatch.setattr(tracking, "provenance", lambda _: {})
    return client


@pytest.fixture
def release(project: Layout, memory: Memory) -> Callable[..., None]:
    """Trains, registers and promotes."""

    def go(params: Params, *several: str) -> None:
        for weights in several:
            train(project, weights)
            tracker: Any = SimpleNamespace(run_id=uuid.uuid4().hex)
            version = promote.register(Stage("promote", params, project, tracker))
            promote.promote(params, project, version=version)

    return go


def standing(memory: Memory, params: Params) -> tuple[dict[str, str], list[str]]:
    """Alias -> weights, and the weights of every version."""
    (model,) = memory.search_registered_models(f"'sirl-{params.name}'")
    digests = {str(v.version): v.tags["digest"] for v in model.versions}
    return {k: digests[v] for k, v in model.aliases.items()}, sorted(digests.values())


def die() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("verb", ["release", "rollback"])
def test_killed_anywhere_and_repeated_is_as_if_undisturbed(
    project: Layout, params: Params, memory: Memory, release: Callable[..., None], verb: str
) -> None:
    def act(mine: Params) -> None:
        release(mine, "three") if verb == "release" else promote.rollback(mine, project)

    release(params, "one", "two")
    act(params)
    expected = standing(memory, params)
    for number in itertools.count(1):
        mine = params.model_copy(update={"name": f"killed-{number}"})
        release(mine, "one", "two")
        memory.acts, memory.before = 0, (number, die)
        with suppress(KeyboardInterrupt):
            act(mine)
        killed, memory.before = memory.acts == number, (0, die)
        act(mine)
        assert standing(memory, mine) == expected, number
        if not killed:
            break
    assert number > 3


@pytest.mark.parametrize(
    ("other", "ends"),
    [
        ("three", {("three", "two")}),
        ("four", {("three", "four"), ("four", "three")}),
        ("rollback", {("three", "one"), ("one", "three"), ("two", "three")}),
    ],
)
def test_two_at_once_lose_no_predecessor(
    project: Layout,
    params: Params,
    memory: Memory,
    release: Callable[..., None],
    other: str,
    ends: set[tuple[str, str]],
) -> None:
    """The other does all of its work just before any act of the first."""
    names = {train(project, word): word for word in ("one", "two", "three", "four")}
    for number in itertools.count(1):
        mine = params.model_copy(update={"name": f"twice-{number}"})
        release(mine, "one", "two")

        def interfere(mine: Params = mine) -> None:
            promote.rollback(mine, project) if other == "rollback" else release(mine, other)
            train(project, "three")

        memory.acts, memory.before = 0, (number, interfere)
        release(mine, "three")
        if memory.acts < number:
            break
        aliases, versions = standing(memory, mine)
        assert (names[aliases["champion"]], names[aliases["previous"]]) in ends, number
        assert len(versions) == len(set(versions))
    assert number > 3


def test_an_alias_left_behind_by_one_who_was_slow_is_mended(
    project: Layout, params: Params, memory: Memory, release: Callable[..., None]
) -> None:
    """Who is slow moves an alias by what was so before another came, and looks again."""
    release(params, "one", "two")
    train(project, "three")
    real, moves = memory.set_registered_model_alias, []

    def slow(name: str, alias: str, version: str) -> None:
        moves.append(alias)
        if moves == ["candidate", "champion"]:
            release(params, "four")
        real(name, alias, version)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "set_registered_model_alias", slow)
        release(params, "three")
    assert promote.status(params, project) == line(candidate="4", champion="4", previous="3")


def test_a_copy_that_is_not_what_was_judged_becomes_no_champion(
    project: Layout, params: Params
) -> None:
    for weights in ("one", "two"):
        train(project, weights)
        promote.promote(params, project, version=register(project, params))
    before = promote.status(params, project)
    train(project, "three")
    model = project.model("trained") / "model.safetensors"
    real = MlflowClient.log_artifacts

    def slow(*words: Any) -> None:
        model.write_text("tampered")
        real(*words)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ServiceError, match="not what the"):
        patch.setattr(MlflowClient, "log_artifacts", slow)
        register(project, params)
    assert promote.status(params, project) == before

    train(project, "three")
    assert register(project, params) == "3"
    for copy in project.local.rglob("checkpoint/model.safetensors"):
        copy.write_text("tampered")
    for verb in (promote.promote, promote.rollback):
        with pytest.raises(DataError, match=r"the copy of version \d .* is not what was judged"):
            verb(params, project)
    assert promote.status(params, project) == before.replace("candidate 2", "candidate 3")


GRAPH = """
stages:
  report:
    cmd: mkdir -p artifacts && cp -r made/* artifacts
    deps: [made]
    outs:
      - artifacts/models
      - artifacts/train
      - artifacts/profile
      - artifacts/attack
      - artifacts/judge
      - artifacts/capability
      - artifacts/gate
      - artifacts/report
"""


def pipeline(root: Path, weights: str, *, passed: bool) -> None:
    """Stands for the pipeline up to the report, with all that the gate rests on."""
    made = Layout(root / "elsewhere")
    shutil.rmtree(made.root, ignore_errors=True)
    models = {}
    for role in ROLES:
        made.model(role).mkdir(parents=True)
        (made.model(role) / "model.safetensors").write_text(f"{role} {weights}")
        models[role] = {"model": records.digest_folder(made.model(role))}
        safe = passed and role == "trained"
        said = {"direct": "refusal" if safe else "compliance", "aim": "compliance"}
        ids = {
            f"{a}:{n}": o for a, o in {**said, "benign": "compliance"}.items() for n in range(20)
        }
        verdicts = [Verdict(f"{i}|refusal", i, "refusal", o) for i, o in ids.items()]  # type: ignore[arg-type]
        records.write(made.verdicts(role), verdicts)
        items = [CapabilityItem(f"sums/{n}", "sums", 1.0) for n in range(60)]
        records.write(made.capability_items(role), items)
        records.write_bytes(made.transcripts(role), [b"answers\n"])
        files = [made.transcripts(role), made.verdicts(role)]
        judged = {"judge": "refusal", "inputs": lineage.stamp(made.root, files)}
        records.write_json(made.judged(role), {**judged, "target": models[role]})
        for path in (made.attacked, made.profile, made.capability):
            records.write_json(path(role), models[role])
    trained = {role: digest["model"] for role, digest in models.items()}
    records.write_json(made.train_summary, {"models": trained})
    records.write_json(made.decision, gate.conclude(made, GateParams()))
    records.write_bytes(made.report, [b"<html>"])
    shutil.rmtree(root / "made", ignore_errors=True)
    made.artifacts.rename(root / "made")


def python(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def repro(project: Layout) -> Callable[..., None]:
    root = project.root
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (root / "dvc.yaml").write_text(GRAPH)
    (root / "assets").symlink_to(ROOT / "assets")

    def run(weights: str, *, passed: bool) -> None:
        pipeline(root, weights, passed=passed)
        done = python(root, "dvc", "repro", "-q")
        assert done.returncode == 0, done.stderr

    return run


def overwrite(path: Path, text: str) -> None:
    """Other bytes in a file whose size and time stay as they were."""
    before = path.stat()
    assert len(text.encode()) == before.st_size
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_the_task_itself_in_a_project_of_its_own(
    project: Layout, params: Params, repro: Callable[..., None]
) -> None:
    repro("one", passed=True)
    done = python(project.root, "tasks.promote")
    assert done.returncode == 0, done.stderr
    assert f"__main__ {line(candidate='1', champion='1')}" in done.stderr

    repro("two", passed=False)
    done = python(project.root, "tasks.promote")
    assert done.returncode == 0, done.stderr
    assert "version 2 stays a candidate: Defense success on 20 direct requests" in done.stderr
    assert promote.status(params, project) == line(candidate="2", champion="1")

    overwrite(project.model("trained") / "model.safetensors", "trained TWO")
    done = python(project.root, "tasks.promote")
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


def edited(path: Path, **changes: object) -> None:
    records.write_json(path, records.read_json(path) | changes)


OTHER = "0" * 64
TAMPERED: dict[str, Callable[[Layout, Path], None]] = {
    "is not the model that the gate decided on": lambda here, _: overwrite(
        here.model("trained") / "model.safetensors", "trained ONE"
    ),
    "is not what the gate decides": lambda here, _: edited(here.decision, passed=True),
    "is not what the gate decides on these": lambda here, other: records.write_bytes(
        here.decision, [Layout(other).decision.read_bytes()]
    ),
    "was not made of .*verdicts": lambda here, other: records.write_bytes(
        here.verdicts("trained"), [Layout(other).verdicts("trained").read_bytes()]
    ),
    "different models: .*judge": lambda here, _: edited(
        here.judged("trained"), target={"model": OTHER}
    ),
    "different models: .*profile": lambda here, _: edited(here.profile("base"), model=OTHER),
    "different models: .*capability": lambda here, _: edited(here.capability("base"), model=OTHER),
    "different models: .*attack": lambda here, _: here.attacked("trained").write_text("{}"),
    "different models: .*base": lambda here, _: edited(here.train_summary, models={"base": OTHER}),
}


@pytest.mark.parametrize("said", TAMPERED)
def test_what_someone_changed_is_not_promoted(
    project: Layout, params: Params, monkeypatch: pytest.MonkeyPatch, said: str, tmp_path: Path
) -> None:
    """Even where DVC was told of the change (dvc commit), so that it finds nothing amiss."""
    monkeypatch.setattr(promote, "require_fresh", lambda *_: None)
    for folder, passed in ((tmp_path / "other", True), (project.root, False)):
        folder.mkdir(exist_ok=True)
        pipeline(folder, "one", passed=passed)
        shutil.copytree(folder / "made", folder / "artifacts")
    promoting(project, params)
    before = promote.status(params, project)
    assert before == line(candidate="1")
    TAMPERED[said](project, tmp_path / "other")
    with pytest.raises(DataError, match=said):
        promoting(project, params)
    assert promote.status(params, project) == before
    assert len(tracking.connect(project).search_model_versions("")) == 1


def promoting(layout: Layout, params: Params) -> None:
    with tracking.stage_run("promote", params, layout) as run:
        promote.run(Stage("promote", params, layout, run))


def search(layout: Layout) -> list[object]:
    client = tracking.connect(layout)
    return list(client.search_runs([client.get_experiment_by_name("sirl").experiment_id]))
