"""The layers hold at run time too: importing the science brings in nothing heavy and no outer
tool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTER = {"prefect", "mlflow", "dvc", "boto3"}
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "lm_eval", "matplotlib"}


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*(name.split('.')[0] for name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_params_load_without_heavy_imports() -> None:
    load = "from pathlib import Path; import sirl.config as c; c.load(Path('params.yaml'))"
    loaded = loaded_by(load)
    assert not loaded & (OUTER | HEAVY)


def test_every_stage_module_imports_light() -> None:
    stages = sorted(p.stem for p in (ROOT / "tasks").glob("*.py") if p.stem != "__init__")
    loaded = loaded_by("\n".join(f"import tasks.{stage}" for stage in stages))
    assert not loaded & (OUTER | HEAVY | {"flows"})


def test_the_trainer_brings_in_no_outer_tool() -> None:
    # transformers and trl look for trackers themselves; what is ours stays out.
    assert not loaded_by("import sirl.training.sirl") & {"prefect", "dvc", "flows", "tasks"}


def test_every_stage_of_the_graph_is_a_module_and_a_section() -> None:
    import yaml

    stages = set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    sections = set(yaml.safe_load((ROOT / "params.yaml").read_text()))
    assert stages <= {p.stem for p in (ROOT / "tasks").glob("*.py")}
    assert stages - {"inputs"} <= sections
