"""Stage attack: asks one model everything there is to ask, and writes what it answered.

Transcripts are appended to a state folder as they come, keyed by everything that decides what they
are; a killed run goes on from there, and the out is put in place whole.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from sirl import attacks, evaluation, generation, judges, records
from sirl.attacks.base import Arena
from sirl.errors import DataError
from sirl.evaluation import Shard
from sirl.layout import Split
from sirl.models import resolve_device
from sirl.progress import bar
from sirl.records import Prompt, Transcript, Used
from tasks import models
from tasks.stage import Stage, main

log = logging.getLogger(__name__)


def run(stage: Stage) -> None:
    """Runs what is left of the plan, then writes all transcripts in the order of their ids."""
    params, layout, role = stage.params.attack, stage.layout, stage.role
    shards = evaluation.plan(
        params,
        _prompts(stage, "behaviours", params.behaviours),
        _prompts(stage, "benign", params.benign),
    )
    device = resolve_device(stage.params.runtime.device)
    state = layout.state(f"attack-{role}", _key(stage, device))
    rows = state / "transcripts.jsonl"
    with records.Appender(rows, Transcript) as out:
        left = evaluation.unfinished(shards, out.done)
        total = sum(len(shard.behaviours) for shard in shards)
        done = total - sum(len(shard.behaviours) for shard in left)
        log.info("attack@%s: %d of %d transcripts are there already", role, done, total)
        seconds: dict[str, float] = defaultdict(float)
        running = evaluation.run_attacks(left, _arena(stage, left, device), out) if left else ()
        for ran in bar(running, f"attack {role}", total=len(left)):
            done += ran.transcripts
            seconds[ran.attack] += ran.seconds
            log.info("attack@%s: %s, %.0f s; %d of %d", role, ran.attack, ran.seconds, done, total)
    transcripts = sorted(records.read(rows, Transcript), key=lambda row: row.id)
    records.write(layout.transcripts(role), transcripts)
    shutil.rmtree(state)
    stage.tracker.metrics(
        {
            **_counted(transcripts),
            **{f"seconds/{attack}": spent for attack, spent in seconds.items()},
        }
    )


def _counted(transcripts: Sequence[Transcript]) -> dict[str, float]:
    """What the stage reports of all transcripts together."""
    used = sum((row.used for row in transcripts), Used(queries=0))
    finishes = [row.finish for row in transcripts]
    return {
        "transcripts": len(transcripts),
        "truncated": finishes.count("length") / len(transcripts),
        "errors": finishes.count("error"),
        **dataclasses.asdict(used),
    }


def _arena(stage: Stage, shards: Iterable[Shard], device: str) -> Arena:
    """The models that these shards need, loaded."""
    params = stage.params.attack
    needs = {need for shard in shards for need in shard.attack.needs}
    attacker = None
    if "attacker" in needs and params.attacker is not None:
        attacker = models.assistant(params.attacker, stage.layout, device)
    target = stage.params.backend.open(stage.layout.model(stage.role), device)
    return Arena(target, params.sampling, stage.params.seed, attacker, params.judge)


def _prompts(stage: Stage, split: Split, count: int) -> list[Prompt]:
    """The first `count` prompts of a split; fewer are said, none are an error."""
    path = stage.layout.prompts(split)
    prompts = list(records.read(path, Prompt))[:count]
    if not prompts:
        raise DataError(f"{path} holds no prompt", f"Check prepare.{split} in params.yaml")
    if len(prompts) < count:
        log.warning("%s holds %d prompts, %d were asked for", path, len(prompts), count)
    return prompts


def _key(stage: Stage, device: str) -> str:
    """Digest of what decides the transcripts, the code that writes them included."""
    params, layout = stage.params, stage.layout
    packages = [Path(package.__path__[0]) for package in (attacks, generation, judges)]
    code = [file for package in packages for file in sorted(package.glob("*.py"))]
    read = [file for attack in params.attack.attacks for file in attack.files]
    inputs = {
        "attack": params.attack.model_dump(mode="json"),
        "backend": params.backend.model_dump(mode="json"),
        "seed": params.seed,
        "device": device,
        "model": records.digest_folder(layout.model(stage.role)),
        "prompts": [records.digest_file(layout.prompts(s)) for s in ("behaviours", "benign")],
        "files": [records.digest_file(layout.root / file) for file in read],
        "code": [records.digest_file(file) for file in code],
    }
    return records.digest_json(inputs)[:16]


if __name__ == "__main__":
    raise SystemExit(main("attack", run, per_model=True))
