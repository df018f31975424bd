"""A training run in several processes: `accelerate launch` starts this module in each.

The job is read from the state folder and the result written there, so that whoever launches need
not be one of the processes.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from sirl import lifeline, records, terminal
from sirl.errors import SirlError, TrainingError
from sirl.training.run import Job, Result

JOB, RESULT, ERROR = "job.json", "result.json", "error.json"


def launch(job: Job, accelerate_config: Path) -> Result:
    """Trains in the processes that an accelerate config describes; see `Job` for what is trained.
    `on_step` is called when all is done.

    Raises:
        TrainingError: The config does not exist, or training failed: its own words where the user
            can mend it.
    """
    if not accelerate_config.is_file():
        raise TrainingError(
            f"train.launch: {accelerate_config} does not exist", "Choose from infra/accelerate/"
        )
    job.state.mkdir(parents=True, exist_ok=True)
    (job.state / ERROR).unlink(missing_ok=True)
    values = {f.name: getattr(job, f.name) for f in fields(job) if f.name != "on_step"}
    _write(job.state / JOB, values)
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(accelerate_config), "-m", "sirl.training.launched"]
    command += [str(job.state)]
    environment = lifeline.environment(os.environ)
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as launcher:
        launcher.wait()  # leaving it otherwise, or by a kill, cuts the lifeline of the processes
    if (job.state / ERROR).exists():
        raise TrainingError(records.read_json(job.state / ERROR))
    if launcher.returncode:
        raise TrainingError(
            f"accelerate launch ended with {launcher.returncode}", "Its log is above"
        )
    result = TypeAdapter(Result).validate_python(records.read_json(job.state / RESULT))
    for row in result.steps:
        job.on_step(row)
    return result


def main(state: Path) -> int:
    """One of the processes."""
    lifeline.watch()
    terminal.begin("INFO", "%(asctime)s %(name)s %(message)s")
    from accelerate import PartialState

    job = TypeAdapter(Job).validate_python(records.read_json(state / JOB))
    first = PartialState(cpu=job.device == "cpu").is_main_process
    if not first:
        logging.disable(logging.INFO)
    try:
        result = job.params.method.train(job)
    except SirlError as error:
        _write(state / ERROR, str(error))
        return 2
    if first:
        _write(state / RESULT, result)
    return 0


def _write(path: Path, value: Any) -> None:
    records.write_json(path, TypeAdapter(Any).dump_python(value, mode="json"))


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
