"""infra/ parses, refers to what exists, and agrees with itself and with the locks."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import vllm_server

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILES = sorted(INFRA.glob("*.Dockerfile"))
LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


def lock(name: str) -> dict[str, str]:
    """Package -> version; several, by marker, are one string."""
    versions: dict[str, str] = {}
    for package, version in LOCKED.findall((ROOT / "requirements" / name).read_text()):
        versions[package] = f"{versions.get(package, '')} {version}".strip()
    return versions


def variables(text: str) -> set[str]:
    """Variables that compose takes from its .env, those with a default apart."""
    return {name for name, rest in re.findall(r"\$\{?([A-Z_]+)(:-|)", text) if rest != ":-"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_refers_to_what_exists(name: str) -> None:
    service = SERVICES[name]
    if build := service.get("build"):
        context = (INFRA / build["context"]).resolve()
        assert context == ROOT
        assert (context / build["dockerfile"]).is_file()
    else:
        assert re.fullmatch(r"[a-z/]+:\d[\w.-]*", service["image"]), "an image without a pinned tag"
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert source in COMPOSE["volumes"] or (INFRA / source).exists(), volume
    for other, condition in service.get("depends_on", {}).items():
        wanted = "healthcheck" if condition["condition"] == "service_healthy" else "command"
        assert wanted in SERVICES[other]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "no service faces a network"


def test_services_call_each_other_by_names_and_ports_they_have() -> None:
    listening = {("postgres", None)}
    for name, service in SERVICES.items():
        listening |= {(name, port.rsplit(":", 1)[1]) for port in service.get("ports", [])}
    text = (INFRA / "compose.yaml").read_text()
    called = set(re.findall(r"http://(?!localhost)([a-z][a-z0-9]*):(\d+)", text))
    assert called == {("s3", "8333"), ("prefect", "4200"), ("mlflow", "5000")}
    assert called <= listening
    assert set(re.findall(r"@(\w+)/(\w+)", text)) == {
        ("postgres", "prefect"),
        ("postgres", "mlflow"),
    }
    made = re.findall(r"CREATE DATABASE (\w+);", (INFRA / "postgres/databases.sql").read_text())
    assert made == ["mlflow", "prefect"]
    assert made[-1] in SERVICES["postgres"]["healthcheck"]["test"]


def test_every_variable_has_an_example() -> None:
    text = (INFRA / "compose.yaml").read_text()
    examples = dict(
        line.split("=", 1)
        for line in (INFRA / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    with_default = set(re.findall(r"\$\{([A-Z_]+):-", text))
    assert variables(text) | with_default == examples.keys()


def test_who_speaks_s3_has_endpoint_and_keys() -> None:
    wanted = {"AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    for name in ("mlflow", "bootstrap", "worker"):
        assert wanted <= SERVICES[name]["environment"].keys()
    bucket = SERVICES["bootstrap"]["environment"]["SIRL_BUCKET"]
    assert f"--default-artifact-root {bucket}/" in SERVICES["mlflow"]["command"]


def test_prefect_and_who_speaks_to_it_have_one_password() -> None:
    server = SERVICES["prefect"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    assert server == "${PREFECT_AUTH}"
    for name in ("bootstrap", "worker"):
        assert "${PREFECT_AUTH:?" in SERVICES[name]["environment"]["PREFECT_API_AUTH_STRING"]


def test_the_example_s_command_makes_secrets_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    shutil.copy(INFRA / ".env.example", tmp_path / "infra")
    lines = (INFRA / ".env.example").read_text().splitlines()[1:3]
    command = "\n".join(line.removeprefix("#") for line in lines)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    made = (tmp_path / "infra/.env").read_text()
    secrets = re.findall(r"[0-9a-f]{48}", made)
    assert len(secrets) == len(set(secrets)) == 3
    assert not re.search(r"change-me$", made, re.MULTILINE)
    assert (tmp_path / "infra/.env").stat().st_mode & 0o777 == 0o600


def test_programs_are_in_their_image() -> None:
    images = {
        "sirl-orchestrator": ["orchestrator.txt"],
        "sirl-worker": ["worker.txt", "orchestrator.txt"],
    }
    for service in SERVICES.values():
        if service["image"] not in images:
            continue
        held = {package for name in images[service["image"]] for package in lock(name)}
        program, *rest = shlex.split(service["command"])
        if program == "python":
            assert (ROOT / rest[0]).is_file()
        else:
            assert program in held
    assert "psycopg2-binary" in lock("orchestrator.txt")  # MLflow's server on PostgreSQL
    assert "asyncpg" in lock("orchestrator.txt")  # Prefect's
    assert "torch" not in lock("orchestrator.txt")


def test_the_locks_of_the_worker_image_agree() -> None:
    worker, orchestrator = lock("worker.txt"), lock("orchestrator.txt")
    shared = worker.keys() & orchestrator.keys()
    assert len(shared) > 50
    assert {name: worker[name] for name in shared} == {name: orchestrator[name] for name in shared}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_copies_what_exists_and_is_let_through(path: Path) -> None:
    text = path.read_text().replace("\\\n", " ")
    copied = [word for line in re.findall(r"^COPY (.+)$", text, re.M) for word in line.split()[:-1]]
    assert copied
    ignore = path.with_name(f"{path.name}.dockerignore").read_text().splitlines()
    assert ignore[0] == "*"
    let_through = {line.removeprefix("!") for line in ignore[1:]}
    for source in copied:
        assert (ROOT / source).is_file(), source
        assert Path(source).parts[0] in let_through
    installed = re.findall(r"/requirements/([\w.]+)", text)
    assert set(installed) == {Path(source).name for source in copied}
    assert f"/{path.stem}.txt" in text


def test_compose_itself_takes_the_files() -> None:
    docker, old = shutil.which("docker"), shutil.which("docker-compose")
    commands = [[docker, "compose"]] if docker else []
    commands += [[old]] if old else []
    able = [
        c for c in commands if subprocess.run([*c, "version"], capture_output=True).returncode == 0
    ]
    if not able:
        pytest.skip("no docker compose here: apt-get install docker-compose")
    files = [["-f", str(INFRA / name)] for name in ("compose.yaml", "compose.gpu.yaml")]
    env = ["--env-file", str(INFRA / ".env.example")]
    done = subprocess.run(
        [*able[0], *env, *files[0], *files[1], "config", "-q"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "machines", "processes", "kind"),
    [
        ("cpu", 1, 1, "NO"),
        ("cpu2", 1, 2, "MULTI_GPU"),
        ("gpu1", 1, 1, "NO"),
        ("gpu8-fsdp", 1, 8, "FSDP"),
        ("multinode-fsdp", 2, 16, "FSDP"),
    ],
)
def test_accelerate_takes_its_configs(name: str, machines: int, processes: int, kind: str) -> None:
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
    from accelerate.utils import FullyShardedDataParallelPlugin

    config = load_config_from_file(str(INFRA / "accelerate" / f"{name}.yaml"))
    assert isinstance(config, ClusterConfig)
    assert (config.num_machines, config.num_processes) == (machines, processes)
    assert config.distributed_type == kind
    assert config.mixed_precision == "no"  # train.dtype decides
    known = FullyShardedDataParallelPlugin.__dataclass_fields__.keys()
    short = {key.removeprefix("fsdp_") for key in config.fsdp_config or {}}
    assert short - {"version", "offload_params"} <= known
    assert bool(config.fsdp_config) == (kind == "FSDP")


def test_all_accelerate_configs_are_tested() -> None:
    names = {path.stem for path in (INFRA / "accelerate").iterdir()}
    assert names == {"cpu", "cpu2", "gpu1", "gpu8-fsdp", "multinode-fsdp"}


def test_the_vllm_server_takes_no_default_from_a_checkpoint(tiny_model: Path) -> None:
    words = vllm_server.command(tiny_model, ["--port", "8001"])
    assert words[words.index("--generation-config") + 1] == "vllm"
    assert words[words.index("--model") + 1] == str(tiny_model)
    assert words[-2:] == ["--port", "8001"]
