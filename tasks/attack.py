"""Stage attack: asks one model everything there is to ask, and writes what it answered.

Finished shards are kept under a digest of everything that decides them; a killed run goes on from
there, and the out is put in place whole.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from sirl import attacks, entropy, evaluation, generation, judges, model_files, records
from sirl.attacks.base import Arena, Need
from sirl.config import Params
from sirl.errors import DataError
from sirl.evaluation import Ran, Shard
from sirl.layout import Layout, ModelRole, Split
from sirl.progress import bar
from sirl.records import Prompt, Transcript, Used
from sirl.store import Store
from tasks import inputs, models, resume
from tasks.stage import Stage, main

log = logging.getLogger(__name__)


def run(stage: Stage) -> None:
    """Runs what is left of the plan, then writes all transcripts in its order."""
    params, layout, role = stage.params.attack, stage.layout, stage.role
    shards = evaluation.plan(
        params,
        _prompts(stage, "behaviours", params.behaviours),
        _prompts(stage, "benign", params.benign),
    )
    device = stage.params.execution.device(stage.params.runtime.device)
    digest = model_files.digest(layout.model(role))
    context = _context(stage, device, digest)
    store = Store(resume.begin(layout, f"attack@{role}", context), Transcript)
    addresses = [shard.address(context) for shard in shards]
    with store.locked():
        left = [s for s, address in zip(shards, addresses, strict=True) if address not in store]
        total = sum(len(shard.behaviours) for shard in shards)
        done = total - sum(len(shard.behaviours) for shard in left)
        log.info("attack@%s: %d of %d transcripts are there already", role, done, total)
        work = _Work(stage.params, layout.root.resolve(), role, device, digest, _needs(left))
        seconds: dict[str, float] = defaultdict(float)
        running = stage.params.execution.map(work, left)
        for shard, ran in bar(running, f"attack {role}", total=len(left)):
            store.put(shard.address(context), ran.transcripts)
            done += len(ran.transcripts)
            name = shard.attack.name
            seconds[name] += ran.seconds
            log.info("attack@%s: %s, %.0f s; %d of %d", role, name, ran.seconds, done, total)
        totals = _write(layout.transcripts(role), store.rows(addresses))
        resume.finish(store.folder)
    records.write_json(layout.attacked(role), {"model": digest, **totals})
    spent = {f"seconds/{attack}": value for attack, value in seconds.items()}
    stage.tracker.metrics({**totals, **spent})


def _write(path: Path, transcripts: Iterable[Transcript]) -> dict[str, float]:
    """Writes transcripts as they come; returns what the stage reports of all together."""
    finishes: Counter[str] = Counter()
    used = Used(queries=0)

    def counted() -> Iterator[Transcript]:
        nonlocal used
        for transcript in transcripts:
            finishes[transcript.finish] += 1
            used += transcript.used
            yield transcript

    count = records.write(path, counted())
    return {
        "transcripts": count,
        "truncated": finishes["length"] / count,
        "errors": finishes["error"],
        **dataclasses.asdict(used),
    }


def _needs(shards: Iterable[Shard]) -> frozenset[Need]:
    return frozenset(need for shard in shards for need in shard.attack.needs)


@dataclass(frozen=True)
class _Work:
    """Attacks a model with shards, wherever it is opened.

    Paths in params.yaml are relative to it, and a worker elsewhere starts in another folder.
    """

    params: Params
    root: Path
    role: ModelRole
    device: str
    digest: str
    needs: frozenset[Need]

    def open(self) -> Callable[[Shard], Ran]:
        """Loads the models that the shards need.

        Raises:
            ModelError: The model in the folder is not the one that the run began with.
        """
        with chdir(self.root):
            arena = self._arena()

        def run(shard: Shard) -> Ran:
            with chdir(self.root):
                return evaluation.attack(arena, shard)

        return run

    def _arena(self) -> Arena:
        params, layout = self.params.attack, Layout(self.root)
        target = models.target(self.params, layout, self.role, self.device, self.digest)
        attacker = None
        if "attacker" in self.needs and params.attacker is not None:
            attacker = models.assistant(params.attacker, layout, self.device)
        judge = models.judge(params.judge, layout, self.device) if "judge" in self.needs else None
        return Arena(target, params.sampling, self.params.seed, attacker, judge)


def _prompts(stage: Stage, split: Split, count: int) -> list[Prompt]:
    """The first `count` prompts of a split; fewer are said, none are an error."""
    path = stage.layout.prompts(split)
    prompts = list(records.read(path, Prompt))[:count]
    if not prompts:
        raise DataError(f"{path} holds no prompt", f"Check prepare.{split} in params.yaml")
    if len(prompts) < count:
        log.warning("%s holds %d prompts, %d were asked for", path, len(prompts), count)
    return prompts


def _context(stage: Stage, device: str, digest: str) -> str:
    """Digest of what decides all transcripts, the code that writes them included."""
    params, layout = stage.params, stage.layout
    packages = [Path(package.__path__[0]) for package in (attacks, generation, judges)]
    code = [f for package in packages for f in sorted(package.glob("*")) if f.is_file()]
    code.append(Path(entropy.__file__))
    read = [file for attack in params.attack.attacks for file in attack.files]
    helpers = [params.attack.attacker, params.attack.judge]
    parts = {
        "attack": params.attack.model_dump(
            mode="json", exclude={"attacks", "behaviours", "attacked", "benign"}
        ),
        "backend": params.backend.model_dump(mode="json", exclude=set(params.backend.place)),
        "seed": params.seed,
        "device": device,
        "model": digest,
        "files": [records.digest_file(layout.root / file) for file in read],
        "helpers": inputs.read(helpers, layout),
        "code": [records.digest_file(file) for file in code],
    }
    return records.digest_json(parts)[:16]


if __name__ == "__main__":
    raise SystemExit(main("attack", run, per_model=True))
